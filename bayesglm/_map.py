"""The penalized reading: the mode, its effective degrees of freedom, and the dispersion there.

`find_smooth_modes` is for penalties without kinks, `find_modes` for small problems with kinks; `_working_set` is for
large ones.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayesglm._composite import blank_hessian, minimize
from bayesglm._passes import moments
from bayesglm._quadratic import trace_of_hat
from bayesglm._smooth import minimize_smooth
from bayesglm.observation_models import is_canonical

__all__ = ["Mode", "Seen", "find_modes", "find_smooth_modes", "likeliest_scale", "pearson", "start_of_intercept"]


class Seen(NamedTuple):
    """Samples that are gone, of a batch of B problems, and those that are there."""

    total: Any  # () sum of the weights of all
    square: Any  # (p,) mean squares of the features of all around their means; 0 where they are constant
    pasts: Any  # Past with leaves (B, ...), of those that are gone, times their share of the weights


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


def _find_modes(
    X, weight, y, offset, strength, free, scale, start, tol, max_iter, seen=None, *,
    family, link, prior, n_paths, rough, fit_intercept,
):  # fmt: skip
    """Penalized fits of a batch of problems.

    Problems b, b + n_paths, b + 2 n_paths ... differ in their strengths alone and are solved one after the other, each
    with the Hessian of the one before as long as that serves.

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
        Coefficients and intercepts to start from; an intercept of NaN starts where the problem before ended, the first
        from the mean of y.
    tol, max_iter : numbers
        As for `minimize`.
    seen : Seen, optional
        Samples that are gone. X then comes centered near the mean.
    family, prior : type
        Of `bayesglm.observation_models` and `bayesglm.priors`.
    link : Link
    n_paths : int
    rough : bool
        Whether effective degrees of freedom may be those shortly before the mode.
    fit_intercept : bool
        Whether there is an intercept; otherwise it is 0, and features are not centered.

    Returns
    -------
    Mode
    """
    if seen is None:
        share = weight / jnp.sum(weight)
        center, square = moments(X, share, centered=fit_intercept)
    else:
        share, center, square = weight / seen.total, jnp.zeros(X.shape[1], X.dtype), seen.square
    features = jnp.where(square[:, None] > 0, (X - center).T, 0.0)
    pasts = None if seen is None else seen.pasts

    def solve(before, problem):
        y, offset, strength, free, scale, (coef, intercept), past = problem
        *last, hessian = before
        given = ~jnp.any(jnp.isnan(intercept))
        coef, intercept = jax.tree.map(
            lambda new, old: jnp.where(given, new, old), (coef, intercept + center @ coef), tuple(last)
        )
        solution = minimize(
            features, square, len(square), y, share, offset, strength, free, (coef, intercept), exact_gram=not rough,
            joint=family.joint, canonical=is_canonical(family, link), prior=prior,
            loss=partial(family.nll, link=link, scale=scale), mean=link.inverse,
            tol=tol, max_iter=max_iter, fit_intercept=fit_intercept, hessian=hessian, past=past,
        )  # fmt: skip
        coef = solution.coef
        trace, pivot = trace_of_hat(solution.hessian.gram, coef, strength, free, prior)
        mode = Mode(
            coef=coef,
            intercept=solution.intercept - center @ coef,
            residual=solution.residual,
            n_iter=solution.n_iter,
            converged=solution.converged,
            pivot=pivot,
            edf=fit_intercept + trace,
            pearson=pearson(y, solution.eta, weight, scale, family, link),
        )
        return (coef, solution.intercept, solution.hessian), mode

    def solve_path(problems):
        y, offset, _, free, _, (coef, _), _ = jax.tree.map(lambda leaf: leaf[0], problems)
        blank = blank_hessian(len(square), y.shape, X.dtype, joint=family.joint)
        begin = jnp.zeros_like(coef), start_of_intercept(y, offset, share, link, fit_intercept), blank
        return jax.lax.scan(solve, begin, problems)[1]

    problems = jax.tree.map(
        lambda leaf: jnp.swapaxes(leaf.reshape(-1, n_paths, *leaf.shape[1:]), 0, 1),
        (y, offset, strength, free, scale, start, pasts),
    )
    # Problems differ in how long they take: a processor does not wait for the longest, an accelerator does.
    together = None if jax.default_backend() == "cpu" else n_paths
    modes = jax.lax.map(solve_path, problems, batch_size=together)
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:]), modes)


def pearson(y, eta, weight, scale, family, link):
    """Pearson's chi-square statistic of each output."""
    mean = link.inverse(eta)
    terms = weight[:, None] * (y - mean) ** 2 / family.unit_variance(mean, scale)
    return jnp.sum(jnp.where(weight[:, None] > 0, terms, 0.0), 0)


