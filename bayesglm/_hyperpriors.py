"""Random strengths: their distributions, the fit that fixes k, and where a sampler begins."""

import re
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesglm._evidence import freedom_and_size, index_of_coefficients, reduce_by_rotation
from bayesglm._fitting import fit_path
from bayesglm._model import Hyper
from bayesglm._numpyro import dist
from bayesglm._posterior import strength_log_probs
from bayesglm._problem import coupled_outputs, make_batches
from bayesglm.priors import Ridge

__all__ = ["fit_at_medians", "start_of_sampler"]

# Fits that look for the k of "learn", where the dispersion is that of the fit.
K_ROUNDS = 4
# Fits that look for the posterior of the strengths, and the change of the logarithms of precisions that ends them.
START_ROUNDS, SETTLED = 20, 0.1
# Changes of the logarithm of a precision that one such fit looks over.
CHANGES = np.linspace(-4.0, 4.0, 161)
# Logarithm of the largest and of one over the smallest median, bisections towards it, and draws where these fail.
REACH, HALVINGS, DRAWS = 80.0, 60, 100_001


class _Modes(NamedTuple):
    """What a sampler needs of a fit, leaves (B, ...)."""

    coef: Any
    intercept: Any


def fit_at_medians(setup, strength, unknowns):
    """Fit at the medians of the random strengths.

    Parameters
    ----------
    setup : Setup
    strength : as from `read_strength`
        With 1 in place of what is random.
    unknowns : Unknowns

    Returns
    -------
    fitted : Fitted
        Its `spec` has the random strengths, and the k of their priors.
    values : (L,)
        The medians.

    Raises
    ------
    ValueError
        If outputs share a random strength, but not their dispersion.
    """
    k = _rough_k(setup)
    for _ in range(K_ROUNDS):
        hyper = _hyper(setup, strength, unknowns, k)
        values = np.concatenate([np.ravel(_median(each)) for each in hyper.distributions])
        (fitted,) = fit_path(setup, [unknowns.put(strength, values)], for_sampling=True)
        new = fitted.spec.k
        if "learn" not in unknowns.kinds or np.isnan(new).any() or np.allclose(new, k, rtol=1e-3):
            break
        k = new
    spec = replace(fitted.spec, hyper=hyper)
    shared = index_of_coefficients(unknowns, setup)
    if spec.form.samples_scale and len(coupled_outputs(strength, len(k), shared)) < len(spec.blocks):
        raise ValueError(
            "regularizer_strength has a random strength that outputs share, each with a dispersion of its own; give "
            f"every output its own: [['learn'] * {len(k)}], or a distribution of batch shape (1, {len(k)})."
        )
    return replace(fitted, spec=spec), values


def _rough_k(setup):
    """k (outputs,) for a dispersion that is given, or that of y where the fit will tell it."""
    family, data = setup.parts.family, setup.data
    total = data.weight.sum()
    scale = np.ones(data.y.shape[1])
    if isinstance(family.scale, float):
        scale = scale * family.scale
    elif family.reports_sigma:
        scale = data.weight @ (data.y - data.weight @ data.y / total) ** 2 / total
    return total / np.asarray(family.phi(np.where(scale > 0, scale, 1.0)))


def _hyper(setup, strength, unknowns, k):
    """Random strengths, with a distribution for each "learn"."""
    index = index_of_coefficients(unknowns, setup)
    places = {_variable(label): where for label, where in unknowns.places.items()}
    distributions, names = [], []
    for label, kind in enumerate(unknowns.kinds):
        if isinstance(kind, str):
            distributions.append(_learn(setup, index == label, k))
        elif label and kind is unknowns.kinds[label - 1]:
            continue  # a further one of its batch
        else:
            distributions.append(kind)
        names.append(_name(places, label))
    return Hyper(strength, unknowns.index, tuple(distributions), tuple(names), places)


def _variable(place):
    """Name of the variable of a place in the user's tree: "regularizer_strength['a'][0]" is "strength.a.0"."""
    keys = re.findall(r"\[(?:'((?:[^'\\]|\\.)*)'|(.+?))\]", place)
    return ".".join(["strength", *(quoted or bare for quoted, bare in keys)]).replace("/", ".")


def _name(places, label):
    """Name of the variable of a distribution whose first strength this is: of its first place, and where in that."""
    name, where = next((name, where) for name, where in places.items() if (where == label).any())
    position = np.argwhere(where == label)[0]
    return name if not position.any() else f"{name}[{', '.join(map(str, position))}]"


def _learn(setup, mine, k):
    """Distribution of a strength under which the scale of the prior is half-normal.

    With a scale such that the part of the linear predictor that these coefficients make varies as much as y does,
    whatever their number, the spread of their features and the units.
    """
    data, parts = setup.data, setup.parts
    share = data.weight / data.weight.sum()
    # Without an intercept the coefficients make the level of y, too.
    variance = share @ (data.X - share @ data.X * parts.fit_intercept) ** 2
    outputs = mine.any(0)
    part = np.sqrt((variance[:, None] * mine).sum(0)[outputs].mean())
    scale = _spread_of_y(data, parts.link, parts.fit_intercept)[outputs].mean() / (part if part > 0 else 1.0)
    rate = k[outputs].mean()
    # The scale of the prior is 1 / sqrt(k s) for Ridge, 1 / (k s) otherwise.
    power, unit = (-2.0, np.sqrt(rate)) if parts.prior.smooth else (-1.0, rate)
    return dist.TransformedDistribution(dist.HalfNormal(float(scale * unit)), dist.transforms.PowerTransform(power))


