"""Arrays to ArviZ's DataTree and back: names of variables, dims, coords and groups."""

from typing import Any

import numpy as np
from arviz_base import from_dict

from bayesglm._draws import Posterior
from bayesglm._problem import is_grouped

__all__ = ["data_tree", "prediction_groups", "prior_groups", "read_posterior"]


def data_tree(
    posterior, stats, log_prior, likelihood, predictive, data, obs, spec, max_tree_depth, problem_of_output
):  # fmt: skip
    """Build the DataTree of a run.

    Parameters
    ----------
    posterior : Posterior
    stats : dict of str to numpy.ndarray
        Sampler statistics (chain, draw, batch problems).
    log_prior : dict of str to numpy.ndarray
        (chain, draw).
    likelihood, predictive : numpy.ndarray or None
        Log-likelihood and draws of y; (chain, draw, n, responses).
    data : Data
    obs : numpy.ndarray of int, shape (n,)
        Which of the user's samples the data are: those of positive weight.
    spec : Spec
    max_tree_depth : int or None
        None if the sampler builds no trees.
    problem_of_output : numpy.ndarray of int
        Which of the sampler's problems each output belongs to.

    Returns
    -------
    xarray.DataTree
    """
    groups = {
        "posterior": _parameters(posterior, spec),
        "sample_stats": _sample_stats(stats, max_tree_depth),
        "observed_data": {"y": _of_responses(_observed(data, spec), spec)},
        "constant_data": _constants(data.X, data.offset, data.frequency, spec)
        | ({} if data.trials is None else {"trials": data.trials}),
    }
    for name, values in (("log_likelihood", likelihood), ("posterior_predictive", predictive)):
        if values is not None:
            groups[name] = {"y": _of_responses(values, spec)}
    tree = _tree(groups, spec, obs)
    # Trees of their own: here, variables have other dims than those of the same name in other groups.
    tree["log_prior"] = from_dict({"log_prior": log_prior})["log_prior"]
    if spec.outputs.several:
        first = problem_of_output[:: spec.outputs.n_classes]
        each = {name: values[..., first] for name, values in stats.items()}
        dims, coords = dict.fromkeys(each, ["output"]), {"output": _output_coords(spec)["output"]}
        per_output = from_dict({"sample_stats_output": each}, dims=dims, coords=coords)
        tree["sample_stats_output"] = per_output["sample_stats_output"]
    return tree


def prediction_groups(y, mean, X, offset, labels, spec):
    """Groups ``predictions`` and ``predictions_constant_data`` of draws (chain, draw, n, responses or outputs).

    `labels` are the coordinates of the chains and draws.
    """
    groups = {
        "predictions": {"y": _of_responses(y, spec), "mean": _visible(mean, spec)},
        "predictions_constant_data": _constants(X, offset, np.ones(len(X)), spec),
    }
    return _tree(groups, spec, np.arange(len(X)), labels)


def prior_groups(draws, y, spec):
    """Groups ``prior`` and ``prior_predictive``."""
    groups = {"prior": _parameters(draws, spec), "prior_predictive": {"y": _of_responses(y, spec)}}
    return _tree(groups, spec, np.arange(y.shape[2]))


def read_posterior(tree, spec):
    """Posterior from a DataTree, also one whose draws were thinned or whose axes were moved since it was made.

    Returns
    -------
    Posterior
    labels : dict of str to numpy.ndarray
        Coordinates of the chains and draws.
    """
    group = tree["posterior"].to_dataset()
    group = group.expand_dims([name for name in ("chain", "draw") if name not in group.dims])
    output = _output_dims(spec)
    expected = {feature: names for (_, feature, _), names in zip(_leaves(spec), _labels(spec), strict=True)}
    group = group.sel(expected | {name: labels for name, labels in _output_coords(spec).items() if name in output})

    def values(name, *dims):
        array = group[name].transpose("chain", "draw", *dims, *output).values
        return array.reshape(*array.shape[: array.ndim - len(output)], spec.outputs.count)

    coef = np.concatenate([values(f"coef{suffix}", feature) for suffix, feature, _ in _leaves(spec)], axis=2)
    outputs = (*coef.shape[:2], coef.shape[-1])
    intercept = values("intercept") if spec.form.fit_intercept else np.zeros(outputs, coef.dtype)
    scale = values("dispersion") if spec.form.samples_scale else np.broadcast_to(spec.scale, outputs)
    labels = {name: np.atleast_1d(group[name].values) for name in ("chain", "draw")}
    return Posterior(np.where(spec.free, coef, 0.0), intercept, scale), labels


def _labels(spec):
    """Coordinates of the features of each leaf: column names or numbers."""
    named = zip(spec.layout.widths, spec.layout.columns, strict=True)
    return [np.arange(width) if columns is None else list(columns) for width, columns in named]


def _tree(groups, spec, obs, labels=None):
    """DataTree of groups of variables, with the dims and coords of the model; `labels` are those of new draws."""
    output = _output_dims(spec)
    dims = dict.fromkeys(("intercept", "dispersion", "sigma"), output)
    dims |= {name: ["obs", *output] for name in ("mean", "offset")} | {"y": ["obs", *output[: spec.outputs.several]]}
    dims["sample_weight"] = dims["trials"] = ["obs"]
    dims |= _strength_dims(spec)
    coords: dict[str, Any] = {"obs": obs} | _output_coords(spec)
    for (suffix, feature, _), names in zip(_leaves(spec), _labels(spec), strict=True):
        dims[f"coef{suffix}"] = dims[f"feature_mask{suffix}"] = [*output, feature]
        dims[f"X{suffix}"] = ["obs", feature]
        coords[feature] = names
    return from_dict(groups, dims=dims, coords=coords, pred_dims=dims, pred_coords=coords | (labels or {}))


