"""Fits of inputs on which solvers fail: scales, collinearity, large counts, separation, more features than samples."""

import warnings

import jax
import numpy as np
import pytest
from numpyro.infer.util import log_density
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from bayesglm import GLM, PopulationGLM

SCALES = [1e-3, 1e-2, 1e-1, 10.0, 1e2, 1e3]


def counts(rng, n=2000, p=5, level=0.5):
    X = 0.5 * rng.normal(size=(n, p))
    return X, rng.poisson(np.exp(X @ np.array([0.5, -0.3, 0.2, 0.0, 0.4])[:p] + level))


@pytest.mark.parametrize("c", SCALES)
@pytest.mark.parametrize(
    ("regularizer", "strength"),
    [
        ("UnRegularized", lambda c: None),
        ("Ridge", lambda c: 0.1 * c**2),
        ("Lasso", lambda c: 0.05 * c),
        ("GroupLasso", lambda c: 0.05 * c),
    ],
)
def test_units_of_the_features_do_not_matter(regularizer, strength, c, rng):
    X, y = counts(rng)
    one = GLM(regularizer=regularizer, regularizer_strength=strength(1.0)).fit(X, y)
    scaled = GLM(regularizer=regularizer, regularizer_strength=strength(c)).fit(c * X, y)
    error = np.abs(c * scaled.coef_ - one.coef_).max() / np.abs(one.coef_).max()
    assert error <= 1e-6
    np.testing.assert_allclose(scaled.intercept_, one.intercept_, rtol=1e-6)


def test_each_feature_may_have_its_own_unit(rng):
    X, y = counts(rng)
    c = np.array([1e-3, 1.0, 1e3, 50.0, 0.2])
    for regularizer, strength, scaled_strength in (("Ridge", 0.1, 0.1 * c**2), ("Lasso", 0.05, 0.05 * c)):
        one = GLM(regularizer=regularizer, regularizer_strength=strength).fit(X, y)
        scaled = GLM(regularizer=regularizer, regularizer_strength=scaled_strength).fit(c * X + 100 * c, y)
        np.testing.assert_allclose(c * scaled.coef_, one.coef_, rtol=0, atol=1e-6 * np.abs(one.coef_).max())


@pytest.mark.parametrize("regularizer", ["UnRegularized", "Ridge", "Lasso", "ElasticNet", "GroupLasso"])
def test_counts_of_mean_1e5(regularizer, rng):
    X, y = counts(rng, level=11.5)
    model = GLM(regularizer=regularizer, regularizer_strength=None if regularizer == "UnRegularized" else 0.1)
    model.fit(X, y)
    assert model.converged_
    np.testing.assert_allclose(model.coef_, [0.5, -0.3, 0.2, 0.0, 0.4], atol=2e-3)


def test_gaussian_bumps_of_condition_1e7():
    """The objective equals, to 1e-10, that of a solution by orthogonal factorization."""
    t, centers = np.linspace(0, 1, 500), np.linspace(0, 1, 30)
    X = np.exp(-0.5 * ((t[:, None] - centers) / 0.05) ** 2)
    assert np.linalg.cond(X.T @ X) > 1e7
    y = np.sin(9 * t) + 0.1 * np.cos(200 * t)
    strength = 1e-6
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength=strength).fit(X, y)

    def objective(coef):
        residual = y - y.mean() - (X - X.mean(0)) @ coef
        return 0.5 * np.mean(residual**2) + 0.5 * strength * coef @ coef

    stacked = np.vstack([X - X.mean(0), np.sqrt(len(y) * strength) * np.eye(30)])
    exact = np.linalg.lstsq(stacked, np.concatenate([y - y.mean(), np.zeros(30)]), rcond=None)[0]
    assert model.converged_
    assert objective(model.coef_) - objective(exact) <= 1e-10 * objective(exact)


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.5, 0.1, 0.02])
def test_lasso_of_more_features_than_samples(fraction, rng):
    n, p = 500, 5000
    X = rng.normal(size=(n, p))
    y = rng.poisson(np.exp(X[:, :10] @ np.full(10, 0.2)))
    strength = fraction * np.abs(X.T @ (y - y.mean())).max() / n
    model = GLM(regularizer="Lasso", regularizer_strength=strength).fit(X, y)
    grad = X.T @ (model.predict(X) - y) / n
    at_zero = np.maximum(np.abs(grad) - strength, 0)
    violation = np.where(model.coef_ != 0, np.abs(grad + strength * np.sign(model.coef_)), at_zero)
    assert violation.max() <= 1e-7 * strength
    assert 0 < (model.coef_ != 0).sum() < n


