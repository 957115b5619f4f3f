"""What the plots draw: the data of their marks, their limits and their labels."""

import copy
import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from arviz_base import from_dict
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from scipy import special, stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import bayesglm
from bayesglm import GLM, PopulationGLM, _drawing, distributions, plots, priors
from bayesglm._design import read_design
from bayesglm._strength import read_strength
from bayesglm.observation_models import GaussianObservations

N = 60
RNG = np.random.default_rng(8)
TREE = {"body": pd.DataFrame(RNG.normal(size=(N, 2)), columns=["age", "bmi"]), "blood": RNG.normal(size=(N, 3))}
MATRIX = np.column_stack([TREE["blood"], TREE["body"]])
COUNTS = RNG.poisson(np.exp(0.8 * TREE["body"]["bmi"].to_numpy()))
REAL = 2.0 * MATRIX[:, 0] + RNG.normal(size=N)
BINARY = (MATRIX[:, 0] + RNG.normal(size=N) > 0).astype(int)
MANY = RNG.poisson(np.exp(np.outer(MATRIX[:, 4], [0.7, 0.3, -0.4])))
FIVE = np.arange(5.0)


def without_small(model, limit):
    """The model with zeros for its small coefficients, as a Lasso has them; a Ridge compiles faster."""
    for leaf in jax.tree.leaves(model.coef_):
        leaf[np.abs(leaf) < limit] = 0.0
    return model


def with_draws(model):
    """The model with draws around the mode, a hundred in each of two chains, as if it had been sampled."""
    rng, spec = np.random.default_rng(1), model.spec_
    output = ["output"] if spec.population else []
    variables = {"intercept": model.intercept_ if spec.population else model.intercept_[0]}
    dims, coords = {"intercept": output}, {"output": np.arange(3)}
    leaves = jax.tree.leaves(model.coef_)
    for name, leaf, columns in zip(spec.layout.names, leaves, spec.layout.columns, strict=True):
        variable, feature = (f"coef.{name}", f"{name}_feature") if name else ("coef", "feature")
        variables[variable], dims[variable] = leaf, [feature, *output]
        coords[feature] = np.arange(len(leaf)) if columns is None else list(columns)
    draws = {name: value + 0.1 * rng.normal(size=(2, 100, *np.shape(value))) for name, value in variables.items()}
    model.posterior_ = from_dict({"posterior": draws}, dims=dims, coords=coords)
    return model


def with_prior(model, regularizer, strength):
    """A model with another prior, at the same coefficients."""
    prior = getattr(priors, regularizer)
    read = read_strength(strength, prior(), model.spec_.layout, model.spec_.free, output_shape=())
    other = copy.deepcopy(model).set_params(regularizer=regularizer, regularizer_strength=strength)
    other.spec_ = replace(model.spec_, strength=read, form=replace(model.spec_.form, prior=prior))
    return other


@pytest.fixture(scope="module")
def counts():
    """Features in a dict; some coefficients are 0 at the mode."""
    model = GLM(regularizer="Ridge", regularizer_strength={"body": 0.1, "blood": 0.2}).fit(TREE, COUNTS)
    return with_draws(without_small(model, 0.05))


@pytest.fixture(scope="module")
def population():
    """Counts of three outputs; the second does not see the leaf `blood`."""
    mask = {"body": [1, 1, 1], "blood": [1, 0, 1]}
    model = PopulationGLM(regularizer="Ridge", regularizer_strength=0.05, feature_mask=mask).fit(TREE, MANY)
    return with_draws(without_small(model, 0.05))


@pytest.fixture(scope="module")
def gaussian():
    """Real numbers of known variance, features in a matrix."""
    model = GLM(GaussianObservations(2.0), regularizer="Ridge", regularizer_strength=0.1)
    return with_draws(model.fit(MATRIX, REAL))


@pytest.fixture(scope="module")
def binary():
    return with_draws(GLM("Bernoulli", regularizer="Ridge", regularizer_strength=0.1).fit(MATRIX, BINARY))


@pytest.fixture(scope="module")
def path():
    """As from `strength_path`, which would compile anew."""
    limits = {0.1: 0.1, 3.0: 9.0, 0.0: 0.0, 0.01: 0.02}
    model = GLM(GaussianObservations(2.0), regularizer="Ridge")
    models = [clone(model).set_params(regularizer_strength=strength).fit(TREE, REAL) for strength in limits]
    return [without_small(model, limit) for model, limit in zip(models, limits.values(), strict=True)]