def _find_smooth_modes(
    X, weight, y, offset, strength, free, scale, start, tol, max_iter, *,
    family, link, dual, alike, n_paths, trace, fit_intercept,
):  # fmt: skip
    """Penalized fits of a batch of problems of one output each, under a smooth penalty.

    Parameters are those of `find_modes`, and four more.

    Parameters
    ----------
    dual : bool
        Whether to factorize a matrix of the samples rather than of the features; every coefficient that is free needs
        a strength above 0 then.
    alike : bool
        For `dual`: whether the problems have the same free coefficients, and strengths that are the same up to a
        factor.
    n_paths : int
        Problems b, b + n_paths, b + 2 n_paths ... differ in their strengths alone.
    trace : {"exact", "cheap", "none"}
        Whether the effective degrees of freedom must rest on all samples, or only where that costs little, or are NaN.

    Returns
    -------
    Mode
    """
    share = weight / jnp.sum(weight)
    y, offset = y[:, :, 0].T, offset[:, :, 0].T
    strength, free, coef, intercept = strength[:, :, 0].T, free[:, :, 0].T, start[0][:, :, 0].T, start[1][:, 0]
    intercept = jnp.where(jnp.isnan(intercept), start_of_intercept(y, offset, share, link, fit_intercept), intercept)
    solution = minimize_smooth(
        X, y, share, offset, strength, free, (coef, intercept),
        loss=partial(family.nll, link=link, scale=scale), mean=link.inverse, canonical=is_canonical(family, link),
        tol=tol, max_iter=max_iter, dual=dual, alike=alike, n_paths=n_paths, trace=trace, fit_intercept=fit_intercept,
    )  # fmt: skip
    eta = offset + solution.intercept + X @ solution.coef
    return Mode(
        coef=solution.coef.T[:, :, None],
        intercept=solution.intercept[:, None],
        residual=solution.residual,
        n_iter=solution.n_iter,
        converged=solution.converged,
        pivot=solution.pivot,
        edf=fit_intercept + solution.trace[:, None],
        pearson=pearson(y, eta, weight, scale, family, link)[:, None],
    )


def start_of_intercept(y, offset, share, link, fit_intercept):
    """Intercept of the model without features, roughly; finite also where y sits on a boundary."""
    if not fit_intercept:
        return jnp.zeros(y.shape[1], y.dtype)
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


find_modes = _two_ways(_find_modes, "family", "link", "prior", "n_paths", "rough", "fit_intercept")
find_smooth_modes = _two_ways(
    _find_smooth_modes, "family", "link", "dual", "alike", "n_paths", "trace", "fit_intercept"
)


@partial(jax.jit, static_argnames=("family", "link"))
def likeliest_scale(X, weight, y, offset, coef, intercept, *, family, link):
    """Maximum likelihood of the family's second parameter at given means, shape (B,).

    The derivative by its logarithm is bisected, between 1e-6 (as good as none) and 2e4.
    """

    def solve(y, offset, coef, intercept):
        # What overflows must not meet a weight of 0.
        eta = jnp.where(weight[:, None] > 0, offset + intercept + X @ coef, link.predictor(0.5 * jnp.ones(())))

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