def _parameters(draws, spec):
    """Variables of a Posterior; coefficients that a mask holds at zero are not part of the model: NaN."""
    variables = {"intercept": _visible(draws.intercept, spec)} if spec.form.fit_intercept else {}
    coef = draws.coef if spec.free.all() else np.where(spec.free, draws.coef, np.nan)
    for suffix, _, rows in _leaves(spec):
        variables[f"coef{suffix}"] = _by_output(coef[..., rows, :], spec)
    if spec.form.samples_scale:
        variables["dispersion"] = _visible(draws.scale, spec)
        if spec.form.family.reports_sigma:
            variables["sigma"] = np.sqrt(variables["dispersion"])
    if draws.strength is not None:
        variables |= _strengths(draws.strength, spec)
    return variables


def _strengths(values, spec):
    """Variables of random strengths (chain, draw, L), in the user's places; NaN where these hold a number."""
    padded = np.concatenate([values, np.full((*values.shape[:-1], 1), np.nan, values.dtype)], axis=-1)
    return {name: padded[..., np.squeeze(places, _trivial(places)).T] for name, places in spec.hyper.places.items()}


def _trivial(places):
    """Axes of (features, outputs) that are there to broadcast along."""
    return tuple(axis for axis in range(places.ndim) if places.ndim == 2 and places.shape[axis] == 1)


def _strength_dims(spec):
    """Dims of the variables of random strengths."""
    layout, dims = spec.layout, {}
    for name, places in ({} if spec.hyper is None else spec.hyper.places).items():
        leaf = name.partition(".")[2]
        feature = f"{leaf}_feature" if leaf in layout.names else "feature" if layout.is_array else f"{name}_feature"
        axes = {0: [], 1: ["group" if is_grouped(spec.strength) else feature], 2: [feature, "output"]}[places.ndim]
        dims[name] = [dim for axis, dim in enumerate(axes) if axis not in _trivial(places)][::-1]
    return dims


def _constants(X, offset, weight, spec):
    """What the model was given besides y."""
    constants = {f"X{suffix}": X[:, rows].copy() for suffix, _, rows in _leaves(spec)}
    if np.any(weight != 1):
        constants["sample_weight"] = weight
    if np.any(offset != 0):
        constants["offset"] = _visible(offset, spec)
    if not spec.free.all():
        constants |= {f"feature_mask{suffix}": _by_output(spec.free[rows], spec) for suffix, _, rows in _leaves(spec)}
    return constants


def _observed(data, spec):
    """y, as integers where the family is discrete, by which ArviZ's plots tell; of classes, their numbers."""
    y = data.y
    if spec.form.family.joint:
        return spec.form.by_class(y).argmax(-1)
    if spec.form.family.counts_trials:
        y = (y * data.trials[:, None]).round()
    return y.astype(np.int64) if spec.form.family.is_discrete else y


def _leaves(spec):
    """Suffix of the variables, feature dim and rows of each leaf of X."""
    layout = spec.layout
    return [
        (f".{name}", f"{name}_feature", rows) if name else ("", "feature", rows)
        for name, rows in zip(layout.names, layout.slices, strict=True)
    ]


def _visible(array, spec):
    """The array with its last axis, the outputs, as the user's model has it."""
    return array.reshape(*array.shape[:-1], *spec.outputs.shape)


def _by_output(array, spec):
    """Numbers of coefficients (..., p, outputs) with the axes of outputs before that of the features.

    Where variables of one group have their dims in different orders, as the intercept and the leaves would otherwise,
    ArviZ's summary gives some of them each other's labels.
    """
    return np.swapaxes(array, -2, -1).reshape(*array.shape[:-2], *spec.outputs.shape, array.shape[-2])


def _of_responses(array, spec):
    """The array with its last axis, the responses, as the user's y has it."""
    return array.reshape(*array.shape[:-1], *spec.outputs.response_shape)


def _output_dims(spec):
    """Dims of outputs."""
    return ["output"] * spec.outputs.several + ["class"] * (spec.outputs.classes is not None)


def _output_coords(spec):
    """Coordinates of outputs; labels that are neither numbers nor all text are written as text."""
    classes = spec.outputs.classes
    names = spec.outputs.names
    coords = {"output": np.arange(spec.outputs.n_responses) if names is None else np.array(names)}
    if classes is None:
        return coords
    return coords | {"class": classes if classes.dtype.kind in "iuf" else np.array(list(map(str, classes)))}


def _sample_stats(stats, max_tree_depth):
    """Statistics of the whole model: (chain, draw) also for many problems, by sum, mean or any."""
    together: dict[str, Any] = {"acceptance_rate": np.mean, "step_size": np.mean, "diverging": np.any}
    joint = {name: together.get(name, np.sum)(values, axis=-1) for name, values in stats.items()}
    if max_tree_depth is not None:
        deepest = stats["n_steps"].max(-1)
        joint["tree_depth"] = np.floor(np.log2(deepest)).astype(int) + 1
        joint["reached_max_tree_depth"] = deepest >= 2**max_tree_depth - 1
    return joint
