"""Coordinates in which a posterior looks round: an affine map made from its curvature at the mode.

With ``z = (intercept, coef)`` of each output, ``z = center + factor @ u``; for classes, z is that of all of them. The
factor is the inverse Cholesky factor of the curvature, with a quadratic stand-in where the prior has kinks. After these
coordinates u come, in the mixture parametrization, the scores of the prior's variances, then those of the logarithms of
random strengths, and that of log(scale) where it is sampled.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import digamma, polygamma

from bayesglm._groups import spread
from bayesglm._passes import (
    expected_curvature,
    hessian_with_intercept,
    joint_curvature,
    moments,
    value_and_slope,
)
from bayesglm._posterior import log_intercept_prior, log_scale_prior, log_strength_priors

__all__ = ["COMPILE_QUICKLY", "Frame", "coordinates", "free_coordinates", "recenter", "transform", "whiten"]

# Steps towards the mass of a posterior with kinks.
SETTLING_STEPS = 8
# Standard deviations from zero up to which coefficients that may not be negative count as near their bound.
NEAR = 2.5
# Share of its curvature that a coefficient which may not be negative is sure to have on its own.
JITTER = 1e-6
# How far from the fit's log(scale) its mode is looked for, and bisections.
SCALE_REACH, HALVINGS = 3.0, 24
# How far from where it is the logarithm of a strength is looked at, and at how many points.
STRENGTH_REACH, STRENGTH_POINTS = 12.0, 193
# Towards the mode of the intercepts of classes under a prior.
NEWTON_STEPS, LARGEST_STEP = 40, 3.0
# For programs that run once: the time to compile is nearly all of it.
COMPILE_QUICKLY = {"xla_backend_optimization_level": 0}


class Frame(NamedTuple):
    """Affine map from round coordinates to parameters."""

    center: Any  # (m, 1 + p)
    factor: Any  # (m, 1 + p, 1 + p), or for classes (1, m (1 + p), m (1 + p)); 0 where coefficients are held at zero
    score: Any  # (L,) and its width: what the mixture's variances follow from; empty in the direct parametrization
    score_sd: Any  # (L,)
    typical: Any  # (p, m) variance of each coefficient's prior for which the factor was made
    feature_mean: Any  # (p,)
    prior_share: Any  # (p, m) what the prior knows of each coefficient, as a share of what is known of it
    anchor: Any  # (p, m) mean of each coefficient, as far as it follows the prior
    log_strength: Any  # (L,) where the logarithms of random strengths lie, and how wide; empty if there are none
    log_strength_sd: Any  # (L,)
    log_strength_tails: Any  # (L, 2) how much longer than normal ones their left and right tails are
    log_scale: Any  # ()
    log_scale_sd: Any  # ()
    log_scale_tail: Any  # () how much longer than a normal one its left tail is


def whiten(X, weight, target, priors, form):
    """Affine map in which the posterior is round near its mode.

    Returns
    -------
    Frame
    """
    total, joint = jnp.sum(weight), form.family.joint
    loss = partial(form.family.nll, link=form.link, scale=target.scale)
    phi = form.family.phi(target.scale)
    center_intercept, prior_curvature = target.intercept, jnp.zeros_like(target.intercept)
    if priors.intercept is not None:
        find = _intercepts_of_classes if joint else _intercept_with_prior
        center_intercept, prior_curvature = find(X, weight, target, priors.intercept, loss, phi)
    feature_mean, square = moments(X, weight / total, centered=form.fit_intercept)
    X = jnp.where(square > 0, X - feature_mean, 0.0)
    eta = target.offset + center_intercept + feature_mean @ target.coef + X @ target.coef
    share = weight[:, None] / phi
    slope = share * value_and_slope(loss, target.y, eta, joint=joint)[1]
    if joint:
        hessian = _joint_hessian(X, share[:, :, None] * joint_curvature(form.link.inverse, eta))
    else:
        curvature = share * expected_curvature(loss, form.link.inverse, eta)
        hessian = jnp.stack([hessian_with_intercept(X, column) for column in curvature.T])
    gradient = jnp.concatenate([jnp.sum(slope, 0)[None], X.T @ slope]).T
    sd = _rough_sd(hessian, target, form)
    if form.prior.has_bounds:
        hessian, gradient = _with_bounds(hessian, gradient, target)
    # The prior is on the intercept of the features as they came, intercept - feature_mean @ coef; at its mode, its
    # slope is that of the likelihood.
    direction = jnp.concatenate([jnp.ones(1, X.dtype), -feature_mean])
    hessian = hessian + _like(hessian, prior_curvature[:, None, None] * jnp.outer(direction, direction))
    if priors.intercept is not None:
        gradient = gradient - gradient[:, :1] * direction
    coef, shift = target.coef, jnp.zeros_like(center_intercept)
    if not form.prior.smooth:
        coef, shift = _settle(hessian, gradient, target, sd, form)
    bend = target.k * form.prior.curvature(coef, target.strength, sd)
    if form.prior.has_bounds:
        hessian, coef = _without_sides(hessian, bend, coef, target)
    factor = jax.vmap(_inverse_factor)(_with_bend(hessian, bend, target))
    free = free_coordinates(target).reshape(factor.shape[:2])
    factor = jnp.where(free[:, :, None] & free[:, None], factor, 0.0)
    # Back from centered features: the intercept takes up what the feature means contribute.
    by_output = factor.reshape(len(factor), -1, 1 + X.shape[1], factor.shape[2])
    by_output = by_output.at[:, :, 0].add(-jnp.einsum("p,gmpu->gmu", feature_mean, by_output[:, :, 1:]))
    factor = by_output.reshape(factor.shape)
    intercept = center_intercept + shift + feature_mean @ (target.coef - coef)
    center = jnp.concatenate([intercept[:, None], coef.T], 1)
    scale_frame = jnp.log(target.scale), jnp.ones_like(target.scale), jnp.zeros_like(target.scale)
    if form.samples_scale:
        scale_frame = _scale_frame(weight, target, eta, priors.scale, form)
    variance = jnp.sum(by_output[:, :, 1:] ** 2, -1).reshape(-1, X.shape[1]).T
    share = jnp.clip(bend * variance, 1e-6, 1 - 1e-6)
    strength_frame = _strength_frame(target, bend, share, coef, priors, form)
    anchor = coef
    if X.shape[1] >= X.shape[0]:
        # The data leave directions to the prior, in which all coefficients take part.
        share, anchor = jnp.ones_like(share), jnp.zeros_like(coef)
    return Frame._make(
        (
            center,
            factor,
            *_mixture_frame(target, bend, form),
            feature_mean,
            share,
            anchor,
            *strength_frame,
            *scale_frame,
        )
    )


def _strength_frame(target, bend, share, coef, priors, form):
    """Where the logarithms of random strengths lie, their width and tails.

    The density of a strength is taken to be that of coefficients which the data inform of one by one: an estimate from
    the data alone is then normal, its variance the sum of the prior's and of its own.
    """
    if target.learned is None:
        nothing = jnp.zeros(0, bend.dtype)
        return nothing, nothing, nothing
    learned, count = target.learned, len(target.learned.label)
    index = learned.index if form.prior.separable else spread(learned.index, target.strength[1], count)
    index = jnp.where(target.free, index, count)
    # The standard deviation of a prior is the strength to the power of minus this.
    power = 0.5 if form.prior.smooth else 1.0
    precision = jnp.where(bend > 0, bend, 1.0)
    estimate = coef / (1 - share)

    def log_prob(move):
        """Log density (L,) of the logarithms of the strengths, all of them moved."""
        variance = share / (1 - share) / precision + jnp.exp(-2 * power * move) / precision
        terms = -0.5 * (jnp.log(variance) + estimate**2 / variance)
        evidence = jnp.zeros(count + 1, bend.dtype).at[index].add(terms)[:count]
        return evidence + log_strength_priors(learned.value * jnp.exp(move), target, priors)

    moves = jnp.linspace(-STRENGTH_REACH, STRENGTH_REACH, STRENGTH_POINTS).astype(bend.dtype)
    values = jax.lax.map(log_prob, moves)
    top = jnp.clip(jnp.argmax(values, axis=0), 1, STRENGTH_POINTS - 2)
    highest, low, high = (jnp.take_along_axis(values, (top + step)[None], 0)[0] for step in (0, -1, 1))
    width = jax.lax.rsqrt(jnp.clip((2 * highest - low - high) / (moves[1] - moves[0]) ** 2, 0.1, None))
    # Three standard deviations away a normal density has fallen by 4.5 on the logarithmic scale.
    within = values > highest - 4.5
    far = jnp.stack([jnp.where(within, sign * (moves[:, None] - moves[top]), 0.0).max(0) for sign in (-1, 1)], -1)
    tails = jnp.clip((far / width[:, None] - 3) / 9, 0.0, 3.0)
    return jnp.log(learned.value) + moves[top], width, tails


def _scale_frame(weight, target, eta, scale_prior, form):
    """Mode of log(scale) near that of the fit, given the linear predictors, its width there, and its left tail.

    The tail is long where the data allow a dispersion of zero: log(scale) is mode + width * (u - tail * u^2) for u < 0.
    """

    def log_prob(log_scale):
        scale = jnp.exp(log_scale)
        nll = form.family.nll(target.y, eta, form.link, scale) / form.family.phi(scale)
        terms = weight[:, None] * (nll + form.family.log_normalizer(target.y, scale))
        return log_scale_prior(scale, target, scale_prior, form) + log_scale - jnp.sum(terms)

    def last(condition, low, high):
        """Where a condition that holds at `low` ceases to hold on the way to `high`."""

        def halve(_, bounds):
            middle = (bounds[0] + bounds[1]) / 2
            holds = condition(middle)
            return jnp.where(holds, middle, bounds[0]), jnp.where(holds, bounds[1], middle)

        return jax.lax.fori_loop(0, HALVINGS, halve, (low, high))[0]

    start = jnp.log(target.scale)
    mode = last(lambda x: jax.grad(log_prob)(x) > 0, start - SCALE_REACH, start + SCALE_REACH)
    curvature = -jax.grad(jax.grad(log_prob))(mode)
    width = jax.lax.rsqrt(jnp.clip(curvature, 1 / SCALE_REACH**2, None))
    # Three standard deviations away a normal density has fallen by 4.5 on the logarithmic scale.
    top = log_prob(mode)
    edge = last(lambda x: log_prob(x) > top - 4.5, mode, mode - 30.0)
    return mode, width, jnp.maximum(((mode - edge) / width - 3) / 9, 0.0)


def _rough_sd(hessian, target, form):
    """Standard deviations of coefficients (p, m), were they independent."""
    likelihood = jnp.diagonal(hessian, axis1=1, axis2=2).reshape(target.coef.shape[1], -1)[:, 1:].T
    return 1 / jnp.sqrt(likelihood + 1 / form.prior.distribution(target.strength, target.k).variance)


def _with_bend(hessian, bend, target):
    """Hessian of likelihood and prior, the identity for coefficients held at zero."""
    rows = jnp.arange(hessian.shape[1])
    free = free_coordinates(target).reshape(hessian.shape[:2])
    whole = hessian.at[:, rows, rows].add(jnp.pad(bend, ((1, 0), (0, 0))).T.reshape(hessian.shape[:2]))
    return jnp.where(free[:, :, None] & free[:, None], whole, jnp.eye(hessian.shape[1], dtype=hessian.dtype))


def _inverse_factor(hessian):
    """F with F F' the inverse of a matrix."""
    root = jnp.sqrt(jnp.diagonal(hessian))
    lower = jnp.linalg.cholesky(hessian / root / root[:, None])
    return solve_triangular(lower.T, jnp.eye(len(root), dtype=hessian.dtype)) / root[:, None]


