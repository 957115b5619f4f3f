"""Strengths by the evidence: those at which the data are most likely, the coefficients integrated out.

Normal priors: the integral by Laplace's approximation, which is exact for Gaussian observations. Its slope by the
logarithm of a strength vanishes where the strength is

    (effective degrees of freedom + what the curvature at the mode changes by) / sum of k w^2,

a fixed point that is iterated and extrapolated (MacKay, Bayesian interpolation, 1992, for Gaussian observations).
Priors with kinks: there Laplace's approximation fails, so the integral is left to draws from the posterior. Given them,
the likeliest strength has a closed form (expectation maximization); draws of the later rounds are averaged.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from bayesglm._expansion import expand, slopes
from bayesglm._fitted import Fitted
from bayesglm._fitting import fit_path
from bayesglm._passes import expected_curvature, moments
from bayesglm._problem import is_grouped
from bayesglm._strength import read_groups
from bayesglm._warn import warn_user

__all__ = ["freedom_and_size", "index_of_coefficients", "most_likely_strengths", "reduce_by_rotation"]

# Change of the logarithms of strengths at which the fixed point is reached.
SETTLED = 1e-8
MAX_FITS = 300
# Multiples of the strength that halves a coefficient, beyond which it is as good as zero, or as good as free.
HIGHEST, LOWEST = 1e8, 1e-10
# Rounds of expectation maximization before, and while, their draws are averaged; draws of each of four chains.
FIRST_ROUNDS, AVERAGED_ROUNDS, DRAWS, WARMUP = 15, 25, 150, 150
# Steps of the fixed point that the likeliest strength of an elastic net is.
ELASTIC_STEPS = 30


def most_likely_strengths(setup, strength, unknowns, start=None):
    """Values (L,) of the unknown strengths, and the Fitted at these.

    Parameters
    ----------
    setup : Setup
    strength : as from `read_strength`
        With 1 in place of what is unknown.
    unknowns : Unknowns
    start : (L,), optional

    Returns
    -------
    values : (L,)
    fitted : Fitted
    """
    typical = _typical(setup, unknowns)
    start = typical if start is None else start
    if setup.parts.prior.smooth:
        small, rotated, fewer = reduce_by_rotation(setup, strength, unknowns)
        values, fitted = _iterate(small, rotated, fewer, start, typical)
        if fitted.data is not setup.data:
            (fitted,) = fit_path(setup, [unknowns.put(strength, values)])
        return values, fitted
    return _maximize_expectation(setup, strength, unknowns, start, typical)


def _typical(setup, unknowns):
    """Normal strengths (L,) that would halve the least-squares coefficients, were they independent."""
    parts, data = setup.parts, setup.data
    X, y, weight, _ = (np.asarray(leaf, float) for leaf in data[:4])
    share = weight / weight.sum()
    with jax.enable_x64(True):
        square = np.asarray(moments(X, share, centered=parts.fit_intercept)[1])
        mean = (share @ y * len(y) + 0.5) / (len(y) + 1)
        eta = np.asarray(parts.link.predictor(mean))
        scale = parts.family.scale if isinstance(parts.family.scale, float) else 1.0
        loss = partial(parts.family.nll, link=parts.link, scale=scale)
        bend = np.asarray(expected_curvature(loss, parts.link.inverse, eta))
    halving = square[:, None] * np.where(np.isfinite(bend) & (bend > 0), bend, 1.0)
    index = index_of_coefficients(unknowns, setup)
    typical = np.ones(len(unknowns.kinds))
    for label in range(len(typical)):
        values = halving[index == label]
        typical[label] = np.exp(np.log(values[values > 0]).mean()) if (values > 0).any() else 1.0
    return typical


def reduce_by_rotation(setup, strength, unknowns):
    """The same problem with no more features than samples for each strength, where coefficients share strengths.

    Normal priors of one strength look the same in all rotations of the features, and the data do not see the directions
    that are orthogonal to all samples.
    """
    X, n = setup.data.X, len(setup.data.X)
    index, strength = unknowns.index, np.asarray(strength)
    alike = (index == index[:, :1]).all() and (strength == strength[:, :1]).all() and setup.free.all()
    shared = np.stack([index[:, 0], np.where(index[:, 0] < 0, strength[:, 0], 1.0)])
    kinds, kind = np.unique(shared, axis=1, return_inverse=True)
    blocks = [np.flatnonzero(kind == number) for number in range(kinds.shape[1])]
    if not alike or sum(min(len(block), n) for block in blocks) > X.shape[1] / 2:
        return setup, strength, unknowns
    parts = [X[:, block] if len(block) <= n else np.linalg.qr(X[:, block].T, mode="r").T for block in blocks]
    rows = np.repeat([block[0] for block in blocks], [part.shape[1] for part in parts])
    data = setup.data._replace(X=np.concatenate(parts, axis=1))
    return (
        setup._replace(data=data, free=setup.free[rows]),
        strength[rows],
        unknowns._replace(index=index[rows]),
    )


def index_of_coefficients(unknowns, setup):
    """Which unknown strength each coefficient has, shape (p, outputs)."""
    if unknowns.index.ndim == 2:
        return unknowns.index
    groups, n_groups = read_groups(setup.parts.prior.mask, setup.layout, setup.outputs.shape)
    return np.append(unknowns.index, -1)[np.where(setup.free, groups, n_groups)]


def _iterate(setup, strength, unknowns, start, typical):
    """Fixed point of the slope of Laplace's evidence."""
    low, high = np.log(typical * LOWEST), np.log(typical * HIGHEST)
    fits: list[Fitted] = []
    tried: list[np.ndarray] = []

    def advance(log_values):
        values = np.exp(log_values)
        fits[:] = fit_path(setup, [unknowns.put(strength, values)], start=fits or None)
        tried.append(values)
        return np.clip(log_values + _rise(fits[0], unknowns), low, high)

    x, safe, limit = np.log(start), None, np.inf
    while len(tried) < MAX_FITS:
        once = advance(x)
        step = once - x
        size = np.linalg.norm(step)
        if np.abs(step).max() < SETTLED:
            break
        if size > limit:
            # The extrapolation went too far.
            x, limit = safe, np.inf
            continue
        twice = advance(once)
        bend = np.linalg.norm(twice - once - step)
        # The extrapolation of Varadhan and Roland (Simple and globally convergent methods, 2008), in log strengths.
        length = np.clip(size / bend, 1.0, 64.0) if bend > 0 else 1.0
        x = np.clip(x + 2 * length * step + length**2 * (twice - once - step), low, high)
        safe, limit = twice, 2 * size
    else:
        warn_user(
            f"The evidence did not settle on strengths in {MAX_FITS} fits: the data say little about some of them, as "
            "where features separate the classes. Give numbers for these, or choose by GLMCV.",
            ConvergenceWarning,
        )
    return tried[-1], fits[0]


