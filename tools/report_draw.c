/* SPDX-License-Identifier: Apache-2.0 */
#include "report_draw.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "console.h"
#include "report_assets.h"
#include "report_head.h"

/* The sections in the page's order. A section whose key is "" reads the whole report. */
static const struct section {
  const char *key, *title;
  bool is_list;
  section_function *write;
} sections[] = {
    {"verdict", "Verdict", false, head_verdict},
    {"gradient", "Gradient flow", false, section_gradient},
    {"gates", "Gates and activations", true, section_gates},
    {"spectra", "Spectra of recurrent matrices", true, section_spectra},
    {"fixed_points", "Fixed points", true, section_fixed_points},
    {"lyapunov", "Lyapunov exponents", true, section_lyapunov},
    {"nonfinite", "Values that are not finite", false, section_nonfinite},
    {"cost", "Cost", false, section_cost},
    {"attention", "Attention", true, section_attention},
    {"units", "Hidden units over text", false, section_units},
    {"training", "Training", false, section_training},
    {"", "Seed, configuration and data", false, head_configuration},
    {"missing", "What is missing", true, head_missing},
};
#define N_SECTIONS (sizeof sections / sizeof sections[0])

static bool is_there(const json_t *report, const struct section *s) {
  return !s->key[0] || field_is_there(report, s->key);
}

static const char *id_of(const struct section *s) { return s->key[0] ? s->key : "configuration"; }

static void write_fault(report_page *pg, fields *f, const char *section) {
  complain("report: %s; '%s' is left out", f->fault, section);
  pg->drawn->faults++;
  page_print(pg, "<p class=\"fault\" role=\"note\">Left out: ");
  page_text(pg, f->fault);
  page_print(pg, ".</p>\n");
}

static void write_section(report_page *pg, const json_t *report, const struct section *s) {
  const json_t *json = s->key[0] ? json_object_get(report, s->key) : report;
  fields f = {0};
  char kind[80];
  page_print(pg, "<section id=\"%s\" aria-labelledby=\"%s-h\">\n<h2 id=\"%s-h\">%s</h2>\n", id_of(s), id_of(s),
             id_of(s), s->title);
  if (s->is_list ? !json_is_array(json) : !json_is_object(json))
    fields_fail(&f, s->key, "is %s, expected %s", fields_kind(json, kind, sizeof kind),
                s->is_list ? "an array of objects" : "an object");
  for (size_t i = 0; s->is_list && i < json_array_size(json) && !f.has_failed; i++)
    if (!json_is_object(json_array_get(json, i))) {
      fields_enter(&f, "%s[%zu]", s->key, i);
      fields_fail(&f, "", "is %s, expected an object", fields_kind(json_array_get(json, i), kind, sizeof kind));
    }
  if (!f.has_failed) {
    const json_t *list = s->is_list ? json : json_object_get(json, "layers");
    if (s->is_list && json_array_size(json) == 0 && s->write != head_missing)
      page_print(pg, "<p>The report lists none.</p>\n");
    else
      s->write(pg, &f, json);
    if (!f.has_failed && page_entries(list) < json_array_size(list)) {
      pg->drawn->thinned++;
      page_print(pg, "<p class=\"note\">The first %zu of %zu are shown; all are in report.json.</p>\n",
                 page_entries(list), json_array_size(list));
    }
  }
  if (f.has_failed)
    write_fault(pg, &f, s->title);
  page_print(pg, "</section>\n");
  fields_free(&f);
}

