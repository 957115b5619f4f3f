"""Draw the figures of the documentation: ``python docs/make_figures.py`` writes them into docs/figures.

`penalties_and_priors.png`, `strengths.png`, `predictions.png` and `diagnostics.png` are drawn here, the last three from
the fits of the pages what-is-a-strength.md, predictions.md and diagnostics.md; `plot_*.png` are the pictures of the
page plots.md; `quickstart_forest.png` is the picture of examples/quickstart.py.
"""

import contextlib
import importlib.util
import io
import re
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image
from scipy import special, stats

import bayesglm
from bayesglm import GLM, PopulationGLM, priors
from bayesglm._design import read_design
from bayesglm._strength import read_strength

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "figures"
STRENGTH, N = 0.1, 200
SIZES = {"a": 5, "b": 3}
COLORS = {"UnRegularized": "0.6", "Ridge": "C0", "Lasso": "C1", "ElasticNet": "C2", "GroupLasso": "C3"}
MARKERS = {"UnRegularized": "s", "Ridge": "o", "Lasso": "D", "ElasticNet": "^", "GroupLasso": "v"}
LEAVES = {"past": "C0", "tone": "C1", "touch": "C2", "": "0.25"}
OUTPUTS = ["o", "s", "^"]
LIMITS = -0.9, 0.9


def make_data():
    """The data of the page on penalties and priors: group `b` has no influence."""
    rng = np.random.default_rng(3)
    X = {"a": 0.5 * rng.normal(size=(N, 5)), "b": 0.5 * rng.normal(size=(N, 3))}
    y = rng.poisson(np.exp(0.5 + X["a"] @ [0.8, 0.5, 0.0, 0.3, -0.4]))
    return X, y


def draw_coefficient_priors(axis):
    """Density of one coefficient; on a logarithmic scale a penalty keeps its shape."""
    w = np.linspace(-0.6, 0.6, 601)
    rate = N * STRENGTH
    elastic = bayesglm.distributions.ElasticNet(rate * 0.5, rate * 0.5)
    densities = {
        "Ridge": stats.norm(0, 1 / np.sqrt(rate)).pdf(w),
        "Lasso": stats.laplace(0, 1 / rate).pdf(w),
        "ElasticNet": np.exp(np.asarray(elastic.log_prob(w))),
    }
    for name, density in densities.items():
        axis.plot(w, density, color=COLORS[name], label=name)
    axis.set(yscale="log", ylim=(1e-4, 30), xlabel="coefficient $w$", ylabel="prior density")
    axis.set_xticks([-0.5, 0, 0.5])
    axis.set_title("One coefficient")
    axis.legend(frameon=False, fontsize=8, loc="lower center")


def draw_length_priors(axis):
    """Density of the length of a group of five coefficients."""
    length = np.linspace(0, 1.2, 601)
    rate = N * STRENGTH
    ridge = stats.chi(SIZES["a"], scale=1 / np.sqrt(rate))
    group = stats.gamma(SIZES["a"], scale=1 / (rate * np.sqrt(SIZES["a"])))
    axis.plot(length, ridge.pdf(length), color=COLORS["Ridge"], label="Ridge")
    axis.plot(length, group.pdf(length), color=COLORS["GroupLasso"], label="GroupLasso")
    axis.set(xlabel="length $\\|w_g\\|_2$ of a group of 5", ylabel="prior density", ylim=(0, None))
    axis.set_title("A group of five")
    axis.legend(frameon=False, fontsize=8)


def draw_coefficients(axis):
    """The coefficients that each regularizer gives."""
    X, y = make_data()
    labels = [f"{leaf}[{i}]" for leaf, size in SIZES.items() for i in range(size)]
    place = np.arange(len(labels))
    for shift, name in zip(np.linspace(-0.3, 0.3, len(COLORS)), COLORS, strict=True):
        strength = None if name == "UnRegularized" else STRENGTH
        model = GLM(regularizer=name, regularizer_strength=strength).fit(X, y)
        coef = np.concatenate([model.coef_["a"], model.coef_["b"]])
        zero = coef == 0
        look = {"color": COLORS[name], "marker": MARKERS[name], "linestyle": "none", "markersize": 5}
        axis.plot(place[~zero] + shift, coef[~zero], label=name, **look)
        axis.plot(place[zero] + shift, coef[zero], markerfacecolor="white", **look)
    axis.axhline(0, color="0.8", linewidth=1, zorder=0)
    axis.axvline(4.5, color="0.8", linewidth=1, linestyle=":")
    axis.set_xticks(place, labels)
    axis.set(xlabel="coefficient (hollow: exactly 0)", ylabel="value at the fit")
    axis.set_title(f"The fits, all with strength {STRENGTH}")
    axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")


