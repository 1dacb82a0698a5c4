# SPDX-License-Identifier: Apache-2.0
"""Makes the golden files of time series: state-space models with PyTorch, filters and autoregression with statsmodels.

Usage: make_series.py [DIR]     writes *.safetensors into DIR, by default this folder
"""

import sys
from pathlib import Path

import numpy as np
import torch
from make import random_source, write
from statsmodels.tsa.ar_model import AutoReg
from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

DATA = Path(__file__).parent.parent / "data"


def t(array):
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float64).reshape(np.shape(array) or (1,))


# ---- graphs ----


def dense(p, lengths, backward):
    """x_t = A_t x_{t-1} + B u_t + w_t, y_t = C_t x_t + D u_t + v_t as a loop; A and C may have T, or T and S, in front."""
    T, S, _ = p["u"].shape
    x, xs, ys = p["x0"], [None] * T, [None] * T
    for i in reversed(range(T)) if backward else range(T):
        valid = (i < lengths)[:, None]
        A, C = (m if m.dim() == 2 else m[i] for m in (p["A"], p["C"]))
        new = (A @ x[..., None])[..., 0] + p["u"][i] @ p["B"].T + p["w"][i]
        y = (C @ new[..., None])[..., 0] + p["u"][i] @ p["D"].T + p["v"][i]
        xs[i], ys[i] = torch.where(valid, new, 0 * new), torch.where(valid, y, 0 * y)
        x = torch.where(valid, new, x)
    return {"y": torch.stack(ys), "x": torch.stack(xs), "x_last": x}


def diagonal(p, lengths, backward, method):
    if method == "bilinear":
        half = p["dt"][:, None] * p["A"] / 2
        a, b = (1 + half) / (1 - half), p["dt"][:, None] / (1 - half) * p["B"]
    else:
        a, b = torch.exp(p["dt"][:, None] * p["A"]), torch.expm1(p["dt"][:, None] * p["A"]) / p["A"] * p["B"]
    T = len(p["u"])
    x, xs = p["x0"], [None] * T
    for i in reversed(range(T)) if backward else range(T):
        valid = (i < lengths)[:, None, None]
        new = a * x + b * p["u"][i][..., None]
        xs[i] = torch.where(valid, new, 0 * new)
        x = torch.where(valid, new, x)
    xs = torch.stack(xs)
    mask = (torch.arange(T)[:, None] < lengths)[..., None]
    return {"y": (p["c"] * xs).sum(-1) + p["d"] * p["u"] * mask, "x": xs, "x_last": x, "a": a, "b": b}


def graph_case(folder, name, values, lengths, run, randn):
    lengths = torch.tensor(lengths, dtype=torch.int32)
    p = {key: value.clone().requires_grad_() for key, value in values.items()}
    results = run(p, lengths)
    upstream = {f"d{key}": randn(*r.shape) for key, r in results.items()}
    loss = sum((r * upstream[f"d{key}"]).sum() for key, r in results.items())
    gradients = {f"grad.{key}": g for key, g in zip(p, torch.autograd.grad(loss, list(p.values())))}
    write(folder, name, {**values, "lengths": lengths, **results, **upstream, **gradients})


def graphs(folder):
    T, S, N, M, P = 6, 3, 4, 2, 3
    for form, front in (("fixed", ()), ("step", (T,)), ("sequence", (T, S))):
        for backward in (False, True):
            name = f"ssm_{form}_{'reverse' if backward else 'forward'}"
            randn = random_source(name)
            values = {
                "u": randn(T, S, M), "w": randn(T, S, N), "v": randn(T, S, P), "x0": randn(S, N),
                "A": randn(*front, N, N, scale=0.4), "B": randn(N, M), "C": randn(*front, P, N), "D": randn(P, M),
            }  # fmt: skip
            graph_case(folder, name, values, [4, 0, 6], lambda p, l: dense(p, l, backward), randn)
    for method in ("hold", "bilinear"):
        for backward in (False, True):
            name = f"ssm_{method}_{'reverse' if backward else 'forward'}"
            randn = random_source(name)
            values = {
                "u": randn(T, S, M), "x0": randn(S, M, N), "A": -torch.exp(randn(M, N)), "B": randn(M, N),
                "dt": torch.exp(randn(M)) * 0.3, "c": randn(M, N), "d": randn(M),
            }  # fmt: skip
            graph_case(folder, name, values, [4, 0, 6], lambda p, l: diagonal(p, l, backward, method), randn)


# ---- filters ----


def covariance(randn, k, rank=None):
    root = randn(k, rank or k).numpy()
    return root @ root.T