def _rise(fitted, unknowns):
    """Logarithm of what each unknown strength is to be multiplied with, shape (L,)."""
    freedom, size = freedom_and_size(fitted, unknowns.index, len(unknowns.kinds))
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(freedom, 1e-12)) - np.log(np.maximum(size, 1e-300))


def freedom_and_size(fitted, index, count):
    """What the slope of twice the log evidence by the logarithms of strengths is the difference of, shapes (L,).

    Parameters
    ----------
    fitted : Fitted
        With normal priors.
    index : numpy.ndarray of int, shape (p, outputs)
        Which strength each coefficient has, of L = `count`; -1: none.

    Returns
    -------
    freedom, size : (L,)
        Effective degrees of freedom, with what the curvature at the mode changes by, and the sum of k s w^2.
    """
    data, spec = fitted.data, fitted.spec
    X, y, weight, offset = data.in_double()
    eta = offset + fitted.intercept + X @ fitted.coef
    freedom, size = np.zeros(count), np.zeros(count)
    form, total = spec.form, spec.total
    with jax.enable_x64(True):
        _, curvature, third = map(np.asarray, slopes(y, eta, spec.scale, family=form.family, link=form.link, order=3))
        weighted = np.where(weight[:, None] > 0, weight[:, None], 0.0)
        for output in range(y.shape[1]):
            label, free = index[:, output], spec.free[:, output]
            coef = fitted.coef[:, [output]].astype(np.float64)
            strength = spec.strength[:, [output]]
            expansion = expand(
                X, weighted * curvature[:, [output]], strength, coef, free[:, None], total, form.prior,
                form.fit_intercept, weighted * third[:, [output]],
            )  # fmt: skip
            precision = total * strength[:, 0]
            phi = total / spec.k[output]
            gained = 1 - precision * (expansion.variance - expansion.pull * coef)[:, 0]
            learned = free & (label >= 0)
            np.add.at(freedom, label[learned], gained[learned])
            np.add.at(size, label[learned], (precision * coef[:, 0] ** 2 / phi)[learned])
    return freedom, size


