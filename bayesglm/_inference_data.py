"""Draws of the posterior as an ArviZ DataTree: names, dims, coords and groups."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from arviz_base import from_dict

from bayesglm._posterior import log_intercept_prior, log_scale_prior

__all__ = ["Posterior", "data_tree", "in_blocks", "log_likelihood", "log_prior", "mean_of_draws"]

# Numbers that one call computes at a time, so that a long posterior needs little memory beyond its result.
BLOCK = 5_000_000


class Posterior(NamedTuple):
    """Draws of the whole model: all outputs along the last axis, leaves (chain, draw, ...)."""

    coef: Any  # (..., p, outputs)
    intercept: Any  # (..., outputs)
    scale: Any  # (..., outputs)


@partial(jax.jit, static_argnames=("link",))
def mean_of_draws(draws, X, offset, *, link):
    """Mean of y for each draw of a Posterior with one leading axis S, shape (S, n, outputs)."""
    return jax.lax.map(lambda draw: link.inverse(offset + draw.intercept + X @ draw.coef), draws)


@partial(jax.jit, static_argnames=("form",))
def log_likelihood(draws, X, offset, y, weight, *, form):
    """Log-likelihood of each sample, times its weight, for each draw; shape (S, n, outputs)."""

    def one(draw):
        eta = offset + draw.intercept + X @ draw.coef
        nll = form.family.nll(y, eta, form.link, draw.scale) / form.family.phi(draw.scale)
        return -weight[:, None] * (nll + form.family.log_normalizer(y, draw.scale))

    return jax.lax.map(one, draws)


@partial(jax.jit, static_argnames=("form",))
def log_prior(position, target, intercept_prior, scale_prior, *, form):
    """Log prior densities of one problem's draws (C, S): coefficients, intercepts, scale."""

    def one(coef, intercept, scale):
        prior = form.prior.distribution(target.strength, target.k)
        parts = {"coef": prior.log_prob(coef)}
        if intercept_prior is not None:
            parts["intercept"] = jnp.sum(log_intercept_prior(intercept, target.outputs, intercept_prior))
        if form.samples_scale:
            parts["dispersion"] = log_scale_prior(scale, target, scale_prior, form)
        return parts

    return jax.vmap(jax.vmap(one))(*position)


def in_blocks(function, draws, size_of_one):
    """Apply a function of draws (S, ...) to blocks of equal length and yield (first draw, result) pairs."""
    n_draws = len(draws.coef)
    length = int(np.clip(BLOCK // max(size_of_one, 1), 1, n_draws))
    for first in range(0, n_draws, length):
        rows = np.minimum(np.arange(first, first + length), n_draws - 1)
        result = function(jax.tree.map(lambda leaf: leaf[rows], draws))  # noqa: B023
        yield first, np.asarray(result)[: n_draws - first]


def data_tree(posterior, stats, log_prior, likelihood, predictive, data, spec, max_tree_depth, problem_of_output):
    """Build the DataTree.

    Parameters
    ----------
    posterior : Posterior
    stats : dict of str to numpy.ndarray
        Sampler statistics (chain, draw, batch problems).
    log_prior : dict of str to numpy.ndarray
        (chain, draw).
    likelihood, predictive : numpy.ndarray or None
        Log-likelihood of the samples of positive weight, and draws of y; (chain, draw, n, outputs).
    data : Data
    spec : Spec
    max_tree_depth : int
    problem_of_output : numpy.ndarray of int
        Which of the sampler's problems each output belongs to.

    Returns
    -------
    xarray.DataTree
    """
    squeeze = _keep if spec.population else _drop_output
    output = ["output"] if spec.population else []
    layout = spec.layout
    dims: dict[str, list[str]] = {"intercept": output, "dispersion": output, "sigma": output, "y": ["obs", *output]}
    coords: dict[str, Any] = {"obs": np.arange(len(data.y))}
    if spec.population:
        coords["output"] = np.arange(data.y.shape[1])
    variables: dict[str, np.ndarray] = {"intercept": squeeze(posterior.intercept)}
    constant = {}
    for name, rows, columns in zip(layout.names, layout.slices, layout.columns, strict=True):
        suffix = f".{name}" if name else ""
        feature = f"{name}_feature" if name else "feature"
        variables[f"coef{suffix}"] = squeeze(posterior.coef[..., rows, :])
        dims[f"coef{suffix}"] = [feature, *output]
        constant[f"X{suffix}"] = data.X[:, rows].copy()
        dims[f"X{suffix}"] = ["obs", feature]
        coords[feature] = np.arange(rows.stop - rows.start) if columns is None else list(columns)
    if spec.form.samples_scale:
        variables["dispersion"] = squeeze(posterior.scale)
        if spec.form.family.reports_sigma:
            variables["sigma"] = np.sqrt(variables["dispersion"])
    if np.any(data.weight != 1):
        constant["sample_weight"] = data.weight
        dims["sample_weight"] = ["obs"]
    if np.any(data.offset != 0):
        constant["offset"] = squeeze(data.offset)
        dims["offset"] = ["obs", *output]
    groups = {
        "posterior": variables,
        "sample_stats": _sample_stats(stats, max_tree_depth),
        "observed_data": {"y": squeeze(data.y)},
        "constant_data": constant,
    }
    if predictive is not None:
        groups["posterior_predictive"] = {"y": squeeze(predictive)}
    tree = from_dict(groups, dims=dims, coords=coords)
    # Trees of their own: here, variables have other dims than those of the same name in other groups.
    tree["log_prior"] = from_dict({"log_prior": log_prior})["log_prior"]
    if likelihood is not None:
        kept = coords | {"obs": np.flatnonzero(data.weight > 0)}
        values = {"log_likelihood": {"y": squeeze(likelihood)}}
        tree["log_likelihood"] = from_dict(values, dims={"y": dims["y"]}, coords=kept)["log_likelihood"]
    if spec.population:
        each = {name: values[..., problem_of_output] for name, values in stats.items()}
        each_dims, each_coords = dict.fromkeys(each, ["output"]), {"output": coords["output"]}
        per_output = from_dict({"sample_stats_output": each}, dims=each_dims, coords=each_coords)
        tree["sample_stats_output"] = per_output["sample_stats_output"]
    return tree


def _sample_stats(stats, max_tree_depth):
    """Statistics of the whole model: (chain, draw) also for many problems, by sum or any."""
    joint = {
        "lp": stats["lp"].sum(-1),
        "energy": stats["energy"].sum(-1),
        "acceptance_rate": stats["acceptance_rate"].mean(-1),
        "step_size": stats["step_size"].mean(-1),
        "n_steps": stats["n_steps"].sum(-1),
        "diverging": stats["diverging"].any(-1),
    }
    deepest = stats["n_steps"].max(-1)
    joint["tree_depth"] = np.floor(np.log2(deepest)).astype(int) + 1
    joint["reached_max_tree_depth"] = deepest >= 2**max_tree_depth - 1
    return joint


def _drop_output(array):
    return array[..., 0]


def _keep(array):
    return array
