/* SPDX-License-Identifier: Apache-2.0 */
#include "report_head.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *text_at(const json_t *object, const char *name) {
  return json_string_value(json_object_get(object, name));
}

void head_name(report_page *pg, const json_t *report) {
  const char *path = text_at(json_object_get(report, "model"), "path");
  const char *slash = path ? strrchr(path, '/') : NULL;
  page_print(pg, "Diagnosis of ");
  page_text(pg, slash && slash[1] ? slash + 1 : path ? path : "a network");
}

void head_title(report_page *pg, fields *f, const json_t *report) {
  const json_t *model = field_object(f, report, "model");
  fields_enter(f, "model");
  field_text(f, model, "path");
  static const char *const words[] = {"task", "cell"};
  static const char *const counts[][2] = {
      {"layers", " layers"}, {"hidden", " units each"}, {"parameters", " parameters"}};
  double values[3];
  for (size_t i = 0; i < 2; i++)
    field_text_or(f, model, words[i], "");
  for (size_t i = 0; i < 3; i++)
    values[i] = field_number_or(f, model, counts[i][0], NAN);
  if (f->has_failed)
    return;
  page_print(pg, "<p class=\"meta\">");
  for (size_t i = 0; i < 2; i++)
    if (field_is_there(model, words[i])) {
      page_text(pg, text_at(model, words[i]));
      page_print(pg, " · ");
    }
  for (size_t i = 0; i < 3; i++)
    if (!isnan(values[i])) {
      page_number(pg, values[i]);
      page_print(pg, "%s · ", i == 0 && values[i] == 1 ? " layer" : counts[i][1]);
    }
  if (json_is_true(json_object_get(model, "bidirectional")))
    page_print(pg, "both directions · ");
  page_print(pg, "drawn by unroll %s", "");
  page_text(pg, text_at(report, "unroll") ? text_at(report, "unroll") : "");
  if (text_at(report, "created")) {
    page_print(pg, " · ");
    page_text(pg, text_at(report, "created"));
  }
  page_print(pg, "</p>\n");
  if (json_is_true(json_object_get(report, "partial")))
    page_print(pg, "<p class=\"fault\" role=\"note\">The diagnosis was interrupted: this is a part of it.</p>\n");
}

struct finding {
  const char *level, *what, *layer, *text, *advice;
};

static const char *level_name(fields *f, const char *level, const char *name) {
  if (strcmp(level, "good") == 0)
    return "Good";
  if (strcmp(level, "warning") == 0)
    return "Warning";
  if (strcmp(level, "bad") != 0)
    fields_fail(f, name, "is \"%.24s\", expected good, warning or bad", level);
  return "Bad";
}

/* The text with a full stop, unless it ends with one. */
static void write_sentence(report_page *pg, const char *text) {
  page_text(pg, text);
  if (text[0] && !strchr(".!?", text[strlen(text) - 1]))
    page_print(pg, ".");
}

void head_verdict(report_page *pg, fields *f, const json_t *json) {
  fields_enter(f, "verdict");
  const char *text = field_text(f, json, "text"), *level = field_text(f, json, "level");
  const char *name = level_name(f, level, "level");
  const json_t *list = field_is_there(json, "findings") ? field_objects(f, json, "findings") : NULL;
  const size_t n = page_entries(list);
  struct finding *findings = fields_alloc(f, n, sizeof *findings);
  for (size_t i = 0; findings && i < n; i++) {
    const json_t *entry = json_array_get(list, i);
    fields_enter(f, "verdict.findings[%zu]", i);
    findings[i] = (struct finding){field_text(f, entry, "level"), field_text_or(f, entry, "what", ""),
                                   field_text_or(f, entry, "layer", ""), field_text(f, entry, "text"),
                                   field_text_or(f, entry, "advice", "")};
    level_name(f, findings[i].level, "level");
  }
  if (f->has_failed || !findings)
    return;
  page_print(pg, "<div class=\"verdict %s\">\n<p class=\"%s\"><span class=\"level\">%s:</span> ", level, level, name);
  page_text(pg, text);
  page_print(pg, "</p>\n");
  if (n)
    page_print(pg, "<ul>\n");
  for (size_t i = 0; i < n; i++) {
    page_print(pg, "<li class=\"%s\"><span class=\"level\">%s", findings[i].level,
               level_name(f, findings[i].level, "level"));
    if (findings[i].what[0]) {
      page_print(pg, ", ");
      page_text(pg, findings[i].what);
    }
    page_print(pg, ":</span> ");
    if (findings[i].layer[0]) {
      page_print(pg, "layer ");
      page_text(pg, findings[i].layer);
      page_print(pg, ": ");
    }
    write_sentence(pg, findings[i].text);
    if (findings[i].advice[0]) {
      page_print(pg, " <strong>Advice:</strong> ");
      write_sentence(pg, findings[i].advice);
    }
    page_print(pg, "</li>\n");
  }
  page_print(pg, n ? "</ul>\n</div>\n" : "</div>\n");
}

