"""The negative log density of a posterior in round coordinates, in two parametrizations.

In the direct parametrization z, the image of the coordinates under the frame's affine map, holds the coefficients. In
the mixture parametrization they are z times the square root of (variance / typical variance): given its variance, each
coefficient of a prior with kinks is normal.
"""

import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from bayesglm._frame import free_coordinates
from bayesglm._groups import spread
from bayesglm._posterior import Position, coef_prior, log_density_but_coef, rate

__all__ = ["potential", "unpack"]


def unpack(u, target, frame, form):
    """Parameters at the round coordinates u."""
    return _unpack(u, target, frame, form)[0]


def _unpack(u, target, frame, form):
    """Parameters, and what the affine map alone makes of u: coefficients z (p, m) and scores (L,)."""
    m, width = frame.center.shape
    moved = frame.center + jnp.einsum("mij,mj->mi", frame.factor, u[: m * width].reshape(m, width))
    coef = z = moved[:, 1:].T
    score = frame.score + frame.score_sd * u[m * width : m * width + frame.score.size]
    scale = target.scale
    if form.samples_scale:
        bent = u[-1] - frame.log_scale_tail * jnp.minimum(u[-1], 0.0) ** 2
        scale = jnp.exp(frame.log_scale + frame.log_scale_sd * bent)
    if form.mixture:
        mixing = form.prior.mixing(target.strength)
        k, has_prior = rate(scale, target, form), mixing.slope > 0
        variance = _variance(score, mixing, k)
        sd = jnp.where(has_prior, jnp.sqrt(variance / (1 + k * mixing.bend * variance)), 1.0)
        ratio = spread(sd, mixing.index, 1.0) / jnp.sqrt(frame.typical)
        coef = jnp.where(spread(has_prior, mixing.index, False), z * ratio, z)
    return Position(coef, moved[:, 0], scale), z, score


def _variance(score, mixing, k):
    """Variances of the mixture (L,): by the quantiles of their exponential density, or exp(score) for groups.

    With the former, a score is standard normal under the prior of a Lasso.
    """
    single = mixing.size == 1
    slope = jnp.where(mixing.slope > 0, k * mixing.slope, 1.0)
    exponential = -log_ndtr(-jnp.where(single, score, 0.0)) * 2 / slope**2
    return jnp.where(single, exponential, jnp.exp(jnp.where(single, 0.0, score)))


def potential(u, X, weight, target, intercept_prior, scale_prior, frame, form, *, lanes=1):
    """Minus the log posterior density, up to a constant, at the round coordinates u.

    Coordinates that move nothing, since their coefficients are held at zero, are standard normal: so masks are data
    and compile nothing.

    Parameters
    ----------
    intercept_prior, scale_prior
        As in `log_density`.
    lanes : int
        How many potentials are computed at once, in a mapped program.
    """
    position, z, score = _unpack(u, target, frame, form)
    idle = jnp.where(free_coordinates(target).ravel(), 0.0, u[: frame.center.size])
    if form.mixture:
        log_prior = _mixture_log_prob(position.scale, z, score, target, frame, form)
    else:
        log_prior = coef_prior(position.scale, target, form).log_prob(position.coef)
    rest = log_density_but_coef(position, X, weight, target, intercept_prior, scale_prior, form, lanes)
    if form.samples_scale:
        rest = rest + jnp.log1p(-2 * frame.log_scale_tail * jnp.minimum(u[-1], 0.0))
    return 0.5 * jnp.sum(idle**2) - log_prior - rest


def _mixture_log_prob(scale, z, score, target, frame, form):
    """Log density of the standardized coefficients and of the scores.

    A coefficient of variance v / (1 + c v), where v has a density as v^((d - 1) / 2) (1 + c v)^(-1/2) exp(-a^2 v / 2),
    has a density as exp(-a |w| - c w^2 / 2); so have d of them that share v, with c = 0, in their joint norm.
    """
    mixing = form.prior.mixing(target.strength)
    k = rate(scale, target, form)
    has_prior, single = mixing.slope > 0, mixing.size == 1
    slope = jnp.where(has_prior, k * mixing.slope, 1.0)
    variance = _variance(score, mixing, k)
    density = jnp.where(
        single, -0.5 * score**2, (mixing.size + 1) / 2 * score - 0.5 * jnp.where(single, 0.0, slope**2 * variance)
    )
    density = jnp.where(has_prior, density - 0.5 * jnp.log1p(k * mixing.bend * variance), -0.5 * score**2)
    normal = jnp.where(spread(has_prior, mixing.index, False), z**2 / frame.typical, 0.0)
    log_prob = jnp.sum(density) - 0.5 * jnp.sum(normal)
    if form.conditional_prior:
        # The normalizer of the variances' density is a times that of the coefficients', and a^-2 of it is in the score.
        log_prob = log_prob + coef_prior(scale, target, form).log_prob(jnp.zeros_like(z))
        log_prob = log_prob + jnp.sum(jnp.where(single, -1, 1) * jnp.log(slope))
    return log_prob
