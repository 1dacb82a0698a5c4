/* SPDX-License-Identifier: Apache-2.0 */
/* Ctrl-C, SIGTERM and SIGHUP: the first one asks for an end, the second one ends the process. */
#ifndef INTERRUPT_H
#define INTERRUPT_H
#include <stdbool.h>

/* From here on. text: what stderr gets then, as it is; it stays the caller's, and outlives the process's signals. */
void interrupt_catch(const char *text);
bool interrupt_asked(void);

#endif
