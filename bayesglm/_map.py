"""The penalized reading: the mode, its effective degrees of freedom, and the dispersion there."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayesglm._solver import centered, expand, minimize, profiled_gram, trace_of_hat

__all__ = ["Mode", "find_modes"]


class Mode(NamedTuple):
    """Penalized fit of a batch of B problems with m outputs."""

    coef: Any  # (B, p, m)
    intercept: Any  # (B, m)
    residual: Any  # (B,)
    n_iter: Any  # (B,)
    converged: Any  # (B,)
    edf: Any  # (B, m) effective degrees of freedom, the intercept included
    pearson: Any  # (B, m) Pearson chi-square statistic


@partial(jax.jit, static_argnames=("family", "link", "prior"))
def find_modes(X, weight, y, offset, strength, tol, max_iter, *, family, link, prior):
    """Penalized fits of a batch of problems.

    Parameters
    ----------
    X : (n, p)
    weight : (n,)
    y, offset : (B, n, m)
    strength : pytree with leaves (B, ...)
    tol, max_iter : numbers
        As for `minimize`.
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
    loss = partial(family.nll, link=link)

    def solve(y, offset, strength):
        start = start_of_intercept(y, offset, share, link)
        solution = minimize(
            X, square, y, share, offset, strength, start,
            loss=loss, mean=link.inverse, prior=prior, tol=tol, max_iter=max_iter,
        )  # fmt: skip
        eta = offset + solution.intercept + X @ solution.coef
        curvature = expand(loss, link.inverse, y, eta)[2]
        gram, _, _ = profiled_gram(X, share[:, None] * curvature)
        mean = link.inverse(eta)
        return Mode(
            solution.coef,
            solution.intercept - feature_mean @ solution.coef,
            solution.residual,
            solution.n_iter,
            solution.converged,
            1 + trace_of_hat(gram, solution.coef, strength, prior),
            jnp.sum(weight[:, None] * (y - mean) ** 2 / family.unit_variance(mean), 0),
        )

    return jax.vmap(solve)(y, offset, strength)


def start_of_intercept(y, offset, share, link):
    """Intercept of the model without features, roughly; finite also where y sits on a boundary."""
    mean = share @ y
    exact = link.forward(mean)
    inside = link.forward((mean * len(y) + 0.5) / (len(y) + 1))
    return jnp.where(jnp.isfinite(exact), exact, inside) - share @ offset
