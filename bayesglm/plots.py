"""Pictures of fits, strengths, predictions and priors; matplotlib draws them.

Each function draws into the Axes that it is given, or into a new figure, and returns the Axes. None shows a figure or
changes matplotlib's settings. One language runs through them: a dot is the mode, hollow where it is exactly 0; a pale
bar or band is an interval with equal tails; leaves of X, or outputs, have colours.
"""

import copy
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from scipy.special import erfcx, gammaincinv
from sklearn.exceptions import NotFittedError

from bayesglm._problem import is_grouped
from bayesglm._targets import read_targets
from bayesglm.glm import GLM, PopulationGLM
from bayesglm.priors import ElasticNet, Ridge

try:
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter
except ImportError as error:
    raise ImportError("bayesglm.plots needs matplotlib: pip install 'bayesglm[plot]'") from error

__all__ = ["plot_coefficient_path", "plot_predictions", "plot_prior_posterior", "plot_scores", "plot_weights"]

# More curves than this in one panel cannot be told apart by colour.
FEW = 10
# Names of features are written out up to this number, and legends have at most this many entries.
SOME = 20
# From this many marks on, a vector file holds them as pixels.
MANY = 2000
WEIGHT_OF_LINK = {"exp": "log mean", "identity": "y", "logistic": "log odds", "one_over_x": "1 / mean"}
LINE_STYLES: list[Any] = ["-", "--", ":", "-."]


def plot_weights(models, *, prob=0.89, sharey=True, axes=None):
    """Draw the weights of fitted models, one panel for each model.

    A stem leads from 0 to the mode, a dot that is hollow where the mode is exactly 0. Models that were sampled have a
    bar for the interval of each weight. Lines separate the leaves of X, whose names are at the top; the outputs of a
    PopulationGLM have colours. Weights that a `feature_mask` leaves out are not drawn.

    Parameters
    ----------
    models : GLM, PopulationGLM, or dict of str to such
        Fitted models by the titles of their panels.
    prob : float
        Posterior probability of the intervals, between 0 and 1.
    sharey : bool
        Whether all panels have one scale.
    axes : matplotlib Axes, or array_like of one for each model, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes, or numpy.ndarray of such, shape (models,), for a dict

    Raises
    ------
    ValueError
        If an argument does not make sense.
    NotFittedError
        If a model is not fitted.
    """
    panels = {"": models} if not isinstance(models, Mapping) else models
    if not panels:
        raise ValueError("models is empty; expected at least one fitted model.")
    labels = ["models" if panels is not models else f"models[{title!r}]" for title in panels]
    specs = [_spec_of(model, label) for model, label in zip(panels.values(), labels, strict=True)]
    _check_prob(prob)
    widest = max(spec.free.size for spec in specs)
    columns = 1 if widest > 100 else (2 if len(panels) == 4 else min(len(panels), 3))
    width = 9.0 if columns == 1 else 4.5
    drawn, own = _panels(axes, "axes", len(panels), columns, (width, 3.2), sharey=sharey)
    for axis, (title, model), spec in zip(drawn, panels.items(), specs, strict=True):
        _draw_weights(axis, model, spec, prob)
        axis.set_title(title)
    if own and len({axis.get_ylabel() for axis in drawn}) == 1:
        for index, axis in enumerate(drawn):
            axis.set_ylabel(axis.get_ylabel() if index % columns == 0 else "")
    if sharey:
        limits = np.array([axis.get_ylim() for axis in drawn])
        drawn[0].set_ylim(limits[:, 0].min(), limits[:, 1].max())
        for axis in drawn[1:]:
            axis.set_ylim(drawn[0].get_ylim())
    most = int(np.argmax([spec.free.shape[1] for spec in specs]))
    if (n_outputs := specs[most].free.shape[1]) > 1:
        names = [f"output {output}" for output in range(n_outputs)]
        _legend_beside(drawn[min(columns, len(drawn)) - 1 if own else -1], names, _colors(n_outputs), marker="o")
    return drawn[0] if panels is not models else drawn


def plot_scores(strengths, scores=None, *, best=None, ylabel="score", ax=None):
    """Draw scores against the strength, on a logarithmic axis.

    A strength of 0 is at the left edge, behind a dotted line. Scores of several folds are drawn as their mean, a band
    of one standard error to both sides, and a faint line for each fold.

    Parameters
    ----------
    strengths : array_like (strengths,), or a fitted cross-validation
        Numbers >= 0 in any order; or, without `scores`, an object with the attributes ``strengths_``,
        ``train_scores_`` and ``validation_scores_``, both (strengths, folds), and ``best_index_``. Strengths that are
        trees are drawn at its ``multiples_``.
    scores : dict of str to array_like (strengths,) or (strengths, folds), optional
        By their labels. Scores that are not finite leave gaps.
    best : int, optional
        Index of the strength that a vertical line marks.
    ylabel : str
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If an argument does not make sense.
    NotFittedError
        If the cross-validation is not fitted.
    """
    xlabel = "strength"
    if scores is None:
        strengths, scores, best, xlabel = _read_search(strengths, best)
    values = _read_strengths(strengths)
    if not isinstance(scores, Mapping) or not scores:
        raise ValueError(f"scores must be a dict of label to array; got {_came(scores)}.")
    curves = {label: _read_scores(curve, label, len(values)) for label, curve in scores.items()}
    if best is not None and (not _is_integer(best) or not 0 <= best < len(values)):
        raise ValueError(f"best must be the index of one of the {len(values)} strengths; got {best!r}.")
    (axis,), _ = _panels(ax, "ax", 1, 1, (6.0, 4.0))
    order = np.argsort(values, kind="stable")
    places = _strength_axis(axis, values, xlabel)
    for number, (label, curve) in enumerate(curves.items()):
        _draw_scores(axis, places[order], curve[order], label, f"C{number}")
    if best is not None:
        axis.axvline(places[best], color="0.4", linestyle="--", linewidth=1, label=f"best: {values[best]:.3g}")
    axis.set_ylabel(ylabel)
    axis.legend(frameon=False, fontsize=9)
    return axis


