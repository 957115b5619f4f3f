"""The posterior of one problem: what it is made of, and its log density as a function of the parameters."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayesglm._groups import spread
from bayesglm._passes import blocks
from bayesglm.links import Link

__all__ = [
    "Draws",
    "Form",
    "Learned",
    "Position",
    "Priors",
    "Size",
    "Target",
    "Tuning",
    "at_strengths",
    "coef_prior",
    "log_density",
    "log_density_but_coef",
    "log_intercept_prior",
    "log_likelihood",
    "log_scale_prior",
    "log_strength_priors",
    "rate",
    "strength_log_probs",
]


@dataclass(frozen=True)
class Form:
    """What decides the compiled program: hashable, equal for equal models."""

    family: Any
    link: Link
    prior: Any
    samples_scale: bool
    conditional_prior: bool  # whether k = total / phi follows the sampled phi
    mixture: bool = False  # whether samplers see priors with kinks as scale mixtures
    fit_intercept: bool = True  # whether there is an intercept; otherwise it is 0
    n_classes: int = 1  # outputs that are the classes of one response

    def by_class(self, array):
        """Numbers (..., outputs) with an axis of classes at the end, if the family is of classes."""
        if not self.family.joint:
            return array
        return array.reshape(*array.shape[:-1], -1, self.n_classes)

    def per_response(self, array):
        """Terms of `by_class`, summed over classes: (..., responses)."""
        return array.sum(-1) if self.family.joint else array


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
    free_intercept: Any  # (m,) bool: intercepts that are not held where they are
    learned: Any = None  # Learned, if some strengths are random


class Learned(NamedTuple):
    """Strengths of one problem that are random variables, L of them."""

    index: Any  # which of them each coefficient (p, m), or each group (G,), has; L: none
    label: Any  # (L,) which of the model's they are; one more than those have: none, there to fill up
    value: Any  # (L,) what they are in the target's strength


class Priors(NamedTuple):
    """NumPyro distributions of what all problems of a model share."""

    intercept: Any  # of the intercepts of all outputs; None is flat
    scale: Any  # of the family's second parameter; None is the family's default
    strengths: tuple = ()  # of strengths; their batches one after the other are the model's random strengths


class Position(NamedTuple):
    """A point of the parameter space in the user's terms."""

    coef: Any  # (p, m)
    intercept: Any  # (m,)
    scale: Any  # ()
    strength: Any = None  # (L,) random strengths, None if there are none


class Draws(NamedTuple):
    """Draws of B problems with C chains of S draws; leaves (B, C, S, ...), NumPy arrays."""

    coef: Any  # (..., p, m)
    intercept: Any  # (..., m)
    scale: Any  # (...)
    strength: Any  # (..., L) or None
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


def log_density(position, X, weight, target, priors, form):
    """Log posterior density, up to the terms of y alone, in (coef, intercept, log scale)."""
    log_prior = coef_prior(position.scale, target, form).log_prob(position.coef)
    return log_prior + log_density_but_coef(position, X, weight, target, priors, form, lanes=1)


def log_density_but_coef(position, X, weight, target, priors, form, lanes):
    """Log posterior density without the prior of the coefficients."""
    log_prob = log_likelihood(X, weight, target, form, lanes)(position.coef, position.intercept, position.scale)
    if priors.intercept is not None:
        log_prob = log_prob + jnp.sum(log_intercept_prior(position.intercept, target.outputs, priors.intercept))
    if form.samples_scale:
        log_prob = log_prob + jnp.log(position.scale)
        log_prob = log_prob + log_scale_prior(position.scale, target, priors.scale, form)
    return log_prob


def log_likelihood(X, weight, target, form, lanes):
    """Log-likelihood of one problem, up to terms of y alone, as a function of (coef, intercept, scale).

    Value and derivatives come together, from one pass over X in blocks of samples. Mapped over chains and problems,
    the products with X become those of matrices, so a block is small if there are many.
    """

    def in_block(block, y, offset, share, coef, intercept, scale):
        eta = coef @ block.T + offset + intercept[:, None]

        def total(eta, scale):
            if form.family.joint:
                # Classes are the last axis of its functions.
                terms = form.family.nll(y.T, eta.T, form.link, scale).T
            else:
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
    return form.prior.distribution(target.strength, rate(scale, target, form))


def rate(scale, target, form):
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


def at_strengths(target, strength, form):
    """Target at other values (L,) of its random strengths."""
    factor = spread(strength / target.learned.value, target.learned.index, 1.0)
    return target._replace(strength=form.prior.times(target.strength, factor))


def log_strength_priors(strength, target, priors):
    """Log prior densities of the logarithms of a problem's random strengths (L,); those that fill up are normal."""
    label = target.learned.label
    total = sum(math.prod(prior.batch_shape) for prior in priors.strengths)
    # Every distribution sees a value in each place of its batch; only those of this problem are kept.
    everywhere = jnp.ones(total, strength.dtype).at[label].set(strength, mode="drop")
    log_strength = jnp.log(strength)
    density = strength_log_probs(everywhere, priors.strengths)[label] + log_strength
    return jnp.where(label < total, density, -0.5 * log_strength**2)


def strength_log_probs(strength, distributions):
    """Log prior densities (..., L) of a model's random strengths (..., L)."""
    parts, first = [], 0
    for prior in distributions:
        last = first + math.prod(prior.batch_shape)
        values = strength[..., first:last].reshape(*strength.shape[:-1], *prior.batch_shape)
        parts.append(jnp.reshape(prior.log_prob(values), (*strength.shape[:-1], last - first)))
        first = last
    return jnp.concatenate(parts, -1)
