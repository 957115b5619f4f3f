"""Marks on axes: weights, paths, scores, predictions and densities."""

from typing import Any

import numpy as np
from scipy.special import erfcx, gammaincinv

from bayesglm._plot_arguments import (
    SOME,
    coef_of,
    draws_of,
    kind_of,
    names_of_features,
    names_of_outputs,
    widths_of,
)
from bayesglm._problem import is_grouped
from bayesglm.priors import Ridge

try:
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter
except ImportError as error:
    raise ImportError("bayesglm.plots needs matplotlib: pip install 'bayesglm[plot]'") from error

__all__ = [
    "choose_colors",
    "draw_calibration",
    "draw_densities",
    "draw_paths",
    "draw_scatter",
    "draw_scores",
    "draw_traces",
    "draw_weights",
    "legend_beside",
    "make_panels",
    "rates_of_priors",
    "strength_axis",
    "weight_label",
]

# More curves than this in one panel cannot be told apart by colour.
FEW = 10
# From this many marks on, a vector file holds them as pixels.
MANY = 2000
WEIGHT_OF_LINK = {
    "exp": "log mean",
    "identity": "y",
    "logistic": "log odds",
    "one_over_x": "1 / mean",
    "softmax": "log odds",
}
LINE_STYLES: list[Any] = ["-", "--", ":", "-."]


def make_panels(axes, argument, count, columns, size, *, sharey=False):
    """Axes to draw into, an array (count,), and whether they are those of a new figure."""
    if axes is not None:
        given = np.ravel(np.array(axes, dtype=object))
        if len(given) != count or not all(isinstance(axis, Axes) for axis in given):
            wanted = "a matplotlib Axes" if count == 1 else f"{count} matplotlib Axes"
            raise ValueError(
                f"{argument} must be {wanted}; got {kind_of(axes) if len(given) == count else len(given)}."
            )
        return given, False
    rows = -(-count // columns)
    _, grid = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), layout="constrained", squeeze=False, sharey=sharey
    )
    for axis in grid.ravel()[count:]:
        axis.remove()
    return grid.ravel()[:count], True


def choose_colors(count):
    """One colour each; beyond those of matplotlib's cycle, along a map."""
    if count <= FEW:
        return [f"C{index}" for index in range(count)]
    return list(plt.get_cmap("viridis")(np.linspace(0, 0.95, count)))


def _pale(color):
    """A colour with much white, which hides what is below, unlike a transparent one."""
    return 0.35 * np.array(to_rgb(color)) + 0.65


def legend_beside(axis, names, colors, **look):
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


def weight_label(spec):
    scale = WEIGHT_OF_LINK.get(spec.form.link.name, "linear predictor")
    return f"weight ({scale} per unit)"


def draw_weights(axis, model, spec, prob):
    """One panel: stems, intervals, dots, and the leaves."""
    coef, draws = coef_of(model), draws_of(model, spec)
    n_features, n_outputs = coef.shape
    # Room of one weight in points: marks become smaller rather than cover each other.
    room = axis.get_window_extent().width * 72 / axis.figure.dpi / n_features * 0.8 / n_outputs
    # Dots are narrower than bars, so that they do not hide a short one.
    size = float(np.clip(0.4 * room, 1.2, 5.0))
    rasterized = coef.size > MANY
    tail = (1 - prob) / 2
    for output, color in enumerate(choose_colors(n_outputs)):
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
    axis.set_ylabel(weight_label(spec))
    _mark_features(axis, spec.layout)
    n_zeros = np.count_nonzero(coef == 0)
    notes = [f"bars: {prob:.0%} intervals"] if draws is not None else []
    notes += [f"{'hollow' if size > 3 else 'grey'}: exactly 0 ({n_zeros} of {spec.free.sum()})"] if n_zeros else []
    axis.set_xlabel("feature" + "\n" * bool(notes) + "; ".join(notes))


def _mark_features(axis, layout):
    """Names or indices of the features at the bottom; separators, and names of the leaves at the top."""
    named = any(columns is not None for columns in layout.columns)
    if named and layout.n_features <= 2 * SOME:
        names = [name for leaf in range(len(layout.widths)) for name in names_of_features(layout, leaf)]
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
    upright = any(5.5 * len(name) > room * width for name, width in widths_of(layout))
    fit = [not upright or room * width >= 9 for width in layout.widths]
    centres = [(rows.start + rows.stop - 1) / 2 for rows in layout.slices]
    top = axis.secondary_xaxis("top")
    shown = [(centre, name) for centre, name, fits in zip(centres, layout.names, fit, strict=True) if fits]
    top.set_xticks(*(zip(*shown, strict=True) if shown else ([], [])), rotation=90 if upright else 0, fontsize=9)
    top.tick_params(length=0)