def plot_coefficient_path(models, strengths=None, *, ax=None):
    """Draw the coefficients of the models of `bayesglm.strength_path` against the strength.

    The leaves of X have colours; up to ten features of an array X have one each. Up to four outputs of a PopulationGLM
    have line styles. The numbers at the top count the coefficients that are not 0. A strength of 0 is at the left edge,
    behind a dotted line.

    Parameters
    ----------
    models : list of GLM or PopulationGLM
        Fitted to features of one structure.
    strengths : array_like (models,), optional
        Numbers >= 0. By default each model's `regularizer_strength`, of ElasticNet's pairs the first element.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The counts are on a secondary axis, its only child.

    Raises
    ------
    ValueError
        If an argument does not make sense, or a strength is not a number and none are given.
    NotFittedError
        If a model is not fitted.
    """
    if not isinstance(models, list | tuple) or not models:
        raise ValueError(f"models must be a list of fitted models, as from strength_path; got {_came(models)}.")
    specs = [_spec_of(model, f"models[{index}]") for index, model in enumerate(models)]
    layout, n_outputs = specs[0].layout, specs[0].free.shape[1]
    for index, spec in enumerate(specs):
        if (spec.layout.names, spec.layout.widths, spec.free.shape) != (
            layout.names,
            layout.widths,
            specs[0].free.shape,
        ):
            raise ValueError(
                f"models must share the leaves of X and the outputs: models[0] has coefficients "
                f"{_shapes(specs[0])}, models[{index}] has {_shapes(spec)}."
            )
    if strengths is None:
        strengths = [
            _own_strength(model, spec, index) for index, (model, spec) in enumerate(zip(models, specs, strict=True))
        ]
    values = _read_strengths(strengths)
    if len(values) != len(models):
        raise ValueError(f"strengths must have one number for each of the {len(models)} models; got {len(values)}.")
    (axis,), _ = _panels(ax, "ax", 1, 1, (7.0, 4.4))
    order = np.argsort(values, kind="stable")
    places = _strength_axis(axis, values, "strength")
    paths = np.stack([_coef(models[index]) for index in order])
    axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    _draw_paths(axis, places[order], paths, layout, n_outputs)
    axis.set_ylabel(_weight_label(specs[0]))
    axis.margins(y=0.05)
    axis.autoscale_view(scalex=False)
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), 8)).round().astype(int))]
    counts = np.count_nonzero(paths, axis=(1, 2))[np.argsort(order)]
    top = axis.secondary_xaxis("top")
    top.set_xticks(places[shown], [str(counts[index]) for index in shown])
    top.set_xticks([], minor=True)
    top.set_xlabel(f"coefficients that are not 0, of {specs[0].free.sum()}")
    return axis


def plot_predictions(
    model, X, y, *, offset=None, kind="scatter", prob=0.89, num_samples=250, seed=0, axes=None
):  # fmt: skip
    """Draw what was observed against what the model predicts.

    With ``kind="scatter"``, each sample is at its predicted mean. Counts are moved up or down a little at random (on
    axes of square roots if one is above 20), and dots show their means in bins of equally many samples. Observations
    that are 0 or 1 are drawn as the share of ones in such bins, with the samples above and below. With ``kind="time"``,
    the samples follow each other as traces.

    A model that was sampled predicts the mean over its posterior, and has intervals of new observations: of each y, of
    the share of ones in a bin, or, for traces of zeros and ones, of the mean. A model that was only fitted predicts
    the mean at the mode, without intervals.

    Parameters
    ----------
    model : GLM or PopulationGLM
        Fitted or sampled; it is not changed.
    X, y, offset
        As in `GLM.fit`, of any samples.
    kind : {"scatter", "time"}
    prob : float
        Probability of the intervals, between 0 and 1.
    num_samples : int, optional
        Draws of each chain to use; None for all. One number is held for each draw and each y, and one for its mean.
    seed : int
        Of the draws of y and of the random moves.
    axes : matplotlib Axes, or array_like of one for each output, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes, or numpy.ndarray of such, shape (outputs,), for a PopulationGLM

    Raises
    ------
    ValueError
        If an argument does not make sense.
    NotFittedError
        If the model is not fitted.
    """
    spec = _spec_of(model, "model")
    _check_prob(prob)
    if not isinstance(kind, str) or kind not in ("scatter", "time"):
        raise ValueError(f"kind must be 'scatter' or 'time'; got {kind!r}.")
    mean = model.predict(X, offset=offset)
    observed = read_targets(y, len(mean), spec.form.family, np.float64, population=spec.population)
    mean, draws, means = mean.reshape(observed.shape), None, mean
    if "posterior_" in vars(model):
        draws, means = _predict(model, X, offset, num_samples, seed, observed.shape)
        mean = means.mean(0)
    n_outputs = observed.shape[1]
    size = (5.0, 4.2) if kind == "scatter" else (9.0, 2.8)
    columns = min(n_outputs, 3) if kind == "scatter" else 1
    drawn, _ = _panels(axes, "axes", n_outputs, columns, size)
    binary = spec.form.family.is_discrete and not spec.form.family.is_count
    for output, axis in enumerate(drawn):
        one = None if draws is None else draws[..., output]
        if kind == "time":
            band = one if draws is None or not binary else means[..., output]
            _draw_traces(axis, mean[:, output], observed[:, output], band, prob, binary)
        elif binary:
            _draw_calibration(axis, mean[:, output], observed[:, output], one, prob, seed)
        else:
            _draw_scatter(axis, mean[:, output], observed[:, output], one, prob, spec.form.family.is_count, seed)
        if spec.population:
            axis.set_ylabel(f"{axis.get_ylabel()}, output {output}")
    return drawn if spec.population else drawn[0]


