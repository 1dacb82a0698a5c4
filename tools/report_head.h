/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a report's page says in words: the model and the verdict first; what was measured with, and what is missing,
 * last.
 */
#ifndef REPORT_HEAD_H
#define REPORT_HEAD_H
#include "report_page.h"

/* Title, model and data in a line. */
void head_title(report_page *pg, fields *f, const json_t *report);
/* What the <title> is. */
void head_name(report_page *pg, const json_t *report);
section_function head_verdict, head_configuration, head_missing;

#endif
