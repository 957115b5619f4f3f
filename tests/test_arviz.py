"""The DataTree of `sample`: groups, names, dims, and ArviZ's functions with no further argument."""

import arviz as az
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from bayesglm import GLM, ClassifierGLM, PopulationGLM

RUN = {"num_samples": 500, "num_warmup": 300, "progress_bar": False}


def counts(rng, outputs=None):
    X = {"stim": pd.DataFrame(rng.normal(size=(200, 2)), columns=["left", "right"]), "a/b": rng.normal(size=(200, 3))}
    eta = 0.4 * X["stim"]["left"].to_numpy() + 0.3
    y = rng.poisson(np.exp(eta if outputs is None else np.tile(eta[:, None], outputs)))
    return X, y


@pytest.fixture(scope="module")
def single():
    rng = np.random.default_rng(4)
    X, y = counts(rng)
    weight = np.where(np.arange(200) % 10 == 0, 0.0, 1.0 + (np.arange(200) == 7))
    model = GLM(regularizer="Ridge", regularizer_strength={"stim": 0.1, "a/b": [0.1, 0.2, 0.3]})
    return model, model.sample(X, y, sample_weight=weight, offset=0.1 * rng.normal(size=200), **RUN)


def weak_and_strong(model, X, y, **options):
    """Draws of a model, and of the same model under a prior that is far too strong."""
    strong = clone(model).set_params(regularizer_strength=20.0)
    return model, model.sample(X, y, **RUN, **options), strong.sample(X, y, **RUN, **options)


@pytest.fixture(scope="module")
def population():
    X, y = counts(np.random.default_rng(5), outputs=3)
    return weak_and_strong(PopulationGLM(regularizer="Ridge", regularizer_strength=0.02), X, y)


@pytest.fixture(scope="module")
def gaussian():
    rng = np.random.default_rng(6)
    X = rng.normal(size=(150, 3))
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.1)
    return weak_and_strong(model, X, X[:, 0] + rng.normal(size=150), method="hmc")


@pytest.fixture(scope="module")
def gaussians():
    rng = np.random.default_rng(7)
    X = rng.normal(size=(150, 3))
    model = PopulationGLM("Gaussian", regularizer="Lasso", regularizer_strength=0.01)
    return model, model.sample(X, X @ (0.5 * np.eye(3)) + rng.normal(size=(150, 3)), **RUN)


@pytest.mark.parametrize("name", ["gaussian", "population"])
def test_compare_needs_no_argument(name, request):
    _, weak, strong = request.getfixturevalue(name)
    table = az.compare({"weak": weak, "strong": strong})
    assert table.index.tolist() == ["weak", "strong"]
    assert table["elpd_diff"].iloc[1] < -5