def draw_penalties_and_priors(path):
    """Priors on the left, the fits that they give on the right."""
    ratios = {"width_ratios": [1, 1, 1.9]}
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained", gridspec_kw=ratios)
    draw_coefficient_priors(axes[0])
    draw_length_priors(axes[1])
    draw_coefficients(axes[2])
    figure.savefig(path, dpi=100)
    plt.close(figure)


def run_page(page):
    """Names that the snippets of a page leave behind."""
    namespace = {"__name__": "page"}
    with contextlib.redirect_stdout(io.StringIO()):
        for snippet in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
            exec(compile(snippet, str(page), "exec"), namespace)
    return namespace


def by_leaf(tree):
    """Leaves by the last part of their path; "" if the tree is one array."""
    paths = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path[-1:], simple=True): leaf for path, leaf in paths}


def read_priors(model, k):
    """For each leaf the priors of its coefficients, as (regularizer, k s, ...), and their groups, (p, outputs)."""
    regularizer, outputs = model.regularizer, len(model.intercept_)
    prior = getattr(priors, regularizer)() if isinstance(regularizer, str) else regularizer
    layout = read_design(jax.tree.map(lambda coef: np.zeros((1, len(coef))), model.coef_))[1]
    population = isinstance(model, PopulationGLM)
    strength = read_strength(model.regularizer_strength, prior, layout, outputs, population=population)
    name = type(prior).__name__
    found, labels = np.empty((2, layout.n_features, outputs), object)
    for place in np.ndindex(found.shape):
        if name == "GroupLasso":
            rates, groups = strength
            member = groups[place] < len(rates)
            found[place] = (name, k * rates[groups[place]], np.sum(groups == groups[place])) if member else (name, 0.0)
            labels[place] = str(groups[place]) if member else "–"
        else:
            size, *ratio = strength if name == "ElasticNet" else (strength,)
            found[place] = name, k * size[place], *(r[place] for r in ratio)
    return by_leaf(layout.split(found)), labels if name == "GroupLasso" else None


def describe(prior, w):
    """Density of one coefficient, for a group the marginal one, and its standard deviation."""
    name, rate, *rest = prior
    if rate == 0:
        return np.ones_like(w), np.inf
    if name == "GroupLasso":
        # The integral of GroupLaplace over the other members: a variance-gamma density.
        x, order = rate * np.maximum(np.abs(w), 1e-9), rest[0] / 2
        constant = rate / (np.sqrt(np.pi) * special.gamma(order + 0.5) * 2**order)
        return constant * x**order * special.kv(order, x), np.sqrt(rest[0] + 1) / rate
    if name == "ElasticNet":
        elastic = bayesglm.distributions.ElasticNet(rate * rest[0], rate * (1 - rest[0]))
        return np.exp(np.asarray(elastic.log_prob(w))), float(np.sqrt(elastic.variance))
    known = stats.norm(0, 1 / np.sqrt(rate)) if name == "Ridge" else stats.laplace(0, 1 / rate)
    return known.pdf(w), known.std()


def draw_densities(axis, found):
    """Densities, drawn sideways; a curve that leaves share has all of their colours."""
    w = np.linspace(*LIMITS, 1001)
    owners = {}
    for leaf, table in found.items():
        for prior in table.ravel():
            owners.setdefault(prior, {})[leaf] = None
    highest = max(describe(prior, w)[0].max() for prior in owners if prior[1] > 0)
    for prior, leaves in owners.items():
        heights = describe(prior, w)[0] * (1.0 if prior[1] > 0 else 0.08 * highest)
        for i, leaf in enumerate(leaves):
            dashes = "-" if len(leaves) == 1 else (4 * i, (4, 4 * (len(leaves) - 1)))
            axis.plot(heights, w, color=LEAVES[leaf], linestyle=dashes, linewidth=1.5)
    axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axis.set(xlim=(0, 1.08 * highest), xticks=[], ylim=LIMITS, yticks=[-0.5, 0, 0.5])
    axis.tick_params(labelsize=9)