@pytest.fixture(autouse=True)
def manners(monkeypatch):
    """No plot shows itself or changes matplotlib's settings."""
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("plt.show was called"))
    before = plt.rcParams.copy()
    yield
    assert plt.rcParams == before
    plt.close("all")


def coef(model):
    """Coefficients of all leaves in their order, (p,) or (p, outputs)."""
    return np.concatenate(jax.tree.leaves(model.coef_))


def draws_of(model):
    """Draws of the coefficients, (draws, p) or (draws, p, outputs)."""
    names = ["coef"] if model.spec_.layout.is_array else [f"coef.{name}" for name in sorted(model.coef_)]
    joined = np.concatenate([model.posterior_["posterior"][name].values for name in names], axis=2)
    return joined.reshape(-1, *joined.shape[2:])


def labelled(axis, start):
    """Lines and collections whose label starts so, in the order in which they were drawn."""
    return [artist for artist in [*axis.lines, *axis.collections] if str(artist.get_label()).startswith(start)]


def segments(collection):
    """Ends of vertical lines: (lines,) places, (lines, 2) heights."""
    ends = np.array(collection.get_segments())
    np.testing.assert_array_equal(ends[:, 0, 0], ends[:, 1, 0])
    return ends[:, 0, 0], ends[:, :, 1]


def texts(labels):
    return [label.get_text() for label in labels]


def legend(axis):
    return texts(axis.get_legend().get_texts())


# Weights


def test_stems_dots_and_intervals_are_those_of_the_model(counts):
    axis = plots.plot_weights(counts, prob=0.8)
    values = coef(counts)
    assert 0 < np.count_nonzero(values) < 5
    (stems,), (bars,), (zeros,), (modes,) = (labelled(axis, name) for name in ("stem", "interval", "zero", "mode"))
    np.testing.assert_array_equal(segments(stems)[0], FIVE)
    np.testing.assert_array_equal(segments(stems)[1], np.stack([np.zeros(5), values], axis=1))
    np.testing.assert_allclose(segments(bars)[1], np.quantile(draws_of(counts), [0.1, 0.9], axis=0).T)
    np.testing.assert_array_equal(zeros.get_xdata(), np.flatnonzero(values == 0))
    np.testing.assert_array_equal(zeros.get_ydata(), 0)
    assert zeros.get_markerfacecolor() == "white"
    np.testing.assert_array_equal(modes.get_xydata(), np.stack([FIVE, values], axis=1)[values != 0])
    assert axis.get_xlabel() == f"feature\nbars: 80% intervals; hollow: exactly 0 ({np.sum(values == 0)} of 5)"
    assert axis.get_ylabel() == "weight (log mean per unit)"


def test_leaves_are_separated_and_named(counts):
    axis = plots.plot_weights(counts)
    (separator,) = labelled(axis, "separator")
    np.testing.assert_array_equal(separator.get_xdata(), 2.5)
    (top,) = axis.child_axes
    assert texts(top.get_xticklabels()) == ["blood", "body"]
    np.testing.assert_array_equal(top.get_xticks(), [1, 3.5])
    assert texts(axis.get_xticklabels()) == ["0", "1", "2", "age", "bmi"]


def test_panels_share_a_scale_unless_told_otherwise(counts, path):
    axes = plots.plot_weights({"counts": counts, "weak": path[3]})
    assert [axis.get_title() for axis in axes] == ["counts", "weak"]
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert axes[0].get_ylim()[1] > np.max(coef(path[3])) > 1.5
    assert [axis.get_ylabel() for axis in axes] == ["weight (log mean per unit)", "weight (y per unit)"]
    alone = plots.plot_weights({"counts": counts, "weak": path[3]}, sharey=False)
    assert alone[0].get_ylim()[1] < axes[0].get_ylim()[1]
    _, mine = plt.subplots(2)
    drawn = plots.plot_weights({"counts": counts, "weak": path[3]}, axes=mine)
    assert list(drawn) == list(mine)
    assert mine[0].get_ylim() == mine[1].get_ylim()
    assert mine[0].get_ylim()[1] > np.max(coef(path[3]))
    same = plots.plot_weights({"a": counts, "b": counts})
    assert [axis.get_ylabel() for axis in same] == ["weight (log mean per unit)", ""]


