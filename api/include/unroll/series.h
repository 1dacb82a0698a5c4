/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/series.h: time series on the host, in double: the Kalman filter and smoother, autoregression by least squares,
 * the baselines that a forecast is held against, and the backtest that holds it.
 *
 *     double phi[9];
 *     unroll_ar ar = {.p = 9, .constant = 1, .phi = phi};
 *     unroll_ar_fit(y, 221, &ar, NULL, &err);
 *     unroll_score score;
 *     unroll_backtest(unroll_ar_forecast, &ar, y, 309, 221, 1, NULL, NULL, &score, &err);
 *
 * Arrays are the caller's, dense and row-major; memory comes from the allocator given (NULL: malloc) and is freed before
 * the call returns. Models as graphs, with gradients, stand in ssm.h. All functions are [any].
 */
#ifndef UNROLL_SERIES_H
#define UNROLL_SERIES_H
#include <unroll/base.h>
#ifdef __cplusplus
extern "C" {
#endif

/* ---- linear state-space models with normal noise ---- */
/*
 *     x_t = F_t x_{t-1} + w_t     w_t ~ N(0, Q_t)     state [n]
 *     y_t = H_t x_t + v_t         v_t ~ N(0, R_t)     observation [m]
 *
 * for t = 1 to T, with x_0 ~ N(mean0, cov0); w, v and x_0 are independent. (Kalman 1960; Durbin & Koopman 2012, chapter
 * 4, whose a_1 and P_1 are F_1·mean0 and F_1·cov0·F_1ᵀ + Q_1.)
 */
enum { UNROLL_VARYING_F = 1, UNROLL_VARYING_H = 2, UNROLL_VARYING_Q = 4, UNROLL_VARYING_R = 8 };
typedef struct unroll_kalman_model {
  uint32_t struct_size;
  uint32_t varying; /* UNROLL_VARYING_*: of which matrices there are T, one a step; of the others there is one */
  int64_t n, m;     /* at least 1 each */
  const double *F, *H, *Q, *R; /* [n,n], [m,n], [n,n], [m,m], each [T,..] where it varies; Q, R symmetric */
  const double *mean0, *cov0;  /* [n], [n,n]; NULL: zeros */
} unroll_kalman_model;

/* Each array may be NULL: it is not asked for. */
typedef struct unroll_kalman_result {
  uint32_t struct_size;
  uint32_t reserved;
  double *predicted_mean, *predicted_cov; /* [T,n], [T,n,n]: of x_t given y_1 to y_{t-1} */
  double *mean, *cov;                     /* [T,n], [T,n,n]: of x_t given y_1 to y_t */
  double *innovation, *innovation_cov; /* [T,m], [T,m,m]: y_t - H_t·predicted mean, NaN where y_t is; H P Hᵀ + R */
  double *step_log_likelihood;         /* [T]: ln p(y_t | y_1 to y_{t-1}), 0 where nothing is observed */
  double log_likelihood;               /* written: their sum */
  int64_t observed;                    /* written: how many numbers of y are not NaN */
} unroll_kalman_result;

/*
 * The Kalman filter. y [T,m]; a NaN is a missing observation: its row of H_t, v_t is left out (Durbin & Koopman 2012, 4.10),
 * and a step without any is a prediction alone. The innovation's covariance is factorised by Cholesky; the update of the
 * covariance has Joseph's form (I-KH)P(I-KH)ᵀ + KRKᵀ, which stays symmetric and positive.
 *   UNROLL_E_INVALID  something is NULL, struct_size too small, unknown bits in varying
 *   UNROLL_E_SHAPE    n, m or T below 1, or more memory than there is
 *   UNROLL_E_RANGE    an infinity in y; a number of the model that is not finite, Q, R or cov0 not symmetric (to 1e-9 of
 *                     its largest) or negative on the diagonal; H P Hᵀ + R not positive definite: at which step
 *   UNROLL_E_MEMORY
 */
UNROLL_API unroll_status unroll_kalman_filter(const unroll_kalman_model *model, const double *y, int64_t T,
                                              const unroll_allocator *allocator, unroll_kalman_result *result,
                                              unroll_error *err);
/*
 * The smoother: mean [T,n] and covariance [T,n,n] (may be NULL) of x_t given all of y. Fixed-interval, in the form that
 * inverts no covariance of states (de Jong 1989; Durbin & Koopman 2012, 4.4), so that a singular Q is fine. Errors as above.
 */
UNROLL_API unroll_status unroll_kalman_smoother(const unroll_kalman_model *model, const double *y, int64_t T,
                                                const unroll_allocator *allocator, double *mean, double *cov,
                                                unroll_error *err);

/* ---- forecasts ---- */
/* Forecasts of the h values after y [n] into out [h]; ctx is what the kind of forecast wants. */
typedef unroll_status (*unroll_forecast)(const void *ctx, const double *y, int64_t n, int64_t h, double *out,
                                         unroll_error *err);

/*
 * y_t = c + Σ_{i=1..p} phi_i y_{t-i} + e_t (Yule 1927), or, with differences 1, the same of y_t - y_{t-1}.
 */
typedef struct unroll_ar {
  int64_t p;           /* order, at least 1 */
  int32_t differences; /* 0 or 1 */
  int32_t constant;    /* not 0: c is fitted, else 0 */
  double *phi;         /* [p], the caller's */
  double c;            /* written by the fit, as are those below */
  double variance;  /* of e: the residuals' sum of squares over equations less coefficients; NaN where none is left */
  double condition; /* of the equations, columns scaled to norm 1: ‖R‖·‖R⁻¹‖ in Frobenius' norm */
} unroll_ar;
/*
 * Conditional least squares over t = p+1 to n (less one with differences) by Householder's QR. UNROLL_E_RANGE: p below 1
 * or differences not 0 or 1; fewer values than it takes, the message says how many; a y that is not finite; a condition
 * past 1e12 (a constant series, say). UNROLL_E_MEMORY, UNROLL_E_INVALID.
 */
UNROLL_API unroll_status unroll_ar_fit(const double *y, int64_t n, unroll_ar *model, const unroll_allocator *allocator,
                                       unroll_error *err);
/* An unroll_forecast; ctx: a fitted const unroll_ar *. Each step takes those before it as values. UNROLL_E_RANGE: n too small. */
UNROLL_API unroll_status unroll_ar_forecast(const void *ctx, const double *y, int64_t n, int64_t h, double *out,
                                            unroll_error *err);

enum {
  UNROLL_BASELINE_NAIVE = 0,         /* the last value: ŷ_{n+k} = y_n */
  UNROLL_BASELINE_SEASONAL = 1,      /* the same season's last value: ŷ_{n+k} = y_{n+k-s⌈k/s⌉} */
  UNROLL_BASELINE_SEASONAL_DRIFT = 2 /* and a season's last change on top: ŷ_{n+k} = ŷ_{n+k-s} + y_n - y_{n-s} */
};
typedef struct unroll_baseline {
  int32_t kind;   /* UNROLL_BASELINE_* */
  int64_t season; /* s, at least 1; not looked at by the first */
} unroll_baseline;
/* An unroll_forecast; ctx: a const unroll_baseline *. UNROLL_E_RANGE: n below 1, s or s + 1; UNROLL_E_INVALID. */
UNROLL_API unroll_status unroll_baseline_forecast(const void *ctx, const double *y, int64_t n, int64_t h, double *out,
                                                  unroll_error *err);

/* ---- how good they are ---- */
typedef struct unroll_score {
  double rmse, mae; /* root of the mean square error, mean absolute error; NaN for none */
  int64_t n;
} unroll_score;
UNROLL_API unroll_score unroll_score_of(const double *forecast, const double *actual, int64_t n);

/*
 * For every t from `first` to n-h a forecast from y[0] to y[t-1] alone of y[t+h-1], h steps ahead. out [n-first-h+1], which
 * may be NULL, gets them in this order; *score what they score. The model is not fitted again. UNROLL_E_RANGE: first or h
 * below 1, or past n; and what the forecast gives. A forecast that is not finite: UNROLL_E_RANGE, at which t.
 */
UNROLL_API unroll_status unroll_backtest(unroll_forecast forecast, const void *ctx, const double *y, int64_t n,
                                         int64_t first, int64_t h, double *out, const unroll_allocator *allocator,
                                         unroll_score *score, unroll_error *err);

/*
 * Windows for a neural autoregression (unroll_neural_ar in ssm.h): for each of B places, p <= at[b] < n, the p values
 * before it, the oldest first, in x [p,B,1], and y[at[b]] in target [B], both f32 or f64. UNROLL_E_RANGE: a place outside;
 * UNROLL_E_DTYPE; UNROLL_E_INVALID.
 */
UNROLL_API unroll_status unroll_windows_fill(const double *y, int64_t n, int64_t p, const int64_t *at, int64_t B,
                                             int32_t dtype, void *x, void *target, unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
