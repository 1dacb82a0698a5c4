/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "console.h"
#include "diagnosis.h"
#include "interrupt.h"

#define AT(member) offsetof(diagnose_values, member)

static const option_spec options[] = {
    {.type = OPTION_OPERAND,
     .name = "MODEL",
     .offset = AT(model),
     .required = true,
     .help = "a file that 'unroll train' wrote, or any safetensors file with tensors named as rnn.W_h.0.0"},
    TEXT("text", "FILE", AT(text), "of a language model: UTF-8; characters that it lacks are left out"),
    TEXT("data", "FILE", AT(data.csv),
         "of a classifier or forecaster: CSV, as what it was trained on; of layers alone: F.npy, "
         "[steps,sequences,inputs]"),
    OPTIONS_SEQUENCES(diagnose_values,
                      "of CSV: the column of labels, by name or by number from 1 (default: the first)"),
    OPTIONS_SERIES(diagnose_values, "of a series: its column (default: that which the model was trained on)"),
    OPTION_PAIRS(diagnose_values, "of a translator: sources and their targets"),
    OPTIONS_PAIRS(diagnose_values),
    {.type = OPTION_TEXT,
     .name = "out",
     .argument = "DIR",
     .offset = AT(out),
     .required = true,
     .help = "the folder that gets report.json, report.html and plots; it is made"},
    {.type = OPTION_FLAG, .name = "no-page", .offset = AT(no_page), .help = "report.json alone"},
    {.type = OPTION_FLAG, .name = "force", .offset = AT(force), .help = "write into a folder that has files already"},
    TEXT("training", "F.jsonl", AT(training),
         "the --log of the model's training: loss, gradient norm, radii over updates"),
    HEADING("how much is looked at"),
    INTEGER("sequences", "N", AT(sequences), "8", 1, 4096, "sequences, evenly out of the data"),
    INTEGER("steps", "T", AT(steps), "0", 0, 100000,
            "steps of each at most; 0: all, of a text 200 or the model's window"),
    INTEGER("starts", "N", AT(starts), "0", 0, 65536,
            "searches for fixed points in each layer; 0: as many as take some seconds"),
    INTEGER("exponents", "N", AT(exponents), "0", 0, 16384, "Lyapunov exponents of each layer; 0: the 16 largest"),
    INTEGER("exponent-steps", "N", AT(exponent_steps), "1000", 20, 10000000, "steps over which they are counted"),
    INTEGER("units", "N", AT(units), "32", 1, 16384, "units whose activity is kept, those that vary most"),
    INTEGER("jacobian", "K", AT(jacobian), "0", 0, 100000,
            "writes each layer's product of the last K Jacobians, of the first sequence, whole, as jacobian-*.npy; 0: "
            "none"),
    INTEGER("seed", "N", AT(seed), "1", 0, (double)INT64_MAX, "of starts and directions"),
    OPTIONS_DEVICE(diagnose_values),
    OPTIONS_LOG(diagnose_values),
};

/* ---- the folder ---- */

static bool is_empty(const char *path) {
  DIR *folder = opendir(path);
  const struct dirent *entry;
  bool empty = true;
  while (folder && (entry = readdir(folder)))
    empty = empty && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
  if (folder)
    closedir(folder);
  return empty;
}

/* Said on stderr where it can't be the report's folder. Before anything is computed. */
static bool make_folder(const char *path, bool force) {
  struct stat info;
  if (mkdir(path, 0777) == 0)
    return true;
  if (errno != EEXIST)
    complain("--out: cannot make %s: %s", path, strerror(errno));
  else if (stat(path, &info) != 0)
    complain("--out: %s: %s", path, strerror(errno));
  else if (!S_ISDIR(info.st_mode))
    complain("--out: %s is not a folder", path);
  else if (access(path, W_OK | X_OK) != 0)
    complain("--out: cannot write into %s: %s", path, strerror(errno));
  else if (!force && !is_empty(path))
    complain("--out: %s exists and has files: give another folder, or --force to write into it", path);
  else
    return true;
  return false;
}

/* ---- the run ---- */

typedef void section(diagnosis *d);
static const struct {
  const char *name;
  section *run;
} sections[] = {{"training", diagnose_training},   {"nonfinite", diagnose_nonfinite},
                {"gates", diagnose_gates},         {"units", diagnose_units},
                {"spectra", diagnose_spectra},     {"cost", diagnose_cost},
                {"attention", diagnose_attention}, {"gradient", diagnose_gradient},
                {"lyapunov", diagnose_lyapunov},   {"fixed_points", diagnose_fixed_points}};

