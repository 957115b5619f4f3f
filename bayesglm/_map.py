"""The penalized reading: the mode, its effective degrees of freedom, and the dispersion there."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayesglm._smooth import minimize_smooth
from bayesglm._solver import centered, expand, minimize, profiled_gram, support, trace_of_hat

__all__ = ["Mode", "find_modes", "find_smooth_modes", "likeliest_scale"]


class Mode(NamedTuple):
    """Penalized fit of a batch of B problems with m outputs."""

    coef: Any  # (B, p, m)
    intercept: Any  # (B, m)
    residual: Any  # (B,)
    n_iter: Any  # (B,)
    converged: Any  # (B,)
    overflow: Any  # (B,) whether the working set was too small
    pivot: Any  # (B,) near 0 where coefficients are not determined
    edf: Any  # (B, m) effective degrees of freedom, the intercept included
    pearson: Any  # (B, m) Pearson chi-square statistic


@partial(jax.jit, static_argnames=("family", "link", "prior", "width"))
def find_modes(X, weight, y, offset, strength, free, scale, start, tol, max_iter, *, family, link, prior, width):
    """Penalized fits of a batch of problems.

    Parameters
    ----------
    X : (n, p)
    weight : (n,)
    y, offset : (B, n, m)
    strength : pytree with leaves (B, ...)
    free : (B, p, m) bool
        Coefficients that are not held at zero.
    scale : (B,)
        The family's second parameter, where it shapes the mean's fit.
    start : pair of (B, p, m) and (B, m)
        Coefficients and intercepts to start from; an intercept of NaN starts from the mean of y.
    tol, max_iter : numbers
        As for `minimize`, like `width`.
    family, prior : type
        Of `bayesglm.observation_models` and `bayesglm.priors`.
    link : Link

    Returns
    -------
    Mode
    """
    total = jnp.sum(weight)
    share = weight / total
    X, feature_mean, square = centered(X, share)

    def solve(y, offset, strength, free, scale, start):
        loss = partial(family.nll, link=link, scale=scale)
        intercept = start_of_intercept(y, offset, share, link)
        start = start[0], jnp.where(jnp.isnan(start[1]), intercept, start[1] + feature_mean @ start[0])
        solution = minimize(
            X, square, y, share, offset, strength, free, start,
            loss=loss, mean=link.inverse, prior=prior, tol=tol, max_iter=max_iter, width=width,
        )  # fmt: skip
        coef = solution.coef
        eta = offset + solution.intercept + X @ coef
        curvature = expand(loss, link.inverse, y, eta)[2]
        rows = jax.lax.top_k(jnp.any(support(coef, strength, free, prior), 1), width)[1]
        gram, _, _ = profiled_gram(X[:, rows], share[:, None] * curvature, free[rows])
        trace, pivot = trace_of_hat(gram, coef[rows], prior.rows(strength, rows), free[rows], prior)
        mean = link.inverse(eta)
        return Mode(
            coef,
            solution.intercept - feature_mean @ coef,
            solution.residual,
            solution.n_iter,
            solution.converged,
            solution.overflow,
            pivot,
            1 + trace,
            jnp.sum(weight[:, None] * (y - mean) ** 2 / family.unit_variance(mean, scale), 0),
        )

    return jax.vmap(solve)(y, offset, strength, free, scale, start)


@partial(jax.jit, static_argnames=("family", "link", "dual", "exact_trace"))
def find_smooth_modes(
    X, weight, y, offset, strength, free, scale, start, tol, max_iter, *, family, link, dual, exact_trace
):
    """Penalized fits of a batch of problems of one output each, under a smooth penalty.

    Parameters are those of `find_modes`, and two more.

    Parameters
    ----------
    dual : bool
        Whether to factorize a matrix of the samples rather than of the features; every coefficient that is free needs
        a strength above 0 then.
    exact_trace : bool
        Whether the effective degrees of freedom must rest on all samples rather than some thousands.

    Returns
    -------
    Mode
    """
    share = weight / jnp.sum(weight)
    y, offset = y[:, :, 0].T, offset[:, :, 0].T
    strength, free, coef, intercept = strength[:, :, 0].T, free[:, :, 0].T, start[0][:, :, 0].T, start[1][:, 0]
    intercept = jnp.where(jnp.isnan(intercept), start_of_intercept(y, offset, share, link), intercept)
    solution = minimize_smooth(
        X, y, share, offset, strength, free, (coef, intercept),
        loss=partial(family.nll, link=link, scale=scale), mean=link.inverse, tol=tol, max_iter=max_iter, dual=dual,
        exact_trace=exact_trace,
    )  # fmt: skip
    mean = link.inverse(offset + solution.intercept + X @ solution.coef)
    pearson = weight[:, None] * (y - mean) ** 2 / family.unit_variance(mean, scale)
    return Mode(
        coef=solution.coef.T[:, :, None],
        intercept=solution.intercept[:, None],
        residual=solution.residual,
        n_iter=solution.n_iter,
        converged=solution.converged,
        overflow=jnp.zeros(len(scale), bool),
        pivot=solution.pivot,
        edf=1 + solution.trace[:, None],
        pearson=jnp.sum(pearson, 0)[:, None],
    )


def start_of_intercept(y, offset, share, link):
    """Intercept of the model without features, roughly; finite also where y sits on a boundary."""
    mean = share @ y
    exact = link.predictor(mean)
    inside = link.predictor((mean * len(y) + 0.5) / (len(y) + 1))
    return jnp.where(jnp.isfinite(exact), exact, inside) - share @ offset


@partial(jax.jit, static_argnames=("family", "link"))
def likeliest_scale(X, weight, y, offset, coef, intercept, *, family, link):
    """Maximum likelihood of the family's second parameter at given means, shape (B,).

    The derivative by its logarithm is bisected, between 1e-6 (as good as none) and 2e4.
    """

    def solve(y, offset, coef, intercept):
        eta = offset + intercept + X @ coef

        def log_likelihood(log_scale):
            scale = jnp.exp(log_scale)
            nll = family.nll(y, eta, link, scale) / family.phi(scale)
            return -jnp.sum(weight[:, None] * (nll + family.log_normalizer(y, scale)))

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            rises = jax.grad(log_likelihood)(middle) > 0
            return jnp.where(rises, middle, low), jnp.where(rises, high, middle)

        bounds = jnp.log(jnp.array(1e-6, X.dtype)), jnp.log(jnp.array(2e4, X.dtype))
        low, high = jax.lax.fori_loop(0, 55, halve, bounds)
        return jnp.exp((low + high) / 2)

    return jax.vmap(solve)(y, offset, coef, intercept)