def _maximize_expectation(setup, strength, unknowns, start, typical):
    """Expectation maximization with draws from the posterior."""
    # Draws load ArviZ.
    from bayesglm._sampling import check_propriety

    values, fitted, mean = np.array(start), None, None
    for step in range(FIRST_ROUNDS + AVERAGED_ROUNDS):
        begin = None if fitted is None else [fitted]
        (fitted,) = fit_path(setup, [unknowns.put(strength, values)], start=begin, for_sampling=True)
        check_propriety(fitted)
        found = _expected_penalty(fitted, strength, unknowns, step)
        rounds = max(1, step - FIRST_ROUNDS + 1)
        mean = found if mean is None else mean + (found - mean) / rounds
        values = _likeliest(fitted, strength, unknowns, values, mean)
        values = np.clip(values, typical * LOWEST, typical * HIGHEST)
    (fitted,) = fit_path(setup, [unknowns.put(strength, values)], start=[fitted])
    return values, fitted


def _expected_penalty(fitted, strength, unknowns, seed):
    """Posterior mean of k times the penalty of the coefficients of each unknown strength, at strength 1, shape (L,)."""
    from bayesglm._engines import Engine, draw_batch
    from bayesglm._sampling import in_safe_precision, targets_of

    fitted = in_safe_precision(fitted)
    spec, data = fitted.spec, fitted.data
    form = replace(spec.form, mixture=True)
    engine = Engine("auto", DRAWS, WARMUP, 4, seed, 0.8, 10)
    found = np.zeros(len(unknowns.kinds))
    with jax.enable_x64(data.X.dtype == np.float64):
        for batch, target in zip(fitted.batches, targets_of(fitted), strict=True):
            draws = draw_batch(target, data, spec, form, engine, lambda *_: None).draws
            for b, outputs in enumerate(batch.outputs):
                coef = jnp.asarray(draws.coef[b].reshape(-1, *draws.coef.shape[3:]))
                for label in range(len(found)):
                    only = _only(strength, unknowns, label, outputs)
                    if only is not None:
                        penalty = jax.vmap(lambda w: spec.form.prior.penalty(w, only))  # noqa: B023
                        found[label] += spec.k[outputs[0]] * float(penalty(coef).mean())
    return found


def _only(strength, unknowns, label, outputs):
    """Strength of some outputs in which all but one unknown strength is zero; None if they do not have it."""
    if is_grouped(strength):
        rate, groups = strength
        mine = np.isin(groups[:, outputs], np.flatnonzero(unknowns.index == label))
        return (np.where(unknowns.index == label, rate, 0.0), groups[:, outputs]) if mine.any() else None
    mine = unknowns.index[:, outputs] == label
    if not mine.any():
        return None
    if isinstance(strength, tuple):
        return np.where(mine, strength[0][:, outputs], 0.0), strength[1][:, outputs]
    return np.where(mine, strength[:, outputs], 0.0)


def _likeliest(fitted, strength, unknowns, values, expected):
    """Strengths (L,) at which draws with these expected penalties are likeliest."""
    spec, prior = fitted.spec, fitted.spec.form.prior
    found = np.array(values)
    # The fixed point is reached at once where the density at zero is a power of the strength.
    steps = 1 if is_grouped(strength) or not isinstance(strength, tuple) else ELASTIC_STEPS
    with jax.enable_x64(True):
        for label in range(len(found)):
            parts = [
                (_only(strength, unknowns, label, outputs), float(spec.k[outputs[0]]))
                for batch in fitted.batches
                for outputs in batch.outputs
            ]
            for _ in range(steps):
                dimensions = [
                    _dimension(np.log(found[label]), *part, prior=prior) for part in parts if part[0] is not None
                ]
                found[label] = float(sum(dimensions)) / expected[label]
    return found


@partial(jax.jit, static_argnames="prior")
def _dimension(log_value, strength, k, *, prior):
    """Derivative of the log prior density at zero by the logarithm of the strength."""

    def log_density(log_value):
        zero = jnp.zeros((strength[1] if isinstance(strength, tuple) else strength).shape)
        return prior.distribution(prior.times(strength, jnp.exp(log_value)), k).log_prob(zero)

    return jax.grad(log_density)(log_value)