@pytest.mark.parametrize(
    "name",
    ["single", "population", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gaussian", "gaussians"))],
)
def test_loo_pit_is_uniform_for_the_true_model(name, request):
    pit = az.loo_pit(request.getfixturevalue(name)[1])["y"].values
    assert 0 <= pit.min() < 0.1
    assert 0.9 < pit.max() <= 1
    assert abs(pit.mean() - 0.5) < 4 / np.sqrt(12 * pit.size)


@pytest.mark.parametrize("name", ["gaussian", "gaussians", "single"])
def test_predictive_plots_need_no_argument(name, request):
    import matplotlib.pyplot as plt

    # ArviZ has plots of its own for counts, which look at the type of y.
    plot = az.plot_ppc_rootogram if name == "single" else az.plot_ppc_dist
    drawn = artists(plot(request.getfixturevalue(name)[1], backend="matplotlib"))
    plt.close("all")
    assert drawn > 3


@pytest.fixture(params=["single", "population", "gaussian"])
def idata(request):
    return request.getfixturevalue(request.param)[1]


def test_groups_variables_and_dims(single):
    model, idata = single
    groups = {"posterior", "sample_stats", "log_prior", "observed_data", "constant_data"}
    assert set(idata.children) == groups | {"log_likelihood", "posterior_predictive"}
    assert idata is model.posterior_
    posterior = idata["posterior"]
    assert set(posterior.data_vars) == {"intercept", "coef.stim", "coef.a.b"}
    assert posterior["coef.stim"].dims == ("chain", "draw", "stim_feature")
    assert posterior["coef.a.b"].dims == ("chain", "draw", "a.b_feature")
    assert posterior["intercept"].dims == ("chain", "draw")
    assert list(posterior["stim_feature"].values) == ["left", "right"]
    assert idata["observed_data"]["y"].dims == ("obs",)
    assert idata["constant_data"]["X.stim"].dims == ("obs", "stim_feature")
    assert {"sample_weight", "offset"} <= set(idata["constant_data"].data_vars)
    assert idata["posterior_predictive"]["y"].shape == (4, 500, 180)
    assert posterior.sizes == {"chain": 4, "draw": 500, "stim_feature": 2, "a.b_feature": 3}


@pytest.mark.parametrize("group", ["log_likelihood", "posterior_predictive", "observed_data", "constant_data"])
def test_rows_of_weight_zero_are_left_out(group, single):
    _, idata = single
    np.testing.assert_array_equal(idata[group]["obs"], np.flatnonzero(np.arange(200) % 10))


def test_log_likelihood_is_weighted_and_complete(single):
    _, idata = single
    from scipy.stats import poisson

    one = idata["posterior"].isel(chain=1, draw=7)
    data = idata["constant_data"]
    eta = one["intercept"] + data["offset"] + data["X.stim"] @ one["coef.stim"] + data["X.a.b"] @ one["coef.a.b"]
    expected = data["sample_weight"] * poisson.logpmf(idata["observed_data"]["y"], np.exp(eta))
    np.testing.assert_allclose(idata["log_likelihood"]["y"].isel(chain=1, draw=7), expected, rtol=1e-10)


def test_log_prior_is_the_normalized_density(single):
    _, idata = single
    from scipy.stats import norm

    one = idata["posterior"].isel(chain=0, draw=3)
    k = 181
    expected = norm.logpdf(one["coef.stim"], scale=1 / np.sqrt(k * 0.1)).sum()
    expected += norm.logpdf(one["coef.a.b"], scale=1 / np.sqrt(k * np.array([0.1, 0.2, 0.3]))).sum()
    np.testing.assert_allclose(idata["log_prior"]["coef"].isel(chain=0, draw=3), expected, rtol=1e-10)


def test_population_dims_and_statistics(population):
    _, idata, _ = population
    assert idata["posterior"]["coef.stim"].dims == ("chain", "draw", "output", "stim_feature")
    assert idata["posterior"]["intercept"].dims == ("chain", "draw", "output")
    assert idata["observed_data"]["y"].dims == ("obs", "output")
    assert idata["sample_stats"]["energy"].dims == ("chain", "draw")
    assert idata["sample_stats_output"]["energy"].dims == ("chain", "draw", "output")
    total = idata["sample_stats_output"]["n_steps"].sum("output")
    np.testing.assert_array_equal(total, idata["sample_stats"]["n_steps"])


def test_gaussian_reports_dispersion_and_sigma(gaussian):
    model, idata, _ = gaussian
    assert {"dispersion", "sigma", "coef", "intercept"} == set(idata["posterior"].data_vars)
    assert idata["posterior"]["coef"].dims == ("chain", "draw", "feature")
    assert set(idata["log_prior"].data_vars) == {"coef", "dispersion"}
    assert abs(float(idata["posterior"]["dispersion"].mean()) / model.scale_[0] - 1) < 0.1


def test_summary_loo_and_psense_need_no_argument(idata):
    summary = az.summary(idata)
    assert len(summary) == sum(int(np.prod(v.shape[2:])) for v in idata["posterior"].data_vars.values())
    assert (az.summary(idata, round_to=6)["r_hat"] < 1.02).all()
    loo = az.loo(idata)
    assert np.isfinite(loo.elpd)
    psense = az.psense_summary(idata)
    assert len(psense) == len(summary)
    assert np.isfinite(psense[["prior", "likelihood"]].to_numpy(float)).all()


def artists(collection):
    """Number of artists with data drawn in a plot collection's figure."""
    figure = collection.viz["figure"].item()
    drawn = 0
    for axes in figure.axes:
        drawn += sum(len(line.get_xdata()) > 0 for line in axes.lines) + len(axes.collections) + len(axes.patches)
    return drawn


@pytest.mark.parametrize("plot", [az.plot_forest, az.plot_trace_dist, az.plot_energy])
def test_plots_draw_something_and_need_no_argument(plot, idata):
    import matplotlib.pyplot as plt

    variables = sum(int(np.prod(v.shape[2:])) for v in idata["posterior"].data_vars.values())
    drawn = artists(plot(idata, backend="matplotlib"))
    plt.close("all")
    assert drawn >= (2 if plot is az.plot_energy else variables)


def test_large_groups_are_left_out_with_one_message(monkeypatch, rng):
    from bayesglm import _sampling

    monkeypatch.setattr(_sampling, "LARGE", 1000)
    X, y = counts(rng)
    model = GLM(regularizer="Ridge", regularizer_strength=0.1)
    with pytest.warns(UserWarning, match="log_likelihood.*posterior_predictive.*left out") as caught:
        idata = model.sample(X, y, **RUN)
    assert len(caught) == 1
    assert not {"log_likelihood", "posterior_predictive"} & set(idata.children)
    asked = model.sample(X, y, log_likelihood=True, posterior_predictive=False, **RUN)
    assert "log_likelihood" in asked.children


def test_progress_bar_can_be_turned_off(rng, capsys):
    X, y = rng.normal(size=(150, 3)), rng.normal(size=150)
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.1)
    model.sample(X, y, **RUN)
    assert capsys.readouterr().err == ""
    model.sample(X, y, **{**RUN, "progress_bar": True})
    assert "divergences=0" in capsys.readouterr().err