def plot_prior_posterior(model, features=None, *, axes=None):
    """Draw the density of the prior and that of the posterior, one panel for each leaf of X.

    Grey is the prior, colours are the posterior (a smoothed histogram of the draws), dots are the modes, hollow where
    exactly 0. In a panel of more than ten coefficients the draws of all are put together, and the prior is the average
    of theirs. A flat prior has no density; it is a dashed line at the bottom. The prior of a weight in a group is its
    marginal density. Priors are those at the dispersion of the fit.

    Parameters
    ----------
    model : GLM or PopulationGLM
        Sampled.
    features : int, str, list of such, or dict of such by leaf, optional
        Indices or column names of the features to draw, each in a panel of its own; for a container X by the dotted
        names of its leaves.
    axes : matplotlib Axes, or array_like of one for each panel, optional
        Where to draw; by default a new figure.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes, shape (panels,)

    Raises
    ------
    ValueError
        If an argument does not make sense, or the priors are unknown because the dispersion is.
    NotFittedError
        If the model was not sampled.
    """
    spec = _spec_of(model, "model")
    draws = _draws(model, spec)
    if draws is None:
        raise NotFittedError("model has no posterior yet: call sample first.")
    if features is None:
        panels = [
            (name, range(rows.start, rows.stop))
            for name, rows in zip(spec.layout.names, spec.layout.slices, strict=True)
        ]
    else:
        panels = _chosen(features, spec.layout)
    drawn, _ = _panels(axes, "axes", len(panels), min(len(panels), 3), (4.0, 2.9))
    rates = _prior_rates(spec)
    for axis, (title, rows) in zip(drawn, panels, strict=True):
        _draw_densities(axis, model, spec, draws, rates, list(rows))
        axis.set_title(title)
    return drawn


def _spec_of(model, argument):
    """What the fit of a model fixed."""
    if not isinstance(model, GLM | PopulationGLM):
        raise ValueError(f"{argument} must be a fitted GLM or PopulationGLM; got {_came(model)}.")
    if "spec_" not in vars(model):
        raise NotFittedError(f"{argument} is not fitted yet: call fit or sample first.")
    return model.spec_


def _coef(model):
    """Coefficients (p, outputs); NaN where a mask leaves them out."""
    coef = np.concatenate(jax.tree.leaves(model.coef_)).reshape(model.spec_.free.shape)
    return np.where(model.spec_.free, coef, np.nan)


def _draws(model, spec):
    """Draws of the coefficients (draws, p, outputs), or None."""
    # ArviZ has loaded by the time that there is a posterior.
    from bayesglm._inference_data import read_posterior

    if "posterior_" not in vars(model):
        return None
    coef = read_posterior(model.posterior_, spec)[0].coef
    return coef.reshape(-1, *spec.free.shape)


def _check_prob(prob):
    if isinstance(prob, bool) or not isinstance(prob, int | float | np.number) or not 0 < prob < 1:
        raise ValueError(f"prob must be a probability between 0 and 1, such as 0.89; got {prob!r}.")


def _is_integer(value):
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _came(value):
    """How an error message shows what came."""
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} of shape {shape}" if shape is not None else f"{value!r:.80}"


def _shapes(spec):
    return ", ".join(f"{name or 'X'} ({width}, {spec.free.shape[1]})" for name, width in _widths(spec.layout))


def _widths(layout):
    return zip(layout.names, layout.widths, strict=True)


def _panels(axes, argument, count, columns, size, *, sharey=False):
    """Axes to draw into, an array (count,), and whether they are those of a new figure."""
    if axes is not None:
        given = np.ravel(np.array(axes, dtype=object))
        if len(given) != count or not all(isinstance(axis, Axes) for axis in given):
            wanted = "a matplotlib Axes" if count == 1 else f"{count} matplotlib Axes"
            raise ValueError(f"{argument} must be {wanted}; got {_came(axes) if len(given) == count else len(given)}.")
        return given, False
    rows = -(-count // columns)
    _, grid = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), layout="constrained", squeeze=False, sharey=sharey
    )
    for axis in grid.ravel()[count:]:
        axis.remove()
    return grid.ravel()[:count], True


def _colors(count):
    """One colour each; beyond those of matplotlib's cycle, along a map."""
    if count <= FEW:
        return [f"C{index}" for index in range(count)]
    return list(plt.get_cmap("viridis")(np.linspace(0, 0.95, count)))