def test_outputs_have_colours_and_masked_weights_are_left_out(population):
    axis = plots.plot_weights(population)
    stems, values = labelled(axis, "stem"), coef(population)
    assert [to_hex(stem.get_color()[0]) for stem in stems] == [to_hex(f"C{output}") for output in range(3)]
    assert [len(stem.get_segments()) for stem in stems] == [5, 2, 5]
    places, heights = segments(stems[1])
    np.testing.assert_allclose(places, [3, 4])
    np.testing.assert_array_equal(heights[:, 1], values[3:, 1])
    assert (segments(stems[0])[0] < FIVE).all()
    assert (segments(stems[2])[0] > FIVE).all()
    assert legend(axis) == ["output 0", "output 1", "output 2"]
    assert f"({np.count_nonzero(values == 0) - 3} of 12)" in axis.get_xlabel()


def with_features(model, X):
    """A model as if it had been fitted to other features, with small random coefficients."""
    other, layout = copy.copy(model), read_design(X)[1]
    other.spec_ = replace(model.spec_, layout=layout, free=np.ones((layout.n_features, 1), bool))
    other.coef_ = layout.split(0.01 * np.random.default_rng(2).normal(size=layout.n_features))
    return other


def test_weights_of_twelve_thousand_features(path):
    model = with_features(path[0], {"left": np.zeros((1, 7000)), "right": np.zeros((1, 5000))})
    model.coef_["right"][5:] = 0.0
    axis = plots.plot_weights(model)
    (stems,), (zeros,) = labelled(axis, "stem"), labelled(axis, "zero")
    assert len(stems.get_segments()) == 12000
    assert stems.get_rasterized()
    assert len(zeros.get_xdata()) == 4995
    assert to_rgb(zeros.get_markeredgecolor()) == to_rgb("0.6")
    assert "grey: exactly 0 (4995 of 12000)" in axis.get_xlabel()
    assert len(axis.get_xticks()) < 40
    assert texts(axis.child_axes[0].get_xticklabels()) == ["left", "right"]


def test_names_of_many_leaves_are_upright(path):
    X = {f"leaf {number}": MATRIX[:, :1] for number in range(20)}
    (top,) = plots.plot_weights(with_features(path[0], X)).child_axes
    assert texts(top.get_xticklabels()) == sorted(X)
    assert {label.get_rotation() for label in top.get_xticklabels()} == {90}


# Scores

STRENGTHS = [1.0, 0.0, 0.01, 0.1]
SCORES = np.random.default_rng(3).normal(size=(4, 5))
SORTED = [1, 2, 3, 0]


def test_scores_are_the_mean_the_error_and_the_folds():
    axis = plots.plot_scores(STRENGTHS, {"train": SCORES, "test": SCORES[:, 0]}, best=3, ylabel="D2")
    train, test = labelled(axis, "train")[0], labelled(axis, "test")[0]
    np.testing.assert_allclose(train.get_ydata(), SCORES[SORTED].mean(1))
    np.testing.assert_allclose(train.get_xdata(), [0.001, 0.01, 0.1, 1.0])
    np.testing.assert_allclose(test.get_ydata(), SCORES[SORTED, 0])
    assert train.get_label() == "train: mean ± 1 standard error of 5 folds"
    folds = [line for line in axis.lines if line.get_alpha() == 0.35]
    np.testing.assert_allclose([line.get_ydata() for line in folds], SCORES[SORTED].T)
    (band,) = axis.collections
    error = stats.sem(SCORES[SORTED], axis=1)
    for place, mean, half in zip(train.get_xdata(), train.get_ydata(), error, strict=True):
        heights = band.get_paths()[0].vertices
        heights = heights[np.isclose(heights[:, 0], place), 1]
        np.testing.assert_allclose([heights.min(), heights.max()], [mean - half, mean + half])
    (best,) = labelled(axis, "best")
    assert best.get_label() == "best: 0.1"
    np.testing.assert_allclose(best.get_xdata(), 0.1)
    assert (axis.get_xscale(), axis.get_xlabel(), axis.get_ylabel()) == ("log", "strength", "D2")


def test_strength_zero_is_at_the_left_edge_and_labelled():
    axis = plots.plot_scores(STRENGTHS, {"test": SCORES})
    np.testing.assert_allclose(axis.get_xticks(), [0.001, 0.01, 0.1, 1.0])
    assert texts(axis.get_xticklabels()) == ["0", "0.01", "0.1", "1"]
    low, high = axis.get_xlim()
    assert 0.0001 < low < 0.001
    assert high > 1
    without = plots.plot_scores(STRENGTHS[2:], {"test": SCORES[2:]})
    without.figure.canvas.draw()
    assert "0" not in texts(without.get_xticklabels())
    assert {"0.01", "0.1"} <= set(texts(without.get_xticklabels()))