def _spread_of_y(data, link, fit_intercept):
    """Standard deviation of y in units of the linear predictor, (outputs,); without an intercept, around 0 there."""
    share = data.weight / data.weight.sum()
    mean = share @ data.y
    spread = np.sqrt(share @ (data.y - mean) ** 2)
    with jax.enable_x64(True):
        eta = jnp.asarray(link.predictor(jnp.asarray(mean, float)))
        slope = np.abs(np.asarray(jax.vmap(jax.grad(link.inverse))(eta)))
    usable = np.isfinite(slope) & (slope > 0) & (spread > 0)
    spread = np.where(usable, spread / np.where(usable, slope, 1.0), 1.0)
    return spread if fit_intercept else np.hypot(spread, np.where(usable, eta, 0.0))


def _median(prior):
    """Median, of the shape of the distribution's batch: where its distribution function is 1/2, or that of draws."""
    low, high = np.full(prior.batch_shape, -REACH), np.full(prior.batch_shape, REACH)
    with jax.enable_x64(True):
        try:
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                below = np.asarray(prior.cdf(jnp.exp(middle))) < 0.5
                low, high = np.where(below, middle, low), np.where(below, high, middle)
        except NotImplementedError:
            return np.median(np.asarray(prior.sample(jax.random.key(0), (DRAWS,))), axis=0)
    return np.exp(low)


def start_of_sampler(setup, fitted, unknowns, values):
    """The fit at strengths near the middle of their posterior, in batches of the outputs that these connect.

    They are where the normal approximation of the evidence, times the density of the strengths, is highest. In place
    of a prior with kinks stands the normal one of the same standard deviations.

    Parameters
    ----------
    setup : Setup
    fitted, values
        As from `fit_at_medians`.
    unknowns : Unknowns

    Returns
    -------
    fitted : Fitted
        With the `spec` that came, but for the strength.
    values : (L,)
    """
    spec = fitted.spec
    prior, hyper, k = setup.parts.prior, spec.hyper, spec.k
    index = index_of_coefficients(unknowns, setup)
    normal = setup._replace(parts=setup.parts._replace(prior=Ridge()))
    strength = _normal_strength(prior, unknowns.put(hyper.base, values), k, setup.free)
    small, strength, fewer = reduce_by_rotation(normal, strength, unknowns._replace(index=index))
    # The precision of a prior is the strength to the power of one over this.
    power = 1.0 if prior.smooth else 0.5
    precision, begin, share = np.ones(len(values)), None, 1.0
    for _ in range(START_ROUNDS):
        begin = fit_path(small, [share * fewer.put(strength, precision)], start=begin, for_sampling=True)
        # A strength is a precision per unit of the k of its own fit.
        share = np.nan_to_num(k / begin[0].spec.k, nan=1.0)
        freedom, size = freedom_and_size(begin[0], fewer.index, len(values))
        change = _best_change(freedom, size, values, hyper.distributions, power)
        precision, values = precision * np.exp(change), values * np.exp(power * change)
        if np.abs(change).max() < SETTLED:
            break
    (found,) = fit_path(setup, [unknowns.put(hyper.base, values)], for_sampling=True)
    batches = make_batches(setup.data, found.spec.strength, setup.free, index)
    modes = [
        _Modes(*(np.stack([each[..., block] for block in batch.outputs]) for each in (found.coef, found.intercept)))
        for batch in batches
    ]
    return replace(found, batches=batches, modes=modes, spec=replace(spec, strength=found.spec.strength)), values


def _normal_strength(prior, strength, k, free):
    """Strengths (p, outputs) of the normal priors of the same standard deviations; 0 where there is no prior."""
    with jax.enable_x64(True):
        flat = np.asarray(prior.is_flat(strength)) | ~free
        # Of a group that spans outputs, these share k.
        each = [np.asarray(prior.distribution(strength, one).variance)[:, [i]] for i, one in enumerate(k)]
    variance = np.concatenate(each, axis=1)
    return np.where(flat, 0.0, 1 / (k * np.where(flat, 1.0, variance)))


def _best_change(freedom, size, values, distributions, power):
    """Changes (L,) of the logarithms of precisions that raise evidence times density most, others held fixed."""
    with jax.enable_x64(True):
        tried = jnp.asarray(values * np.exp(power * CHANGES[:, None]))
        log_prior = np.asarray(strength_log_probs(tried, distributions)) + np.log(tried)
    log_evidence = 0.5 * (freedom * CHANGES[:, None] - size * np.exp(CHANGES[:, None]))
    return CHANGES[np.argmax(log_evidence + log_prior, axis=0)]
