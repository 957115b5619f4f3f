"""Draws of y for new samples and from the priors, scores, and the table of the priors."""

import arviz as az
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import sparse, stats
from sklearn.exceptions import NotFittedError

from bayesglm import GLM, PopulationGLM
from bayesglm._prior_summary import describe
from bayesglm.observation_models import GammaObservations, GaussianObservations, NegativeBinomialObservations
from bayesglm.priors import GroupLasso

RUN = {"num_samples": 2000, "progress_bar": False}
STRENGTH, VARIANCE = 0.2, 2.0


@pytest.fixture(scope="module")
def gaussian():
    """A model with a closed form, its data, and features of new samples."""
    rng = np.random.default_rng(3)
    X, new = rng.normal(size=(60, 2)) + 1, rng.normal(size=(7, 2)) * 2
    y = X @ np.array([0.5, -1.0]) + np.sqrt(VARIANCE) * rng.normal(size=60)
    model = GLM(
        GaussianObservations(VARIANCE),
        regularizer="Ridge",
        regularizer_strength=STRENGTH,
        intercept_prior=dist.Normal(1.0, 2.0),
    )
    model.sample(X, y, **RUN)
    return model, X, y, new


def closed_form(X, y):
    """Posterior mean and covariance of (intercept, coefficients)."""
    design = np.column_stack([np.ones(len(y)), X])
    precision = design.T @ design / VARIANCE + np.diag([0.25, *[len(y) / VARIANCE * STRENGTH] * 2])
    covariance = np.linalg.inv(precision)
    return covariance @ (design.T @ y / VARIANCE + np.array([0.25, 0, 0])), covariance


def test_predictions_are_the_closed_form(gaussian):
    model, X, y, new = gaussian
    offset = np.arange(7.0)
    tree = model.posterior_predictive(new, offset=offset, seed=1)
    assert tree is model.posterior_
    mean, covariance = closed_form(X, y)
    design = np.column_stack([np.ones(7), new])
    variance = np.einsum("ni,ij,nj->n", design, covariance, design)
    draws = tree["predictions"]
    assert draws["y"].dims == ("chain", "draw", "obs")
    size = 8000 / 2  # allows for correlated draws
    for name, expected in (("mean", variance), ("y", variance + VARIANCE)):
        values = draws[name].values.reshape(-1, 7)
        assert (np.abs(values.mean(0) - design @ mean - offset) < 4 * np.sqrt(expected / size)).all()
        np.testing.assert_allclose(values.var(0), expected, rtol=0.15)
    interval = az.eti(draws.dataset, prob=0.9)["y"].values
    exact = stats.norm(design @ mean + offset, np.sqrt(variance + VARIANCE)).interval(0.9)
    np.testing.assert_allclose(interval, np.stack(exact, axis=1), atol=0.25)
    np.testing.assert_array_equal(tree["predictions_constant_data"]["X"], new)
    np.testing.assert_array_equal(tree["predictions_constant_data"]["offset"], offset)
    assert len(az.summary(tree, group="predictions", var_names="y", kind="stats")) == 7


def test_later_predictions_replace_earlier_ones(gaussian):
    model, _, _, new = gaussian
    model.posterior_predictive(new)
    tree = model.posterior_predictive(new[:3], num_samples=50)
    assert tree["predictions"]["y"].shape == (4, 50, 3)
    again = model.posterior_predictive(new[:3], num_samples=50)["predictions"]["y"].values
    other = model.posterior_predictive(new[:3], num_samples=50, seed=5)["predictions"]["y"].values
    np.testing.assert_array_equal(again, tree["predictions"]["y"].values * 0 + again)
    assert (again != other).any()


def test_prior_predictive_is_the_closed_form(gaussian):
    model, _, _, new = gaussian
    tree = model.prior_predictive(new, num_samples=20_000)
    assert {"posterior", "prior", "prior_predictive"} <= set(tree.children)
    sd = np.sqrt(VARIANCE / (60 * STRENGTH))
    coef = tree["prior"]["coef"].values.reshape(-1, 2)
    np.testing.assert_allclose(coef.std(0), sd, rtol=0.03)
    variance = 4.0 + sd**2 * (new**2).sum(1) + VARIANCE
    y = tree["prior_predictive"]["y"].values.reshape(-1, 7)
    assert (np.abs(y.mean(0) - 1) < 4 * np.sqrt(variance / 20_000)).all()
    np.testing.assert_allclose(y.var(0), variance, rtol=0.06)


