"""Independent draws of Gaussian models with normal or flat priors, the variance included.

With w the square roots of the weights, Z the features without a prior (the intercept among them) and A those with one,
divided by the square root of its precision, so that their coefficients v are standard normal:

    w y ~ Normal(Z g + A v, phi).

Z is projected out; after the singular value decomposition of the rest of A everything is diagonal. Then phi has a
density that is known but for its constant, in one dimension, and given phi all coefficients are normal.
"""

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Conjugate", "draw_conjugate"]

# Points of the grid of log(phi), and how far below its top the log density is still followed.
GRID, DEPTH = 2001, 45.0
# Singular values from a Gram matrix are off by the square root of this share of the largest, at most.
SAFE_SHARE = 1e-9


class Conjugate(NamedTuple):
    """A Gaussian model of one output, arrays in double precision."""

    X: Any  # (n, p)
    y: Any  # (n,) less the offset
    weight: Any  # (n,)
    precision: Any  # (p,) of the normal priors, 0 is flat; times the variance if `follows`
    intercept_prior: Any  # None (flat), or mean and standard deviation
    follows: bool  # whether the prior variances are multiples of the variance phi
    scale: float  # the variance: fixed, or a first guess
    log_prior: Any  # log density of log(phi), a function of an array of phi; None if phi is fixed
    fit_intercept: bool = True


def draw_conjugate(model, num_draws, rng):
    """Draw from the posterior.

    Returns
    -------
    coef : (S, p)
    intercept : (S,)
    scale : (S,)
    log_prob : (S,)
        Log posterior density of (coef, intercept, log(scale)), up to a constant.
    """
    root = np.sqrt(model.weight)
    normal = model.precision > 0
    shift, columns, precision = 0.0, [model.X[:, normal]], model.precision[normal]
    flat = [model.X[:, ~normal]]
    one = np.ones((len(model.X), 1))
    if model.intercept_prior is None:
        flat = [one] * model.fit_intercept + flat
    else:
        shift, sd = model.intercept_prior
        columns.insert(0, one)
        precision = np.append(sd**-2.0, precision)
    Z = root[:, None] * np.concatenate(flat, axis=1)
    A = root[:, None] * np.concatenate(columns, axis=1) / np.sqrt(precision)
    y = root * (model.y - shift)
    Q, R = np.linalg.qr(Z)
    inner, y_inner = Q.T @ A, Q.T @ y
    A -= Q @ inner
    singular, V, hits = _spectrum(A, y - Q @ y_inner, model.scale)
    rest = max(float((y - Q @ y_inner) @ (y - Q @ y_inner) - hits @ hits), 0.0)
    scale = np.full(num_draws, model.scale)
    if model.log_prior is not None:
        n_rest = model.weight.sum() - Z.shape[1] - len(singular)
        scale = _draw_scale(singular, hits, rest, n_rest, model, num_draws, rng)
    unit = np.ones_like(scale) if model.follows else scale
    spread = 1 / (singular**2 + unit[:, None])
    turned = hits * singular * spread + np.sqrt(scale[:, None] * spread) * rng.standard_normal(spread.shape)
    v = turned @ V.T
    if V.shape[1] < V.shape[0]:
        free = rng.standard_normal((num_draws, len(V))) * np.sqrt(scale / unit)[:, None]
        v += free - (free @ V) @ V.T
    noise = np.sqrt(scale[:, None]) * rng.standard_normal((num_draws, Z.shape[1]))
    outer = np.linalg.solve(R, (y_inner - v @ inner.T + noise).T).T if Z.shape[1] else noise
    squares = rest + ((hits - turned * singular) ** 2).sum(1) + (noise**2).sum(1)
    log_prob = -0.5 * squares / scale - 0.5 * (v**2).sum(1) * unit / scale
    if model.log_prior is not None:
        counts = model.weight.sum() + len(precision) * model.follows
        log_prob += model.log_prior(scale) - 0.5 * counts * np.log(scale)
    v /= np.sqrt(precision)
    has_prior = int(model.intercept_prior is not None)
    is_flat = int(model.fit_intercept) - has_prior
    coef = np.empty((num_draws, len(normal)))
    coef[:, normal], coef[:, ~normal] = v[:, has_prior:], outer[:, is_flat:]
    intercept = v[:, 0] if has_prior else outer[:, 0] if is_flat else np.zeros(num_draws)
    return coef, shift + intercept, scale, log_prob


def _spectrum(A, y, scale):
    """Singular values of A, its right singular vectors (p, r), and the products of the left ones with y."""
    gram = A.T @ A if A.shape[1] <= A.shape[0] else None
    if gram is not None:
        square, V = np.linalg.eigh(gram)
        singular = np.sqrt(np.maximum(square, 0.0))
        if np.finfo(float).eps * square.max(initial=0.0) < SAFE_SHARE * scale:
            product = V.T @ (A.T @ y)
            return singular, V, product / np.where(singular > 0, singular, 1.0)
    U, singular, Vt = np.linalg.svd(A, full_matrices=False)
    return singular, Vt.T, U.T @ y


def _draw_scale(singular, hits, rest, n_rest, model, num_draws, rng):
    """Draw phi from its marginal posterior, whose log density is tabulated over log(phi)."""

    def log_density(log_scale):
        scale = np.exp(log_scale)[:, None]
        variance = scale * (1 + singular**2) if model.follows else scale + singular**2
        quadratic = 0.5 * (np.log(variance) + hits**2 / variance).sum(1)
        return -quadratic - 0.5 * (n_rest * log_scale + rest / scale[:, 0]) + model.log_prior(scale[:, 0])

    grid = np.log(model.scale) + np.linspace(-25.0, 25.0, 501)
    for points in (501, GRID):
        values = log_density(grid)
        kept = grid[values > values.max() - DEPTH]
        step = grid[1] - grid[0]
        grid = np.linspace(kept[0] - step, kept[-1] + step, points)
    values = log_density(grid)
    density = np.exp(values - values.max())
    cumulative = np.append(0.0, np.cumsum((density[1:] + density[:-1]) / 2))
    return np.exp(np.interp(rng.random(num_draws) * cumulative[-1], cumulative, grid))
