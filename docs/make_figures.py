"""Draw the figures of the documentation: ``python docs/make_figures.py`` writes them into docs/figures.

`penalties_and_priors.png` is drawn here; `quickstart_forest.png` is the picture that examples/quickstart.py
makes.
"""

import importlib.util
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

import bayesglm
from bayesglm import GLM

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "figures"
STRENGTH, N = 0.1, 200
SIZES = {"a": 5, "b": 3}
COLORS = {"UnRegularized": "0.6", "Ridge": "C0", "Lasso": "C1", "ElasticNet": "C2", "GroupLasso": "C3"}
MARKERS = {"UnRegularized": "s", "Ridge": "o", "Lasso": "D", "ElasticNet": "^", "GroupLasso": "v"}


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


def run_quickstart(directory):
    """Let the quickstart draw its picture."""
    spec = importlib.util.spec_from_file_location("quickstart", HERE.parent / "examples" / "quickstart.py")
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    quickstart.main(directory)


if __name__ == "__main__":
    FIGURES.mkdir(exist_ok=True)
    draw_penalties_and_priors(FIGURES / "penalties_and_priors.png")
    run_quickstart(FIGURES)
