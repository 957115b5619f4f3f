"""Pictures of fits, strengths, predictions and priors; matplotlib draws them.

Each function draws into the Axes that it is given, or into a new figure, and returns the Axes. None shows a figure or
changes matplotlib's settings. One language runs through them: a dot is the mode, hollow where it is exactly 0; a pale
bar or band is an interval with equal tails; leaves of X, or outputs, have colours.
"""

from collections.abc import Mapping

import numpy as np
from sklearn.exceptions import NotFittedError

from bayesglm._drawing import (
    choose_colors,
    draw_calibration,
    draw_densities,
    draw_paths,
    draw_scatter,
    draw_scores,
    draw_traces,
    draw_weights,
    legend_beside,
    make_panels,
    rates_of_priors,
    strength_axis,
    weight_label,
)
from bayesglm._options import drops_missing
from bayesglm._plot_arguments import (
    check_prob,
    chosen_panels,
    coef_of,
    draws_of,
    is_integer,
    kind_of,
    names_of_outputs,
    own_strength,
    predict_draws,
    read_scores,
    read_search,
    read_strengths,
    shapes_of,
    spec_of,
)
from bayesglm._targets import read_labels, read_successes, read_targets

__all__ = ["plot_coefficient_path", "plot_predictions", "plot_prior_posterior", "plot_scores", "plot_weights"]


