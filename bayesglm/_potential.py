"""The negative log density of a posterior in round coordinates, in two parametrizations.

In the direct parametrization z, the image of the coordinates under the frame's affine map, holds the coefficients. In
the mixture parametrization a coefficient of a prior with kinks is normal given its variance, which is random, too.

So is that of a normal prior whose strength is random.

A coefficient that may not be negative is the absolute value of one that may be, whose prior is symmetric: the posterior
is the same, and has no boundary.

As a variance of a prior moves, z is moved and stretched as the posterior of a coefficient on its own would be, were it
normal: fully where the data leave it to the prior, hardly where the data determine it. So variances, strengths and
coefficients do not drag each other along.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from bayesglm._frame import free_coordinates, transform
from bayesglm._groups import spread
from bayesglm._posterior import (
    Position,
    at_strengths,
    coef_prior,
    log_density_but_coef,
    log_strength_priors,
    rate,
)

__all__ = ["idle_energy", "potential", "unpack"]


def _bent(u, tails):
    """Normal coordinates stretched towards longer tails, (..., 2) on the left and on the right."""
    left, right = jnp.minimum(u, 0.0), jnp.maximum(u, 0.0)
    return u - tails[..., 0] * left**2 + tails[..., 1] * right**2


def _log_bend(u, tails):
    """Logarithm of the derivative of `_bent`."""
    return jnp.log1p(2 * (tails[..., 1] * jnp.maximum(u, 0.0) - tails[..., 0] * jnp.minimum(u, 0.0)))


class _Place(NamedTuple):
    """What the coordinates u stand for."""

    position: Any
    score: Any  # (L,) of the mixture's variances
    log_stretch: Any  # () sum of the logarithms of what the affine map's coefficients are multiplied with
    target: Any  # at the strengths of the position


def unpack(u, target, frame, form):
    """Parameters at the round coordinates u."""
    return _unpack(u, target, frame, form).position


def _unpack(u, target, frame, form):
    """Parameters, what the affine map alone makes of u, and the target at these strengths."""
    m, width = frame.center.shape
    moved = frame.center + transform(frame.factor, u[: m * width].reshape(m, width))
    z = moved[:, 1:].T
    stop = m * width + frame.score.size
    score = frame.score + frame.score_sd * u[m * width : stop]
    scale, strength, precision = target.scale, None, None
    if target.learned is not None:
        at = u[stop : stop + frame.log_strength.size]
        log_strength = frame.log_strength + frame.log_strength_sd * _bent(at, frame.log_strength_tails)
        strength = jnp.exp(log_strength)
        index = target.learned.index
        if not form.prior.separable:
            index = spread(index, target.strength[1], len(log_strength))
        # The precision of a prior is the strength to the power of this.
        power = 1.0 if form.prior.smooth else 2.0
        log_ratio = spread(log_strength - jnp.log(target.learned.value), index, 0.0)
        precision = jnp.exp(power * log_ratio)
        target = at_strengths(target, strength, form)
    if form.samples_scale:
        tails = jnp.array([frame.log_scale_tail, 0.0])
        scale = jnp.exp(frame.log_scale + frame.log_scale_sd * _bent(u[-1], tails))
    if form.mixture:
        mixing = form.prior.mixing(target.strength)
        k = rate(scale, target, form)
        variance = _variance(score, mixing, k)
        precision = frame.typical / spread(variance / (1 + k * mixing.bend * variance), mixing.index, 1.0)
        precision = jnp.where(form.prior.is_flat(target.strength), 1.0, precision)
    coef, log_stretch = z, jnp.zeros_like(z)
    if precision is not None:
        # What the width of a normal posterior is multiplied with where the precision of its prior is.
        log_stretch = -0.5 * jnp.log1p(frame.prior_share * (precision - 1))
        stretch = jnp.exp(log_stretch)
        coef = stretch * (stretch * frame.anchor + z - frame.anchor)
    if form.prior.has_bounds:
        coef = form.prior.fold(coef, target.strength)
    elif precision is None:
        return _Place(Position(z, moved[:, 0], scale), score, 0.0, target)
    # The intercept takes up what the means of the features contribute, so that neither drags the other along.
    intercept = moved[:, 0] - frame.feature_mean @ (coef - z)
    return _Place(Position(coef, intercept, scale, strength), score, jnp.sum(log_stretch), target)


def _variance(score, mixing, k):
    """Variances of the mixture (L,): by the quantiles of their exponential density, or, for groups, by its logarithm.

    The prior of a score depends on no strength: it is standard normal in a Lasso.
    """
    single = mixing.size == 1
    slope = jnp.where(mixing.slope > 0, k * mixing.slope, 1.0)
    exponential = -2 * log_ndtr(-jnp.where(single, score, 0.0))
    return jnp.where(single, exponential, jnp.exp(jnp.where(single, 0.0, score))) / slope**2


def potential(u, X, weight, target, priors, frame, form, *, lanes=1):
    """Minus the log posterior density, up to a constant, at the round coordinates u.

    Parameters
    ----------
    lanes : int
        How many potentials are computed at once, in a mapped program.
    """
    position, score, log_stretch, target = _unpack(u, target, frame, form)
    if form.mixture:
        log_prior = _mixture_log_prob(position, score, target, form)
    else:
        log_prior = coef_prior(position.scale, target, form).log_prob(position.coef)
    log_prior = log_prior + log_stretch
    if target.learned is not None:
        first = frame.center.size + frame.score.size
        at = u[first : first + frame.log_strength.size]
        log_prior = log_prior + jnp.sum(log_strength_priors(position.strength, target, priors))
        log_prior = log_prior + jnp.sum(_log_bend(at, frame.log_strength_tails))
    rest = log_density_but_coef(position, X, weight, target, priors, form, lanes)
    if form.samples_scale:
        rest = rest + _log_bend(u[-1], jnp.array([frame.log_scale_tail, 0.0]))
    return idle_energy(u, target, frame, form) - log_prior - rest


def idle_energy(u, target, frame, form):
    """What coordinates add to the potential that move nothing, since coefficients are held at zero or have no prior.

    They are standard normal: so masks are data and compile nothing.
    """
    size = frame.center.size
    idle = jnp.where(free_coordinates(target).ravel(), 0.0, u[:size])
    energy = 0.5 * jnp.sum(idle**2)
    if not form.mixture:
        return energy
    score = frame.score + frame.score_sd * u[size : size + frame.score.size]
    return energy + 0.5 * jnp.sum(jnp.where(form.prior.mixing(target.strength).slope > 0, 0.0, score**2))


def _mixture_log_prob(position, score, target, form):
    """Log density of the coefficients and of the scores.

    A coefficient of variance v / (1 + c v), where v has a density as v^((d - 1) / 2) (1 + c v)^(-1/2) exp(-a^2 v / 2),
    has a density as exp(-a |w| - c w^2 / 2); so have d of them that share v, with c = 0, in their joint norm.
    """
    coef, scale = position.coef, position.scale
    mixing = form.prior.mixing(target.strength)
    k = rate(scale, target, form)
    has_prior, single = mixing.slope > 0, mixing.size == 1
    variance = _variance(score, mixing, k)
    density = jnp.where(
        single, -0.5 * score**2, (mixing.size + 1) / 2 * score - 0.5 * jnp.exp(jnp.where(single, 0.0, score))
    )
    bend = 1 + k * mixing.bend * variance
    density = jnp.where(has_prior, density - 0.5 * jnp.log(bend), 0.0)
    precision = spread(jnp.where(has_prior, bend / variance, 1.0), mixing.index, 1.0)
    normal = 0.5 * jnp.log(precision) - 0.5 * precision * coef**2
    log_prob = jnp.sum(density) + jnp.sum(jnp.where(spread(has_prior, mixing.index, False), normal, 0.0))
    if form.conditional_prior or target.learned is not None:
        # The variances' density integrates to a^-d times that of the coefficients: not constant with a bend.
        log_prob = log_prob + coef_prior(scale, target, form).log_prob(jnp.zeros_like(coef))
        log_prob = log_prob - jnp.sum(mixing.size * jnp.log(jnp.where(has_prior, k * mixing.slope, 1.0)))
    return log_prob