def _pale(color):
    """A colour with much white, which hides what is below, unlike a transparent one."""
    return 0.35 * np.array(to_rgb(color)) + 0.65


def _legend_beside(axis, names, colors, **look):
    """Legend to the right of the axes; of many names some, evenly spread."""
    shown = np.unique(np.linspace(0, len(names) - 1, min(len(names), SOME)).round().astype(int))
    look = {"linestyle": "none"} | look
    handles = [Line2D([], [], color=colors[index], label=names[index], **look) for index in shown]
    title = None if len(shown) == len(names) else f"{len(shown)} of {len(names)}"
    axis.legend(handles=handles, title=title, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)


def _legend_above(axis, columns):
    """Legend above the axes, where it hides nothing."""
    look = {"fontsize": 8, "frameon": False, "borderaxespad": 0.2, "columnspacing": 1.0}
    axis.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, **look)


def _weight_label(spec):
    scale = WEIGHT_OF_LINK.get(spec.form.link.name, "linear predictor")
    return f"weight ({scale} per unit)"


# Weights


def _draw_weights(axis, model, spec, prob):
    """One panel: stems, intervals, dots, and the leaves."""
    coef, draws = _coef(model), _draws(model, spec)
    n_features, n_outputs = coef.shape
    # Room of one weight in points: marks become smaller rather than cover each other.
    room = axis.get_window_extent().width * 72 / axis.figure.dpi / n_features * 0.8 / n_outputs
    # Dots are narrower than bars, so that they do not hide a short one.
    size = float(np.clip(0.4 * room, 1.2, 5.0))
    rasterized = coef.size > MANY
    tail = (1 - prob) / 2
    for output, color in enumerate(_colors(n_outputs)):
        free = spec.free[:, output]
        places = np.arange(n_features)[free] + (output - (n_outputs - 1) / 2) * 0.8 / n_outputs
        values = coef[free, output]
        if draws is not None:
            low, high = np.quantile(draws[:, free, output], [tail, 1 - tail], axis=0)
            bars = {"linewidth": float(np.clip(0.6 * room, 0.5, 9.0)), "label": "interval", "zorder": 2}
            axis.vlines(places, low, high, color=_pale(color), rasterized=rasterized, **bars)
        stems = {"linewidth": float(np.clip(0.2 * room, 0.2, 1.2)), "label": "stem", "zorder": 2.5}
        axis.vlines(places, 0, values, color=color, rasterized=rasterized, **stems)
        zero = values == 0
        dots = {"linestyle": "none", "marker": "o", "markersize": size, "rasterized": rasterized}
        # Rings too small to be seen as such are grey instead.
        ring = {"markeredgecolor": color if size > 3 else "0.6", "markerfacecolor": "white", "zorder": 3}
        axis.plot(places[zero], values[zero], label="zero", **dots, **ring)
        axis.plot(places[~zero], values[~zero], label="mode", color=color, zorder=3.5, **dots)
    axis.axhline(0, color="0.6", linewidth=0.8, zorder=1)
    axis.set_xlim(-0.5 - 0.01 * n_features, n_features - 0.5 + 0.01 * n_features)
    axis.set_ylabel(_weight_label(spec))
    _mark_features(axis, spec.layout)
    n_zeros = np.count_nonzero(coef == 0)
    notes = [f"bars: {prob:.0%} intervals"] if draws is not None else []
    notes += [f"{'hollow' if size > 3 else 'grey'}: exactly 0 ({n_zeros} of {spec.free.sum()})"] if n_zeros else []
    axis.set_xlabel("feature" + "\n" * bool(notes) + "; ".join(notes))


def _mark_features(axis, layout):
    """Names or indices of the features at the bottom; separators, and names of the leaves at the top."""
    named = any(columns is not None for columns in layout.columns)
    if named and layout.n_features <= 2 * SOME:
        names = [name for leaf in range(len(layout.widths)) for name in _feature_names(layout, leaf)]
        axis.set_xticks(range(layout.n_features), names, rotation=90, fontsize=8)
    elif layout.is_array:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        # Each leaf counts from 0.
        step = max(int(np.ceil(layout.n_features / SOME)), 1)
        within = [np.arange(0, width, step) for width in layout.widths]
        ticks = np.concatenate([rows.start + index for rows, index in zip(layout.slices, within, strict=True)])
        if len(ticks) <= 2 * SOME and len(ticks) > len(within):
            axis.set_xticks(ticks, [str(index) for index in np.concatenate(within)], fontsize=8)
        else:
            axis.set_xticks([])
    if layout.is_array:
        return
    for rows in layout.slices[1:]:
        axis.axvline(rows.start - 0.5, color="0.5", linewidth=0.8, linestyle=":", zorder=1, label="separator")
    _name_leaves(axis, layout)


def _name_leaves(axis, layout):
    """Names of the leaves at the top, upright if there is no room, and none where a leaf is narrower than a line."""
    room = axis.get_window_extent().width * 72 / axis.figure.dpi / layout.n_features
    upright = any(5.5 * len(name) > room * width for name, width in _widths(layout))
    fit = [not upright or room * width >= 9 for width in layout.widths]
    centres = [(rows.start + rows.stop - 1) / 2 for rows in layout.slices]
    top = axis.secondary_xaxis("top")
    shown = [(centre, name) for centre, name, fits in zip(centres, layout.names, fit, strict=True) if fits]
    top.set_xticks(*(zip(*shown, strict=True) if shown else ([], [])), rotation=90 if upright else 0, fontsize=9)
    top.tick_params(length=0)