def test_prior_predictive_after_fit_is_a_tree_of_its_own(rng):
    X = {"a": rng.normal(size=(40, 2)), "b": rng.normal(size=(40, 1))}
    y = rng.gamma(2.0, 1.0, size=(40, 3))
    mask = {"a": [[1, 1, 0], [1, 1, 1]], "b": 1}
    model = PopulationGLM(
        "Gamma",
        inverse_link_function="exp",
        regularizer="ElasticNet",
        regularizer_strength=(0.3, 0.5),
        intercept_prior=dist.Normal(0.0, 0.5),
        dispersion_prior="conditional",
        feature_mask=mask,
    ).fit(X, y)
    tree = model.prior_predictive(X, num_samples=4000)
    assert set(tree.children) == {"prior", "prior_predictive"}
    assert tree["prior_predictive"]["y"].dims == ("chain", "draw", "obs", "output")
    assert (tree["prior_predictive"]["y"] > 0).all()
    dispersion = tree["prior"]["dispersion"].values
    np.testing.assert_allclose(np.mean(dispersion), 1.0, atol=0.1)  # the square of a standard half-normal
    # Conditional priors are the wider, the larger the dispersion of the draw.
    coef = np.abs(tree["prior"]["coef.b"].values[..., 0])
    wide = dispersion > np.median(dispersion)
    assert coef[wide].mean() > 2 * coef[~wide].mean()
    np.testing.assert_array_equal(np.isnan(tree["prior"]["coef.a"]).all(("chain", "draw")).T, np.array(mask["a"]) == 0)


def test_flat_priors_have_no_prior_predictive(rng):
    X, y = {"a": rng.normal(size=(30, 2)), "b": rng.normal(size=(30, 1))}, rng.poisson(2.0, 30)
    model = GLM(regularizer="Ridge", regularizer_strength={"a": [0.1, 0.0], "b": 0.1}).fit(X, y)
    with pytest.raises(
        ValueError, match=r"the intercept \(give an intercept_prior\) and of 1 coefficients of X\['a'\]"
    ):
        model.prior_predictive(X)


def test_predictions_of_a_population_in_a_container(rng):
    X = {"a": rng.normal(size=(50, 2)), "b": rng.normal(size=(50, 1))}
    y = rng.poisson(rng.gamma(2.0, np.exp(1 + 0.3 * X["a"]) / 2))
    model = PopulationGLM(NegativeBinomialObservations(None), regularizer="Ridge", regularizer_strength=0.1)
    with pytest.raises(NotFittedError, match="call fit or sample first"):
        model.posterior_predictive(X)
    model.fit(X, y)
    with pytest.raises(NotFittedError, match="no posterior yet: call sample first"):
        model.posterior_predictive(X)
    model.sample(X, y, num_samples=500, progress_bar=False)
    draws = model.posterior_predictive(X, offset=np.zeros(50))["predictions"]
    in_sample = model.posterior_["posterior_predictive"]["y"]
    np.testing.assert_allclose(draws["y"].mean(("chain", "draw")), in_sample.mean(("chain", "draw")), rtol=0.2)
    np.testing.assert_allclose(draws["mean"].mean(("chain", "draw")), model.predict(X), rtol=0.25)
    with pytest.raises(ValueError, match="structure"):
        model.posterior_predictive(X["a"])
    with pytest.raises(ValueError, match="num_samples must be an integer of at least 1; got 0"):
        model.posterior_predictive(X, num_samples=0)
    posterior = model.posterior_
    every = model.posterior_predictive(X)["predictions"]["mean"]
    few = model.posterior_predictive(X, num_samples=5)["predictions"]["mean"]
    assert few["draw"].values.tolist() == [0, 125, 250, 374, 499]
    np.testing.assert_array_equal(few, every.sel(draw=few["draw"]))
    # By name, whatever was done to the draws since.
    moved = posterior.sel(chain=[1, 3]).isel(output=[1, 0])
    model.posterior_ = moved.map_over_datasets(lambda group: group.transpose("output", ..., missing_dims="ignore"))
    np.testing.assert_array_equal(model.posterior_predictive(X)["predictions"]["mean"], every.sel(chain=[1, 3]))
    model.posterior_ = posterior.sel(chain=2)
    np.testing.assert_array_equal(model.posterior_predictive(X)["predictions"]["mean"], every.sel(chain=[2]))
    for arguments, message in (
        ({"seed": 2**40}, r"seed must be below 2\*\*32"),
        ({"seed": -1}, "seed must be an integer"),
    ):
        with pytest.raises(ValueError, match=message):
            model.posterior_predictive(X, **arguments)
    with pytest.raises(ValueError, match="num_samples must be an integer of at least 1; got None"):
        model.prior_predictive(X, num_samples=None)
    model.fit(X, y)
    assert "posterior_" not in vars(model)


