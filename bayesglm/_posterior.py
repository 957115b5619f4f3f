"""The posterior of one problem as a function of a flat vector, in coordinates in which it looks round.

A position u of the sampler is ``z = center + factor @ u`` with ``z = (intercept, coef)`` of each output, then
log(scale) where it is sampled. The factor is the inverse Cholesky factor of the curvature at the mode,
with a quadratic stand-in where the prior has kinks.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from bayesglm._passes import expected_curvature, hessian_with_intercept, moments
from bayesglm.links import Link

__all__ = ["Form", "Position", "Target", "idle_log_density", "log_density", "unpack", "whiten"]


@dataclass(frozen=True)
class Form:
    """What decides the compiled program: hashable, equal for equal models."""

    family: Any
    link: Link
    prior: Any
    samples_scale: bool
    conditional_prior: bool  # whether k = total / phi follows the sampled phi


class Target(NamedTuple):
    """Everything of a problem's posterior that is data; arrays may have a leading axis of problems."""

    outputs: Any  # (m,) int
    y: Any  # (n, m)
    offset: Any  # (n, m)
    strength: Any  # as the prior takes it
    total: Any  # (), sum of the weights
    k: Any  # (), total / dispersion at the fit: penalty * k is -log prior
    scale: Any  # (), the family's second parameter: fixed value, or where the sampler starts
    y_spread: Any  # (), standard deviation of y, the scale of the default prior of the dispersion
    coef: Any  # (p, m), mode
    intercept: Any  # (m,), mode
    free: Any  # (p, m) bool: coefficients that are not held at zero


class Position(NamedTuple):
    """A point of the parameter space in the user's terms."""

    coef: Any  # (p, m)
    intercept: Any  # (m,)
    scale: Any  # ()


class Frame(NamedTuple):
    """Affine map from round coordinates to parameters."""

    center: Any  # (m, 1 + p)
    factor: Any  # (m, 1 + p, 1 + p); rows and columns of coefficients held at zero are 0
    log_scale: Any  # ()
    log_scale_sd: Any  # ()


def whiten(X, weight, target, intercept_prior, form):
    """Affine map in which the posterior is round near its mode.

    Returns
    -------
    Frame
    """
    total = jnp.sum(weight)
    loss = partial(form.family.nll, link=form.link, scale=target.scale)
    phi = form.family.phi(target.scale)
    center_intercept, prior_curvature = target.intercept, jnp.zeros_like(target.intercept)
    if intercept_prior is not None:
        center_intercept, prior_curvature = _intercept_with_prior(X, weight, target, intercept_prior, loss, phi)
    feature_mean, square = moments(X, weight / total)
    X = jnp.where(square > 0, X - feature_mean, 0.0)
    eta = target.offset + center_intercept + feature_mean @ target.coef + X @ target.coef
    curvature = weight[:, None] * expected_curvature(loss, form.link.inverse, eta)
    blocks = jnp.stack([hessian_with_intercept(X, column) for column in curvature.T]) / phi
    likelihood = jnp.diagonal(blocks, axis1=1, axis2=2)[:, 1:].T
    prior_variance = form.prior.distribution(target.strength, target.k).variance
    sd = 1 / jnp.sqrt(likelihood + 1 / prior_variance)
    bend = target.k * form.prior.curvature(target.coef, target.strength, sd)
    rows = jnp.arange(1, 1 + len(target.coef))
    blocks = blocks.at[:, rows, rows].add(bend.T)
    # The prior is on the intercept of the features as they came, intercept - feature_mean @ coef.
    direction = jnp.concatenate([jnp.ones(1, X.dtype), -feature_mean])
    blocks = blocks + prior_curvature[:, None, None] * jnp.outer(direction, direction)
    identity = jnp.eye(1 + len(target.coef), dtype=X.dtype)
    free = _free_coordinates(target)
    both = free[:, :, None] & free[:, None]
    blocks = jnp.where(both, blocks, identity)
    root = jnp.sqrt(jnp.diagonal(blocks, axis1=1, axis2=2))

    def inverse_factor(block, root):
        lower = jnp.linalg.cholesky(block / root / root[:, None])
        return solve_triangular(lower.T, identity) / root[:, None]

    factor = jnp.where(both, jax.vmap(inverse_factor)(blocks, root), 0.0)
    # Back from centered features: the intercept takes up what the feature means contribute.
    factor = factor.at[:, 0].add(-jnp.einsum("p,mpu->mu", feature_mean, factor[:, 1:]))
    center = jnp.concatenate([center_intercept[:, None], target.coef.T], 1)
    spread = jnp.sqrt(2 / (total * target.y.shape[1]))
    return Frame(center, factor, jnp.log(target.scale), spread)


