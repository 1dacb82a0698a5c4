/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "console.h"
#include "report_draw.h"

typedef struct report_values {
  option_marks marks;
  const char *report, *out;
} report_values;

static const option_spec options[] = {
    {.type = OPTION_OPERAND,
     .name = "REPORT",
     .offset = offsetof(report_values, report),
     .required = true,
     .help = "report.json, as 'unroll diagnose' writes it"},
    {.type = OPTION_TEXT,
     .name = "out",
     .argument = "DIR",
     .offset = offsetof(report_values, out),
     .required = true,
     .help =
         "the folder of report.html and plots/, made where it is not there; files in it of these names are replaced"},
};

static int run(const command_spec *command, const void *p) {
  (void)command;
  const report_values *values = p;
  size_t bytes;
  json_t *report = report_read(values->report, &bytes);
  if (!report)
    return EXIT_FAILED;
  report_drawn drawn;
  int code = EXIT_FAILED;
  if (mkdir(values->out, 0777) != 0 && errno != EEXIST)
    complain("--out: cannot make the folder %s: %s", values->out, strerror(errno));
  else if (report_draw(report, bytes, values->out, &drawn)) {
    printf("page   %s/report.html\nplots  %zu in %s/plots, as SVG%s\n", values->out, drawn.plots, values->out,
           drawn.has_png ? " and PNG" : "");
    if (!drawn.has_png)
      complain("no PNG: %s", drawn.png_note);
    code = drawn.faults ? EXIT_FAILED : EXIT_OK;
  }
  json_decref(report);
  return code;
}

const command_spec command_report = {
    .name = "report",
    .purpose = "draw a diagnosis: plots as SVG and PNG, and one page, report.html",
    .usage = "REPORT --out DIR",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(report_values),
    .notes =
        "The page is one file that needs no network: verdict, gradient flow, gates, spectra, fixed points, Lyapunov\n"
        "exponents, cost, and what else the report has. Sections that are wrong are left out and named, and the exit\n"
        "code is 1. PNG files need cairo (libcairo2), which is loaded when they are drawn.\n",
    .example = "  unroll report diagnosis/report.json --out diagnosis\n",
    .run = run,
};