def test_means_outside_the_domain_are_reported(rng):
    X = rng.uniform(size=(60, 1))
    y = rng.gamma(5.0, 1 / (1 + X[:, 0]) / 5)
    model = GLM(GammaObservations(0.2), regularizer="Ridge", regularizer_strength=0.01).fit(X, y)
    with pytest.warns(UserWarning, match="2 of 3 predicted means lie outside 0 ... inf.*'one_over_x' allows that"):
        drawn, mean = model.simulate(0, np.array([[0.5], [-50.0], [-60.0]]))
    np.testing.assert_array_equal(np.isnan(drawn), mean < 0)


def log_density(family, y, mean, scale):
    """SciPy's log density, as an independent reading of every family."""
    return {
        "Poisson": lambda: stats.poisson(mean).logpmf(y),
        "Gaussian": lambda: stats.norm(mean, np.sqrt(scale)).logpdf(y),
        "Bernoulli": lambda: stats.bernoulli(mean).logpmf(y),
        "Gamma": lambda: stats.gamma(1 / scale, scale=mean * scale).logpdf(y),
        "NegativeBinomial": lambda: stats.nbinom(1 / scale, 1 / (1 + scale * mean)).logpmf(y),
    }[family]()


@pytest.mark.parametrize("family", ["Poisson", "Gaussian", "Bernoulli", "Gamma", "NegativeBinomial"])
def test_scores_are_those_of_scipys_densities(family, rng):
    X = rng.normal(size=(80, 2))
    mean = np.exp(0.5 * X[:, :1] + np.array([0.2, -0.4]))
    y = {
        "Poisson": lambda: rng.poisson(mean),
        "Gaussian": lambda: mean + rng.normal(size=(80, 2)),
        "Bernoulli": lambda: rng.random((80, 2)) < mean / 3,
        "Gamma": lambda: rng.gamma(2.0, mean / 2),
        "NegativeBinomial": lambda: rng.poisson(rng.gamma(2.0, mean / 2)),
    }[family]().astype(float)
    weight = rng.integers(0, 3, 80).astype(float)
    link = "exp" if family == "Gamma" else None
    model = PopulationGLM(family, inverse_link_function=link, regularizer="Ridge", regularizer_strength=0.1).fit(X, y)
    null = np.broadcast_to(weight @ y / weight.sum(), y.shape)
    fitted, nothing = (
        np.mean(weight @ log_density(family, y, mu, model.scale_) / weight.sum()) for mu in (model.predict(X), null)
    )
    scores = {kind: model.score(X, y, sample_weight=weight, score_type=kind) for kind in (None, *KINDS)}
    np.testing.assert_allclose(scores["log-likelihood"], fitted, rtol=1e-10)
    np.testing.assert_allclose(scores["pseudo-r2-McFadden"], 1 - fitted / nothing, rtol=1e-9, atol=1e-12)
    assert 0 < scores["pseudo-r2-Cohen"] < 1
    assert abs(scores["pseudo-r2-Cohen"] - scores[None]) < 0.1  # one weighs outputs by their deviance
    with pytest.raises(ValueError, match="score_type must be one of"):
        model.score(X, y, score_type="r2")