def _settle(hessian, gradient, target, sd, form):
    """Coefficients (p, m), and shift of the intercepts of centered features, where a posterior with kinks has its mass.

    The mode of the normal approximation of the likelihood, times the prior with its kinks rounded off over `sd`.
    """
    free = free_coordinates(target)
    mode = jnp.concatenate([jnp.zeros((1, target.coef.shape[1]), sd.dtype), target.coef]).T
    right = jnp.where(free, transform(hessian, mode) - gradient, 0.0)

    def solve(matrix, right):
        root = jnp.sqrt(jnp.diagonal(matrix))
        return cho_solve((jnp.linalg.cholesky(matrix / root / root[:, None]), True), right / root) / root

    def step(_, z):
        bend = target.k * form.prior.curvature(z[:, 1:].T, target.strength, sd)
        whole = _with_bend(hessian, bend, target)
        return jax.vmap(solve)(whole, right.reshape(whole.shape[:2])).reshape(right.shape)

    settled = jax.lax.fori_loop(0, SETTLING_STEPS, step, mode)
    return settled[:, 1:].T, settled[:, 0]


def _with_bounds(hessian, gradient, target):
    """Hessian and gradient of -log likelihood (m, 1 + p, ...) where coefficients that are folded have their mass.

    One that its bound holds at zero has a likelihood there that falls with its absolute value, at a slope g: a kink. Of
    a double exponential density of rate g the precision is g^2 / 2.
    """
    held = target.strength.bounded & (target.coef == 0) & target.free
    slope = jnp.where(held, jnp.maximum(gradient[:, 1:].T, 0.0), 0.0)
    rows = jnp.arange(1, hessian.shape[1])
    # Features that are collinear, and held by the bounds alone.
    jitter = jnp.where(target.strength.bounded, JITTER, 0.0).T * hessian[:, rows, rows]
    return hessian.at[:, rows, rows].add(slope.T**2 / 2 + jitter), gradient.at[:, 1:].add(-slope.T)


