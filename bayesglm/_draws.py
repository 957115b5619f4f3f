"""What follows from draws of the parameters: means, draws of y, densities; and draws from the prior."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesglm._model import glm_model
from bayesglm._numpyro import numpyro
from bayesglm._posterior import at_strengths, coef_prior, log_intercept_prior, log_scale_prior
from bayesglm._warn import warn_user

__all__ = ["Posterior", "draw_y", "draw_y_at", "log_prior", "per_sample", "prior_draws", "thin"]

# Numbers that one call computes at a time, so that a long posterior needs little memory beyond its result.
BLOCK = 5_000_000


class Posterior(NamedTuple):
    """Draws of the whole model, of the posterior or the prior; leaves (chain, draw, ...), outputs last."""

    coef: Any  # (..., p, outputs)
    intercept: Any  # (..., outputs)
    scale: Any  # (..., outputs)
    strength: Any = None  # (..., L) random strengths, if there are


def draw_y(draws, X, offset, spec, rng):
    """Draw y, and its mean, once per draw of the parameters.

    Parameters
    ----------
    draws : Posterior
    X, offset : (n, p), (n, outputs)
    spec : Spec
    rng : numpy.random.Generator

    Returns
    -------
    y, mean : numpy.ndarray, shape (chain, draw, n, responses) and (chain, draw, n, outputs)
        y is NaN where the link takes the mean out of the family's domain.

    Warns
    -----
    UserWarning
        If there are such means.
    """
    shape = (*draws.scale.shape[:2], len(offset))
    parts, outside = [], 0
    for eta, scale in _linear_predictors(draws, X, offset):
        mean = np.asarray(_mean(eta, form=spec.form))[: len(scale)]
        y, n_outside = _draw(rng, mean, scale, spec.form)
        parts.append((y, mean))
        outside += n_outside
    y, mean = (np.concatenate(part).reshape(*shape, -1) for part in zip(*parts, strict=True))
    _warn_of_means(outside, mean.size, spec.form)
    return y, mean


def per_sample(draws, data, spec, rng, wanted):
    """Log-likelihood of each sample, times its weight, and a draw of y, once per draw of the parameters.

    Parameters
    ----------
    data : Data
    wanted : tuple of bool
        Whether the log-likelihood and whether y are wanted; what is not is None.

    Returns
    -------
    log_likelihood, y : numpy.ndarray or None, shape (chain, draw, n, responses)

    Warns
    -----
    UserWarning
        If the link takes means out of the family's domain; their y are NaN.
    """
    if not any(wanted):
        return None, None
    shape = (*draws.scale.shape[:2], len(data.y), -1)
    trials, constant = None, np.zeros(1)
    if spec.form.family.counts_trials:
        trials = data.trials[:, None].astype(int)
        constant = data.frequency[:, None] * np.asarray(spec.form.family.log_choose(data.y, data.trials[:, None]))
    likelihoods, ys, outside = [], [], 0
    for eta, scale in _linear_predictors(draws, data.X, data.offset):
        if wanted[0]:
            padded = np.concatenate([scale, np.repeat(scale[-1:], len(eta) - len(scale), 0)])
            terms = _log_likelihood(eta, data.y, data.weight, padded, form=spec.form)
            likelihoods.append(np.asarray(terms)[: len(scale)] + constant)
        if wanted[1]:
            mean = np.asarray(_mean(eta, form=spec.form))[: len(scale)]
            y, n_outside = _draw(rng, mean, scale, spec.form, trials)
            ys.append(y)
            outside += n_outside
    _warn_of_means(outside, draws.scale[..., 0].size * data.y.size, spec.form)
    return tuple(np.concatenate(parts).reshape(shape) if parts else None for parts in (likelihoods, ys))


def draw_y_at(mean, spec, rng):
    """Draw y at given means (..., outputs); NaN, with a warning, where a mean is outside the domain."""
    y, outside = _draw(rng, spec.form.by_class(mean), spec.scale, spec.form)
    _warn_of_means(outside, mean.size, spec.form)
    return y


@partial(jax.jit, static_argnames=("form",))
def log_prior(position, target, priors, *, form):
    """Log prior densities of one problem's draws (C, S): coefficients, intercepts, scale."""

    def one(position):
        here = target if position.strength is None else at_strengths(target, position.strength, form)
        parts = {"coef": coef_prior(position.scale, here, form).log_prob(position.coef)}
        if priors.intercept is not None:
            parts["intercept"] = jnp.sum(log_intercept_prior(position.intercept, target.outputs, priors.intercept))
        if form.samples_scale:
            parts["dispersion"] = log_scale_prior(position.scale, target, priors.scale, form)
        return parts

    return jax.vmap(jax.vmap(one))(position)


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
        strength = None
        if spec.hyper is not None:
            strength = jnp.concatenate([jnp.ravel(sites[name]["value"]) for name in spec.hyper.names])
        intercept = sites["intercept"]["value"] if spec.form.fit_intercept else jnp.zeros(n_outputs, coef.dtype)
        return Posterior(coef, jnp.atleast_1d(intercept), scale, strength)

    draws = jax.vmap(one)(jax.random.split(jax.random.key(seed), num_samples))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], draws)