def draw_leaves(axis, model, found, labels, free):
    """Coefficients of some leaves, in front of one standard deviation of their priors to both sides."""
    population = isinstance(model, PopulationGLM)
    coefs = {leaf: coef.reshape(len(coef), -1) for leaf, coef in by_leaf(model.coef_).items() if leaf in found}
    room = 72 * axis.figure.get_figwidth() * axis.get_position().width / sum(map(len, coefs.values()))
    shifts, width = ([-0.27, 0, 0.27], 0.2 * room) if population else ([0], 0.5 * room)
    size = min(5.5, 2 + width / 2)
    ticks, start = {}, 0
    for leaf, table in coefs.items():
        for (i, j), value in np.ndenumerate(table):
            place, color = start + i + shifts[j], LEAVES[leaf]
            sd = min(describe(found[leaf][i, j], np.zeros(1))[1], 2.0)
            axis.plot([place, place], [-sd, sd], color=color, alpha=0.25, linewidth=width, solid_capstyle="butt")
            if not population:
                axis.plot(place, free[start + i], color="0.3", marker="_", markersize=9, zorder=2)
            face = "white" if value == 0 else color
            axis.plot(place, value, color=color, marker=OUTPUTS[j], markersize=size, markerfacecolor=face)
        ticks[start + (len(table) - 1) / 2] = leaf or "columns of X"
        start += len(table)
        axis.axvline(start - 0.5, color="0.8", linewidth=0.8)
    if labels is not None and not population:
        for i, label in enumerate(labels[:, 0]):
            axis.text(i, LIMITS[1] - 0.03, label, ha="center", va="top", fontsize=8.5)
    axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axis.set(xlim=(-0.5, start - 0.5))
    axis.set_xticks(list(ticks), ticks.values(), fontsize=9)
    axis.tick_params(length=0)


def draw_form(place, form, model, only, page):
    """One form of strength: densities on the left, the fit on the right, along the same axis."""
    figure, columns = place.get_gridspec().figure, len(place.colspan)
    left, right = place.subgridspec(1, 2, width_ratios=[1, 3.4 * columns - 1], wspace=0.04).subplots(sharey=True)
    found, labels = read_priors(model, k=len(page["y"]))
    shown = {leaf: table for leaf, table in found.items() if only in (None, leaf)}
    draw_densities(left, shown)
    draw_leaves(right, model, shown, labels, np.concatenate(list(page["fits"]["No penalty"][0].coef_.values())))
    name = model.regularizer if isinstance(model.regularizer, str) else "GroupLasso(mask=...)"
    strength = model.regularizer_strength if only is None else {only: model.regularizer_strength[only]}
    written = textwrap.wrap(f"{name}, {strength}".replace("'", ""), 54)
    corner = left.get_position()
    figure.text(corner.x0, corner.y1 + 0.004, "\n".join(written), fontsize=8, va="bottom", linespacing=1.2)
    figure.text(corner.x0, corner.y1 + 0.006 + 0.0095 * len(written), form, fontsize=10.5, weight="bold", va="bottom")
    left.set_xlabel("density", fontsize=9, labelpad=3)
    if place.colspan.start == 0:
        left.set_ylabel("coefficient", fontsize=9)
    else:
        left.tick_params(labelleft=False)