def test_scores_that_are_not_finite_leave_gaps():
    axis = plots.plot_scores([0.1, 1.0, 10.0], {"test": [[0.5, 0.4], [-np.inf, 0.3], [0.2, 0.1]]})
    np.testing.assert_allclose(labelled(axis, "test")[0].get_ydata(), [0.45, np.nan, 0.15])


def search(strengths):
    """What a fitted cross-validation has."""
    return SimpleNamespace(
        strengths_=strengths,
        multiples_=np.array([0.1, 1.0, 10.0]),
        train_scores_=SCORES[:3],
        validation_scores_=SCORES[1:],
        best_index_=1,
    )


def test_a_cross_validation_is_drawn_at_its_strengths_or_multiples():
    axis = plots.plot_scores(search([0.2, np.float64(2.0), 20.0]))
    np.testing.assert_allclose(labelled(axis, "validation")[0].get_xdata(), [0.2, 2.0, 20.0])
    np.testing.assert_allclose(labelled(axis, "training")[0].get_ydata(), SCORES[:3].mean(1))
    assert labelled(axis, "best")[0].get_label() == "best: 2"
    axis = plots.plot_scores(search([{"a": s, "b": 2 * s} for s in (0.1, 1.0, 10.0)]))
    np.testing.assert_allclose(labelled(axis, "validation")[0].get_xdata(), [0.1, 1.0, 10.0])
    assert axis.get_xlabel() == "multiple of the strengths"


# Paths


def test_path_has_a_line_for_each_coefficient_that_moves(path):
    axis = plots.plot_coefficient_path(path)
    (lines,) = [collection for collection in axis.collections if isinstance(collection, LineCollection)]
    values = np.stack([coef(path[index]) for index in (2, 3, 0, 1)])
    np.testing.assert_allclose([line[:, 1] for line in lines.get_segments()], values.T)
    np.testing.assert_allclose(lines.get_segments()[0][:, 0], [0.001, 0.01, 0.1, 3.0])
    assert [to_hex(color) for color in lines.get_colors()] == [to_hex(c) for c in ("C0", "C0", "C0", "C1", "C1")]
    assert legend(axis) == ["blood", "body"]
    assert axis.get_ylim()[0] < values.min() < values.max() < axis.get_ylim()[1]
    assert axis.get_xlim()[0] < 0.001


def test_path_counts_the_coefficients_that_are_not_zero(path):
    axis = plots.plot_coefficient_path(path)
    axis.figure.canvas.draw()
    (top,) = axis.child_axes
    counts = {s: np.count_nonzero(coef(model)) for s, model in zip([0.1, 3.0, 0.001, 0.01], path, strict=True)}
    assert counts[3.0] == 0
    np.testing.assert_allclose(top.get_xticks(), sorted(counts))
    assert texts(top.get_xticklabels()) == [str(counts[strength]) for strength in sorted(counts)]
    assert top.get_xlabel() == "coefficients that are not 0, of 5"


def test_path_of_elastic_nets_an_array_and_given_strengths(gaussian):
    models = [with_prior(gaussian, "ElasticNet", (strength, 0.5)) for strength in (0.1, 1.0)]
    axis = plots.plot_coefficient_path(models)
    np.testing.assert_allclose(axis.collections[0].get_segments()[0][:, 0], [0.1, 1.0])
    assert legend(axis) == ["0", "1", "2", "3", "4"]
    given = plots.plot_coefficient_path(models, [5.0, 50.0])
    np.testing.assert_allclose(given.collections[0].get_segments()[0][:, 0], [5.0, 50.0])


def test_path_of_a_population_has_line_styles(population):
    axis = plots.plot_coefficient_path([population, population], [0.1, 1.0])
    moving = [np.count_nonzero(column) for column in coef(population).T]
    assert [len(lines.get_segments()) for lines in axis.collections] == moving
    assert len({str(lines.get_linestyle()) for lines in axis.collections}) == 3
    assert legend(axis) == ["output 0", "output 1", "output 2"]


# Predictions


def predictive(model, X):
    """The draws that `plot_predictions` rests on: y and mean, (draws, n) or (draws, n, outputs)."""
    twin = copy.deepcopy(model)
    found = twin.posterior_predictive(X, seed=0)["predictions"]
    return tuple(found[name].values.reshape(-1, *found[name].shape[2:]) for name in ("y", "mean"))


