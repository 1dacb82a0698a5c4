/* SPDX-License-Identifier: Apache-2.0 */
/* report.css and report.js as text. Written by the build. */
#ifndef REPORT_ASSETS_H
#define REPORT_ASSETS_H

extern const char *const report_css, *const report_js;

#endif