def test_group_lasso_of_more_features_than_samples(rng):
    n, leaves = 120, {f"g{i:03d}": rng.normal(size=(120, 4)) for i in range(150)}
    y = rng.poisson(np.exp(0.4 * leaves["g003"].sum(1)))
    model = GLM(regularizer="GroupLasso", regularizer_strength=0.08).fit(leaves, y)
    residual = (model.predict(leaves) - y) / n
    kept = 0
    for leaf, X in leaves.items():
        coef, grad = model.coef_[leaf], X.T @ residual
        norm = np.linalg.norm(coef)
        if norm == 0:
            assert np.linalg.norm(grad) <= 0.08 * 2 + 1e-9
        else:
            kept += 1
            np.testing.assert_allclose(grad, -0.08 * 2 * coef / norm, atol=1e-8)
    assert 0 < kept < 150


def test_offset_of_exposures_and_large_weights(rng):
    X, _ = counts(rng)
    exposure = np.exp(rng.normal(size=2000) * 3)
    y = rng.poisson(exposure * np.exp(X[:, 0]))
    model = GLM(regularizer="Ridge", regularizer_strength=1e-4).fit(
        X, y, offset=np.log(exposure), sample_weight=np.full(2000, 1e9)
    )
    assert model.converged_
    assert abs(model.coef_[0] - 1) < 0.05


def test_separable_logistic_with_ridge_is_silent(rng):
    X = rng.normal(size=(100, 3))
    model = GLM("Bernoulli", regularizer="Ridge", regularizer_strength=1e-3).fit(X, X[:, 0] > 0)
    assert model.converged_
    assert model.score(X, X[:, 0] > 0) > 0.9