def plot_weights(models, *, prob=0.89, sharey=True, axes=None):
    """Draw the weights of fitted models, one panel for each model.

    A stem leads from 0 to the mode, a dot that is hollow where the mode is exactly 0. Models that were sampled have a
    bar for the interval of each weight. Lines separate the leaves of X, whose names are at the top; the outputs of a
    PopulationGLM, or classes, have colours. Weights that a `feature_mask` leaves out are not drawn.

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
    specs = [spec_of(model, label) for model, label in zip(panels.values(), labels, strict=True)]
    check_prob(prob)
    widest = max(spec.free.size for spec in specs)
    columns = 1 if widest > 100 else (2 if len(panels) == 4 else min(len(panels), 3))
    width = 9.0 if columns == 1 else 4.5
    drawn, own = make_panels(axes, "axes", len(panels), columns, (width, 3.2), sharey=sharey)
    for axis, (title, model), spec in zip(drawn, panels.items(), specs, strict=True):
        draw_weights(axis, model, spec, prob)
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
        names = names_of_outputs(specs[most])
        legend_beside(drawn[min(columns, len(drawn)) - 1 if own else -1], names, choose_colors(n_outputs), marker="o")
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
        strengths, scores, best, xlabel = read_search(strengths, best)
    values = read_strengths(strengths)
    if not isinstance(scores, Mapping) or not scores:
        raise ValueError(f"scores must be a dict of label to array; got {kind_of(scores)}.")
    curves = {label: read_scores(curve, label, len(values)) for label, curve in scores.items()}
    if best is not None and (not is_integer(best) or not 0 <= best < len(values)):
        raise ValueError(f"best must be the index of one of the {len(values)} strengths; got {best!r}.")
    (axis,), _ = make_panels(ax, "ax", 1, 1, (6.0, 4.0))
    order = np.argsort(values, kind="stable")
    places = strength_axis(axis, values, xlabel)
    for number, (label, curve) in enumerate(curves.items()):
        draw_scores(axis, places[order], curve[order], label, f"C{number}")
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
        raise ValueError(f"models must be a list of fitted models, as from strength_path; got {kind_of(models)}.")
    specs = [spec_of(model, f"models[{index}]") for index, model in enumerate(models)]
    layout = specs[0].layout
    for index, spec in enumerate(specs):
        if (spec.layout.names, spec.layout.widths, spec.free.shape) != (
            layout.names,
            layout.widths,
            specs[0].free.shape,
        ):
            raise ValueError(
                f"models must share the leaves of X and the outputs: models[0] has coefficients "
                f"{shapes_of(specs[0])}, models[{index}] has {shapes_of(spec)}."
            )
    if strengths is None:
        strengths = [
            own_strength(model, spec, index) for index, (model, spec) in enumerate(zip(models, specs, strict=True))
        ]
    values = read_strengths(strengths)
    if len(values) != len(models):
        raise ValueError(f"strengths must have one number for each of the {len(models)} models; got {len(values)}.")
    (axis,), _ = make_panels(ax, "ax", 1, 1, (7.0, 4.4))
    order = np.argsort(values, kind="stable")
    places = strength_axis(axis, values, "strength")
    paths = np.stack([coef_of(models[index]) for index in order])
    axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    draw_paths(axis, places[order], paths, layout, names_of_outputs(specs[0]))
    axis.set_ylabel(weight_label(specs[0]))
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
    the mean at the mode, without intervals. Each class of a ClassifierGLM is an output of zeros and ones.

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
    matplotlib.axes.Axes, or numpy.ndarray of such, shape (outputs,), for a PopulationGLM or classes

    Raises
    ------
    ValueError
        If an argument does not make sense.
    NotFittedError
        If the model is not fitted.
    """
    spec = spec_of(model, "model")
    check_prob(prob)
    if not isinstance(kind, str) or kind not in ("scatter", "time"):
        raise ValueError(f"kind must be 'scatter' or 'time'; got {kind!r}.")
    of_classes = spec.outputs.classes is not None
    mean = (model.predict_proba if of_classes else model.predict)(X, offset=offset)
    missing = drops_missing(model.nan_policy)
    if of_classes:
        observed = read_labels(y, len(mean), np.float64, spec.outputs.classes, missing=missing)[0]
    elif spec.form.family.counts_trials:
        share, trials = read_successes(y, len(mean), missing=missing)
        observed = share[:, None]
    else:
        observed = read_targets(
            y, len(mean), spec.form.family, np.float64, population=spec.population, missing=missing
        )  # fmt: skip
    mean, draws, means = mean.reshape(observed.shape), None, mean
    if "posterior_" in vars(model):
        draws, means = predict_draws(model, X, offset, num_samples, seed, observed.shape)
        mean = means.mean(0)
        if spec.form.family.counts_trials:
            known = ~np.isnan(trials) & ~np.isnan(mean).any(1)
            trials, chance = np.where(known, trials, 0.0)[:, None], np.nan_to_num(means)
            successes = np.random.default_rng(seed).binomial(trials.astype(int), chance)
            draws = np.where(known[:, None], successes / np.maximum(trials, 1), np.nan)
    known = ~np.isnan(observed).any(1) & ~np.isnan(mean).any(1)
    if kind == "scatter":
        observed, mean, draws = observed[known], mean[known], None if draws is None else draws[:, known]
    n_outputs = observed.shape[1]
    size = (5.0, 4.2) if kind == "scatter" else (9.0, 2.8)
    columns = min(n_outputs, 3) if kind == "scatter" else 1
    drawn, _ = make_panels(axes, "axes", n_outputs, columns, size)
    family = spec.form.family
    binary = family.is_discrete and not family.is_count and not family.counts_trials
    for output, axis in enumerate(drawn):
        one = None if draws is None else draws[..., output]
        if kind == "time":
            band = one if draws is None or not binary else means[..., output]
            draw_traces(axis, mean[:, output], observed[:, output], band, prob, binary)
        elif binary:
            draw_calibration(axis, mean[:, output], observed[:, output], one, prob, seed)
        else:
            draw_scatter(axis, mean[:, output], observed[:, output], one, prob, spec.form.family.is_count, seed)
        if spec.population:
            axis.set_ylabel(f"{axis.get_ylabel()}, {names_of_outputs(spec)[output]}")
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
    spec = spec_of(model, "model")
    draws = draws_of(model, spec)
    if draws is None:
        raise NotFittedError("model has no posterior yet: call sample first.")
    if features is None:
        panels = [
            (name, range(rows.start, rows.stop))
            for name, rows in zip(spec.layout.names, spec.layout.slices, strict=True)
        ]
    else:
        panels = chosen_panels(features, spec.layout)
    drawn, _ = make_panels(axes, "axes", len(panels), min(len(panels), 3), (4.0, 2.9))
    rates = rates_of_priors(spec)
    for axis, (title, rows) in zip(drawn, panels, strict=True):
        draw_densities(axis, model, spec, draws, rates, list(rows))
        axis.set_title(title)
    return drawn