def strength_axis(axis, values, label):
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


def draw_scores(axis, places, scores, label, color):
    """Mean of the folds, its standard error, and the folds."""
    mean, n_folds = scores.mean(1), scores.shape[1]
    if n_folds > 1:
        error = scores.std(1, ddof=1) / np.sqrt(n_folds)
        axis.plot(places, scores, color=color, linewidth=0.6, alpha=0.35)
        axis.fill_between(places, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
        label = f"{label}: mean ± 1 standard error of {n_folds} folds"
    axis.plot(places, mean, color=color, marker="o", markersize=4, label=label)


def draw_paths(axis, places, paths, layout, output_names):
    """Lines of all coefficients that are not 0 throughout, and the legend."""
    n_outputs = len(output_names)
    by_feature = layout.is_array and layout.n_features <= FEW
    names = names_of_features(layout, 0) if by_feature else [name or "X" for name in layout.names]
    colors = choose_colors(len(names))
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
    legend_beside(axis, names, colors, linestyle="-")
    if 1 < n_outputs <= len(LINE_STYLES):
        first = axis.get_legend()
        styles = [
            Line2D([], [], color="0.3", linestyle=style, label=name)
            for style, name in zip(LINE_STYLES, output_names, strict=False)
        ]
        axis.legend(handles=styles, loc="lower left", bbox_to_anchor=(1.0, 0.0), frameon=False, fontsize=9)
        axis.add_artist(first)


def _bins(mean):
    """Sets of about equally many samples with similar means."""
    return np.array_split(np.argsort(mean, kind="stable"), int(np.clip(len(mean) // 20, 2, 15)))


def _diagonal(axis, low, high):
    axis.plot([low, high], [low, high], color="0.4", linewidth=1, linestyle="--", zorder=2.5, label="_diagonal")


def _interval_label(prob, low, high, observed, what):
    return f"{prob:.0%} intervals of {what} ({np.mean((low <= observed) & (observed <= high)):.0%} are inside)"


def draw_scatter(axis, mean, observed, draws, prob, is_count, seed):
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


def draw_calibration(axis, mean, observed, draws, prob, seed):
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


def draw_traces(axis, mean, observed, draws, prob, binary):
    """Observed and predicted, sample after sample, with the interval as a band."""
    places = np.arange(len(mean))
    if draws is not None:
        low, high = np.quantile(draws, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
        seen = ~np.isnan(observed) & ~np.isnan(low)
        inside = low[seen], high[seen], observed[seen]
        label = f"{prob:.0%} intervals of the mean" if binary else _interval_label(prob, *inside, "y")
        axis.fill_between(places, low, high, color="C0", alpha=0.25, linewidth=0, label=label, zorder=1)
    look = {"linestyle": "none", "marker": "|", "markersize": 5} if binary else {"linewidth": 0.8}
    axis.plot(places, observed, color="0.2", label="observed", zorder=2, **look)
    axis.plot(places, mean, color="C0", linewidth=1.2, label="predicted mean", zorder=3)
    axis.margins(x=0.01)
    axis.set(xlabel="sample", ylabel="probability of y = 1" if binary else "y")
    _legend_above(axis, columns=3)


def rates_of_priors(spec):
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


def draw_densities(axis, model, spec, draws, rates, rows):
    """One panel: priors and posteriors of the coefficients of some rows."""
    members = [(row, output) for row in rows for output in range(spec.free.shape[1]) if spec.free[row, output]]
    if not members:
        axis.text(0.5, 0.5, "left out by feature_mask", ha="center", transform=axis.transAxes)
        return
    where = tuple(np.array(members).T)
    modes, mine, sampled = coef_of(model)[where], rates[where], draws[:, *where]
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
    for color, name, posterior, mode in zip(choose_colors(len(posteriors)), names, posteriors, modes, strict=True):
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
    axis.set(xlabel=weight_label(spec), ylabel="density (1 / weight)")
    axis.legend(fontsize=8, frameon=False)


def _mode_label(posteriors, mode):
    if len(posteriors) > 1:
        return None
    return "mode, exactly 0" if mode == 0 else "mode"


def _member_name(member, spec, rows):
    """Name of a coefficient in the legend of its panel."""
    row, output = member
    leaf = next(index for index, part in enumerate(spec.layout.slices) if part.start <= row < part.stop)
    feature = names_of_features(spec.layout, leaf)[row - spec.layout.slices[leaf].start]
    parts = [feature] if len(rows) > 1 else []
    parts += [names_of_outputs(spec)[output]] if spec.population else []
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
