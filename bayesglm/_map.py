"""The penalized reading: the mode, its effective degrees of freedom, and the dispersion there.

`find_smooth_modes` is for penalties without kinks, `find_modes` for small problems with kinks; `_working_set` is for
large ones.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayesglm._composite import minimize
from bayesglm._passes import moments
from bayesglm._quadratic import trace_of_hat
from bayesglm._smooth import minimize_smooth

__all__ = ["Mode", "find_modes", "find_smooth_modes", "likeliest_scale", "pearson", "start_of_intercept"]


class Mode(NamedTuple):
    """Penalized fit of a batch of B problems with m outputs."""

    coef: Any  # (B, p, m)
    intercept: Any  # (B, m)
    residual: Any  # (B,)
    n_iter: Any  # (B,)
    converged: Any  # (B,)
    pivot: Any  # (B,) near 0 where coefficients are not determined
    edf: Any  # (B, m) effective degrees of freedom, the intercept included
    pearson: Any  # (B, m) Pearson chi-square statistic


def _find_modes(X, weight, y, offset, strength, free, scale, start, tol, max_iter, *, family, link, prior):
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
        As for `minimize`.
    family, prior : type
        Of `bayesglm.observation_models` and `bayesglm.priors`.
    link : Link

    Returns
    -------
    Mode
    """
    share = weight / jnp.sum(weight)
    center, square = moments(X, share)
    features = jnp.where(square[:, None] > 0, (X - center).T, 0.0)

    def solve(problem):
        y, offset, strength, free, scale, (coef, intercept) = problem
        begin = start_of_intercept(y, offset, share, link)
        intercept = jnp.where(jnp.isnan(intercept), begin, intercept + center @ coef)
        solution = minimize(
            features, square, len(square), y, share, offset, strength, free, (coef, intercept), exact_gram=True,
            loss=partial(family.nll, link=link, scale=scale), mean=link.inverse, prior=prior,
            tol=tol, max_iter=max_iter,
        )  # fmt: skip
        coef = solution.coef
        trace, pivot = trace_of_hat(solution.gram, coef, strength, free, prior)
        return Mode(
            coef=coef,
            intercept=solution.intercept - center @ coef,
            residual=solution.residual,
            n_iter=solution.n_iter,
            converged=solution.converged,
            pivot=pivot,
            edf=1 + trace,
            pearson=pearson(y, solution.eta, weight, scale, family, link),
        )

    # Problems differ in how long they take: a processor does not wait for the longest, an accelerator does.
    together = 1 if jax.default_backend() == "cpu" else len(scale)
    return jax.lax.map(solve, (y, offset, strength, free, scale, start), batch_size=together)


def pearson(y, eta, weight, scale, family, link):
    """Pearson's chi-square statistic of each output."""
    mean = link.inverse(eta)
    return jnp.sum(weight[:, None] * (y - mean) ** 2 / family.unit_variance(mean, scale), 0)


def _find_smooth_modes(
    X, weight, y, offset, strength, free, scale, start, tol, max_iter, *, family, link, dual, alike, exact_trace
):
    """Penalized fits of a batch of problems of one output each, under a smooth penalty.

    Parameters are those of `find_modes`, and three more.

    Parameters
    ----------
    dual : bool
        Whether to factorize a matrix of the samples rather than of the features; every coefficient that is free needs
        a strength above 0 then.
    alike : bool
        For `dual`: whether the problems have the same free coefficients, and strengths that are the same up to a
        factor.
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
        loss=partial(family.nll, link=link, scale=scale), mean=link.inverse, tol=tol, max_iter=max_iter,
        dual=dual, alike=alike, exact_trace=exact_trace,
    )  # fmt: skip
    eta = offset + solution.intercept + X @ solution.coef
    return Mode(
        coef=solution.coef.T[:, :, None],
        intercept=solution.intercept[:, None],
        residual=solution.residual,
        n_iter=solution.n_iter,
        converged=solution.converged,
        pivot=solution.pivot,
        edf=1 + solution.trace[:, None],
        pearson=pearson(y, eta, weight, scale, family, link)[:, None],
    )


def start_of_intercept(y, offset, share, link):
    """Intercept of the model without features, roughly; finite also where y sits on a boundary."""
    mean = share @ y
    exact = link.predictor(mean)
    inside = link.predictor((mean * len(y) + 0.5) / (len(y) + 1))
    return jnp.where(jnp.isfinite(exact), exact, inside) - share @ offset


def _two_ways(function, *static):
    """Jitted function by whether the problem is small: then what counts is the time to compile."""
    quickly = {"xla_backend_optimization_level": 0}
    return {
        True: jax.jit(function, static_argnames=static, compiler_options=quickly),
        False: jax.jit(function, static_argnames=static),
    }


find_modes = _two_ways(_find_modes, "family", "link", "prior")
find_smooth_modes = _two_ways(_find_smooth_modes, "family", "link", "dual", "alike", "exact_trace")


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