def _without_sides(hessian, bend, coef, target):
    """Hessian and coefficients where those near their bounds are as often negative as not, before they are folded.

    They are then zero on average and correlated with nothing.
    """
    whole = _with_bend(hessian, bend, target)
    sd = jnp.sqrt(jnp.sum(jax.vmap(_inverse_factor)(whole) ** 2, -1))[:, 1:].T
    near = target.strength.bounded & target.free & (coef < NEAR * sd)
    apart = jnp.concatenate([jnp.zeros((1, near.shape[1]), bool), near]).T
    hessian = jnp.where(apart[:, :, None] | apart[:, None], 0.0, hessian)
    rows = jnp.arange(1, hessian.shape[1])
    precision = 1 / (1 / whole[:, rows, rows].T + coef**2) - bend
    hessian = hessian.at[:, rows, rows].add(jnp.where(near, precision, 0.0).T)
    return hessian, jnp.where(near, 0.0, coef)


def _mixture_frame(target, bend, form):
    """Where the scores of the mixture's variances lie, how wide they are, and the variances' typical values."""
    typical = jnp.where(bend > 0, 1 / jnp.where(bend > 0, bend, 1.0), 1.0)
    if not form.mixture:
        nothing = jnp.zeros(0, typical.dtype)
        return nothing, nothing, typical
    mixing = form.prior.mixing(target.strength)
    half, grouped = (mixing.size + 1) / 2, (mixing.slope > 0) & (mixing.size > 1)
    center = jnp.where(grouped, digamma(half) + jnp.log(2.0), 0.0)
    return center, jnp.where(grouped, jnp.sqrt(polygamma(1, half)), 1.0), typical


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