KINDS = ["log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"]


def test_scores_are_those_of_statsmodels(rng):
    X = rng.normal(size=(80, 2))
    y = rng.poisson(np.exp(0.5 * X[:, 0]))
    model = GLM().fit(X, y)
    theirs = sm.Poisson(y, sm.add_constant(X)).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose(model.score(X, y, score_type="log-likelihood"), theirs.llf / 80, rtol=1e-8)
    np.testing.assert_allclose(model.score(X, y, score_type="pseudo-r2-McFadden"), theirs.prsquared, rtol=1e-6)
    np.testing.assert_allclose(model.score(X, y, score_type="pseudo-r2-Cohen"), model.score(X, y), rtol=1e-12)


def test_what_needs_the_dispersion_says_so(rng):
    X, y = rng.normal(size=(5, 8)), rng.normal(size=5)
    model = GLM("Gaussian", regularizer="Lasso", regularizer_strength=1e-3, intercept_prior=dist.Normal())
    with pytest.warns(UserWarning, match="scale_ is NaN"):
        model.fit(X, y)
    assert np.isfinite(model.score(X, y))
    table = model.prior_summary(X)
    assert table.loc["coef", "prior"] == "unknown, like the dispersion"
    assert np.isnan(table.loc["coef", "sd"])
    for needs in (
        lambda: model.score(X, y, score_type="log-likelihood"),
        lambda: model.simulate(0, X),
        lambda: model.prior_predictive(X),
        lambda: model.numpyro_model(X, y),
    ):
        with pytest.raises(ValueError, match="needs the dispersion, and scale_ is NaN"):
            needs()


def test_prior_summary_tells_the_priors(rng):
    X = {"a": rng.normal(size=(50, 2)) * 3, "b": pd.DataFrame(rng.normal(size=(50, 3)), columns=["u", "v", "w"])}
    y = rng.poisson(1.5, 50)
    model = GLM(regularizer="Ridge", regularizer_strength={"a": 0.1, "b": [0.0, 0.4, 0.4]})
    with pytest.raises(NotFittedError):
        model.prior_summary(X)
    table = model.fit(X, y).prior_summary(X)
    assert table.index.tolist() == ["coef.a", "coef.b", "coef.b", "intercept"]
    assert table["feature"].tolist() == ["all", "u", "v, w", ""]
    assert table["prior"].tolist()[1::2] == ["flat", "flat"]
    np.testing.assert_allclose(table["sd"].tolist()[:3], [1 / np.sqrt(5), np.inf, 1 / np.sqrt(20)])
    effect = np.sqrt(np.mean(X["a"].std(0) ** 2) / 5)
    np.testing.assert_allclose(table["sd_of_effect"].iloc[0], effect)
    assert table["prior"].iloc[0] == "Normal(loc=0, scale=0.447)"


@pytest.mark.parametrize(
    ("prior", "text"),
    [
        (dist.Normal(0, 5), "Normal(loc=0, scale=5)"),
        (dist.StudentT(4, 0, 2.5), "StudentT(df=4, loc=0, scale=2.5)"),
        (dist.Normal(0.0, np.array([1e-4, 2e4])), "Normal(loc=0, scale=[0.0001, 2e+04])"),
        (dist.Normal(0.0, 2.0).expand([2]), "Normal(loc=0, scale=2)"),
        (dist.LogNormal(0.0, 1.0), "LogNormal(loc=0, scale=1)"),
        (
            dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(0, 2)),
            "Normal(loc=0, scale=1) by AffineTransform",
        ),
    ],
    ids=["whole", "three", "array", "expanded", "lognormal", "transformed"],
)
def test_priors_are_written_with_their_parameters(prior, text):
    assert describe(prior) == text