def test_real_numbers_are_drawn_with_their_intervals(gaussian):
    before = gaussian.posterior_.copy()
    axis = plots.plot_predictions(gaussian, MATRIX, REAL, prob=0.8)
    y, mean = predictive(gaussian, MATRIX)
    low, high = np.quantile(y, [0.1, 0.9], axis=0)
    (bars,), (dots,) = labelled(axis, "80%"), labelled(axis, "observed")
    places, heights = segments(bars)
    np.testing.assert_allclose(places, mean.mean(0))
    np.testing.assert_allclose(heights, np.stack([low, high], axis=1))
    np.testing.assert_allclose(dots.get_xydata(), np.stack([mean.mean(0), REAL], axis=1))
    inside = np.mean((low <= REAL) & (high >= REAL))
    assert bars.get_label() == f"80% intervals of y ({inside:.0%} are inside)"
    assert set(gaussian.posterior_.children) == set(before.children)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted mean (units of y)", "observed y")


def test_predictions_in_the_tree_stay(gaussian):
    model = copy.deepcopy(gaussian)
    model.posterior_predictive(MATRIX[:3])
    plots.plot_predictions(model, MATRIX, REAL)
    assert model.posterior_["predictions"]["y"].shape == (2, 100, 3)


def test_a_model_that_was_only_fitted_predicts_at_the_mode(gaussian):
    model = copy.copy(gaussian)
    del model.posterior_
    offset = np.linspace(0, 1, N)
    axis = plots.plot_predictions(model, MATRIX, REAL, offset=offset)
    (dots,), (diagonal,) = labelled(axis, "observed"), labelled(axis, "_diagonal")
    np.testing.assert_allclose(dots.get_xdata(), model.predict(MATRIX, offset=offset))
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert not axis.collections


def test_counts_are_moved_a_little_and_averaged_in_bins(counts):
    X = {leaf: np.tile(value, (3, 1)) for leaf, value in TREE.items()} | {"body": pd.concat([TREE["body"]] * 3)}
    y = np.tile(COUNTS, 3)
    axis = plots.plot_predictions(counts, X, y)
    _, mean = predictive(counts, X)
    dots, means = labelled(axis, "observed, moved")[0], labelled(axis, "mean in a bin")[0]
    assert 0.1 < np.abs(dots.get_ydata() - y).max() <= 0.3
    bins = np.array_split(np.argsort(mean.mean(0), kind="stable"), 9)
    np.testing.assert_allclose(means.get_ydata(), [y[rows].mean() for rows in bins])
    np.testing.assert_allclose(means.get_xdata(), [mean.mean(0)[rows].mean() for rows in bins])
    assert axis.get_yscale() == "linear"


def test_large_counts_are_on_axes_of_square_roots(counts):
    axis = plots.plot_predictions(counts, TREE, np.where(np.arange(N) == 3, 100, COUNTS))
    assert axis.get_yscale() == "function"
    low, high = axis.get_ylim()
    assert -0.4 < low < -0.3
    assert 100 < high < 110
    height = axis.transData.transform([(1, 0), (1, 10), (1, 100)])[:, 1]
    assert height[1] - height[0] > 0.25 * (height[2] - height[0])
    axis.figure.canvas.draw()


def test_zeros_and_ones_are_drawn_as_shares(binary):
    axis = plots.plot_predictions(binary, MATRIX, BINARY)
    y, mean = predictive(binary, MATRIX)
    bins = np.array_split(np.argsort(mean.mean(0), kind="stable"), 3)
    (shares,), (samples,), (bars,) = (labelled(axis, name) for name in ("share", "samples", "89%"))
    np.testing.assert_allclose(shares.get_ydata(), [BINARY[rows].mean() for rows in bins])
    np.testing.assert_allclose(shares.get_xdata(), [mean.mean(0)[rows].mean() for rows in bins])
    expected = np.stack([np.quantile(y[:, rows].mean(1), [0.055, 0.945]) for rows in bins])
    np.testing.assert_allclose(segments(bars)[1], expected)
    assert ((samples.get_ydata() > 1) == (BINARY == 1)).all()
    assert ((samples.get_ydata() < 0) == (BINARY == 0)).all()


@pytest.mark.parametrize("name", ["gaussian", "binary"])
def test_traces_have_a_band(name, request):
    model, observed = request.getfixturevalue(name), REAL if name == "gaussian" else BINARY
    axis = plots.plot_predictions(model, MATRIX, observed, kind="time")
    y, mean = predictive(model, MATRIX)
    np.testing.assert_array_equal(labelled(axis, "observed")[0].get_xydata(), np.stack([np.arange(N), observed], 1))
    np.testing.assert_allclose(labelled(axis, "predicted")[0].get_ydata(), mean.mean(0))
    (band,) = axis.collections
    low, high = np.quantile(y if name == "gaussian" else mean, [0.055, 0.945], axis=0)
    vertices = band.get_paths()[0].vertices
    for sample in (0, 7, N - 1):
        heights = vertices[vertices[:, 0] == sample, 1]
        np.testing.assert_allclose([heights.min(), heights.max()], [low[sample], high[sample]])
    assert axis.get_xlabel() == "sample"


