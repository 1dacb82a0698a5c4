/* SPDX-License-Identifier: Apache-2.0 */
#include "conform/judge.h"

void unroll_conform_report_destroy(unroll_conform_report *r) {
  if (!r)
    return;
  const unroll_allocator a = r->allocator;
  for (uint32_t i = 0; i < r->n; i++)
    mem_free(&a, r->records[i].error);
  conform_list_free(&r->list);
  mem_free(&a, r->records);
  mem_free(&a, r->rows);
  mem_free(&a, r->prelude);
  mem_free(&a, r->id);
  mem_free(&a, r->path);
  mem_free(&a, r);
}

unroll_conform_totals unroll_conform_totals_of(const unroll_conform_report *r) {
  unroll_conform_totals t = {.struct_size = sizeof t, .cases = r->n};
  for (uint32_t i = 0; i < r->n; i++)
    switch (r->records[i].verdict) {
    case UNROLL_PASSED: t.passed++; break;
    case UNROLL_FAILED: t.failed++; break;
    case UNROLL_CRASHED: t.crashed++; break;
    case UNROLL_SKIPPED: t.skipped++; break;
    default: t.unsupported++;
    }
  return t;
}

unroll_conform_case unroll_conform_case_of(const unroll_conform_report *r, uint32_t i) {
  unroll_conform_case c = {.struct_size = sizeof c, .name = "", .error = ""};
  if (i < r->n) {
    c.verdict = r->records[i].verdict;
    c.name = r->list.cases[r->records[i].index].name;
    c.error = r->records[i].error ? r->records[i].error : "";
    c.seconds = r->records[i].seconds;
  }
  return c;
}

unroll_conform_subject unroll_conform_subject_of(const unroll_conform_report *r) {
  return (unroll_conform_subject){.struct_size = sizeof(unroll_conform_subject),
                                  .plugin = r->id,
                                  .version = r->prelude->version,
                                  .vendor = r->prelude->vendor,
                                  .path = r->path,
                                  .device = r->prelude->device,
                                  .driver = r->prelude->driver};
}

uint32_t unroll_conform_coverage_count(const unroll_conform_report *r) { return r->n_rows; }

unroll_conform_coverage unroll_conform_coverage_of(const unroll_conform_report *r, uint32_t i) {
  unroll_conform_coverage c = {.struct_size = sizeof c, .op_name = "", .attribute = "", .value = ""};
  if (i < r->n_rows) {
    const struct coverage_row *row = &r->rows[i];
    c.op = row->op;
    c.op_name = row->op_name;
    c.attribute = row->attribute_name;
    c.value = row->value;
    c.cases = row->cases;
    c.passed = row->passed;
    c.unsupported = row->unsupported;
  }
  return c;
}
