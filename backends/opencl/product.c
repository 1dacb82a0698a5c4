/* SPDX-License-Identifier: Apache-2.0 */
/* product.c: products by CLBlast, and the test that a device must pass before they are used. */
#include "opencl.h"
#include <clblast_c.h>
#include <math.h>

/* A sum of more values of k than this goes through partial sums: f32 loses too much otherwise. */
enum { K_BLOCK = 4096 };
enum { TILE = 128 }; /* of CLBlast, at most */

static unroll_status clblast_error(unroll_backend_device *d, unroll_error *err, CLBlastStatusCode code,
                                   const char *name) {
  /* What drivers say passes through; what CLBlast says itself is below -1000, but for NVIDIA's -9999. */
  if (code <= -1000 && code > -9999)
    return opencl_fail(err, UNROLL_E_DEVICE, code, "CLBlast: %s: its error %d", name, (int)code);
  return opencl_error(d, err, (cl_int)code, "CLBlast", name);
}

static size_t whole_tiles(int64_t n) { return ((size_t)n + TILE - 1) / TILE * TILE; }

unroll_status product_temp_bytes(unroll_backend_device *d, const product *g, int64_t m, int64_t n, int64_t k,
                                 uint64_t *bytes, unroll_error *err) {
  const CLBlastTranspose ta = g->trans_a ? CLBlastTransposeYes : CLBlastTransposeNo;
  const CLBlastTranspose tb = g->trans_b ? CLBlastTransposeYes : CLBlastTransposeNo;
  /*
   * One more than whole tiles in each size, and offsets that are not 0: then every matrix is padded, and neither a smaller
   * run nor other parameters of CLBlast (tune_product.c) need more.
   */
  const size_t m1 = whole_tiles(m) + 1, n1 = whole_tiles(n) + 1, k1 = whole_tiles(k < K_BLOCK ? k : K_BLOCK) + 1;
  const size_t lda = (g->trans_a ? m1 : k1) + (size_t)g->a_row, ldb = (g->trans_b ? k1 : n1) + (size_t)g->b_row;
  size_t size = 0;
  const CLBlastStatusCode code = g->dtype == UNROLL_F64
                                     ? CLBlastDGemmTempBufferSize(CLBlastLayoutRowMajor, ta, tb, m1, n1, k1, 1, lda, 1,
                                                                  ldb, 1, n1, &d->own_queue, &size)
                                     : CLBlastSGemmTempBufferSize(CLBlastLayoutRowMajor, ta, tb, m1, n1, k1, 1, lda, 1,
                                                                  ldb, 1, n1, &d->own_queue, &size);
  if (code != CLBlastSuccess)
    return clblast_error(d, err, code, "GemmTempBufferSize");
  *bytes = size;
  return UNROLL_OK;
}

bool product_is_direct(unroll_backend_device *d, const product *g, int64_t m, int64_t n, int64_t k) {
  const CLBlastTranspose ta = g->trans_a ? CLBlastTransposeYes : CLBlastTransposeNo;
  const CLBlastTranspose tb = g->trans_b ? CLBlastTransposeYes : CLBlastTransposeNo;
  size_t size = 0;
  const size_t m1 = (size_t)m | 1, n1 = (size_t)n, k1 = (size_t)(k < K_BLOCK ? k : K_BLOCK);
  const size_t lda = g->trans_a ? m1 : k1, ldb = g->trans_b ? k1 : n1;
  /* An odd number of rows is no whole number of tiles: the other kernel would need room for what it pads. */
  const CLBlastStatusCode code = g->dtype == UNROLL_F64
                                     ? CLBlastDGemmTempBufferSize(CLBlastLayoutRowMajor, ta, tb, m1, n1, k1, 0, lda, 0,
                                                                  ldb, 0, n1, &d->own_queue, &size)
                                     : CLBlastSGemmTempBufferSize(CLBlastLayoutRowMajor, ta, tb, m1, n1, k1, 0, lda, 0,
                                                                  ldb, 0, n1, &d->own_queue, &size);
  return code == CLBlastSuccess && size == 0;
}

typedef struct places {
  cl_mem a, b, y, temp;
  uint64_t a_at, b_at, y_at;
  size_t lda, ldb, ldy;
} places;