/*
 * Without a measured gradient the memory is that of the states: what is near another state comes by a factor of e^λ1
 * nearer in a step, and so does a gradient on its way back.
 */
static void estimate_memory(diagnosis *d) {
  for (size_t k = 0; k < d->n_activities; k++) {
    unroll_layer_figures *f = &d->figures[k];
    if (f->memory >= 0 || isnan(f->exponent))
      continue;
    const double steps = f->exponent < 0 ? log(100) / -f->exponent : (double)INFINITY;
    f->memory = steps < 1e15 ? (int64_t)steps : INT64_MAX;
  }
}

static int diagnose_all(diagnosis *d) {
  for (size_t i = 0; i < COUNT(sections); i++) {
    char line[80];
    if (interrupt_asked()) {
      diagnose_missing(d, sections[i].name, "interrupted");
      continue;
    }
    snprintf(line, sizeof line, "%zu of %zu: %s", i + 1, COUNT(sections), sections[i].name);
    if (console_is_terminal())
      console_set_line(line);
    sections[i].run(d);
  }
  if (console_is_terminal())
    console_set_line("");
  if (interrupt_asked())
    json_object_set_new(d->report, "partial", json_true());
  estimate_memory(d);
  diagnose_verdict(d);
  bool written = diagnose_write_report(d);
  if (written)
    diagnose_print_summary(d);
  written = written && (d->values->no_page || diagnose_draw(d));
  return written && !interrupt_asked() ? EXIT_OK : EXIT_FAILED;
}

static bool make_figures(diagnosis *d) {
  d->figures = calloc(d->model.n, sizeof *d->figures);
  d->spectra = calloc(2 * d->model.n, sizeof *d->spectra);
  if (!d->figures || !d->spectra) {
    complain("out of memory");
    return false;
  }
  for (size_t k = 0; k < d->model.n; k++) {
    d->spectra[2 * k] = d->spectra[2 * k + 1] = (double)NAN;
    d->figures[k] = unroll_layer_figures_none();
    d->figures[k].cell = d->model.layers[k].options.cell;
    d->figures[k].layer = d->model.layers[k].name;
  }
  return true;
}

static bool check_usage(const command_spec *command, const diagnose_values *v) {
  if ((v->text != NULL) + (v->data.csv != NULL) + (v->pairs.path != NULL) == 1)
    return sequence_check_usage(&v->data) && pairs_check_usage(&v->pairs);
  complain("'unroll %s' needs one of --text FILE (language models), --data FILE (classifiers, forecasters, layers "
           "alone) and --pairs FILE (translators)",
           command->name);
  complain("see 'unroll %s --help'", command->name);
  return false;
}

static bool can_read(const char *option, const char *path) {
  if (!path || access(path, R_OK) == 0)
    return true;
  complain("%s: cannot read %s: %s", option, path, strerror(errno));
  return false;
}

static int run(const command_spec *command, const void *p) {
  diagnosis d = {.values = p, .nonfinite = -1};
  int code = EXIT_FAILED;
  if (!check_usage(command, p))
    return EXIT_USAGE;
  if (can_read("--training", d.values->training) && model_view_open(d.values->model, &d.model) && make_figures(&d) &&
      diagnose_read_data(&d) && diagnose_begin_report(&d) && diagnose_trace(&d) &&
      make_folder(d.values->out, d.values->force)) {
    interrupt_catch("\nunroll: stopping and writing what there is; once more quits at once\n");
    code = diagnose_all(&d);
  }
  diagnose_free_activities(&d);
  diagnose_free_data(&d.data);
  json_decref(d.report);
  json_decref(d.missing);
  free(d.figures);
  free(d.spectra);
  model_view_close(&d.model);
  unroll_device_close(d.device);
  unroll_context_destroy(d.ctx);
  return code;
}

const command_spec command_diagnose = {
    .name = "diagnose",
    .purpose = "look inside a trained model: what is wrong with it, and why",
    .usage = "MODEL --text FILE|--data FILE|--pairs FILE --out DIR [options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(diagnose_values),
    .notes =
        "The verdict comes first, in plain words with advice; DIR/report.json has all that was measured, by graphs on "
        "the\n"
        "device: layers, their maps and gradients in double, on the cpu where the device has none, and the search for\n"
        "numbers that are not finite in the precision of the weights. Ctrl-C writes what there is, marked as a part.\n",
    .example =
        "  unroll diagnose book.safetensors --text book.txt --out book-report\n"
        "  unroll diagnose digits.safetensors --data digits.csv --label digit --out digits-report\n"
        "  unroll diagnose phonemes.safetensors --pairs cmudict.dict --format cmudict --no-stress --out report\n",
    .run = run,
};
