/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures as PNG, drawn by cairo, which is loaded when it is first needed. */
#ifndef PICTURE_PNG_H
#define PICTURE_PNG_H
#include "picture.h"

typedef struct png_writer png_writer;
/* NULL: cairo is not there or lacks something; `why` says what. */
png_writer *png_writer_open(char *why, size_t size);
void png_writer_close(png_writer *w);
/* On a light page, two pixels for each of the picture's. false: `why` says why. */
bool png_writer_write(png_writer *w, const picture *p, const char *path, char *why, size_t size);

#endif