CAUSES = {
    "separated": ("Bernoulli", lambda X, y: (X, X[:, 0] > 0), "separate the data"),
    "separated counts": ("Poisson", lambda X, y: ((X > 0.5) * 1.0, y * (X[:, 0] <= 0.5)), "separate the data"),
    "all zero": ("Poisson", lambda X, y: (X, 0 * y), "every y is 0"),
    "one class": ("Bernoulli", lambda X, y: (X, 0 * y + 1), "every y is 1"),
    "duplicated": ("Poisson", lambda X, y: (np.column_stack([X, X[:, 0]]), y), "collinear"),
    "constant": ("Gaussian", lambda X, y: (np.column_stack([X, np.full(len(X), 3.0)]), y), "constant"),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", CAUSES)
def test_one_warning_names_the_cause_and_sampling_is_refused(name, dtype, rng):
    family, change, cause = CAUSES[name]
    X, y = change(rng.normal(size=(100, 3)), rng.poisson(1.0, 100))
    X = X.astype(dtype)
    with pytest.warns(ConvergenceWarning, match=cause) as caught:
        GLM(family).fit(X, y)
    assert len(caught) == 1
    with pytest.raises(ValueError, match=f"improper: .*{cause}"):
        GLM(family).sample(X, y, progress_bar=False)


def test_a_rare_feature_that_separates_is_found_at_any_tolerance(rng):
    X = rng.normal(size=(5000, 2))
    X[:, 1] = 0
    X[7, 1] = 1
    y = rng.poisson(np.exp(0.3 * X[:, 0]))
    y[7] = 0
    for dtype, options in ((np.float64, None), (np.float64, {"tol": 1e-5}), (np.float32, None)):
        with pytest.warns(ConvergenceWarning, match="separate the data"):
            GLM(solver_kwargs=options).fit(X.astype(dtype), y)


def test_boundary_data_are_named_with_a_penalty_too(rng):
    X = rng.normal(size=(100, 3))
    for dtype in (np.float64, np.float32):
        with pytest.warns(ConvergenceWarning, match="every y is 0"):
            GLM(regularizer="Ridge").fit(X.astype(dtype), np.zeros(100))


def test_exact_gaussian_fit_cannot_be_sampled(rng):
    X = rng.normal(size=(50, 3))
    for y in (X @ np.ones(3), np.full(50, 2.0)):
        with pytest.raises(ValueError, match="reproduces y exactly"):
            GLM("Gaussian").sample(X, y, progress_bar=False)
    with pytest.raises(ValueError, match=r"reproduces y exactly. Give it, as in GammaObservations\(scale=1.0\)"):
        GLM("Gamma", "exp", "Ridge").sample(X, np.full(50, 2.0), progress_bar=False)


def test_score_of_large_counts_in_single_precision(rng):
    X = rng.normal(size=(500, 2)).astype(np.float32)
    y = rng.poisson(np.exp(16 + X[:, 0]))
    assert 0.999 < GLM().fit(X, y).score(X, y) < 1


def test_collinear_features_get_the_solution_of_smallest_norm(rng):
    X = rng.normal(size=(100, 3))
    X = np.column_stack([X, X[:, 0] + X[:, 1], np.full(100, 2.0)])
    y = X[:, 0] + rng.normal(size=100)
    with pytest.warns(ConvergenceWarning, match="smallest norm"):
        model = GLM("Gaussian").fit(X, y)
    exact = np.linalg.lstsq(X - X.mean(0), y - y.mean(), rcond=None)[0]
    np.testing.assert_allclose(model.coef_, exact, atol=1e-9)
    np.testing.assert_allclose(model.predict(X), y.mean() + (X - X.mean(0)) @ exact, atol=1e-9)


def test_population_names_the_output(rng):
    X, y = counts(rng, n=100)
    with pytest.warns(ConvergenceWarning, match="output 1; 1 of 2"):
        PopulationGLM().fit(X, np.stack([y, 0 * y], axis=1))


def test_not_converged_is_one_warning_that_says_what_to_do(rng):
    X, y = counts(rng)
    with pytest.warns(ConvergenceWarning, match="maxiter") as caught:
        model = GLM(regularizer="Ridge", solver_kwargs={"maxiter": 1}).fit(X, y)
    assert len(caught) == 1
    assert not model.converged_


def test_gaussian_with_as_many_features_as_samples(rng):
    X, y = rng.normal(size=(40, 60)), rng.normal(size=40)
    with pytest.warns(UserWarning, match="scale_ is NaN"):
        model = GLM("Gaussian", regularizer="Lasso", regularizer_strength=1e-5).fit(X, y)
    assert np.isnan(model.scale_).all()
    with pytest.warns(UserWarning, match="hardly depends on the strength"):
        GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.05).fit(X, y)
    with pytest.raises(ValueError, match="dispersion cannot be estimated"):
        GLM("Gaussian", regularizer="Lasso", regularizer_strength=1e-5).sample(X, y, progress_bar=False)