/* Rows m0.. of y get, or have added, the products of k0.. */
static CLBlastStatusCode enqueue_part(cl_command_queue queue, const product *g, const places *p, int64_t m0, int64_t m,
                                      int64_t n, int64_t k0, int64_t k, bool adds) {
  const CLBlastTranspose ta = g->trans_a ? CLBlastTransposeYes : CLBlastTransposeNo;
  const CLBlastTranspose tb = g->trans_b ? CLBlastTransposeYes : CLBlastTransposeNo;
  const size_t a_from = p->a_at + (uint64_t)m0 * (g->trans_a ? 1 : p->lda) + (uint64_t)k0 * (g->trans_a ? p->lda : 1),
               b_from = p->b_at + (uint64_t)k0 * (g->trans_b ? 1 : p->ldb), y_from = p->y_at + (uint64_t)m0 * p->ldy;
  return g->dtype == UNROLL_F64
             ? CLBlastDgemmWithTempBuffer(CLBlastLayoutRowMajor, ta, tb, (size_t)m, (size_t)n, (size_t)k, 1.0, p->a,
                                          a_from, p->lda, p->b, b_from, p->ldb, adds ? 1.0 : 0.0, p->y, y_from, p->ldy,
                                          &queue, NULL, p->temp)
             : CLBlastSgemmWithTempBuffer(CLBlastLayoutRowMajor, ta, tb, (size_t)m, (size_t)n, (size_t)k, 1.0f, p->a,
                                          a_from, p->lda, p->b, b_from, p->ldb, adds ? 1.0f : 0.0f, p->y, y_from,
                                          p->ldy, &queue, NULL, p->temp);
}

unroll_status product_enqueue(unroll_backend_device *d, cl_command_queue queue, const product *g, int64_t m, int64_t n,
                              int64_t k, cl_mem a, uint64_t a_at, cl_mem b, uint64_t b_at, cl_mem y, uint64_t y_at,
                              cl_mem temp, const char *name, unroll_error *err) {
  const places p = {.a = a,
                    .b = b,
                    .y = y,
                    .temp = temp,
                    .a_at = a_at,
                    .b_at = b_at,
                    .y_at = y_at,
                    .lda = (size_t)(g->a_row     ? g->a_row
                                    : g->trans_a ? m
                                                 : k),
                    .ldb = (size_t)(g->b_row     ? g->b_row
                                    : g->trans_b ? k
                                                 : n),
                    .ldy = (size_t)n};
  const int64_t rows = g->m_block ? g->m_block : m, block = g->k_block ? g->k_block : k,
                blocks = (k + block - 1) / block;
  for (int64_t m0 = 0; m0 < m; m0 += rows)
    for (int64_t i = 0; i < blocks; i++) {
      const int64_t first = (g->from_first || !g->k_block ? i : blocks - 1 - i) * block;
      const int64_t end = k - first < block ? k : first + block;
      for (int64_t k0 = first; k0 < end; k0 += K_BLOCK) {
        const CLBlastStatusCode code =
            enqueue_part(queue, g, &p, m0, m - m0 < rows ? m - m0 : rows, n, k0,
                         end - k0 < K_BLOCK ? end - k0 : K_BLOCK, g->has_c || i > 0 || k0 > first);
        if (code != CLBlastSuccess)
          return clblast_error(d, err, code, name);
      }
    }
  return UNROLL_OK;
}

/* ---- the test ---- */
static double value_at(const void *data, int32_t dtype, size_t i) {
  return dtype == UNROLL_F64 ? ((const double *)data)[i] : (double)((const float *)data)[i];
}

static void set_value(void *data, int32_t dtype, size_t i, double value) {
  if (dtype == UNROLL_F64)
    ((double *)data)[i] = value;
  else
    ((float *)data)[i] = (float)value;
}

/* Small whole numbers: every order of the sum is exact, so any difference is an error. */
static void fill_whole(void *data, int32_t dtype, size_t n, uint32_t seed) {
  for (size_t i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    set_value(data, dtype, i, (double)(seed >> 28) - 7.0);
  }
}