static void write_page(report_page *pg, const json_t *report) {
  page_print(pg,
             "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
             "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
             "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
             "script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'\">\n"
             "<link rel=\"icon\" href=\"data:,\">\n<title>");
  head_name(pg, report);
  page_print(pg, "</title>\n<style>\n%s", report_css);
  picture_write_style(pg->out);
  page_print(pg, "</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">To the verdict</a>\n<header>\n<h1>");
  head_name(pg, report);
  page_print(pg, "</h1>\n");
  fields f = {0};
  head_title(pg, &f, report);
  if (f.has_failed)
    write_fault(pg, &f, "Model");
  fields_free(&f);
  page_print(pg, "<nav aria-label=\"Sections\"><ul>\n");
  for (size_t i = 0; i < N_SECTIONS; i++)
    if (is_there(report, &sections[i]))
      page_print(pg, "<li><a href=\"#%s\">%s</a></li>\n", id_of(&sections[i]), sections[i].title);
  page_print(pg, "</ul></nav>\n</header>\n<main id=\"main\">\n");
  for (size_t i = 0; i < N_SECTIONS; i++)
    if (is_there(report, &sections[i]))
      write_section(pg, report, &sections[i]);
  page_print(pg,
             "</main>\n<footer>\n<p class=\"meta\">All numbers are in report.json, the pictures as files in plots/%s. "
             "This page needs nothing else.</p>\n</footer>\n<script>\n%s</script>\n</body>\n</html>\n",
             pg->png ? "" : " (as SVG; PNG needs cairo)", report_js);
}

static bool is_report(const json_t *report, size_t bytes) {
  const char *format = json_string_value(json_object_get(report, "format"));
  const json_t *version = json_object_get(report, "version");
  char kind[80];
  if (bytes > REPORT_MOST_BYTES) {
    complain(
        "a report of %.1f MB is too large to be drawn, at most %.1f MB: a page of it would freeze its reader; diagnose "
        "fewer steps or sequences",
        (double)bytes / 1e6, (double)REPORT_MOST_BYTES / 1e6);
    return false;
  }
  if (!format || strcmp(format, "unroll report") != 0) {
    complain("this is no report of 'unroll diagnose': its \"format\" is %s, expected \"unroll report\"",
             fields_kind(json_object_get(report, "format"), kind, sizeof kind));
    return false;
  }
  if (!json_is_integer(version) || json_integer_value(version) != 1) {
    complain("the report's \"version\" is %s, this program draws version 1", fields_kind(version, kind, sizeof kind));
    return false;
  }
  return true;
}

static bool draw_into(report_page *pg, const json_t *report, char *path, size_t size) {
  snprintf(path, size, "%s/plots", pg->dir);
  if (mkdir(path, 0777) != 0 && errno != EEXIST) {
    complain("cannot make the folder %s: %s", path, strerror(errno));
    return false;
  }
  snprintf(path, size, "%s/report.html", pg->dir);
  pg->out = fopen(path, "we");
  if (!pg->out) {
    complain("cannot write %s: %s", path, strerror(errno));
    return false;
  }
  write_page(pg, report);
  const bool is_written = !ferror(pg->out);
  if (fclose(pg->out) != 0 || !is_written) {
    complain("cannot write %s: %s", path, strerror(errno));
    return false;
  }
  return !pg->has_failed;
}

bool report_draw(const json_t *report, size_t bytes, const char *dir, report_drawn *drawn) {
  *drawn = (report_drawn){0};
  if (!is_report(report, bytes))
    return false;
  report_page pg = {.dir = dir, .drawn = drawn};
  const size_t size = strlen(dir) + 32;
  char *path = malloc(size);
  if (!path) {
    complain("out of memory");
    return false;
  }
  pg.png = png_writer_open(drawn->png_note, sizeof drawn->png_note);
  drawn->has_png = pg.png != NULL;
  const bool is_drawn = draw_into(&pg, report, path, size);
  png_writer_close(pg.png);
  free(path);
  return is_drawn;
}

static void complain_of_size(const char *path, double bytes, const char *more) {
  complain("%s has %s%.1f MB, a report at most %.1f MB: a page of it would freeze its reader; diagnose fewer steps or "
           "sequences",
           path, more, bytes / 1e6, (double)REPORT_MOST_BYTES / 1e6);
}

typedef struct reading {
  FILE *in;
  size_t n;
} reading;

/* For jansson. A pipe does not say its size beforehand. */
static size_t read_some(void *buffer, size_t size, void *data) {
  reading *r = data;
  const size_t n = fread(buffer, 1, size, r->in);
  r->n += n;
  return r->n > REPORT_MOST_BYTES || ferror(r->in) ? (size_t)-1 : n;
}

json_t *report_read(const char *path, size_t *bytes) {
  *bytes = 0;
  FILE *in = fopen(path, "re");
  struct stat info;
  if (!in || fstat(fileno(in), &info) != 0) {
    complain("cannot read %s: %s", path, strerror(errno));
    if (in)
      fclose(in);
    return NULL;
  }
  json_t *report = NULL;
  json_error_t error;
  reading r = {.in = in};
  if (S_ISDIR(info.st_mode))
    complain("cannot read %s: it is a folder", path);
  else if (S_ISREG(info.st_mode) && info.st_size > (off_t)REPORT_MOST_BYTES)
    complain_of_size(path, (double)info.st_size, "");
  else if (!(report = json_load_callback(read_some, &r, JSON_REJECT_DUPLICATES, &error))) {
    if (r.n > REPORT_MOST_BYTES)
      complain_of_size(path, (double)REPORT_MOST_BYTES, "more than ");
    else if (ferror(in))
      complain("cannot read %s: %s", path, strerror(errno));
    else
      complain("%s is no report: line %d, column %d: %s", path, error.line, error.column, error.text);
  }
  *bytes = r.n;
  fclose(in);
  return report;
}
