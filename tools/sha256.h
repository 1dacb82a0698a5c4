/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 of files (FIPS 180-4, section 6.2). */
#ifndef SHA256_H
#define SHA256_H
#include <stdbool.h>

/* 64 digits and a NUL. false: errno says why the file can't be read. */
bool sha256_of_file(const char *path, char text[65]);

#endif