def _intercepts_of_classes(X, weight, target, intercept_prior, loss, phi):
    """`_intercept_with_prior` where the loss is joint, by Newton's method."""
    fixed = target.offset + X @ target.coef

    def nll(intercept):
        log_prior = jnp.sum(log_intercept_prior(intercept, target.outputs, intercept_prior))
        return jnp.sum(weight[:, None] * loss(target.y, fixed + intercept)) / phi - log_prior

    def step(_, intercept):
        move = -jnp.linalg.solve(jax.hessian(nll)(intercept), jax.grad(nll)(intercept))
        return intercept + move / jnp.maximum(1.0, jnp.max(jnp.abs(move)) / LARGEST_STEP)

    mode = jax.lax.fori_loop(0, NEWTON_STEPS, step, target.intercept)
    prior = jax.hessian(lambda b: -jnp.sum(log_intercept_prior(b, target.outputs, intercept_prior)))(mode)
    return mode, jnp.maximum(jnp.diagonal(prior), 0.0)


def _joint_hessian(X, curvature):
    """Second derivatives by the intercepts and coefficients of all classes, (1, m (1 + p), m (1 + p))."""
    n, m, _ = curvature.shape
    pairs = jax.lax.map(lambda column: hessian_with_intercept(X, column), curvature.reshape(n, m * m).T)
    width = 1 + X.shape[1]
    return pairs.reshape(m, m, width, width).transpose(0, 2, 1, 3).reshape(1, m * width, m * width)


def _like(hessian, blocks):
    """One matrix (m, 1 + p, 1 + p) for each output in the shape of a Hessian."""
    if hessian.shape == blocks.shape:
        return blocks
    m, width, _ = blocks.shape
    outputs = jnp.arange(m)
    whole = jnp.zeros((m, width, m, width), blocks.dtype).at[outputs, :, outputs].set(blocks)
    return whole.reshape(hessian.shape)


def transform(matrices, z):
    """Matrices, as of a frame's factor, times vectors z (m, 1 + p)."""
    return jnp.einsum("gij,gj->gi", matrices, z.reshape(len(matrices), -1)).reshape(z.shape)


def free_coordinates(target):
    """Which of (intercept, coef) of each output move, shape (m, 1 + p)."""
    return jnp.concatenate([target.free_intercept[None], target.free]).T


def coordinates(frame, form):
    """Number of coordinates of a sampler."""
    return frame.center.size + frame.score.size + frame.log_strength.size + form.samples_scale


def recenter(frame, mean, sd):
    """Frame in which coordinates that had these means and standard deviations, shape (D,), have 0 and 1.

    Those of log(scale) and of logarithms of strengths keep their means.
    """
    m, width = frame.center.shape
    ends = np.cumsum([m * width, frame.score.size, frame.log_strength.size])
    first, middle, last = (slice(*bounds) for bounds in zip([0, *ends[:-1]], ends, strict=True))
    moved = frame._replace(
        center=frame.center + transform(frame.factor, mean[first].reshape(m, width)),
        factor=frame.factor * sd[first].reshape(len(frame.factor), 1, -1),
        score=frame.score + frame.score_sd * mean[middle],
        score_sd=frame.score_sd * sd[middle],
        log_strength_sd=frame.log_strength_sd * sd[last],
        log_strength_tails=frame.log_strength_tails * sd[last, None],
    )
    if len(mean) == ends[-1]:
        return moved
    return moved._replace(log_scale_sd=frame.log_scale_sd * sd[-1], log_scale_tail=frame.log_scale_tail * sd[-1])