def test_posterior_predictive_has_the_moments_of_y(gaussian):
    _, idata, _ = gaussian
    draws = idata["posterior_predictive"]["y"]
    y = idata["observed_data"]["y"]
    assert abs(float(draws.mean() - y.mean())) < 0.1
    assert abs(float(draws.std() / y.std()) - 1) < 0.1


@pytest.mark.filterwarnings("ignore:The posterior draws need a second look")
def test_the_names_of_its_summary_are_those_of_ours(rng):
    """Also where variables have several dims: every mean belongs to the name beside it."""
    X, y = counts(rng, outputs=3)
    y[:, 1] = rng.poisson(3.0, size=200)
    models = {
        "population": (PopulationGLM("Poisson", None, "Ridge", {"stim": 0.01, "a/b": "learn"}), y),
        "classes": (ClassifierGLM("Ridge", 0.01), np.array(["low", "middle", "high"])[np.minimum(y[:, 0], 2)]),
        "responses": (ClassifierGLM("Ridge", 0.01), np.minimum(y[:, :2], 2)),
    }
    for name, (model, outcome) in models.items():
        tree = model.sample(X, outcome, num_samples=50, num_warmup=50, num_chains=1, progress_bar=False)
        means = az.summary(tree, kind="stats", round_to="none")["mean"]
        for variable, draws in tree.posterior.data_vars.items():
            mean = draws.mean(("chain", "draw"))
            for place in np.ndindex(*mean.shape):
                at = mean[place]
                label = ", ".join(str(at[dim].values) for dim in mean.dims)
                assert means[f"{variable}[{label}]" if label else variable] == pytest.approx(float(at)), name
        if name != "population":
            assert set(model.summary().index) == set(means.index)