static bool products_equal(const product *g, const void *a, const void *b, const void *y, size_t m, size_t n,
                           size_t k) {
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < n; j++) {
      double sum = 0;
      for (size_t x = 0; x < k; x++)
        sum += value_at(a, g->dtype, g->trans_a ? x * m + i : i * k + x) *
               value_at(b, g->dtype, g->trans_b ? j * k + x : x * n + j);
      if (value_at(y, g->dtype, i * n + j) != sum)
        return false;
    }
  return true;
}

static bool succeeded(unroll_backend_device *d, cl_int code, const char *call, unroll_error *err) {
  return code == CL_SUCCESS || opencl_error(d, err, code, call, "self-test") == UNROLL_OK;
}

/* err says why not, where it is not the numbers. */
static bool one_test(unroll_backend_device *d, const product *g, size_t m, size_t n, size_t k, unroll_error *err) {
  const size_t bytes = dtype_bytes(g->dtype), sizes[3] = {m * k, k * n, m * n};
  void *data[3] = {NULL};
  cl_mem mem[4] = {NULL};
  uint64_t temp = 0;
  bool right = product_temp_bytes(d, g, (int64_t)m, (int64_t)n, (int64_t)k, &temp, err) == UNROLL_OK;
  for (int i = 0; i < 4 && right; i++) {
    cl_int code = CL_SUCCESS;
    const size_t size = i < 3 ? sizes[i] * bytes : (size_t)temp;
    mem[i] = clCreateBuffer(d->context, CL_MEM_READ_WRITE, size ? size : 1, NULL, &code);
    right = succeeded(d, code, "clCreateBuffer", err);
    if (!right || i == 3)
      continue;
    data[i] = opencl_alloc(d->host, sizes[i], bytes);
    right = data[i] || opencl_fail(err, UNROLL_E_MEMORY, 0, "no memory for %zu numbers", sizes[i]) == UNROLL_OK;
    if (!right)
      continue;
    fill_whole(data[i], g->dtype, sizes[i], (uint32_t)i + 1);
    code = clEnqueueWriteBuffer(d->own_queue, mem[i], CL_TRUE, 0, size, data[i], 0, NULL, NULL);
    right = succeeded(d, code, "clEnqueueWriteBuffer", err);
  }
  right = right && product_enqueue(d, d->own_queue, g, (int64_t)m, (int64_t)n, (int64_t)k, mem[0], 0, mem[1], 0, mem[2],
                                   0, mem[3], "self-test", err) == UNROLL_OK;
  if (right) {
    const cl_int code = clEnqueueReadBuffer(d->own_queue, mem[2], CL_TRUE, 0, sizes[2] * bytes, data[2], 0, NULL, NULL);
    right = succeeded(d, code, "clEnqueueReadBuffer", err) && products_equal(g, data[0], data[1], data[2], m, n, k);
  }
  for (int i = 0; i < 4; i++) {
    if (mem[i])
      clReleaseMemObject(mem[i]);
    if (i < 3)
      opencl_free(d->host, data[i]);
  }
  return right;
}

bool product_test(unroll_backend_device *d, int32_t dtype, unroll_error *err) {
  /* A size for each of CLBlast's two ways, direct and through padded copies, in each transposition. */
  bool right = true;
  for (int form = 0; form < 3 && right; form++) {
    const product g = {.dtype = dtype, .trans_a = form == 2, .trans_b = form == 1};
    right = one_test(d, &g, 33, 65, 70, err) && one_test(d, &g, 200, 515, 130, err);
  }
  return right;
}

bool product_clblast_works(unroll_backend_device *d, int32_t dtype) {
  const int which = dtype == UNROLL_F64;
  pthread_mutex_lock(&d->lock);
  if (d->clblast_state[which] == 0) {
    unroll_error err = {.struct_size = sizeof err, .message = "a wrong sum"};
    const bool right = product_test(d, dtype, &err);
    d->clblast_state[which] = right ? 1 : -1;
    if (!right)
      opencl_log(d->host, UNROLL_LOG_WARN,
                 "opencl: device %s (%s): CLBlast's %s product failed its test (%s): own kernels are used instead",
                 d->entry->id, d->entry->name, dtype_c(dtype), err.message);
  }
  const bool works = d->clblast_state[which] > 0;
  pthread_mutex_unlock(&d->lock);
  return works;
}
