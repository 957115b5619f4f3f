"""The ways to sample a batch of problems, and which of them a model gets.

``exact``: Gaussian observations with normal priors have independent draws in closed form. ``hmc``: trajectories of a
quarter turn, for posteriors that look round at the mode. ``nuts``: NumPyro's kernel, for any. ``laplace``: the normal
approximation, reweighted. ``auto`` is the first of exact, hmc and nuts that can do it.

Models with normal priors and more features than samples are sampled in the row space of the features, whatever the way.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesglm._exact import Conjugate, draw_conjugate
from bayesglm._hmc import run_hmc
from bayesglm._options import is_conjugate
from bayesglm._posterior import Draws, Size, Tuning, log_scale_prior
from bayesglm._problem import on_device
from bayesglm._row_space import lift, row_space

__all__ = ["Engine", "Sampled", "draw_batch", "transitions"]

# Warm-up that suits each Markov chain, where the user leaves it open.
WARMUP = {"hmc": 200, "nuts": 500}


@dataclass(frozen=True)
class Engine:
    """How to sample; a warm-up of None is left to the method."""

    method: str
    num_samples: int
    num_warmup: int | None
    num_chains: int
    seed: int
    target_accept_prob: float
    max_tree_depth: int


class Sampled(NamedTuple):
    """What an engine made of a batch of B problems."""

    draws: Draws
    method: str
    khat: Any = None  # (B,), of importance weights
    effective: Any = None  # (B,)


def transitions(data, spec, form, engine):
    """Draws of a chain, those of the warm-up included, that a batch takes; None where they are not known."""
    if _sees_row_space(data, form):
        return None
    if engine.method in ("exact", "laplace") or (engine.method == "auto" and _is_conjugate(form, spec)):
        return engine.num_samples
    return engine.num_samples + _tuning(engine, "nuts" if engine.method == "nuts" else "hmc").num_warmup


def _sees_row_space(data, form):
    """Whether normal priors leave directions that the data do not see."""
    return form.prior.smooth and data.X.shape[1] > data.X.shape[0]


def draw_batch(target, data, spec, form, engine, progress):
    """Sample the problems of a batch.

    Parameters
    ----------
    target : Target
        Leaves with a leading axis of B problems.
    data : Data
    spec : Spec
    form : Form
    engine : Engine
    progress : callable
        Called as progress(transitions, divergences) now and then.

    Returns
    -------
    Sampled
    """
    if _sees_row_space(data, form) and not form.prior.is_flat(target.strength).all():
        each = [jax.tree.map(lambda leaf: leaf[b : b + 1], target) for b in range(len(target.k))]  # noqa: B023
        return _join([_draw_in_row_space(one, data, spec, form, engine, progress) for one in each])
    return _draw(on_device(data.X), data.weight, target, spec, form, engine, progress)


def _draw_in_row_space(target, data, spec, form, engine, progress):
    """Sample one problem with normal priors and more features than samples.

    Features that share a random strength have a row space of their own: it is the same at all values.
    """
    dtype, n = data.X.dtype, len(data.X)
    precision = np.where(form.prior.is_flat(target.strength), 0.0, target.k[0] * np.asarray(target.strength, float))
    precision, free, mode = precision[0, :, 0], target.free[0, :, 0], target.coef[0, :, 0].astype(float)
    label = np.full(len(free), -1) if target.learned is None else target.learned.index[0, :, 0]
    flat = free & (precision == 0)
    kinds = [kind for kind in np.unique(label) if (free & ~flat & (label == kind)).any()]
    blocks = [free & ~flat & (label == kind) for kind in kinds]
    if all(block.sum() <= n for block in blocks):
        return _draw(on_device(data.X), data.weight, target, spec, form, engine, progress)
    spaces = [row_space(data.X, precision, block, mode) for block in blocks]
    design = np.concatenate([data.X[:, flat], *(space.design for space in spaces)], axis=1)
    coef = np.concatenate([mode[flat], *(space.coef for space in spaces)])
    owner = np.repeat([-1, *range(len(kinds))], [flat.sum(), *(len(space.coef) for space in spaces)])
    inner = target._replace(
        strength=np.where(owner < 0, 0.0, 1 / float(target.k[0]))[None, :, None].astype(dtype),
        coef=coef[None, :, None].astype(dtype),
        free=np.ones((1, len(coef), 1), bool),
    )
    if target.learned is not None:
        none = len(target.learned.label[0])
        index = np.append(kinds, none)[owner]
        inner = inner._replace(learned=target.learned._replace(index=index[None, :, None]))
    sampled = _draw(on_device(design.astype(dtype)), data.weight, inner, spec, form, engine, progress)
    draws = sampled.draws
    seen = draws.coef.reshape(-1, len(coef))
    # With a prior that follows the dispersion, the part of the coefficients that the data do not see does too.
    spread = np.ones(len(seen))
    if form.conditional_prior:
        spread = np.sqrt(draws.scale.reshape(-1) * float(target.k[0] / target.total[0]))
    rng = np.random.default_rng([engine.seed, int(target.outputs[0, 0])])
    whole = np.zeros((len(seen), len(free)), seen.dtype)
    whole[:, flat] = seen[:, owner < 0]
    for number, (kind, space) in enumerate(zip(kinds, spaces, strict=True)):
        factor = spread
        if target.learned is not None and kind < none:
            strength = draws.strength.reshape(len(seen), -1)[:, kind]
            factor = spread * np.sqrt(target.learned.value[0, kind] / strength)
        lift(space, seen[:, owner == number], factor, rng, whole)
    return sampled._replace(draws=draws._replace(coef=whole.reshape(*draws.coef.shape[:3], -1, 1)))


def _draw(X, weight, target, spec, form, engine, progress):
    if engine.method == "exact" or (engine.method == "auto" and _is_conjugate(form, spec)):
        return _draw_exactly(X, weight, target, spec, form, engine, progress)
    model = X, weight, target, spec.priors, form
    size = Size(engine.num_samples, engine.num_chains, engine.seed)
    if engine.method == "laplace":
        # ArviZ's statistics load on first use.
        from bayesglm._laplace import run_laplace

        draws, khat, effective = run_laplace(*model, size=size, progress=progress)
        return Sampled(draws, "laplace", khat, effective)
    if engine.method != "nuts":
        may_give_up = engine.method == "auto"
        draws = run_hmc(*model, size=size, tuning=_tuning(engine, "hmc"), may_give_up=may_give_up, progress=progress)
        if draws is not None:
            return Sampled(draws, "hmc")
    # NumPyro's kernels load on first use.
    from bayesglm._nuts import run_nuts

    draws = run_nuts(
        *model, size=size, tuning=_tuning(engine, "nuts"), max_tree_depth=engine.max_tree_depth, progress=progress
    )
    return Sampled(draws, "nuts")


def _is_conjugate(form, spec):
    fixed = spec.hyper is None
    return fixed and is_conjugate(
        form.family, form.link, form.prior, spec.intercept_prior, conditional=form.conditional_prior
    )


def _tuning(engine, method):
    warmup = WARMUP[method] if engine.num_warmup is None else engine.num_warmup
    return Tuning(warmup, engine.target_accept_prob)


def _draw_exactly(X, weight, target, spec, form, engine, progress):
    """Independent draws of each problem."""
    X, weight = np.asarray(X, float), np.asarray(weight, float)
    found = []
    for b in range(len(target.k)):
        one = jax.tree.map(lambda leaf: leaf[b], target)  # noqa: B023
        strength = np.where(form.prior.is_flat(one.strength), 0.0, one.strength).astype(float)[:, 0]
        free = one.free[:, 0]
        model = Conjugate(
            X=X[:, free],
            y=(one.y - one.offset)[:, 0].astype(float),
            weight=weight,
            precision=strength[free] * float(one.total if form.conditional_prior else one.k),
            intercept_prior=_normal_moments(spec.intercept_prior, one.outputs[0]),
            fit_intercept=form.fit_intercept,
            follows=form.conditional_prior,
            scale=float(one.scale),
            log_prior=_log_scale_prior(one, spec, form) if form.samples_scale else None,
        )
        rng = np.random.default_rng([engine.seed, int(one.outputs[0])])
        moving, intercept, scale, log_prob = draw_conjugate(model, engine.num_chains * engine.num_samples, rng)
        coef = np.zeros((len(moving), len(free)))
        coef[:, free] = moving
        found.append((coef[..., None], intercept[:, None], scale, log_prob))
    progress(engine.num_samples, 0)
    shape = engine.num_chains, engine.num_samples
    leaves = [np.stack(leaf).astype(target.coef.dtype) for leaf in zip(*found, strict=True)]
    coef, intercept, scale, log_prob = (leaf.reshape(len(leaf), *shape, *leaf.shape[2:]) for leaf in leaves)
    return Sampled(Draws(coef, intercept, scale, None, {"lp": log_prob}), "exact")


def _normal_moments(prior, output):
    """Mean and standard deviation of the normal prior of one output's intercept, or None."""
    if prior is None:
        return None
    moments = (np.broadcast_to(np.asarray(leaf, float), prior.batch_shape) for leaf in (prior.loc, prior.scale))
    return tuple(float(leaf[output] if leaf.ndim else leaf) for leaf in moments)


def _log_scale_prior(target, spec, form):
    """Log density of log(phi), as a function of an array of phi."""

    def log_prior(scale):
        inside = jnp.asarray(scale)
        return np.asarray(log_scale_prior(inside, target, spec.scale_prior, form), float) + np.log(scale)

    return log_prior


def _join(parts):
    """Sampled of one problem each, as one."""
    draws = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(part.draws for part in parts))
    if parts[0].khat is None:
        return Sampled(draws, parts[0].method)
    khat, effective = (np.concatenate([getattr(part, name) for part in parts]) for name in ("khat", "effective"))
    return Sampled(draws, parts[0].method, khat, effective)