def thin(draws, labels, num_samples):
    """Draws evenly spread over the chains, `num_samples` of each, and their labels; all if that is None."""
    length = draws.scale.shape[1]
    if num_samples is None or num_samples >= length:
        return draws, labels
    rows = np.linspace(0, length - 1, num_samples).round().astype(int)
    return jax.tree.map(lambda leaf: leaf[:, rows], draws), labels | {"draw": labels["draw"][rows]}


def _linear_predictors(draws, X, offset):
    """Yield linear predictors (block, n, outputs) of blocks of draws, and their scales (block, 1, outputs).

    All blocks of linear predictors have one length, lest each compile anew: the last is filled up with repetitions.
    """
    flat = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), draws)
    n_draws, p, n_outputs = flat.coef.shape
    length = int(np.clip(BLOCK // max(offset.size, 1), 1, n_draws))
    for first in range(0, n_draws, length):
        rows = np.minimum(np.arange(first, first + length), n_draws - 1)
        coef = flat.coef[rows].swapaxes(1, 2).reshape(-1, p)
        eta = (coef @ X.T).reshape(length, n_outputs, -1).swapaxes(1, 2)
        yield eta + flat.intercept[rows, None] + offset, flat.scale[first : first + length, None]


@partial(jax.jit, static_argnames=("form",))
def _mean(eta, *, form):
    """Means, of classes with an axis for them."""
    return form.link.inverse(form.by_class(eta))


@partial(jax.jit, static_argnames=("form",))
def _log_likelihood(eta, y, weight, scale, *, form):
    """Weighted log-likelihood (S, n, responses) of each sample; eta is (S, n, outputs), scale (S, 1, outputs)."""
    y, eta, scale = map(form.by_class, (y, eta, scale))
    nll = form.family.nll(y, eta, form.link, scale) / form.family.phi(scale)
    return -weight[:, None] * form.per_response(nll + form.family.log_normalizer(y, scale))


def _draw(rng, mean, scale, form, trials=None):
    """y, NaN where the mean is outside the family's domain, and how many are."""
    low, high = form.family.mean_domain
    inside = (mean >= low) & (mean <= high)
    more = () if trials is None else (trials,)
    y = form.family.draw(rng, np.where(inside, mean, 0.5), scale, *more)
    if form.family.joint:
        inside = inside.all(-1)
    return y if inside.all() else np.where(inside, y, np.nan), int((~inside).sum())


def _warn_of_means(outside, total, form):
    if outside:
        low, high = form.family.mean_domain
        warn_user(
            f"{outside} of {total} predicted means lie outside {low:g} ... {high:g}, where {form.family.__name__} are "
            f"defined; their y are NaN. The inverse link {form.link.name!r} allows that: take one that does not."
        )
