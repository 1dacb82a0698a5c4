/* SPDX-License-Identifier: Apache-2.0 */
/* golden.h: what PyTorch computed, read from tests/golden/NAME.safetensors. What goes wrong in here fails the test. */
#ifndef GOLDEN_H
#define GOLDEN_H
#include <stdbool.h>
#include <stdint.h>
#include <unroll/io.h>
#include <unroll/nn.h>

typedef struct golden {
  unroll_safetensors *file;
  char name[96];
} golden;

golden golden_open(const char *name);
void golden_close(golden *g);

bool golden_has(const golden *g, const char *tensor);
unroll_stored_tensor golden_describe(const golden *g, const char *tensor);
int64_t golden_count(const unroll_stored_tensor *t); /* of elements */
/* A copy, to be freed. n, where not NULL, gets the number of elements. */
double *golden_values(const golden *g, const char *tensor, int64_t *n);
int32_t *golden_integers(const golden *g, const char *tensor, int64_t *n);
double golden_scalar(const golden *g, const char *tensor);
/* Metadata. */
const char *golden_text(const golden *g, const char *key);
int64_t golden_integer(const golden *g, const char *key);
/* otherwise: where there is no such key */
double golden_number(const golden *g, const char *key, double otherwise);
/* The cell that is named or numbered there; whatever follows "rnn" is its activation's. */
int32_t golden_cell(const golden *g);
/* UNROLL_TANH and the like; 0 where there is none. */
int32_t golden_activation(const golden *g);
/* The options of recurrent layers, hidden being H; without lengths and cells. */
unroll_rnn_options golden_rnn_options(const golden *g);

/* The names of the files that begin so, sorted, without the ending; there must be some. Freed with golden_list_free. */
char **golden_list(const char *begin, uint32_t *n);
void golden_list_free(char **names, uint32_t n);
#endif