def test_prior_summary_of_pairs_groups_and_outputs(rng):
    X, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 3))
    pairs = GLM("Gaussian", regularizer="ElasticNet", regularizer_strength=(0.1, 0.5)).fit(X, y[:, 0])
    table, k = pairs.prior_summary(X), 50 / pairs.scale_[0]
    assert table.loc["coef", "ratio"] == 0.5
    assert table.loc["coef", "prior"] == f"ElasticNet(l1={0.05 * k:.3g}, l2={0.05 * k:.3g})"
    assert table.loc["sigma", "prior"] == f"HalfStudentT(df=4, scale={y[:, 0].std():.3g})"
    mask = np.zeros((2, 4, 3))
    mask[0, :2, :2] = mask[1, 2:, 0] = 1
    groups = PopulationGLM(regularizer=GroupLasso(mask), regularizer_strength=[0.1, 0.3], intercept_prior=dist.Normal())
    table = groups.fit(X, np.exp(y)).prior_summary(X)
    assert table["group"].tolist() == ["0", "1", "", "", ""]
    assert table["output"].tolist() == ["0-1", "0", "1", "2", ""]
    assert table["feature"].tolist() == ["0-1", "2-3", "2-3", "all", ""]
    np.testing.assert_allclose(table["sd"].iloc[0], np.sqrt(5) / (50 * 0.1 * 2))
    np.testing.assert_allclose(table["sd"].iloc[1], np.sqrt(3) / (50 * 0.3 * np.sqrt(2)))
    assert table["prior"].tolist()[2:] == ["flat", "flat", "Normal(loc=0, scale=1)"]
    masked = PopulationGLM("Gamma", "exp", "Lasso", 0.1, feature_mask=np.eye(4)[:, :3]).fit(X, np.exp(y))
    table = masked.prior_summary(X)
    assert (table["prior"] == "0, by feature_mask").sum() == 3
    assert table.loc["sqrt(dispersion)", "prior"].tolist() == ["HalfNormal(scale=1)"] * 3


def test_notebooks_show_the_priors_of_a_fit(rng):
    model = GLM(regularizer="Ridge", regularizer_strength={"a": 0.1, "b": 0.0})
    assert "as priors" not in model._repr_html_()
    # Nothing is computed to be shown, least of all what there is not.
    assert "covariance_" not in GLM(regularizer="Ridge").fit(sparse.csr_array(np.eye(6)), np.arange(6))._repr_html_()
    model.fit({"a": rng.normal(size=(50, 2)), "b": rng.normal(size=(50, 1))}, rng.poisson(1.0, size=50))
    assert repr(model) == "GLM(regularizer='Ridge', regularizer_strength={'a': 0.1, 'b': 0.0})"
    for html in (model._repr_html_(), model._repr_mimebundle_()["text/html"]):
        assert "sk-" in html
        assert "Normal(loc=0, scale=0.447)" in html
    assert "text/html" in model._repr_mimebundle_()
    table = model.prior_summary()
    assert "sd_of_effect" not in table
    assert table.loc["coef.a", "sd"] == pytest.approx((50 * 0.1) ** -0.5)


def test_printed_a_model_tells_its_priors(rng):
    X = {"stimulus": rng.normal(size=(400, 3)), "history": rng.normal(size=(400, 2))}
    strengths = {"stimulus": 0.02, "history": [0.02, 0.1]}
    model = GLM(regularizer="Lasso", regularizer_strength=strengths)
    assert str(model) == repr(model)
    model.fit(X, rng.poisson(1.0, size=400))
    assert (
        str(model)
        == f"""{model!r}
  coef.history[0]: strength 0.02 -> Laplace(loc=0, scale=0.125)
  coef.history[1]: strength 0.1 -> Laplace(loc=0, scale=0.025)
  coef.stimulus: strength 0.02 -> Laplace(loc=0, scale=0.125)
  intercept: flat"""
    )
    assert "Laplace" not in repr(model)
    many = GLM(regularizer="Ridge", regularizer_strength=np.arange(1.0, 31.0))
    text = str(many.fit(rng.normal(size=(400, 30)), rng.poisson(1.0, size=400))).splitlines()
    assert text[-1] == "  ... and 11 more: see prior_summary()"
    groups = PopulationGLM("Gaussian", regularizer="GroupLasso").fit(X, rng.normal(size=(400, 2)))
    assert "  coef.stimulus, output 1, group 3: strength 1 -> GroupLaplace(rate=" in str(groups)
