/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/diagnose.h: what a recurrent network does as a dynamical system: eigenvalues, fixed points, Lyapunov exponents.
 *
 *     const unroll_network net = {.struct_size = sizeof net, .options = &rnn, .input = I, .weights = w, .n_weights = n};
 *     unroll_map *map;
 *     unroll_map_of_layer(&net, 0, 0, x, steps, NULL, NULL, &map, &err);
 *     unroll_lyapunov_options o = {.struct_size = sizeof o, .transient = 1000, .steps = 10000};
 *     unroll_lyapunov(map, h0, &o, exponents, errors, &info, &err);
 *     unroll_map_destroy(map);
 *
 * All of it is computed in double: a layer's steps on a device, the rest on the host. Dense algebra is LAPACK's and BLAS's:
 * liblapacke.so.3 is loaded at the first use, and stays. LAPACK may allocate memory of its own and run threads. Of large
 * matrices ARPACK finds some eigenvalues, libarpack.so.2, loaded likewise. It allows one search at a time in a process, so
 * that calls of several threads wait for each other, and the program itself may not call that library meanwhile.
 *
 * Statuses beside those named: UNROLL_E_INVALID (something is NULL or out of its range), UNROLL_E_MEMORY,
 * UNROLL_E_UNSUPPORTED (liblapacke.so.3 or libarpack.so.2 can't be loaded: Debian's packages are liblapacke and
 * libarpack2), UNROLL_E_RANGE (a number is not finite, or an iteration did not converge).
 */
