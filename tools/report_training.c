/* SPDX-License-Identifier: Apache-2.0 */
/* Norms over training: loss and gradient, weights and their spectral radii. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "report_page.h"

struct weights {
  const char *name;
  series norm, radius;
};

/* Curves over updates, in a picture of its own. `look` may repeat: there are as many names as curves. */
static void draw(report_page *pg, fields *f, const char *name, const char *title, const char *label, bool is_log,
                 series updates, const series *curves, const char *const *names, size_t n, const char *caption) {
  bool has_marks = false, is_thinned = false;
  const double above = 24 + (n > 1 ? chart_legend_height(70, PAGE_WIDTH - 10, names, n) : 0);
  picture *p = picture_new(PAGE_WIDTH, above + 290, name, title, "The table below has the values.");
  if (p) {
    chart c = {.p = p, .left = 70, .top = above + 12, .right = PAGE_WIDTH - 22, .bottom = above + 242};
    c.x = axis_new("update", false);
    c.y = axis_new(label, is_log);
    axis_fit(&c.x, updates);
    axis_round(&c.x);
    for (size_t i = 0; i < n; i++) {
      axis_fit(&c.y, curves[i]);
      has_marks = has_marks || chart_has_marks(curves[i], is_log);
    }
    axis_round(&c.y);
    picture_text(p, (lettering){.colour = INK_TEXT, .size = 14, .is_bold = true}, 70, 17, title);
    if (n > 1)
      chart_legend(p, 70, PAGE_WIDTH - 10, 28, names, n);
    chart_draw_axes(&c);
    for (size_t i = 0; i < n; i++) {
      series sx, sy;
      is_thinned = series_thin(pg, f, updates, curves[i], &sx, &sy) || is_thinned;
      chart_curve(&c, sx, sy, i);
    }
  }
  page_figure(pg, p, "%s%s", caption, note_of(has_marks, is_thinned));
  for (size_t i = 0; i < n; i++)
    page_columns(pg, names[i], (const char *const[]){"update", names[i]}, (const series[]){updates, curves[i]}, 2);
  page_figure_end(pg);
}

void section_training(report_page *pg, fields *f, const json_t *json) {
  fields_enter(f, "training");
  const series updates = field_series(f, json, "updates", SIZE_MAX);
  const series loss = field_is_there(json, "loss") ? field_series(f, json, "loss", updates.n) : (series){0};
  const series norm =
      field_is_there(json, "gradient_norm") ? field_series(f, json, "gradient_norm", updates.n) : (series){0};
  const json_t *list = field_is_there(json, "weights") ? field_objects(f, json, "weights") : NULL;
  const size_t n = page_entries(list);
  series *norms = fields_alloc(f, n, sizeof *norms), *radii = fields_alloc(f, n, sizeof *radii);
  const char **norm_names = fields_alloc(f, n, sizeof *norm_names),
             **radius_names = fields_alloc(f, n, sizeof *norm_names);
  size_t n_norms = 0, n_radii = 0;
  for (size_t i = 0; i < n && norms && radii && norm_names && radius_names; i++) {
    const json_t *w = json_array_get(list, i);
    fields_enter(f, "training.weights[%zu]", i);
    const char *name = field_text(f, w, "name");
    if (field_is_there(w, "norm")) {
      norm_names[n_norms] = name;
      norms[n_norms++] = field_series(f, w, "norm", updates.n);
    }
    if (field_is_there(w, "radius")) {
      radius_names[n_radii] = name;
      radii[n_radii++] = field_series(f, w, "radius", updates.n);
    }
  }
  if (f->has_failed)
    return;
  if (loss.n)
    draw(pg, f, "training-loss", "Loss over training", "loss", false, updates, &loss, (const char *const[]){"loss"}, 1,
         "The loss, by update.");
  if (norm.n)
    draw(pg, f, "training-gradient", "Norm of the gradient over training", "‖∇L‖", true, updates, &norm,
         (const char *const[]){"norm before clipping"}, 1, "The norm of the whole gradient before it was clipped.");
  if (n_norms)
    draw(pg, f, "training-weights", "Norms of weights over training", "norm", true, updates, norms, norm_names, n_norms,
         "Norms of weights, by update.");
  if (n_radii)
    draw(pg, f, "training-radius", "Spectral radii over training", "ρ", false, updates, radii, radius_names, n_radii,
         "The spectral radius of recurrent weights, by update.");
}
