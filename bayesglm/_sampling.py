"""`sample`: from a fitted model and its data to draws of all outputs and their DataTree."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from bayesglm._diagnostics import check_importance, check_run
from bayesglm._draws import Posterior, log_prior, per_sample
from bayesglm._engines import Engine, draw_batch, transitions
from bayesglm._inference_data import data_tree
from bayesglm._posterior import Learned, Position, Target, strength_log_probs
from bayesglm._problem import Data, balanced, is_grouped, make_batches, per_output
from bayesglm._warn import warn_user

__all__ = ["Engine", "Run", "check_propriety", "draw_posterior", "in_safe_precision", "targets_of"]

# Numbers beyond which a group with one value per sample is stored on request only.
LARGE = 100_000_000
# Rounding error of the energy that the acceptance of a trajectory hardly notices.
HARMLESS = 0.02


@dataclass(frozen=True)
class Run:
    """What the user asks of a run."""

    engine: Engine
    parametrization: str
    progress_bar: bool
    log_likelihood: bool | None
    posterior_predictive: bool | None


def check_propriety(fitted):
    """Raise a ValueError that names the cause if the posterior of an output is improper."""
    data, spec = fitted.data, fitted.spec
    with_intercept = spec.intercept_prior is None
    for output in range(spec.outputs.n_responses):
        fault = fitted.fault(output, with_intercept=with_intercept)
        if fault is not None:
            where = f" of output {output}" if spec.outputs.several else ""
            remedy = fault.remedy or "Give an intercept_prior (a NumPyro distribution)."
            raise ValueError(f"The posterior{where} is improper: {fault.cause}. {remedy}")
    eta = data.offset + fitted.intercept + data.X @ fitted.coef
    mean, (low, high) = np.asarray(spec.form.link.inverse(eta)), spec.form.family.mean_domain
    outside = ~((mean >= low) & (mean <= high)) & (data.weight > 0)[:, None]
    if outside.any():
        raise ValueError(
            f"The fit gives {outside.sum()} samples a mean outside {low:g} ... {high:g}, where the density is zero: "
            f"the inverse link {spec.form.link.name!r} allows that. Take another one, or smaller offsets."
        )
    # What rounding leaves of an exact fit grows with the number of terms of the linear predictor.
    family = spec.form.family
    unit = spec.y_spread if family.reports_sigma else 1.0
    rounding = 8 * (1 + data.X.shape[1]) * np.finfo(data.X.dtype).eps * unit
    if spec.form.samples_scale and not family.scale_shapes_mean and (np.sqrt(spec.scale) <= rounding).any():
        raise ValueError(
            f"The dispersion is zero: the fit reproduces y exactly. Give it, as in {family.__name__}(scale=1.0)."
        )
    if np.isnan(spec.scale).any():
        raise ValueError(
            "The dispersion cannot be estimated: the fit has as many effective degrees of freedom as samples. "
            f"Give it, as in {spec.form.family.__name__}(scale=1.0), or use a stronger regularizer."
        )


def in_safe_precision(fitted):
    """The fit, in double precision where single precision would disturb the energy of a sampler.

    The energy is a sum over samples; its rounding error is estimated from the terms at the mode.
    """
    data, form = fitted.data, fitted.spec.form
    if data.X.dtype == np.float64:
        return fitted
    with jax.enable_x64(True):
        eta = (data.offset + fitted.intercept + data.X @ fitted.coef).astype(np.float64)
        scale = np.where(np.isnan(fitted.spec.scale), 1.0, fitted.spec.scale)
        y, eta, scale = map(form.by_class, (data.y.astype(np.float64), eta, scale))
        terms = form.per_response(np.asarray(form.family.nll(y, eta, form.link, scale) / form.family.phi(scale)))
    error = np.finfo(np.float32).eps * np.sqrt(((data.weight[:, None] * terms) ** 2).sum())
    if error <= HARMLESS:
        return fitted
    wide = jax.tree.map(
        lambda leaf: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf,
        (tuple(data), fitted.batches, fitted.modes),
    )
    return replace(fitted, data=Data(*wide[0]), batches=wide[1], modes=wide[2])


def draw_posterior(fitted, run, values=None):
    """Sample every batch of problems.

    Parameters
    ----------
    fitted : Fitted
    run : Run
    values : (L,), optional
        The model's random strengths as they are in the strength of the fit.

    Returns
    -------
    tree : xarray.DataTree
    posterior : Posterior
    """
    batches, data, spec = fitted.batches, fitted.data, fitted.spec
    engine = run.engine
    form = replace(spec.form, mixture=_sees_mixture(run, spec, data.X.shape))
    sampled = []
    length = transitions(data, spec, form, engine)
    total = None if length is None else length * len(batches)
    with tqdm(total=total, disable=not run.progress_bar, desc=f"{engine.num_chains} chains", unit="draw") as bar:
        divergences = [0]

        def progress(transitions, diverging):
            divergences[0] += diverging
            bar.update(transitions)
            bar.set_postfix(divergences=divergences[0])

        targets = targets_of(fitted, values)
        for target in targets:
            sampled.append(draw_batch(target, data, spec, form, engine, progress))
    length = min(one.draws.scale.shape[2] for one in sampled)
    draws = [jax.tree.map(lambda leaf: leaf[:, :, :length], one.draws) for one in sampled]
    posterior = _join(batches, draws, spec)
    if spec.hyper is not None:
        posterior = posterior._replace(strength=_join_strengths(targets, draws, len(values)))
    stats = _stats(draws)
    prior = _log_prior(draws, targets, spec) | _log_strength_prior(posterior.strength, spec)
    depth = engine.max_tree_depth if sampled[0].method == "nuts" else None
    if "energy" in stats:
        check_run(
            {"coef": posterior.coef[..., spec.free]}
            | ({"intercept": posterior.intercept} if spec.form.fit_intercept else {})
            | ({"dispersion": posterior.scale} if spec.form.samples_scale else {})
            | ({} if posterior.strength is None else {"strength": posterior.strength}),
            stats, depth,
        )  # fmt: skip
    facts: dict[str, Any] = {"sampler": sampled[0].method}
    if sampled[0].khat is not None:
        khat, effective = (np.concatenate([getattr(one, name) for one in sampled]) for name in ("khat", "effective"))
        check_importance(khat)
        facts |= {"pareto_khat": float(khat.max()), "importance_ess": float(effective.min())}
    problem_of_output = _problem_of_output(batches)
    # A weight counts how often a sample was seen: those of weight 0 were not.
    obs = np.flatnonzero(data.weight > 0)
    seen = data.rows(obs)
    likelihood, predictive = _per_sample(posterior, seen, spec, run)
    tree = data_tree(
        posterior, stats, prior, likelihood, predictive, seen, obs, spec, depth, problem_of_output
    )  # fmt: skip
    tree["sample_stats"].attrs.update(facts)
    return tree, posterior


def _sees_mixture(run, spec, shape):
    """Whether to sample priors with kinks as scale mixtures."""
    if not spec.form.prior.has_mixing or run.parametrization != "auto":
        return spec.form.prior.has_mixing and run.parametrization == "mixture"
    if spec.form.prior.has_bounds:
        return False  # measured: slower where coefficients are folded
    # A normal approximation is worse in more coordinates, unless the data leave nearly all to the prior.
    return run.engine.method != "laplace" or shape[1] >= shape[0]


def targets_of(fitted, values=None):
    """Posteriors of the problems of each batch; arguments as in `draw_posterior`."""
    pairs = zip(fitted.batches, fitted.modes, strict=True)
    targets = [_target_of(batch, mode, fitted.data, fitted.spec) for batch, mode in pairs]
    if fitted.spec.hyper is None:
        return targets
    learned = _learned(fitted.data, fitted.spec, values)
    return [target._replace(learned=each) for target, each in zip(targets, learned, strict=True)]


def _target_of(batch, mode, data, spec):
    """Posteriors of the problems of a batch."""
    first = batch.outputs[:, 0]
    target = Target(
        outputs=batch.outputs,
        y=batch.y,
        offset=batch.offset,
        strength=batch.strength,
        total=np.full(len(first), spec.total),
        k=spec.k[first],
        scale=spec.scale[first],
        y_spread=spec.y_spread[first],
        coef=mode.coef,
        intercept=mode.intercept,
        free=batch.free,
        free_intercept=_free_intercepts(batch, spec),
    )
    return jax.tree.map(lambda leaf: leaf.astype(data.X.dtype) if leaf.dtype.kind == "f" else leaf, target)


def _free_intercepts(batch, spec):
    """Which intercepts (B, m) are parameters: of classes without a prior only their differences are."""
    free = np.full(batch.outputs.shape, spec.form.fit_intercept)
    if spec.outputs.classes is not None and spec.intercept_prior is None:
        free[:, -1] = False
    return free


def _join(batches, draws, spec):
    """Draws (B, C, S, ..., m) of all batches as (C, S, ..., outputs)."""
    coef = balanced(per_output(batches, [d.coef for d in draws]), spec.outputs, spec.shared_shifts)
    intercept = per_output(batches, [d.intercept for d in draws])
    intercept = balanced(intercept, spec.outputs, spec.intercept_prior is None)
    shared = [
        np.repeat(d.scale[..., None], batch.outputs.shape[1], -1) for d, batch in zip(draws, batches, strict=True)
    ]
    return Posterior(coef, intercept, per_output(batches, shared))


def _stats(draws):
    """Sampler statistics (C, S, problems), the problems of all batches one after the other."""
    names = set.intersection(*(set(d.stats) for d in draws))
    return {name: np.concatenate([np.moveaxis(d.stats[name], 0, -1) for d in draws], axis=-1) for name in sorted(names)}


def _log_prior(draws, targets, spec):
    """Log prior densities (C, S) by variable, summed over problems."""
    total: dict[str, Any] = {}
    of_problems = jax.vmap(partial(log_prior, form=spec.form), (0, 0, None))
    for d, target in zip(draws, targets, strict=True):
        parts = of_problems(Position(d.coef, d.intercept, d.scale, d.strength), target, spec.priors)
        for name, value in parts.items():
            total[name] = total.get(name, 0) + np.asarray(value).sum(0)
    return total


def _log_strength_prior(strength, spec):
    """Log prior densities (C, S) of random strengths by variable."""
    if strength is None:
        return {}
    density = np.asarray(strength_log_probs(jnp.asarray(strength), spec.hyper.distributions))
    sizes = [math.prod(prior.batch_shape) for prior in spec.hyper.distributions]
    parts = np.split(density, np.cumsum(sizes)[:-1], axis=-1)
    return {name: part.sum(-1) for name, part in zip(spec.hyper.names, parts, strict=True)}


def _learned(data, spec, values):
    """Which random strengths the problems of each batch have: Learned, leaves with a leading axis of B problems."""
    index, total = spec.hyper.index, len(values)
    grouped = is_grouped(spec.strength)
    # Numbered from one, and split as strengths are.
    numbered, shared = index + 1.0, index
    if grouped:
        groups = spec.strength[1]
        numbered, shared = (numbered, groups), np.append(index, -1)[np.minimum(groups, len(index))]
    batches = make_batches(data, numbered, spec.free, shared)
    found = []
    for batch in batches:
        numbers = np.asarray(batch.strength[0] if grouped else batch.strength).astype(int)
        own = [np.unique(each[each > 0]) for each in numbers]
        width = max(map(len, own))
        label, local = np.full((len(own), width), total), np.full(numbers.shape, width)
        for b, one in enumerate(own):
            label[b, : len(one)] = one - 1
            local[b] = np.where(numbers[b] > 0, np.searchsorted(one, numbers[b]), width)
        value = np.append(values, 1.0)[label].astype(data.X.dtype)
        found.append(Learned(local, label, value))
    return found


def _join_strengths(targets, draws, total):
    """Random strengths (C, S, L) of the whole model."""
    joined = np.empty((*draws[0].scale.shape[1:], total), draws[0].strength.dtype)
    for target, d in zip(targets, draws, strict=True):
        for label, strength in zip(target.learned.label, d.strength, strict=True):
            joined[..., label[label < total]] = strength[..., label < total]
    return joined


def _problem_of_output(batches):
    problems = np.concatenate([np.repeat(np.arange(len(b.outputs)), b.outputs.shape[1]) for b in batches])
    starts = np.repeat(np.cumsum([0] + [len(b.outputs) for b in batches[:-1]]), [b.outputs.size for b in batches])
    order = np.argsort(np.concatenate([b.outputs.ravel() for b in batches]))
    return (problems + starts)[order]


def _per_sample(posterior, data, spec, run):
    """Log-likelihood and posterior predictive draws (chain, draw, n, outputs), as far as they are wanted."""
    chains, samples = posterior.intercept.shape[:2]
    size = chains * samples * len(data.y) * spec.outputs.n_responses
    wanted = {
        group: size <= LARGE if choice is None else choice
        for group, choice in (
            ("log_likelihood", run.log_likelihood),
            ("posterior_predictive", run.posterior_predictive),
        )
    }
    left_out = [g for g, choice in wanted.items() if not choice and getattr(run, g) is None]
    if left_out:
        warn_user(
            f"The groups {left_out} would hold {size:.1e} numbers each and were left out; "
            f"ask for them with {'=True, '.join(left_out)}=True, or draw fewer samples.",
        )
    return per_sample(posterior, data, spec, np.random.default_rng(run.engine.seed), tuple(wanted.values()))
