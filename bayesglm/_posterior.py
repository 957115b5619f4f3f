"""The posterior of one problem as a function of a flat vector, in coordinates in which it looks round.

A position u of a sampler is ``z = center + factor @ u`` with ``z = (intercept, coef)`` of each output, then, in the
mixture parametrization, the logarithms of the prior's variances, then log(scale) where it is sampled. The factor is the
inverse Cholesky factor of the curvature at the mode, with a quadratic stand-in where the prior has kinks.

In the direct parametrization z holds the coefficients. In the mixture parametrization they are z times the square root
of (variance / typical variance): given its variance, each coefficient of a prior with kinks is normal.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import digamma, log_ndtr, polygamma

from bayesglm._groups import spread
from bayesglm._passes import blocks, expected_curvature, hessian_with_intercept, moments, value_and_slope
from bayesglm.links import Link

__all__ = [
    "COMPILE_QUICKLY",
    "Draws",
    "Form",
    "Position",
    "Size",
    "Target",
    "Tuning",
    "coordinates",
    "log_density",
    "potential",
    "recenter",
    "unpack",
    "whiten",
]

# Steps towards the mass of a posterior with kinks.
SETTLING_STEPS = 8
# How far from the fit's log(scale) its mode is looked for, and bisections.
SCALE_REACH, HALVINGS = 3.0, 24
# For programs that run once: the time to compile is nearly all of it.
COMPILE_QUICKLY = {"xla_backend_optimization_level": 0}


@dataclass(frozen=True)
class Form:
    """What decides the compiled program: hashable, equal for equal models."""

    family: Any
    link: Link
    prior: Any
    samples_scale: bool
    conditional_prior: bool  # whether k = total / phi follows the sampled phi
    mixture: bool = False  # whether samplers see priors with kinks as scale mixtures


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


class Draws(NamedTuple):
    """Draws of B problems with C chains of S draws; leaves (B, C, S, ...), NumPy arrays."""

    coef: Any  # (..., p, m)
    intercept: Any  # (..., m)
    scale: Any  # (...)
    stats: Any  # dict of arrays (B, C, S)


class Size(NamedTuple):
    """How many draws, and from which random numbers."""

    num_samples: int
    num_chains: int
    seed: int


class Tuning(NamedTuple):
    """How a Markov chain is tuned."""

    num_warmup: int
    target_accept_prob: float


class Frame(NamedTuple):
    """Affine map from round coordinates to parameters."""

    center: Any  # (m, 1 + p)
    factor: Any  # (m, 1 + p, 1 + p); rows and columns of coefficients held at zero are 0
    score: Any  # (L,) and its width: what the mixture's variances follow from; empty in the direct parametrization
    score_sd: Any  # (L,)
    typical: Any  # (p, m) variance of each coefficient's prior for which the factor was made
    log_scale: Any  # ()
    log_scale_sd: Any  # ()
    log_scale_tail: Any  # () how much longer than a normal one its left tail is


def whiten(X, weight, target, intercept_prior, scale_prior, form):
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
    share = weight[:, None] / phi
    curvature = share * expected_curvature(loss, form.link.inverse, eta)
    slope = share * value_and_slope(loss, target.y, eta)[1]
    hessian = jnp.stack([hessian_with_intercept(X, column) for column in curvature.T])
    gradient = jnp.concatenate([jnp.sum(slope, 0)[None], X.T @ slope]).T
    sd = _rough_sd(hessian, target, form)
    # The prior is on the intercept of the features as they came, intercept - feature_mean @ coef; at its mode, its
    # slope is that of the likelihood.
    direction = jnp.concatenate([jnp.ones(1, X.dtype), -feature_mean])
    hessian = hessian + prior_curvature[:, None, None] * jnp.outer(direction, direction)
    if intercept_prior is not None:
        gradient = gradient - gradient[:, :1] * direction
    coef, shift = target.coef, jnp.zeros_like(center_intercept)
    if not form.prior.smooth:
        coef, shift = _settle(hessian, gradient, target, sd, form)
    bend = target.k * form.prior.curvature(coef, target.strength, sd)
    factor = jax.vmap(_inverse_factor)(_with_bend(hessian, bend, target))
    free = _free_coordinates(target)
    factor = jnp.where(free[:, :, None] & free[:, None], factor, 0.0)
    # Back from centered features: the intercept takes up what the feature means contribute.
    factor = factor.at[:, 0].add(-jnp.einsum("p,mpu->mu", feature_mean, factor[:, 1:]))
    intercept = center_intercept + shift + feature_mean @ (target.coef - coef)
    center = jnp.concatenate([intercept[:, None], coef.T], 1)
    scale_frame = jnp.log(target.scale), jnp.ones_like(target.scale), jnp.zeros_like(target.scale)
    if form.samples_scale:
        scale_frame = _scale_frame(weight, target, eta, scale_prior, form)
    return Frame._make((center, factor, *_mixture_frame(target, bend, form), *scale_frame))


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
    likelihood = jnp.diagonal(hessian, axis1=1, axis2=2)[:, 1:].T
    return 1 / jnp.sqrt(likelihood + 1 / form.prior.distribution(target.strength, target.k).variance)


def _with_bend(hessian, bend, target):
    """Hessian of likelihood and prior, the identity for coefficients held at zero."""
    rows = jnp.arange(1, hessian.shape[1])
    free = _free_coordinates(target)
    whole = hessian.at[:, rows, rows].add(bend.T)
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
    free = _free_coordinates(target)
    mode = jnp.concatenate([jnp.zeros((1, target.coef.shape[1]), sd.dtype), target.coef]).T
    right = jnp.where(free, jnp.einsum("mij,mj->mi", hessian, mode) - gradient, 0.0)

    def solve(matrix, right):
        root = jnp.sqrt(jnp.diagonal(matrix))
        return cho_solve((jnp.linalg.cholesky(matrix / root / root[:, None]), True), right / root) / root

    def step(_, z):
        bend = target.k * form.prior.curvature(z[:, 1:].T, target.strength, sd)
        return jax.vmap(solve)(_with_bend(hessian, bend, target), right)

    settled = jax.lax.fori_loop(0, SETTLING_STEPS, step, mode)
    return settled[:, 1:].T, settled[:, 0]


def _mixture_frame(target, bend, form):
    """Where the scores of the mixture's variances lie, how wide they are, and the variances' typical values."""
    typical = jnp.where(bend > 0, 1 / jnp.where(bend > 0, bend, 1.0), 1.0)
    if not form.mixture:
        nothing = jnp.zeros(0, typical.dtype)
        return nothing, nothing, typical
    mixing = form.prior.mixing(target.strength)
    half, grouped = (mixing.size + 1) / 2, (mixing.slope > 0) & (mixing.size > 1)
    slope = jnp.where(grouped, target.k * mixing.slope, 1.0)
    center = jnp.where(grouped, digamma(half) - jnp.log(slope**2 / 2), 0.0)
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


def _free_coordinates(target):
    """Which of (intercept, coef) of each output move, shape (m, 1 + p)."""
    return jnp.concatenate([jnp.ones((1, target.free.shape[1]), bool), target.free]).T


def coordinates(frame, form):
    """Number of coordinates of a sampler."""
    return frame.center.size + frame.score.size + form.samples_scale


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
        k, has_prior = _k(scale, target, form), mixing.slope > 0
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
    idle = jnp.where(_free_coordinates(target).ravel(), 0.0, u[: frame.center.size])
    if form.mixture:
        log_prior = _mixture_log_prob(position.scale, z, score, target, frame, form)
    else:
        log_prior = coef_prior(position.scale, target, form).log_prob(position.coef)
    rest = _log_density_but_coef(position, X, weight, target, intercept_prior, scale_prior, form, lanes)
    if form.samples_scale:
        rest = rest + jnp.log1p(-2 * frame.log_scale_tail * jnp.minimum(u[-1], 0.0))
    return 0.5 * jnp.sum(idle**2) - log_prior - rest


def _mixture_log_prob(scale, z, score, target, frame, form):
    """Log density of the standardized coefficients and of the scores.

    A coefficient of variance v / (1 + c v), where v has a density as v^((d - 1) / 2) (1 + c v)^(-1/2) exp(-a^2 v / 2),
    has a density as exp(-a |w| - c w^2 / 2); so have d of them that share v, with c = 0, in their joint norm.
    """
    mixing = form.prior.mixing(target.strength)
    k = _k(scale, target, form)
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


def recenter(frame, mean, sd):
    """Frame in which coordinates that had these means and standard deviations, shape (D,), have 0 and 1.

    That of log(scale) keeps its mean.
    """
    m, width = frame.center.shape
    stop = m * width + frame.score.size
    first, middle = slice(0, m * width), slice(m * width, stop)
    moved = frame._replace(
        center=frame.center + jnp.einsum("mij,mj->mi", frame.factor, mean[first].reshape(m, width)),
        factor=frame.factor * sd[first].reshape(m, 1, width),
        score=frame.score + frame.score_sd * mean[middle],
        score_sd=frame.score_sd * sd[middle],
    )
    if len(mean) == stop:
        return moved
    return moved._replace(log_scale_sd=frame.log_scale_sd * sd[-1], log_scale_tail=frame.log_scale_tail * sd[-1])


def log_density(position, X, weight, target, intercept_prior, scale_prior, form):
    """Log posterior density, up to the terms of y alone, in (coef, intercept, log scale).

    Parameters
    ----------
    intercept_prior : NumPyro distribution or None
        Of the intercepts of all outputs of the model; None is flat.
    scale_prior : NumPyro distribution or None
        None is the family's default.
    """
    log_prior = coef_prior(position.scale, target, form).log_prob(position.coef)
    return log_prior + _log_density_but_coef(position, X, weight, target, intercept_prior, scale_prior, form, lanes=1)


def _log_density_but_coef(position, X, weight, target, intercept_prior, scale_prior, form, lanes):
    """Log posterior density without the prior of the coefficients."""
    log_prob = log_likelihood(X, weight, target, form, lanes)(position.coef, position.intercept, position.scale)
    if intercept_prior is not None:
        log_prob = log_prob + jnp.sum(log_intercept_prior(position.intercept, target.outputs, intercept_prior))
    if form.samples_scale:
        log_prob = log_prob + jnp.log(position.scale)
        log_prob = log_prob + log_scale_prior(position.scale, target, scale_prior, form)
    return log_prob


def log_likelihood(X, weight, target, form, lanes):
    """Log-likelihood of one problem, up to terms of y alone, as a function of (coef, intercept, scale).

    Value and derivatives come together, from one pass over X in blocks of samples. Mapped over chains and problems,
    the products with X become those of matrices, so a block is small if there are many.
    """

    def in_block(block, y, offset, share, coef, intercept, scale):
        eta = coef @ block.T + offset + intercept[:, None]

        def total(eta, scale):
            terms = form.family.nll(y, eta, form.link, scale) / form.family.phi(scale)
            if form.samples_scale:
                terms = terms + form.family.log_normalizer(y, scale)
            return -jnp.sum(share * terms)

        value, pull = jax.vjp(total, eta, scale)
        by_eta, by_scale = pull(jnp.ones_like(value))
        return value, by_eta @ block, jnp.sum(by_eta, 1), by_scale

    def value_and_slopes(coef, intercept, scale):
        zero = jnp.zeros((), X.dtype)
        start = zero, jnp.zeros((coef.shape[1], len(coef)), X.dtype), jnp.zeros_like(intercept), zero

        def visit(carry, block, rows, fresh):
            y, offset, share = rows
            new = in_block(block, y.T, offset.T, jnp.where(fresh, share, 0.0), coef.T, intercept, scale)
            return jax.tree.map(jnp.add, carry, new)

        value, by_coef, by_intercept, by_scale = blocks(X, start, visit, target.y, target.offset, weight, lanes=lanes)
        return value, (by_coef.T, by_intercept, by_scale)

    @jax.custom_vjp
    def value(coef, intercept, scale):
        return value_and_slopes(coef, intercept, scale)[0]

    value.defvjp(value_and_slopes, lambda slopes, ct: jax.tree.map(lambda slope: ct * slope, slopes))
    return value


def coef_prior(scale, target, form):
    """Prior of the coefficients at a value of the family's second parameter."""
    return form.prior.distribution(target.strength, _k(scale, target, form))


def _k(scale, target, form):
    """What the penalty is multiplied with to be minus the log prior density."""
    return target.total / form.family.phi(scale) if form.conditional_prior else target.k


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
