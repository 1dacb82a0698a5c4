/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "console.h"

#define HEAD_WIDTH 5 /* " 34% " */
#define BAR_MIN 6
#define BAR_MAX 40
#define LINE_SIZE 1000

progress progress_start(void) {
  return (progress){.terminal = console_is_terminal(), .colour = console_has_colour(), .utf8 = console_has_utf8()};
}

typedef struct line {
  char text[LINE_SIZE];
  size_t length;
} line;

static void append(line *to, const char *text) {
  const size_t n = strlen(text);
  if (n >= sizeof to->text - to->length)
    return;
  memcpy(to->text + to->length, text, n + 1);
  to->length += n;
}

static void append_bar(line *to, const progress *p, double fraction, int width) {
  const int filled = (int)(fraction * width + 0.5);
  const char *full = p->utf8 ? "━" : "=", *empty = p->utf8 ? (p->colour ? "━" : "─") : "-";
  if (p->colour)
    append(to, "\033[32m");
  for (int i = 0; i < width; i++) {
    if (p->colour && i == filled)
      append(to, "\033[0m\033[2m");
    append(to, i < filled ? full : empty);
  }
  if (p->colour)
    append(to, "\033[0m");
}

static void show_bar(const progress *p, double fraction, const char *const *details, size_t n) {
  line out = {.length = 0};
  char head[16];
  const int columns = console_columns() - 1; /* a full last column would wrap on some terminals */
  int width = HEAD_WIDTH + BAR_MIN;
  size_t shown = 0;
  while (shown < n && width + 2 + (int)strlen(details[shown]) <= columns)
    width += 2 + (int)strlen(details[shown++]);
  int bar = BAR_MIN + columns - width;
  bar = bar > BAR_MAX ? BAR_MAX : bar;
  if (isnan(fraction))
    snprintf(head, sizeof head, "   ? ");
  else
    snprintf(head, sizeof head, "%3d%% ", (int)(fraction * 100));
  append(&out, head);
  if (bar >= BAR_MIN)
    append_bar(&out, p, isnan(fraction) ? 0 : fraction, bar);
  for (size_t i = 0; i < shown; i++) {
    append(&out, "  ");
    append(&out, details[i]);
  }
  console_set_lines(p->above ? p->above : "", out.text);
}

static void show_plain(double fraction, const char *const *details, size_t n) {
  line out = {.length = 0};
  for (size_t i = 0; i < n; i++) {
    append(&out, i ? ", " : "");
    append(&out, details[i]);
  }
  if (isnan(fraction))
    tell("%s", out.text);
  else
    tell("%3d%% %s", (int)(fraction * 100), out.text);
}

/* May a plain line be written now? Then the period begins anew. */
static bool is_due(progress *p, double now) {
  if (p->last > 0 && now - p->last < PROGRESS_PERIOD)
    return false;
  p->last = now;
  return true;
}

void progress_show(progress *p, double now, double fraction, const char *const *details, size_t n) {
  if (fraction < 0 || fraction > 1)
    fraction = fraction < 0 ? 0 : 1;
  if (p->terminal) {
    show_bar(p, fraction, details, n);
    p->shown = true;
  } else if (is_due(p, now)) {
    show_plain(fraction, details, n);
  }
}

void progress_end(progress *p) {
  if (!p->terminal || !p->shown)
    return;
  console_set_lines(p->above ? p->above : "", "");
  if (p->above && p->above[0])
    console_keep_lines();
}

void duration_text(double seconds, char *text, size_t size) {
  if (!(seconds >= 0 && seconds < 3600.0 * 9999)) {
    snprintf(text, size, "?");
    return;
  }
  const long s = lround(seconds);
  if (s >= 3600)
    snprintf(text, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
  else
    snprintf(text, size, "%ld:%02ld", s / 60, s % 60);
}

void count_text(double count, char *text, size_t size) {
  if (!(count >= 999.5))
    snprintf(text, size, "%.0f", count);
  else if (count < 999.5e3)
    snprintf(text, size, "%.*fk", count < 99.95e3 ? 1 : 0, count / 1e3);
  else
    snprintf(text, size, "%.*fM", count < 99.95e6 ? 1 : 0, count / 1e6);
}