def _feature_names(layout, leaf):
    columns = layout.columns[leaf]
    return list(columns) if columns is not None else [str(index) for index in range(layout.widths[leaf])]


# Strengths


def _read_search(search, best):
    """Strengths, scores, best index and label of the axis of a fitted cross-validation."""
    if isinstance(search, list | tuple | np.ndarray | int | float):
        raise ValueError("scores is missing: a dict of label to array, unless strengths is a fitted cross-validation.")
    if best is not None:
        raise ValueError(f"best is the cross-validation's own best_index_; got {best!r}.")
    fitted = getattr(search, "__dict__", {})
    if "validation_scores_" not in fitted:
        if callable(getattr(search, "fit", None)):
            raise NotFittedError(f"This {type(search).__name__} is not fitted yet: call fit first.")
        raise ValueError(f"strengths must be numbers, or a fitted cross-validation; got {_came(search)}.")
    numbers = [_as_number(strength) for strength in fitted["strengths_"]]
    trees = any(number is None for number in numbers)
    scores = {"validation": fitted["validation_scores_"]}
    if fitted.get("train_scores_") is not None:
        scores = {"training": fitted["train_scores_"]} | scores
    label = "multiple of the strengths" if trees else "strength"
    return fitted["multiples_"] if trees else numbers, scores, int(fitted["best_index_"]), label


def _as_number(strength):
    """A strength as one number, or None if it is not one."""
    is_number = isinstance(strength, int | float | np.number | np.ndarray | jax.Array) and np.ndim(strength) == 0
    return float(strength) if is_number else None


def _own_strength(model, spec, index):
    """The number that a model has as its strength."""
    strength = model.regularizer_strength
    if issubclass(spec.form.prior, ElasticNet) and type(strength) is tuple:
        strength = strength[0]
    number = _as_number(1.0 if strength is None else strength)
    if number is None:
        raise ValueError(
            f"strengths is needed, one number for each model: the regularizer_strength of models[{index}] is "
            f"{_came(strength)}."
        )
    return number


def _read_strengths(strengths):
    """Array (strengths,) of finite numbers >= 0, some of them positive."""
    try:
        values = np.asarray(strengths, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"strengths must be a list of numbers; got {_came(strengths)}.") from error
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"strengths must have shape (strengths,); got shape {values.shape}.")
    if not np.isfinite(values).all() or (values < 0).any() or not (values > 0).any():
        raise ValueError(f"strengths must be finite and not negative, and not all 0; got {_listed(values)}.")
    return values


def _listed(values):
    return np.array2string(values, threshold=6, edgeitems=2)


def _read_scores(scores, label, n_strengths):
    """Array (strengths, folds); NaN where not finite."""
    try:
        array = np.asarray(scores, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"scores[{label!r}] must be an array of numbers; got {_came(scores)}.") from error
    if array.ndim not in (1, 2) or len(array) != n_strengths or array.size == 0:
        raise ValueError(
            f"scores[{label!r}] must have shape ({n_strengths},) or ({n_strengths}, folds); got {array.shape}."
        )
    array = array.reshape(n_strengths, -1)
    return np.where(np.isfinite(array), array, np.nan)


def _strength_axis(axis, values, label):
    """Make the x axis logarithmic, and return the places of the strengths on it: 0 is at the left edge."""
    positive = np.unique(values[values > 0])
    low, high = positive[0], positive[-1]
    step = np.clip(positive[1] / low, 2.0, 10.0) if len(positive) > 1 else 10.0
    edge = low / step
    axis.set_xscale("log")
    axis.set_xlabel(label)
    locator = LogLocator(subs=(1.0,) if high / low >= 10 else (1.0, 2.0, 5.0))
    if (values > 0).all():
        axis.set_xlim(low / step**0.3, high * step**0.3)
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        return values.copy()
    axis.axvline(low / step**0.5, color="0.5", linewidth=0.8, linestyle=":", zorder=1)
    axis.set_xlim(edge / step**0.3, high * step**0.3)
    ticks = locator.tick_values(low, high)
    # Rounding must not drop a tick that is a strength.
    ticks = ticks[(ticks > low * 0.999) & (ticks < high * 1.001)]
    axis.set_xticks([edge, *ticks], ["0", *(f"{tick:g}" for tick in ticks)])
    axis.set_xticks([], minor=True)
    return np.where(values > 0, values, edge)


