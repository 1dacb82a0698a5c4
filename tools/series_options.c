/* SPDX-License-Identifier: Apache-2.0 */
#include "series_options.h"

#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "console.h"

unroll_status series_load(const sequence_values *data, const series_values *series, const char *standard,
                          unroll_table **table, unroll_error *err) {
  const char *const column = series->column ? series->column : standard;
  const unroll_csv_options o = {.struct_size = sizeof o,
                                .header = sequence_header(data),
                                .holes = strcmp(series->holes, "error") == 0         ? UNROLL_HOLES_ERROR
                                         : strcmp(series->holes, "interpolate") == 0 ? UNROLL_HOLES_INTERPOLATE
                                                                                     : UNROLL_HOLES_FORWARD,
                                .separator = data->separator ? data->separator[0] : 0,
                                .columns = &column,
                                .n_columns = 1};
  return unroll_table_load(data->csv, &o, NULL, table, err);
}

static unroll_status load_members(unroll_device *device, const char *first, const series_values *series,
                                  series_models *m, unroll_error *err) {
  for (size_t i = 0; i <= series->with.count; i++) {
    const char *path = i ? series->with.paths[i - 1] : first;
    const unroll_status status = unroll_forecaster_load(&device, 1, path, NULL, &m->members[m->n], err);
    if (status != UNROLL_OK)
      return status;
    m->n++;
  }
  return UNROLL_OK;
}

bool series_open(unroll_device *device, const char *first, const sequence_values *data, const series_values *series,
                 series_models *m) {
  unroll_error err = UNROLL_ERROR_INIT;
  *m = (series_models){.members = calloc(series->with.count + 1, sizeof(unroll_forecaster *))};
  if (!m->members) {
    complain("out of memory");
    return false;
  }
  unroll_status status = load_members(device, first, series, m, &err);
  const char *name = NULL;
  if (status == UNROLL_OK) {
    name = unroll_forecaster_describe(m->members[0]).options.name;
    if (!series->column && !name) {
      complain("%s does not say which column it was trained on: give --column C", first);
      return false;
    }
    status = series_load(data, series, name, &m->table, &err);
  }
  if (status != UNROLL_OK) {
    complain_of(&err);
    return false;
  }
  m->y = unroll_table_values(m->table, 0);
  m->count = unroll_table_rows(m->table);
  m->name = unroll_table_name(m->table, 0);
  return true;
}

void series_close(series_models *m) {
  for (uint32_t i = 0; i < m->n; i++)
    unroll_forecaster_destroy(m->members[i]);
  free(m->members);
  unroll_table_destroy(m->table);
}

bool series_excludes(const command_spec *command, const void *values, const char *const *names, size_t n,
                     const char *what) {
  for (size_t i = 0; i < n; i++)
    if (option_was_given(command, values, names[i])) {
      complain("--%s is not for %s", names[i], what);
      return true;
    }
  return false;
}