def test_constant_y_and_perfect_fit(rng):
    X = rng.normal(size=(50, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flat = GLM("Gaussian", regularizer="Lasso", regularizer_strength=0.1).fit(X, np.full(50, 2.0))
        exact = GLM("Gaussian").fit(X, X @ np.array([1.0, 2.0, 3.0]) + 1e6)
    np.testing.assert_array_equal(flat.coef_, 0)
    np.testing.assert_allclose(exact.coef_, [1, 2, 3], rtol=1e-9)


@pytest.mark.parametrize("family", ["Poisson", "Gaussian"])
def test_sums_in_single_precision_do_not_drift(family, rng):
    """300 000 samples of features far from zero; the same data in double precision as the reference."""
    X = (rng.normal(size=(300_000, 3)) * [1, 1, 3] + [0, 5, 100]).astype(np.float32)
    eta = 0.2 * X[:, 0] - 0.3 * (X[:, 1] - 5) + 0.05 * (X[:, 2] - 100)
    y = rng.poisson(np.exp(eta)) if family == "Poisson" else eta + rng.normal(size=len(eta))
    model = GLM(family, regularizer="Ridge", regularizer_strength=0.01)
    single, double = (clone(model).fit(X.astype(dtype), y) for dtype in (np.float32, np.float64))
    assert single.coef_.dtype == np.float32
    np.testing.assert_allclose(single.coef_, double.coef_, rtol=1e-5)
    np.testing.assert_allclose(single.intercept_, double.intercept_, rtol=2e-5)
    np.testing.assert_allclose(single.scale_, double.scale_, rtol=1e-6)


UNSEEN = {
    "Gamma, 1/x": (GLM("Gamma", regularizer="Ridge", regularizer_strength=0.001), [-6.0, -6.0]),
    "Poisson, identity": (GLM("Poisson", "identity", "Lasso", 0.001), [-60.0, -6.0]),
    "Poisson, exp": (GLM("Poisson", regularizer="Ridge", regularizer_strength=0.01), [3000.0, 0.0]),
    "Bernoulli, identity": (GLM("Bernoulli", "identity", "Ridge", 0.1), [50.0, 50.0]),
}


@pytest.mark.parametrize(
    "name", ["Poisson, exp", *(pytest.param(name, marks=pytest.mark.slow) for name in UNSEEN if name != "Poisson, exp")]
)
def test_samples_of_weight_zero_may_have_impossible_means(name, rng):
    model, row = UNSEEN[name]
    X = 0.3 * rng.normal(size=(60, 2))
    mean = (0.6 + X @ [0.2, 0.1]).clip(0.1, 0.9)
    y = rng.gamma(5.0, 1 / mean / 5) if name.startswith("Gamma") else (rng.random(60) < mean).astype(float)
    more, y_more, weight = np.vstack([X, row]), np.append(y, 1.0), np.append(np.ones(60), 0.0)
    seen = clone(model).fit(X, y)
    model = clone(model).fit(more, y_more, sample_weight=weight)
    assert model.converged_
    np.testing.assert_allclose(model.coef_, seen.coef_, atol=1e-8)
    np.testing.assert_allclose(model.scale_, seen.scale_, rtol=1e-8)
    for kind in (None, "log-likelihood"):
        scores = model.score(more, y_more, sample_weight=weight, score_type=kind), seen.score(X, y, score_type=kind)
        np.testing.assert_allclose(*scores, rtol=1e-7)
    sites = {"coef": seen.coef_, "intercept": seen.intercept_[0]}
    if name.startswith("Gamma"):
        sites["dispersion"] = seen.scale_[0]
    with jax.enable_x64(True):
        gradients = [
            jax.grad(lambda s, args=args, w=w: log_density(model.numpyro_model, args, {"sample_weight": w}, s)[0])(
                sites
            )
            for args, w in (((more, y_more), weight), ((X, y), np.ones(60)))
        ]
    np.testing.assert_allclose(*(g["coef"] for g in gradients), atol=1e-9)


@pytest.mark.parametrize("regularizer", ["Ridge", "Lasso", "UnRegularized"])
def test_the_reciprocal_link_stays_inside_its_domain(regularizer):
    """Data of another link, for which the best reciprocal one has a mean near the border."""
    strength = None if regularizer == "UnRegularized" else 0.01
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(400, 3))
        y = rng.gamma(3.0, np.exp(0.5 + X @ [0.5, -0.3, 0.1]) / 3)
        model = GLM("Gamma", regularizer=regularizer, regularizer_strength=strength).fit(X, y)
        assert model.converged_
        assert (model.predict(X) > 0).all()
        eta = model.intercept_ + X @ model.coef_
        slope = (y - 1 / eta) @ (X - X.mean(0)) / 400
        held = 0.0 if strength is None else strength * (model.coef_ if regularizer == "Ridge" else np.sign(model.coef_))
        np.testing.assert_allclose((slope + held)[model.coef_ != 0], 0, atol=1e-8)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_counts_far_above_the_start_are_reached(fit_intercept):
    for seed in (139, 190, 227, 229, 230, 290):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(25, 4))
        y = rng.poisson(np.exp(X @ rng.normal(size=4)) * rng.gamma(1, 1, 25))
        model = GLM("NegativeBinomial", None, "Ridge", 1e-3, fit_intercept=fit_intercept).fit(X, y)
        assert model.converged_
        assert model.n_iter_ <= 20