#ifndef UNROLL_DIAGNOSE_H
#define UNROLL_DIAGNOSE_H
#include <unroll/network.h>
#include <unroll/runtime.h>
#ifdef __cplusplus
extern "C" {
#endif

/* ---- matrices: row-major, of at most 16384 rows ---- */

/* real and imaginary [n]: the eigenvalues of a [n,n], the largest magnitude first, conjugates one after the other, the
 * one with the positive imaginary part first. [any] */
UNROLL_API unroll_status unroll_eigenvalues(const double *a, int64_t n, double *real, double *imaginary,
                                            unroll_error *err);
/*
 * The largest magnitude of an eigenvalue of a [n,n]. From 512 rows on by Arnoldi's iteration of a and of its transposed,
 * where they agree and by the condition there are at most 1e-8 of it away; else, and without ARPACK, by all eigenvalues, which
 * take a few n³. [any]
 */
UNROLL_API unroll_status unroll_spectral_radius(const double *a, int64_t n, double *radius, unroll_error *err);
/* values [min(m,n)]: the singular values of a [m,n], the largest first. The first is the largest factor by which a
 * stretches a vector. [any] */
UNROLL_API unroll_status unroll_singular_values(const double *a, int64_t m, int64_t n, double *values,
                                                unroll_error *err);
/*
 * How far a [n,n] is from a normal matrix: sqrt(‖a‖_F² - Σ|λ|²) (Henrici 1962), 0 of a normal one. Where it is large, powers
 * of a grow before they follow the spectral radius. real and imaginary [n] are unroll_eigenvalues'. [any]
 */
UNROLL_API unroll_status unroll_departure_from_normality(const double *a, int64_t n, const double *real,
                                                         const double *imaginary, double *departure, unroll_error *err);
/* The first of them alone, ‖a‖₂: of large matrices within 1e-10 by Lanczos's iteration, where that converges. [any] */
UNROLL_API unroll_status unroll_spectral_norm(const double *a, int64_t m, int64_t n, double *norm, unroll_error *err);

/* ---- the largest ones of large matrices and of operators, by products with vectors ---- */

/* y [rows] = A·x, x [columns]; transposed not 0: y [columns] = Aᵀ·x, x [rows]. Not UNROLL_OK ends what called it, with that
 * status. A product does not ask for eigenvalues itself. */
typedef unroll_status (*unroll_product_fn)(void *ctx, int32_t transposed, const double *x, double *y,
                                           unroll_error *err);
typedef struct unroll_operator {
  uint32_t struct_size, reserved;
  int64_t rows, columns; /* from 1 to 2^28 */
  const double *matrix;  /* [rows,columns], row-major, whose products are BLAS's; or NULL: */
  unroll_product_fn product;
  void *ctx;
} unroll_operator;
typedef struct unroll_iteration_options { /* zero: as said */
  uint32_t struct_size;
  int32_t conditions; /* of eigenvalues, not 0: their condition too, by a search with products of the transposed */
  int64_t basis;      /* vectors that are kept, of `columns` numbers each; 0: 2k + 20, of singular values 400 at most */
  int64_t restarts;   /* of Arnoldi's iteration, at most, each of up to basis - k products; 0: 300 */
  double tolerance;   /* relative, of a residual or of a singular value; 0: 1e-10 */
  uint64_t seed;      /* of the first vector */
} unroll_iteration_options;
typedef struct unroll_iteration_info { /* written also where not all converged */
  uint32_t struct_size, reserved;
  int64_t products, converged;
} unroll_iteration_info;
typedef struct unroll_leading_eigenvalue {
  double real, imaginary;
  double residual; /* ‖A·x - λ·x‖ of a unit x: λ is an eigenvalue of a matrix that is that far from A in norm */
  /* 1/|yᴴx| of the unit right and left vectors: λ is off by residual·condition, to the first order (Golub & Van Loan 2013,
   * ch. 7.2.2); 1 of normal matrices. INFINITY: the transposed did not show λ within 1%. NaN: not asked for. */
  double condition;
} unroll_leading_eigenvalue;
/*
 * found [k]: the k eigenvalues of the largest magnitude of a square A, in unroll_eigenvalues' order, so that the last
 * one may be without its conjugate; by ARPACK's implicitly restarted Arnoldi iteration (Lehoucq, Sorensen & Yang 1998).
 *   k     from 1 to rows - 2
 *   info  or NULL
 * One has converged where its residual, measured by a product more, is at most tolerance·|λ|, or what rounding leaves of one,
 * 6e-14 of the largest ‖A·x‖ that was met. UNROLL_E_RANGE: not all have converged, the message says how many did, or a product
 * is not finite, or with `conditions` the transposed has a larger one. Magnitudes that are all alike, as an orthogonal
 * matrix has them, do not converge; a small residual says little of matrices far from normal, as a shift is: ask for the
 * condition. Of an eigenvalue that is there several times fewer may be found. [any]
 */
UNROLL_API unroll_status unroll_leading_eigenvalues(const unroll_operator *a, int64_t k,
                                                    const unroll_iteration_options *options,
                                                    unroll_leading_eigenvalue *found, unroll_iteration_info *info,
                                                    unroll_error *err);
/*
 * The largest singular value of A, the largest factor by which it stretches a vector, by Lanczos's iteration of AᵀA; without
 * ARPACK, and without its lock.
 *   error  or NULL: what bounds its relative error, at most the tolerance
 * UNROLL_E_RANGE: it did not converge with as many vectors, or a product is not finite. [any]
 */
UNROLL_API unroll_status unroll_largest_singular_value(const unroll_operator *a,
                                                       const unroll_iteration_options *options, double *value,
                                                       double *error, unroll_iteration_info *info, unroll_error *err);

/* ---- maps ---- */

/*
 * A map of n numbers to n, h_t = F(t, h_{t-1}), as a network's step is one of its states. next [n]; jacobian, where not
 * NULL, [n,n]: ∂next_i/∂state_j at [i,j]. Not UNROLL_OK ends what called it, with that status. Arrays do not overlap.
 */
typedef unroll_status (*unroll_map_fn)(void *ctx, int64_t t, const double *state, double *next, double *jacobian,
                                       unroll_error *err);
typedef struct unroll_map unroll_map; /* its functions are [obj] */

/* n from 1 to 16384; ctx is the caller's and outlives the map. */
UNROLL_API unroll_status unroll_map_create(int64_t n, unroll_map_fn step, void *ctx, const unroll_allocator *allocator,
                                           unroll_map **map, unroll_error *err);
UNROLL_API void unroll_map_destroy(unroll_map *map);        /* NULL does nothing */
UNROLL_API int64_t unroll_map_count(const unroll_map *map); /* n; of NULL 0 */
/* One step; jacobian may be NULL. UNROLL_E_RANGE: what comes out is not finite. */
UNROLL_API unroll_status unroll_map_step(const unroll_map *map, int64_t t, const double *state, double *next,
                                         double *jacobian, unroll_error *err);

/*
 * The map of one layer's state in one direction (1: reverse), h [P], of an lstm of either kind h and c [P+H]: of any cell
 * and option that unroll_rnn has, as for inference, by a graph of one step, with the Jacobian by its tangents
 * (unroll_jvp), in f64.
 *   x          [steps,I], what this layer reads, in the order in which the map goes; the input of step t is that of t
 *              modulo steps. With 1 step it is constant, which fixed points are of. NULL: zeros, and W_x isn't needed
 *   device     NULL: the cpu reference, in a context of its own. It outlives the map.
 *   allocator  copied; NULL: malloc
 * x and the weights are copied. UNROLL_E_INVALID: a weight is missing or of another size (it is named);
 * UNROLL_E_RANGE: no such layer or direction, a state of more than 16384 numbers, a weight or x that is not finite; else
 * as building and compiling the graph have it.
 */
UNROLL_API unroll_status unroll_map_of_layer(const unroll_network *network, int32_t layer, int32_t direction,
                                             const double *x, int64_t steps, unroll_device *device,
                                             const unroll_allocator *allocator, unroll_map **map, unroll_error *err);

/* ---- fixed points ---- */

typedef struct unroll_fixed_point {
  double speed;     /* q = ‖F(h) - h‖²/2 (Sussillo & Barak 2013): 0 at a fixed point, small at a slow one */
  double radius;    /* the largest magnitude of an eigenvalue of the Jacobian there: stable below 1 */
  int64_t unstable; /* eigenvalues of magnitude above 1: 0 stable, all a source, else a saddle */
  int64_t starts;   /* that ended here */
} unroll_fixed_point;
typedef struct unroll_fixed_point_options { /* zero: as said */
  uint32_t struct_size;
  int32_t reserved;
  int64_t iterations; /* of each start; 0: 200 */
  double speed;       /* a point counts where q is at most this; 0: 1e-20. Larger values find slow points. */
  double distance;    /* points nearer than that, in the largest difference of a unit, are one; 0: 1e-6 */
  int (*cancel)(
      void *ctx); /* NULL, or asked before every step: not 0 ends it with UNROLL_E_CANCELLED, and what was found
                               until then stands */
  void *ctx;
} unroll_fixed_point_options;
/*
 * Fixed points h* = F(h*), by Levenberg and Marquardt's minimisation of q from each of `starts` [n_starts,n], visited
 * states with noise, say. F is that of t = 0. They are written in the order in which they are found.
 *   points  [n_starts,n] and found [n_starts] have room for one a start
 *   n_found how many there are; starts that led nowhere, or to infinity, are in none
 */
UNROLL_API unroll_status unroll_fixed_points(const unroll_map *map, const double *starts, int64_t n_starts,
                                             const unroll_fixed_point_options *options, double *points,
                                             unroll_fixed_point *found, int64_t *n_found, unroll_error *err);

/* ---- Lyapunov exponents ---- */

typedef struct unroll_lyapunov_options {
  uint32_t struct_size;
  int32_t reserved;
  int64_t count;     /* exponents, the largest first; 0: all n */
  int64_t transient; /* steps before the state is taken to be on the attractor; a tenth more, at least 10, turns the
                        directions before anything is counted */
  int64_t steps;     /* that are counted, at least 1 */
  int64_t every;     /* steps between two decompositions; 0: 1 */
  uint64_t seed;     /* of the first directions */
  int (*cancel)(void *ctx); /* NULL, or asked before every step: not 0 ends it with UNROLL_E_CANCELLED */
  void *ctx;
} unroll_lyapunov_options;
typedef struct unroll_lyapunov_info {
  uint32_t struct_size, reserved;
  double entropy; /* the sum of the positive ones, nats a step (Pesin): an upper bound of the entropy rate */
  double
      dimension; /* Kaplan and Yorke's: k + (λ_1 + .. + λ_k)/|λ_{k+1}|, k the last with a sum of at least 0; NaN where
                       more exponents than `count` would be needed */
  double sum;    /* of all `count` */
  double condition; /* the worst ratio of a decomposition's diagonal: past 1e12 choose a smaller `every` */
} unroll_lyapunov_info;
/*
 * The exponents of the trajectory from `state` [n], nats a step: λ_i the mean of ln|R_ii|, Q_{t+1} R_{t+1} = J_t Q_t
 * (Benettin et al. 1980; of recurrent networks Engelken, Wolf & Abbott 2023). A map of one contraction has all of them
 * below 0; where the largest is above 0, what is near comes apart exponentially.
 *   exponents [count]; errors [count] or NULL: standard errors by 20 batch means, NaN with fewer decompositions
 *   state     becomes that of the last step
 * -INFINITY: a direction is lost altogether. UNROLL_E_RANGE: the trajectory goes to infinity; the message says at which step.
 */
UNROLL_API unroll_status unroll_lyapunov(const unroll_map *map, double *state, const unroll_lyapunov_options *options,
                                         double *exponents, double *errors, unroll_lyapunov_info *info,
                                         unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