def _intercept_with_prior(X, weight, target, intercept_prior, loss, phi):
    """Mode of each intercept given the coefficients, and the curvature of its prior there.

    The fit knows no prior of the intercept, and has none to offer where y sits on a boundary.
    """
    fixed = target.offset + X @ target.coef

    def log_prob(intercept):
        nll = jnp.sum(weight[:, None] * loss(target.y, fixed + intercept)) / phi
        return jnp.sum(log_intercept_prior(intercept, target.outputs, intercept_prior)) - nll

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        rises = jax.grad(log_prob)(middle) > 0
        return jnp.where(rises, middle, low), jnp.where(rises, high, middle)

    reach = 50 + 2 * jnp.abs(target.intercept)
    low, high = jax.lax.fori_loop(0, 60, halve, (target.intercept - reach, target.intercept + reach))
    mode = (low + high) / 2

    def prior_slope(intercept):
        return jax.grad(lambda b: jnp.sum(log_intercept_prior(b, target.outputs, intercept_prior)))(intercept)

    curvature = -jax.jvp(prior_slope, (mode,), (jnp.ones_like(mode),))[1]
    return mode, jnp.maximum(curvature, 0.0)


def _free_coordinates(target):
    """Which of (intercept, coef) of each output move, shape (m, 1 + p)."""
    return jnp.concatenate([jnp.ones((1, target.free.shape[1]), bool), target.free]).T


def idle_log_density(u, target):
    """Log density of the coordinates of u that move nothing, since their coefficients are held at zero.

    They are standard normal, so that masks are data and compile nothing.
    """
    free = _free_coordinates(target).ravel()
    return -0.5 * jnp.sum(jnp.where(free, 0.0, u[: free.size]) ** 2)


def unpack(u, target, frame, form):
    """Parameters at the round coordinates u, shape (m * (1 + p) [+ 1],)."""
    m, width = frame.center.shape
    z = frame.center + jnp.einsum("mij,mj->mi", frame.factor, u[: m * width].reshape(m, width))
    scale = target.scale
    if form.samples_scale:
        scale = jnp.exp(frame.log_scale + frame.log_scale_sd * u[-1])
    return Position(z[:, 1:].T, z[:, 0], scale)


def log_density(position, X, weight, target, intercept_prior, scale_prior, form):
    """Log posterior density, up to the terms of y alone, in (coef, intercept, log scale).

    Parameters
    ----------
    intercept_prior : NumPyro distribution or None
        Of the intercepts of all outputs of the model; None is flat.
    scale_prior : NumPyro distribution or None
        None is the family's default.
    """
    eta = target.offset + position.intercept + X @ position.coef
    nll = jnp.sum(weight[:, None] * form.family.nll(target.y, eta, form.link, position.scale))
    log_prob = -nll / form.family.phi(position.scale)
    log_prob = log_prob + coef_prior(position.scale, target, form).log_prob(position.coef)
    if intercept_prior is not None:
        log_prob = log_prob + jnp.sum(log_intercept_prior(position.intercept, target.outputs, intercept_prior))
    if form.samples_scale:
        normalizer = form.family.log_normalizer(target.y, position.scale)
        log_prob = log_prob - jnp.sum(weight[:, None] * normalizer) + jnp.log(position.scale)
        log_prob = log_prob + log_scale_prior(position.scale, target, scale_prior, form)
    return log_prob


def coef_prior(scale, target, form):
    """Prior of the coefficients at a value of the family's second parameter."""
    k = target.total / form.family.phi(scale) if form.conditional_prior else target.k
    return form.prior.distribution(target.strength, k)


def log_intercept_prior(intercept, outputs, intercept_prior):
    """Log prior density of each intercept; a prior with a batch shape has one member per output."""
    if intercept_prior.batch_shape == ():
        return intercept_prior.log_prob(intercept)
    n_outputs = intercept_prior.batch_shape[0]
    everywhere = jax.vmap(lambda b: intercept_prior.log_prob(jnp.broadcast_to(b, (n_outputs,))))(intercept)
    return everywhere[jnp.arange(len(outputs)), outputs]


def log_scale_prior(scale, target, scale_prior, form):
    """Log prior density of the family's second parameter."""
    prior = form.family.scale_prior(target.y_spread) if scale_prior is None else scale_prior
    return prior.log_prob(scale)