def draw_strengths(path):
    """One pair of panels for each fit of the page on strengths, and the legend in the last corner."""
    page = run_page(HERE / "what-is-a-strength.md")
    forms = {form: fit for form, fit in page["fits"].items() if form not in ("No penalty", "From standard deviations")}
    figure = plt.figure(figsize=(10, 14.6))
    grid = figure.add_gridspec(6, 3, left=0.065, right=0.99, top=0.955, bottom=0.025, hspace=0.56, wspace=0.08)
    places = [*(grid[i] for i in range(len(forms) - 1)), grid[-1, :2]]
    for place, (form, (model, only)) in zip(places, forms.items(), strict=True):
        draw_form(place, form, model, only, page)
    marks = {"color": "0.3", "linestyle": "none", "markersize": 7}
    handles = [
        *(Patch(color=color, label=leaf) for leaf, color in LEAVES.items() if leaf),
        Patch(color="0.3", alpha=0.25, label="one sd of the prior to both sides of 0"),
        Line2D([], [], marker="o", label="fit; output 0 of several", **marks),
        *(Line2D([], [], marker=OUTPUTS[j], label=f"output {j}", **marks) for j in (1, 2)),
        Line2D([], [], marker="o", markerfacecolor="white", label="exactly 0", **marks),
        Line2D([], [], marker="_", label="without any penalty", **marks),
    ]
    corner = grid[-1, -1].get_position(figure)
    figure.legend(handles=handles, fontsize=9.5, loc="upper left", bbox_to_anchor=(corner.x0, corner.y1 + 0.02))
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_predictions(path):
    """Intervals of the mean and of y for new samples, from the page on predictions."""
    page = run_page(HERE / "predictions.md")
    draws, observed = page["idata"]["predictions"], page["y_new"].to_numpy()
    middle = draws["mean"].mean(("chain", "draw")).to_numpy()
    order = np.argsort(middle)
    place = np.arange(len(order))
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for name, color, label in (("y", "0.85", "90 % interval of y"), ("mean", "C0", "90 % interval of the mean")):
        low, high = page["interval"][name].values[order].T
        axis.fill_between(place, low, high, color=color, linewidth=0, label=label)
    axis.plot(place, middle[order], color="white", linewidth=1)
    axis.plot(place, observed[order], "k.", markersize=4, label="observed")
    axis.set(xlabel="patients who were held out, by predicted mean", ylabel="progress of the disease", xlim=(-1, 100))
    axis.legend(frameon=False, fontsize=9, loc="upper left", ncols=3)
    axis.set_ylim(top=1.12 * axis.get_ylim()[1])
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_diagnostics(path):
    """Traces and ranks of the two runs of the page on diagnostics."""
    page = run_page(HERE / "diagnostics.md")
    figure, axes = plt.subplots(2, 2, figsize=(9, 4.6), layout="constrained", sharey="row", height_ratios=(3, 2))
    for column, (name, title) in enumerate((("bad", "strength 0.1, direct"), ("good", "strength 0.3"))):
        sigma = page[name]["posterior"]["sigma"].values
        ranks = stats.rankdata(sigma).reshape(sigma.shape)
        for chain, draws in enumerate(sigma):
            axes[0, column].plot(draws, linewidth=0.6, color=f"C{chain}")
            axes[1, column].hist(ranks[chain], bins=20, histtype="step", color=f"C{chain}", linewidth=1.2)
        axes[0, column].set(title=title, xlabel="draw")
        axes[1, column].set(xlabel="rank among the draws of all chains")
    axes[0, 0].set_ylabel("sigma")
    axes[1, 0].set_ylabel("draws of a chain")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_plots(directory):
    """The pictures of the page on plots, by the names that its snippets give their axes."""
    page = run_page(HERE / "plots.md")
    names = {
        "plot_weights": "weights",
        "plot_scores": "curves",
        "plot_coefficient_path": "lines",
        "plot_predictions": "predictions",
        "plot_predictions_time": "trace",
        "plot_prior_posterior": "densities",
    }
    for picture, axes in names.items():
        figure = np.ravel(page[axes])[0].figure
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=80)
        plt.close(figure)
        # Fewer colours: a file of half the size.
        Image.open(drawn).convert("RGB").quantize(64).save(directory / f"{picture}.png", optimize=True)


def run_quickstart(directory):
    """Let the quickstart draw its picture."""
    spec = importlib.util.spec_from_file_location("quickstart", HERE.parent / "examples" / "quickstart.py")
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    quickstart.main(directory)


if __name__ == "__main__":
    FIGURES.mkdir(exist_ok=True)
    draw_penalties_and_priors(FIGURES / "penalties_and_priors.png")
    draw_strengths(FIGURES / "strengths.png")
    draw_predictions(FIGURES / "predictions.png")
    draw_diagnostics(FIGURES / "diagnostics.png")
    draw_plots(FIGURES)
    run_quickstart(FIGURES)
