/* SPDX-License-Identifier: Apache-2.0 */
#include "pair_options.h"

#include <string.h>

#include "console.h"

static bool is_cmudict(const pair_values *values) { return strcmp(values->format, "cmudict") == 0; }

bool pairs_check_usage(const pair_values *values) {
  if (is_cmudict(values) || (!values->no_stress && !values->first_only))
    return true;
  complain("--%s is of --format cmudict", values->no_stress ? "no-stress" : "first-only");
  return false;
}

unroll_status pairs_load(const pair_values *values, unroll_pairs **pairs, unroll_error *err) {
  const unroll_pairs_options o = {.struct_size = sizeof o,
                                  .form = is_cmudict(values) ? UNROLL_PAIRS_CMUDICT : UNROLL_PAIRS_TAB,
                                  .flags = (values->no_stress ? UNROLL_PAIRS_NO_STRESS : 0u) |
                                           (values->first_only ? UNROLL_PAIRS_FIRST_ONLY : 0u)};
  return unroll_pairs_load(values->path, &o, NULL, pairs, err);
}

bool way_check_usage(const command_spec *command, const void *values, const way_values *way) {
  static const char *const drawn[] = {"top-k", "top-p", "draw-seed"};
  if (way->beam > 0 && way->temperature > 0) {
    complain("--beam and --temperature: a search draws nothing, give one of them");
    return false;
  }
  if (way->beam == 0 && option_was_given(command, values, "length-penalty")) {
    complain("--length-penalty is of --beam");
    return false;
  }
  for (size_t i = 0; i < COUNT(drawn) && way->temperature == 0; i++)
    if (option_was_given(command, values, drawn[i])) {
      complain("--%s is of --temperature", drawn[i]);
      return false;
    }
  return true;
}

unroll_translate_options way_options(const way_values *way) {
  return (unroll_translate_options){.struct_size = sizeof(unroll_translate_options),
                                    .beam = (int32_t)way->beam,
                                    .alpha = way->alpha,
                                    .temperature = way->temperature,
                                    .top_k = way->top_k,
                                    .top_p = way->top_p,
                                    .seed = (uint64_t)way->seed,
                                    .most = way->most};
}