static void write_value(report_page *pg, const json_t *value) {
  if (json_is_string(value)) {
    page_text(pg, json_string_value(value));
  } else if (json_is_real(value)) {
    page_number(pg, json_real_value(value));
  } else {
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
    page_text(pg, text ? text : "");
    free(text);
  }
}

static void write_member(report_page *pg, const char *group, const char *name, const json_t *value) {
  page_print(pg, "<dt>");
  page_text(pg, group);
  page_print(pg, group[0] ? ": " : "");
  page_text(pg, name);
  page_print(pg, "</dt><dd>");
  write_value(pg, value);
  page_print(pg, "</dd>\n");
}

/* Every member as it is; those of objects in it with the object's name in front. */
static void write_group(report_page *pg, const char *title, const json_t *object) {
  if (json_object_size(object) == 0)
    return;
  page_print(pg, "<h3>%s</h3>\n<dl>\n", title);
  const char *name, *inner;
  json_t *value, *inner_value;
  json_object_foreach((json_t *)object, name, value) {
    if (!json_is_object(value)) {
      write_member(pg, "", name, value);
      continue;
    }
    json_object_foreach(value, inner, inner_value) write_member(pg, name, inner, inner_value);
  }
  page_print(pg, "</dl>\n");
}

void head_configuration(report_page *pg, fields *f, const json_t *report) {
  static const char *const rest[] = {"seed", "device", "created", "unroll"};
  (void)f;
  page_print(pg, "<dl>\n");
  for (size_t i = 0; i < 4; i++)
    if (field_is_there(report, rest[i])) {
      page_print(pg, "<dt>%s</dt><dd>", rest[i]);
      write_value(pg, json_object_get(report, rest[i]));
      page_print(pg, "</dd>\n");
    }
  page_print(pg, "</dl>\n");
  write_group(pg, "Model", json_object_get(report, "model"));
  write_group(pg, "Data", json_object_get(report, "data"));
  write_group(pg, "Settings", json_object_get(report, "configuration"));
}

void head_missing(report_page *pg, fields *f, const json_t *json) {
  const size_t n = page_entries(json);
  struct finding *gaps = fields_alloc(f, n, sizeof *gaps);
  for (size_t i = 0; gaps && i < n; i++) {
    fields_enter(f, "missing[%zu]", i);
    gaps[i].what = field_text(f, json_array_get(json, i), "section");
    gaps[i].text = field_text(f, json_array_get(json, i), "why");
  }
  if (f->has_failed || !gaps)
    return;
  page_print(pg, n ? "<ul>\n" : "<p>Nothing.</p>\n");
  for (size_t i = 0; i < n; i++) {
    page_print(pg, "<li><strong>");
    page_text(pg, gaps[i].what);
    page_print(pg, "</strong>: ");
    page_text(pg, gaps[i].text);
    page_print(pg, "</li>\n");
  }
  page_print(pg, n ? "</ul>\n" : "");
}
