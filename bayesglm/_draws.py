"""What follows from draws of the parameters: means, draws of y, densities; and draws from the prior."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesglm._model import glm_model
from bayesglm._numpyro import numpyro
from bayesglm._posterior import coef_prior, log_intercept_prior, log_scale_prior
from bayesglm._warn import warn_user

__all__ = ["Posterior", "draw_y", "draw_y_at", "log_likelihood", "log_prior", "prior_draws", "thin"]

# Numbers that one call computes at a time, so that a long posterior needs little memory beyond its result.
BLOCK = 5_000_000


class Posterior(NamedTuple):
    """Draws of the whole model, of the posterior or the prior; leaves (chain, draw, ...), outputs last."""

    coef: Any  # (..., p, outputs)
    intercept: Any  # (..., outputs)
    scale: Any  # (..., outputs)


def draw_y(draws, X, offset, spec, rng, *, keep_mean=False):
    """Draw y once per draw of the parameters.

    Parameters
    ----------
    draws : Posterior
    X, offset : (n, p), (n, outputs)
    spec : Spec
    rng : numpy.random.Generator
    keep_mean : bool
        Whether the means are wanted as well.

    Returns
    -------
    y, mean : numpy.ndarray, shape (chain, draw, n, outputs)
        y is NaN where the link takes the mean out of the family's domain; mean is None unless it is kept.

    Warns
    -----
    UserWarning
        If there are such means.
    """
    link = spec.form.link
    flat, shape = _one_axis(draws), (*draws.scale.shape[:2], *offset.shape)
    outside, means, ys = 0, [], []
    for first, mean in _in_blocks(lambda part: _mean_of_draws(part, X, offset, link=link), flat, offset.size):
        y, n_outside = _draw(rng, mean, flat.scale[first : first + len(mean), None], spec.form.family)
        ys.append(y)
        means += [mean] * keep_mean
        outside += n_outside
    _warn_of_means(outside, np.prod(shape), spec.form)
    return np.concatenate(ys).reshape(shape), np.concatenate(means).reshape(shape) if keep_mean else None


def draw_y_at(mean, spec, rng):
    """Draw y at given means, shape (..., outputs); NaN, with a warning, where a mean is outside the domain."""
    y, outside = _draw(rng, mean, spec.scale, spec.form.family)
    _warn_of_means(outside, mean.size, spec.form)
    return y


def log_likelihood(draws, X, offset, y, weight, spec):
    """Log-likelihood of each sample, times its weight; shape (chain, draw, n, outputs)."""
    blocks = _in_blocks(
        lambda part: _log_likelihood(part, X, offset, y, weight, form=spec.form), _one_axis(draws), y.size
    )
    return np.concatenate([block for _, block in blocks]).reshape(*draws.scale.shape[:2], *y.shape)


@partial(jax.jit, static_argnames=("form",))
def log_prior(position, target, intercept_prior, scale_prior, *, form):
    """Log prior densities of one problem's draws (C, S): coefficients, intercepts, scale."""

    def one(coef, intercept, scale):
        parts = {"coef": coef_prior(scale, target, form).log_prob(coef)}
        if intercept_prior is not None:
            parts["intercept"] = jnp.sum(log_intercept_prior(intercept, target.outputs, intercept_prior))
        if form.samples_scale:
            parts["dispersion"] = log_scale_prior(scale, target, scale_prior, form)
        return parts

    return jax.vmap(jax.vmap(one))(*position)


def prior_draws(spec, num_samples, seed, dtype):
    """Draw the parameters from their priors, as the NumPyro model has them.

    Returns
    -------
    Posterior
        Of one chain.
    """
    n_outputs = len(spec.k)
    row = np.zeros((1, spec.layout.n_features), dtype), None, np.ones(1, dtype)
    offset = np.zeros((1, n_outputs) if spec.population else 1, dtype)

    def one(key):
        sites = numpyro.handlers.trace(numpyro.handlers.seed(glm_model, key)).get_trace(spec, *row, offset)
        scale = jnp.asarray(spec.scale)
        if spec.form.samples_scale:
            scale = jnp.atleast_1d(sites["dispersion"]["value"])[spec.block_of_output]
        coef = sites["coef"]["value"].reshape(-1, n_outputs)
        return Posterior(coef, jnp.atleast_1d(sites["intercept"]["value"]), scale)

    draws = jax.vmap(one)(jax.random.split(jax.random.key(seed), num_samples))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], draws)


def thin(draws, labels, num_samples):
    """Draws evenly spread over the chains, `num_samples` of each, and their labels; all if that is None."""
    length = draws.scale.shape[1]
    if num_samples is None or num_samples >= length:
        return draws, labels
    rows = np.linspace(0, length - 1, num_samples).round().astype(int)
    return jax.tree.map(lambda leaf: leaf[:, rows], draws), labels | {"draw": labels["draw"][rows]}


@partial(jax.jit, static_argnames=("link",))
def _mean_of_draws(draws, X, offset, *, link):
    """Mean of y for each draw of a Posterior with one leading axis S, shape (S, n, outputs)."""
    return jax.lax.map(lambda draw: link.inverse(offset + draw.intercept + X @ draw.coef), draws)


@partial(jax.jit, static_argnames=("form",))
def _log_likelihood(draws, X, offset, y, weight, *, form):
    """Weighted log-likelihood of each sample for draws with one leading axis S, shape (S, n, outputs)."""

    def one(draw):
        eta = offset + draw.intercept + X @ draw.coef
        nll = form.family.nll(y, eta, form.link, draw.scale) / form.family.phi(draw.scale)
        return -weight[:, None] * (nll + form.family.log_normalizer(y, draw.scale))

    return jax.lax.map(one, draws)


def _draw(rng, mean, scale, family):
    """y, NaN where the mean is outside the family's domain, and how many are."""
    low, high = family.mean_domain
    inside = (mean >= low) & (mean <= high)
    y = family.draw(rng, np.where(inside, mean, 0.5), scale)
    return y if inside.all() else np.where(inside, y, np.nan), int((~inside).sum())


def _warn_of_means(outside, total, form):
    if outside:
        low, high = form.family.mean_domain
        warn_user(
            f"{outside} of {total} predicted means lie outside {low:g} ... {high:g}, where {form.family.__name__} are "
            f"defined; their y are NaN. The inverse link {form.link.name!r} allows that: take one that does not."
        )


def _one_axis(draws):
    """Draws of all chains along one axis."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws)


def _in_blocks(function, draws, size_of_one):
    """Apply a function of draws (S, ...) to blocks of equal length and yield (first draw, result) pairs."""
    n_draws = len(draws.coef)
    length = int(np.clip(BLOCK // max(size_of_one, 1), 1, n_draws))
    for first in range(0, n_draws, length):
        rows = np.minimum(np.arange(first, first + length), n_draws - 1)
        result = function(jax.tree.map(lambda leaf: leaf[rows], draws))  # noqa: B023
        yield first, np.asarray(result)[: n_draws - first]