def test_outputs_have_panels(population):
    axes = plots.plot_predictions(population, TREE, MANY, num_samples=50)
    assert [axis.get_ylabel() for axis in axes] == [f"observed y, output {output}" for output in range(3)]
    for output, axis in enumerate(axes):
        moved = labelled(axis, "observed, moved")[0].get_ydata()
        assert np.abs(moved - MANY[:, output]).max() <= 0.3


# Priors

W = np.linspace(-1.5, 1.5, 401)


def prior_curves(axis):
    return [line for line in axis.lines if line.get_color() == "0.5" and line.get_linestyle() == "-"]


def variance_gamma(rate, size):
    """Marginal density of one of `size` coefficients of density exp(-rate norm2)."""
    x, order = rate * np.maximum(np.abs(W), 1e-9), size / 2
    return rate / (np.sqrt(np.pi) * special.gamma(order + 0.5) * 2**order) * x**order * special.kv(order, x)


PRIORS = [
    ("Ridge", 0.3, stats.norm(0, 1 / np.sqrt(0.3 * N / 2)).pdf(W)),
    ("Lasso", 0.1, stats.laplace(0, 1 / (0.1 * N / 2)).pdf(W)),
    ("ElasticNet", (0.2, 0.3), np.exp(distributions.ElasticNet(0.06 * N / 2, 0.14 * N / 2).log_prob(W))),
    ("GroupLasso", 0.1, variance_gamma(0.1 * N / 2 * np.sqrt(5), 5)),
]


@pytest.mark.parametrize(("regularizer", "strength", "expected"), PRIORS, ids=[case[0] for case in PRIORS])
def test_prior_is_the_density_of_the_regularizer(regularizer, strength, expected, gaussian):
    (axis,) = plots.plot_prior_posterior(with_prior(gaussian, regularizer, strength))
    (prior,) = prior_curves(axis)
    drawn = np.interp(W, prior.get_xdata(), prior.get_ydata(), left=np.nan, right=np.nan)
    near = np.isfinite(drawn)
    assert near.sum() > 100
    np.testing.assert_allclose(drawn[near], expected[near], rtol=0.01, atol=0.003 * expected.max())


@pytest.mark.parametrize("size", [2, 3, 40, 6000])
def test_marginal_prior_of_a_group_has_the_mass_and_the_variance_of_its_distribution(size):
    rate = np.sqrt(size)
    w = np.linspace(-30, 30, 3001)
    density = _drawing._prior_density(w, np.array([[rate, 0.0, size, 0.0]]))[:, 0]
    np.testing.assert_allclose(np.sum(density) * (w[1] - w[0]), 1.0, rtol=1e-3)
    np.testing.assert_allclose(np.sum(density * w**2) * (w[1] - w[0]), (size + 1) / rate**2, rtol=1e-2)


def test_posterior_is_the_density_of_the_draws(gaussian):
    axes = plots.plot_prior_posterior(gaussian, [0, 4])
    assert [axis.get_title() for axis in axes] == ["feature 0", "feature 4"]
    for axis, feature in zip(axes, (0, 4), strict=True):
        draws, (curve,) = draws_of(gaussian)[:, feature], labelled(axis, "posterior")
        grid, density = curve.get_data()
        step = grid[1] - grid[0]
        np.testing.assert_allclose(np.sum(density) * step, 1.0, atol=0.01)
        np.testing.assert_allclose(np.sum(grid * density) * step, draws.mean(), atol=0.02)
        np.testing.assert_allclose(density, stats.gaussian_kde(draws)(grid), atol=0.1 * density.max())
        (mode,) = labelled(axis, "mode")
        assert mode.get_xydata().tolist() == [[gaussian.coef_[feature], 0.0]]
        assert axis.get_xlim()[0] < 0 < axis.get_xlim()[1]
        assert axis.get_ylim()[0] == 0
        assert axis.get_xlabel() == "weight (y per unit)"