def _draw_scores(axis, places, scores, label, color):
    """Mean of the folds, its standard error, and the folds."""
    mean, n_folds = scores.mean(1), scores.shape[1]
    if n_folds > 1:
        error = scores.std(1, ddof=1) / np.sqrt(n_folds)
        axis.plot(places, scores, color=color, linewidth=0.6, alpha=0.35)
        axis.fill_between(places, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
        label = f"{label}: mean ± 1 standard error of {n_folds} folds"
    axis.plot(places, mean, color=color, marker="o", markersize=4, label=label)


def _draw_paths(axis, places, paths, layout, n_outputs):
    """Lines of all coefficients that are not 0 throughout, and the legend."""
    by_feature = layout.is_array and layout.n_features <= FEW
    names = _feature_names(layout, 0) if by_feature else [name or "X" for name in layout.names]
    colors = _colors(len(names))
    owner = np.arange(layout.n_features) if by_feature else np.repeat(np.arange(len(names)), layout.widths)
    width = 1.4 if layout.n_features * n_outputs <= 50 else 0.6
    for output in range(n_outputs):
        moving = np.flatnonzero((paths[:, :, output] != 0).any(0) & ~np.isnan(paths[0, :, output]))
        lines = np.stack(np.broadcast_arrays(places[:, None], paths[:, moving, output]), axis=-1).swapaxes(0, 1)
        style = LINE_STYLES[output] if n_outputs <= len(LINE_STYLES) else "-"
        curves = LineCollection(
            list(lines), linewidths=width, linestyles=style, colors=[colors[owner[i]] for i in moving]
        )
        curves.set_rasterized(len(lines) > MANY)
        axis.add_collection(curves)
    _legend_beside(axis, names, colors, linestyle="-")
    if 1 < n_outputs <= len(LINE_STYLES):
        first = axis.get_legend()
        styles = [Line2D([], [], color="0.3", linestyle=LINE_STYLES[j], label=f"output {j}") for j in range(n_outputs)]
        axis.legend(handles=styles, loc="lower left", bbox_to_anchor=(1.0, 0.0), frameon=False, fontsize=9)
        axis.add_artist(first)


# Predictions


def _predict(model, X, offset, num_samples, seed, shape):
    """Draws of y, and the mean in each, shape (draws, samples, outputs)."""
    # Predictions become a part of the posterior's tree: of a copy of it, so that the model stays as it is.
    twin = copy.copy(model)
    twin.posterior_ = model.posterior_.copy(deep=False)
    found = twin.posterior_predictive(X, offset=offset, num_samples=num_samples, seed=seed)["predictions"]
    return tuple(found[name].values.reshape(-1, *shape) for name in ("y", "mean"))


def _bins(mean):
    """Sets of about equally many samples with similar means."""
    return np.array_split(np.argsort(mean, kind="stable"), int(np.clip(len(mean) // 20, 2, 15)))


def _diagonal(axis, low, high):
    axis.plot([low, high], [low, high], color="0.4", linewidth=1, linestyle="--", zorder=2.5, label="_diagonal")


def _interval_label(prob, low, high, observed, what):
    return f"{prob:.0%} intervals of {what} ({np.mean((low <= observed) & (observed <= high)):.0%} are inside)"


def _draw_scatter(axis, mean, observed, draws, prob, is_count, seed):
    """Observed against predicted, with the predictive interval of each sample."""
    n = len(mean)
    rasterized = n > MANY
    if draws is not None:
        low, high = np.quantile(draws, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
        look = {"linewidth": float(np.clip(200 / n, 0.6, 2.0)), "color": "0.8", "rasterized": rasterized, "zorder": 1}
        axis.vlines(mean, low, high, label=_interval_label(prob, low, high, observed, "y"), **look)
    shown, label = observed, "observed"
    if is_count:
        shown = observed + np.random.default_rng(seed).uniform(-0.3, 0.3, n)
        label = "observed, moved by up to 0.3"
    size = float(np.clip(200 / np.sqrt(n), 1.5, 6.0))
    look = {"linestyle": "none", "marker": ".", "markersize": size, "alpha": float(np.clip(400 / n, 0.15, 0.8))}
    axis.plot(mean, shown, color="C0", label=label, rasterized=rasterized, zorder=2, **look)
    _diagonal(axis, mean.min(), mean.max())
    if is_count and n >= 100:
        centres = np.array([(mean[rows].mean(), observed[rows].mean()) for rows in _bins(mean)])
        axis.plot(*centres.T, "o", color="C1", markersize=6, markeredgecolor="white", label="mean in a bin", zorder=3)
    if is_count and observed.max() > SOME:
        _root_axes(axis, observed.max())
    axis.set(xlabel="predicted mean (units of y)", ylabel="observed y")
    _legend_above(axis, columns=1)


def _root_axes(axis, largest):
    """Axes of square roots, on which small counts have room; the counts that are moved below 0 stay on them."""
    shift = 0.375

    def root(value):
        return np.sqrt(np.maximum(value + shift, 0.0))

    def square(value):
        return np.square(value) - shift

    axis.set_xscale("function", functions=(root, square))
    axis.set_yscale("function", functions=(root, square))
    ticks = [digit * 10**power for power in range(int(np.log10(max(largest, 1))) + 1) for digit in (1, 2, 5)]
    axis.xaxis.set_major_locator(FixedLocator([0, *ticks]))
    axis.yaxis.set_major_locator(FixedLocator([0, *ticks]))
    axis.set_xlim(left=max(axis.get_xlim()[0], -shift))
    axis.set_ylim(-shift, (np.sqrt(axis.dataLim.y1) + 0.1) ** 2)


def _draw_calibration(axis, mean, observed, draws, prob, seed):
    """Share of ones in bins of the predicted probability, with its predictive interval."""
    bins = _bins(mean)
    centres = np.array([mean[rows].mean() for rows in bins])
    shares = np.array([observed[rows].mean() for rows in bins])
    if draws is not None:
        replicated = np.stack([draws[:, rows].mean(1) for rows in bins], axis=1)
        low, high = np.quantile(replicated, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
        label = _interval_label(prob, low, high, shares, "the share")
        axis.vlines(centres, low, high, color="0.8", linewidth=4, label=label, zorder=1)
    _diagonal(axis, 0.0, 1.0)
    axis.plot(centres, shares, "o", color="C1", markersize=5, label="share of ones in a bin", zorder=3)
    moved = np.random.default_rng(seed).uniform(0.03, 0.1, len(mean))
    look = {"linestyle": "none", "marker": ".", "alpha": float(np.clip(400 / len(mean), 0.1, 0.6)), "markersize": 4}
    places = np.where(observed > 0.5, 1 + moved, -moved)
    axis.plot(mean, places, color="C0", label="samples: 1 above, 0 below", rasterized=len(mean) > MANY, **look)
    axis.set(xlabel="predicted probability of y = 1", ylabel="observed share of y = 1")
    _legend_above(axis, columns=1)


def _draw_traces(axis, mean, observed, draws, prob, binary):
    """Observed and predicted, sample after sample, with the interval as a band."""
    places = np.arange(len(mean))
    if draws is not None:
        low, high = np.quantile(draws, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
        label = f"{prob:.0%} intervals of the mean" if binary else _interval_label(prob, low, high, observed, "y")
        axis.fill_between(places, low, high, color="C0", alpha=0.25, linewidth=0, label=label, zorder=1)
    look = {"linestyle": "none", "marker": "|", "markersize": 5} if binary else {"linewidth": 0.8}
    axis.plot(places, observed, color="0.2", label="observed", zorder=2, **look)
    axis.plot(places, mean, color="C0", linewidth=1.2, label="predicted mean", zorder=3)
    axis.margins(x=0.01)
    axis.set(xlabel="sample", ylabel="probability of y = 1" if binary else "y")
    _legend_above(axis, columns=3)


# Priors


def _chosen(features, layout):
    """Title and row of each chosen feature."""
    if not layout.is_array and not isinstance(features, Mapping):
        raise ValueError(
            f"features must be a dict by leaf, of {list(layout.names)}, since X is a container; got {_came(features)}."
        )
    by_leaf = features if not layout.is_array else {"": features}
    panels = []
    for name, wanted in by_leaf.items():
        if name not in layout.names:
            raise ValueError(f"features must have leaves of X as keys, {list(layout.names)}; got {name!r}.")
        leaf = layout.names.index(name)
        label = f"features[{name!r}]" if name else "features"
        for feature in [wanted] if isinstance(wanted, str) or np.ndim(wanted) == 0 else wanted:
            row = _find_feature(feature, layout, leaf, label)
            title = (
                f"{name}[{_feature_names(layout, leaf)[row]}]"
                if name
                else f"feature {_feature_names(layout, leaf)[row]}"
            )
            panels.append((title, [layout.slices[leaf].start + row]))
    if not panels:
        raise ValueError("features is empty; expected at least one feature.")
    return panels


def _find_feature(feature, layout, leaf, label):
    """Index within its leaf of a feature given by index or name."""
    width, columns = layout.widths[leaf], layout.columns[leaf]
    if isinstance(feature, str) and columns is not None and feature in columns:
        return columns.index(feature)
    if not _is_integer(feature) or not -width <= feature < width:
        names = f", or one of {list(columns)[:SOME]}" if columns is not None else ""
        raise ValueError(f"{label} must be an index below {width}{names}; got {feature!r}.")
    return int(feature) % width


def _prior_rates(spec):
    """Of the prior of each coefficient, (p, outputs, 4): l1, l2, size of its group, whether it is bounded.

    The density is proportional to exp(-l1 norm2(group) - l2 w^2 / 2); l1 = l2 = 0 is flat.
    """
    if np.isnan(spec.k).any():
        raise ValueError(
            "model has no known prior, for its dispersion is not known: scale_ is NaN. Give the dispersion, as in "
            f"{spec.form.family.__name__}(scale=1.0), or use a stronger regularizer."
        )
    size = np.ones(spec.free.shape)
    if is_grouped(spec.strength):
        rate, groups = spec.strength
        size = np.bincount(groups.ravel(), minlength=len(rate) + 1)[groups]
        l1, l2 = np.append(rate, 0.0)[groups], np.zeros(groups.shape)
    elif isinstance(spec.strength, tuple):
        strength, ratio = spec.strength
        l1, l2 = strength * ratio, strength * (1 - ratio)
    elif issubclass(spec.form.prior, Ridge):
        l1, l2 = np.zeros(size.shape), spec.strength
    else:
        l1, l2 = spec.strength, np.zeros(size.shape)
    positive = np.zeros(size.shape) if spec.positive is None else spec.positive
    return np.stack([spec.k * l1, spec.k * l2, size, positive], axis=-1)


def _prior_density(w, rates):
    """Density at each w (points,) of proper priors (priors, 4): (points, priors); marginal for a group."""
    density = np.empty((len(w), len(rates)))
    for index, (l1, l2, size, positive) in enumerate(rates):
        if size > 1:
            # A normal of gamma-distributed variance, integrated over the quantiles of the variance; the cube puts more
            # nodes to small variances, which make the peak at 0.
            t = (np.arange(1000) + 0.5) / 1000
            variance = gammaincinv((size + 1) / 2, t**3) * 2 / l1**2
            normal = np.exp(-0.5 * w[:, None] ** 2 / variance) / np.sqrt(2 * np.pi * variance)
            density[:, index] = normal @ (3 * t**2) / 1000
        else:
            mass = 2 / l1 if l2 == 0 else np.sqrt(2 * np.pi / l2) * erfcx(l1 / np.sqrt(2 * l2))
            density[:, index] = np.exp(-l1 * np.abs(w) - 0.5 * l2 * w**2) / mass
        if positive:
            density[:, index] *= 2.0 * (w >= 0)
    return density


def _prior_width(rates):
    """Standard deviation of each prior, of ElasticNet's an upper bound; infinite where flat."""
    l1, l2, size, _ = rates.T
    with np.errstate(divide="ignore"):
        return np.minimum(np.sqrt(size + 1) / l1, 1 / np.sqrt(l2))


def _smoothed(draws, grid):
    """Density of draws at evenly spaced points, by a histogram that a normal kernel smooths."""
    step = grid[1] - grid[0]
    quarter, half = np.quantile(draws, [0.25, 0.75])
    spread = min(draws.std(), (half - quarter) / 1.34) or draws.std()
    bandwidth = max(0.9 * spread * len(draws) ** -0.2, step)
    # Beyond the grid as far as the kernel reaches.
    reach = int(np.ceil(4 * bandwidth / step))
    edges = grid[0] + step * (np.arange(-reach, len(grid) + reach + 1) - 0.5)
    counts = np.histogram(draws, edges)[0] / (len(draws) * step)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / bandwidth) ** 2)
    return np.convolve(counts, kernel / kernel.sum(), "valid")


def _draw_densities(axis, model, spec, draws, rates, rows):
    """One panel: priors and posteriors of the coefficients of some rows."""
    members = [(row, output) for row in rows for output in range(spec.free.shape[1]) if spec.free[row, output]]
    if not members:
        axis.text(0.5, 0.5, "left out by feature_mask", ha="center", transform=axis.transAxes)
        return
    where = tuple(np.array(members).T)
    modes, mine, sampled = _coef(model)[where], rates[where], draws[:, *where]
    width = _prior_width(mine)
    grid, flat = _grid(sampled, modes, width), ~np.isfinite(width)
    together = len(members) > FEW
    if together:
        posteriors = [_smoothed(sampled.ravel(), grid)]
        names = [f"posterior of {len(members)} weights"]
        modes = [modes]
    else:
        posteriors = [_smoothed(each, grid) for each in sampled.T]
        names = [_member_name(member, spec, rows) for member in members]
    _draw_priors(axis, grid, mine, flat, together)
    for color, name, posterior, mode in zip(_colors(len(posteriors)), names, posteriors, modes, strict=True):
        axis.plot(grid, posterior, color=color, linewidth=1.3, label=name)
        if len(posteriors) == 1:
            axis.fill_between(grid, posterior, color=color, alpha=0.25, linewidth=0)
        if together:
            rug = {"linestyle": "none", "marker": "|", "markersize": 9, "markeredgewidth": 0.5, "clip_on": False}
            axis.plot(mode, np.zeros(len(mode)), color=color, label="modes", **rug)
        else:
            face = "white" if mode == 0 else color
            look = {"markerfacecolor": face, "clip_on": False, "zorder": 4, "linestyle": "none"}
            axis.plot([mode], [0.0], marker="o", color=color, markersize=6, label=_mode_label(posteriors, mode), **look)
    axis.set_ylim(0, 1.05 * max(axis.dataLim.ymax, 1e-300))
    axis.set_xlim(grid[0], grid[-1])
    axis.set(xlabel=_weight_label(spec), ylabel="density (1 / weight)")
    axis.legend(fontsize=8, frameon=False)


def _mode_label(posteriors, mode):
    if len(posteriors) > 1:
        return None
    return "mode, exactly 0" if mode == 0 else "mode"


def _member_name(member, spec, rows):
    """Name of a coefficient in the legend of its panel."""
    row, output = member
    leaf = next(index for index, part in enumerate(spec.layout.slices) if part.start <= row < part.stop)
    feature = _feature_names(spec.layout, leaf)[row - spec.layout.slices[leaf].start]
    parts = [feature] if len(rows) > 1 else []
    parts += [f"output {output}"] if spec.population else []
    return ", ".join(parts) or "posterior"


def _grid(sampled, modes, prior_width):
    """Points that cover the posterior and 0, and of the priors what is not much wider than these."""
    low, high = np.quantile(sampled, [0.001, 0.999])
    low, high = min(low, modes.min(), 0.0), max(high, modes.max(), 0.0)
    span = high - low
    reach = min(3 * prior_width.max(initial=0.0, where=np.isfinite(prior_width)), span)
    low, high = min(low, -reach), max(high, reach)
    margin = 0.08 * (high - low)
    return np.linspace(low - margin, high + margin, 801)


def _draw_priors(axis, grid, rates, flat, together):
    """The distinct priors of a panel in grey, or their average; a flat one is a dashed line at the bottom."""
    distinct, counts = np.unique(rates[~flat], axis=0, return_counts=True)
    if len(distinct):
        densities = _prior_density(grid, distinct)
        average = together and len(distinct) > 1
        if average:
            densities = densities @ counts[:, None] / counts.sum()
        label = "average of the priors" if average else ("priors" if len(distinct) > 1 else "prior")
        for number, density in enumerate(densities.T):
            axis.fill_between(grid, density, color="0.5", alpha=0.2, linewidth=0, zorder=1)
            axis.plot(grid, density, color="0.5", linewidth=1.2, zorder=1, label=label if number == 0 else None)
    if flat.any():
        transform = axis.get_xaxis_transform()
        look = {"color": "0.5", "linestyle": "--", "linewidth": 1.2, "zorder": 1}
        axis.plot(grid[[0, -1]], [0.04, 0.04], transform=transform, label="flat prior", **look)