def kalman_case(folder, name, F, H, Q, R, mean0, cov0, y):
    """Each of F, H, Q, R with T in front. statsmodels goes from x_t to x_{t+1} with its matrices of t."""
    T, m, n = len(y), H.shape[1], H.shape[2]
    s = KalmanSmoother(k_endog=m, k_states=n)
    s.bind(np.asfortranarray(y.T))
    s["design"] = np.ascontiguousarray(np.moveaxis(H, 0, -1))
    s["obs_cov"] = np.ascontiguousarray(np.moveaxis(R, 0, -1))
    later = lambda a: np.ascontiguousarray(np.moveaxis(np.concatenate([a[1:], a[-1:]]), 0, -1))
    s["transition"], s["state_cov"], s["selection"] = later(F), later(Q), np.eye(n)
    s.initialize_known(F[0] @ mean0, F[0] @ cov0 @ F[0].T + Q[0])
    r = s.smooth()
    steps = lambda a: t(np.moveaxis(a, -1, 0))
    predicted = np.moveaxis(r.predicted_state_cov, -1, 0)[:T]
    write(folder, name, {
        "F": t(F), "H": t(H), "Q": t(Q), "R": t(R), "mean0": t(mean0), "cov0": t(cov0),
        "missing": torch.tensor(np.isnan(y).astype(np.int32)), "y": t(np.nan_to_num(y)),
        "predicted_mean": steps(r.predicted_state)[:T], "predicted_cov": t(predicted),
        "mean": steps(r.filtered_state), "cov": steps(r.filtered_state_cov),
        "innovation": t(np.nan_to_num(r.forecasts_error.T * np.where(np.isnan(y), 0, 1))),
        "innovation_cov": t(H @ predicted @ H.transpose(0, 2, 1) + R),
        "step_log_likelihood": t(r.llf_obs), "log_likelihood": t(r.llf),
        "smoothed_mean": steps(r.smoothed_state), "smoothed_cov": steps(r.smoothed_state_cov),
    })  # fmt: skip


def filters(folder):
    T, n, m = 12, 3, 2
    randn = random_source("kalman_varying")
    y = randn(T, m).numpy() * 2
    y[[2, 5, 6, 9, 9], [0, 0, 1, 0, 1]] = np.nan  # part of a step, and one whole
    many = lambda make: np.stack([make() for _ in range(T)])
    kalman_case(
        folder, "kalman_varying", randn(T, n, n).numpy() * 0.6, randn(T, m, n).numpy(), many(lambda: covariance(randn, n)),
        many(lambda: covariance(randn, m)), randn(n).numpy(), covariance(randn, n), y,
    )  # fmt: skip
    randn = random_source("kalman_trend")  # a local level with a slope that has no noise: Q and cov0 are singular
    same = lambda a: np.repeat(np.array(a, dtype=float)[None], T, axis=0)
    y = np.cumsum(randn(T, 1).numpy(), axis=0) + np.arange(T)[:, None]
    y[[0, 7], 0] = np.nan
    kalman_case(
        folder, "kalman_trend", same([[1, 1], [0, 1]]), same([[1, 0]]), same([[0.7, 0], [0, 0]]), same([[0.3]]),
        np.array([0.5, 1.0]), np.array([[2.0, 0], [0, 0]]), y,
    )  # fmt: skip


# ---- autoregression ----


def scores(error):
    return [np.sqrt((error**2).mean()), np.abs(error).mean()]


def one_step(y, phi, c, start):
    p = len(phi)
    return np.array([c + phi @ y[i - p : i][::-1] for i in range(start, len(y))])


def autoregression(folder):
    year, y = np.loadtxt(DATA / "sunspots.csv", delimiter=",", skiprows=1).T
    n, spans = int((year <= 1920).sum()), ((1921, 1955), (1956, 1979), (1921, 2008))
    out = {}
    for p in (2, 9):
        fit = AutoReg(y[:n], p, trend="c").fit()
        forecast = one_step(y, fit.params[1:], fit.params[0], n)
        out[f"ar{p}.c"], out[f"ar{p}.phi"] = t(fit.params[0]), t(fit.params[1:])
        out[f"ar{p}.variance"] = t((fit.resid**2).sum() / (n - 2 * p - 1))
        out[f"ar{p}.ahead"] = t(fit.forecast(12))
        pick = lambda a, b: forecast[(year[n:] >= a) & (year[n:] <= b)] - y[(year >= a) & (year <= b)]
        out[f"ar{p}.scores"] = t([scores(pick(*span)) for span in spans])
    co2 = np.genfromtxt(DATA / "co2.csv", delimiter=",", skip_header=1, usecols=1)
    hole = np.isnan(co2)
    co2[hole] = np.interp(np.flatnonzero(hole), np.flatnonzero(~hole), co2[~hole])
    n, p = len(co2) - 120, 13
    fit = AutoReg(np.diff(co2[:n]), p, trend="c").fit()
    d = one_step(np.diff(co2), fit.params[1:], fit.params[0], n - 1)
    out["co2"] = t(co2)
    out["co2.ar13.c"], out["co2.ar13.phi"] = t(fit.params[0]), t(fit.params[1:])
    out["co2.ar13.scores"] = t(scores(co2[n - 1 : -1] + d - co2[n:]))
    out["co2.ar13.ahead"] = t(co2[n - 1] + np.cumsum(fit.forecast(24)))
    write(folder, "autoregression", out)


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for make in (graphs, filters, autoregression):
        make(folder)


if __name__ == "__main__":
    main()