def test_leaves_have_panels_of_curves_with_the_modes(counts):
    axes = plots.plot_prior_posterior(counts)
    assert [axis.get_title() for axis in axes] == ["blood", "body"]
    assert legend(axes[0]) == ["prior", "0", "1", "2"]
    assert legend(axes[1]) == ["prior", "age", "bmi"]
    for axis, leaf in zip(axes, ("blood", "body"), strict=True):
        modes = [line for line in axis.lines if line.get_marker() == "o"]
        np.testing.assert_array_equal([mode.get_xdata()[0] for mode in modes], counts.coef_[leaf])
        hollow = [mode.get_markerfacecolor() == "white" for mode in modes]
        np.testing.assert_array_equal(hollow, counts.coef_[leaf] == 0)


def test_features_are_chosen_by_leaf_and_name(counts):
    axes = plots.plot_prior_posterior(counts, {"body": "bmi", "blood": [2, -3]})
    assert [axis.get_title() for axis in axes] == ["body[bmi]", "blood[2]", "blood[0]"]


def test_flat_priors_are_dashed_and_different_ones_are_all_drawn(gaussian):
    model = with_prior(gaussian, "Ridge", [0.0, 0.1, 0.1, 0.4, 0.4])
    (axis,) = plots.plot_prior_posterior(model)
    assert legend(axis)[:2] == ["priors", "flat prior"]
    assert sorted(curve.get_ydata().max() for curve in prior_curves(axis)) == pytest.approx(
        stats.norm(0, 1 / np.sqrt(np.array([0.1, 0.4]) * N / 2)).pdf(0), rel=1e-3
    )
    (axis,) = plots.plot_prior_posterior(with_prior(gaussian, "UnRegularized", None))
    assert prior_curves(axis) == []
    assert len(labelled(axis, "flat prior")) == 1


def test_many_coefficients_are_put_together(population, gaussian):
    axes = plots.plot_prior_posterior(population)
    assert legend(axes[0]) == ["prior", *(f"{i}, output {j}" for i in range(3) for j in (0, 2))]
    model = with_prior(with_features(gaussian, np.zeros((1, 15))), "Ridge", np.repeat([0.05, 0.1, 0.2], 5))
    (axis,) = plots.plot_prior_posterior(with_draws(model))
    assert legend(axis) == ["average of the priors", "posterior of 15 weights", "modes"]
    np.testing.assert_array_equal(labelled(axis, "modes")[0].get_xdata(), model.coef_)
    top = np.mean(stats.norm(0, 1 / np.sqrt(np.array([0.05, 0.1, 0.2]) * N / 2)).pdf(0))
    np.testing.assert_allclose(prior_curves(axis)[0].get_ydata().max(), top, rtol=1e-3)


# Bad input, and manners

CALLS = [
    ("no model", lambda m: plots.plot_weights(3), r"a fitted GLM, PopulationGLM or ClassifierGLM; got 3"),
    ("no models", lambda m: plots.plot_weights({}), r"models is empty"),
    ("in a dict", lambda m: plots.plot_weights({"a": m, "b": "x"}), r"models\['b'\] must be a fitted GLM.*got 'x'"),
    ("prob", lambda m: plots.plot_weights(m, prob=89), r"prob must be a probability.*got 89"),
    ("axes", lambda m: plots.plot_weights({"a": m, "b": m}, axes=plt.gca()), r"axes must be 2 matplotlib Axes; got 1"),
    ("no axes", lambda m: plots.plot_weights(m, axes="left"), r"axes must be a matplotlib Axes; got 'left'"),
    ("no scores", lambda m: plots.plot_scores([1.0, 2.0]), r"scores is missing"),
    ("scores", lambda m: plots.plot_scores([1.0], {"a": [1.0, 2.0]}), r"scores\['a'\].*\(1,\) or \(1, folds\).*\(2,\)"),
    ("text", lambda m: plots.plot_scores([1.0], {"a": ["x"]}), r"scores\['a'\] must be an array of numbers; got \['x"),
    ("bare", lambda m: plots.plot_scores([1.0], [1.0]), r"scores must be a dict of label to array; got \[1.0\]"),
    ("negative", lambda m: plots.plot_scores([1.0, -2.0], {"a": [1, 2]}), r"strengths must be finite and not negative"),
    ("zeros", lambda m: plots.plot_scores([0.0], {"a": [1]}), r"strengths must be .* not all 0; got \[0.\]"),
    ("trees", lambda m: plots.plot_scores([{"a": 1}], {"a": [1]}), r"strengths must be a list of numbers"),
    ("best", lambda m: plots.plot_scores([1.0], {"a": [1]}, best=1), r"best must be the index of one of the 1 .*got 1"),
    ("no search", lambda m: plots.plot_scores("x"), r"strengths must be numbers, or a fitted cross-validation; got"),
    ("best twice", lambda m: plots.plot_scores(search([1, 2, 3]), best=0), r"best is the cross-validation's own"),
    ("one", lambda m: plots.plot_coefficient_path(m), r"models must be a list of fitted models"),
    ("tree", lambda m: plots.plot_coefficient_path([m]), r"strengths is needed.*models\[0\] is \{'body': 0.1"),
    ("short", lambda m: plots.plot_coefficient_path([m, m], [1]), r"strengths must have one number for each of the 2"),
    ("kind", lambda m: plots.plot_predictions(m, TREE, COUNTS, kind="x"), r"kind must be 'scatter' or 'time'; got 'x'"),
    ("y", lambda m: plots.plot_predictions(m, TREE, COUNTS[:9]), r"same number of samples: X has 60, y has 9"),
    ("X", lambda m: plots.plot_predictions(m, MATRIX, COUNTS), r"X must have the structure"),
    ("features", lambda m: plots.plot_prior_posterior(m, [0]), r"features must be a dict by leaf"),
    ("leaf", lambda m: plots.plot_prior_posterior(m, {"c": 0}), r"features must have leaves of X.*'blood'.*'c'"),
    ("index", lambda m: plots.plot_prior_posterior(m, {"blood": 3}), r"features\['blood'\] must be .* below 3; got 3"),
    ("name", lambda m: plots.plot_prior_posterior(m, {"body": "x"}), r"features\['body'\].*'age', 'bmi'\]; got 'x'"),
    ("none", lambda m: plots.plot_prior_posterior(m, {}), r"features is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "pattern"), [pytest.param(*case[1:], id=case[0]) for case in CALLS])
def test_bad_input_is_one_clear_error(call, pattern, counts):
    with pytest.raises(ValueError, match=pattern) as caught:
        call(counts)
    assert len(str(caught.value)) < 400


def test_models_of_a_path_share_their_leaves(path, gaussian):
    with pytest.raises(
        ValueError, match=r"models must share.*blood \(3, 1\), body \(2, 1\).*models\[1\] has X \(5, 1\)"
    ):
        plots.plot_coefficient_path([path[0], gaussian], [1.0, 2.0])


def test_what_is_not_fitted_or_sampled_says_so(path):
    with pytest.raises(NotFittedError, match="models is not fitted yet"):
        plots.plot_weights(GLM())
    with pytest.raises(NotFittedError, match="model is not fitted yet"):
        plots.plot_predictions(GLM(), MATRIX, REAL)
    with pytest.raises(NotFittedError, match="no posterior yet: call sample"):
        plots.plot_prior_posterior(path[0])
    with pytest.raises(NotFittedError, match="GLM is not fitted yet"):
        plots.plot_scores(GLM())


def test_given_axes_are_drawn_into_and_no_figure_is_added(counts, path, gaussian):
    figure, axes = plt.subplots(2, 3)
    assert plots.plot_weights(counts, axes=axes[0, 0]) is axes[0, 0]
    assert plots.plot_scores([1.0, 2.0], {"test": [0.1, 0.2]}, ax=axes[0, 1]) is axes[0, 1]
    assert plots.plot_coefficient_path(path, ax=axes[0, 2]) is axes[0, 2]
    assert plots.plot_predictions(gaussian, MATRIX, REAL, axes=axes[1, 0]) is axes[1, 0]
    assert list(plots.plot_prior_posterior(counts, axes=axes[1, 1:])) == list(axes[1, 1:])
    assert plt.get_fignums() == [figure.number]


def test_scores_of_pairs_and_trees_have_places():
    shared = {"validation_scores_": np.array([[0.1, 0.2], [0.3, 0.4]]), "best_index_": 1, "multiples_": None}
    pairs = plots.plot_scores(SimpleNamespace(**shared, strengths_=[(0.1, 0.5), (0.01, 0.5)]))
    assert pairs.get_xlabel() == "strength"
    trees = plots.plot_scores(SimpleNamespace(**shared, strengths_=[{"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 2.0}]))
    assert trees.get_xlabel() == "place in strengths_, from 1"


def test_a_missing_matplotlib_is_explained(monkeypatch):
    for module in ("plots", "_drawing"):
        monkeypatch.delitem(sys.modules, f"bayesglm.{module}")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for module in ("plots", "_drawing"):
        monkeypatch.delattr(bayesglm, module)
    with pytest.raises(ImportError, match=r"pip install 'bayesglm\[plot\]'"):
        _ = bayesglm.plots
