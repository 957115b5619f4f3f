"""Sparse X: the fits of dense arrays, in the memory of what X holds."""

import tracemalloc
import warnings

import numpy as np
import pytest
from jax.experimental.sparse import BCOO
from numpyro import distributions as dist
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet as TheirElasticNet
from sklearn.linear_model import Lasso as TheirLasso
from sklearn.linear_model import LogisticRegression, PoissonRegressor
from sklearn.model_selection import GridSearchCV

from bayesglm import (
    GLM,
    GLMCV,
    ClassifierGLM,
    Design,
    PopulationGLM,
    approximate_loo,
    from_sklearn,
    largest_strength,
    strength_grid,
    strength_path,
)
from bayesglm.observation_models import NegativeBinomialObservations
from bayesglm.priors import GroupLasso

REGULARIZERS = {"UnRegularized": None, "Ridge": 0.03, "Lasso": 0.02, "ElasticNet": (0.02, 0.5), "GroupLasso": 0.004}
FORMATS = ["csr", "csc", "coo", "lil", "dok", "bsr"]  # "dia" is that of the last test
FAMILIES = ["Poisson", "Gaussian", "Bernoulli", "Gamma", NegativeBinomialObservations(None)]


def draw(rng, family, shape=(120, 9), outputs=1, density=0.3):
    """Sparse features, y of a family, whole weights and offsets."""
    X = sparse.random_array(shape, density=density, rng=rng, format="csr")
    X.data -= 0.3
    coef = rng.normal(size=(shape[1], outputs)) * (rng.random((shape[1], outputs)) < 0.5)
    mean = np.exp(0.5 * (X @ coef) - 0.2)
    y = {
        "Poisson": lambda: rng.poisson(mean),
        "Gaussian": lambda: rng.normal(np.log(mean)),
        "Bernoulli": lambda: (rng.random(mean.shape) < mean / (1 + mean)).astype(int),
        "Gamma": lambda: rng.gamma(2.0, mean / 2),
    }.get(family if isinstance(family, str) else None, lambda: rng.poisson(mean * rng.gamma(2.0, 0.5, mean.shape)))()
    return X, y[:, 0] if outputs == 1 else y, rng.integers(0, 4, shape[0]), 0.1 * rng.normal(size=shape[0])


def agree(model, other, X, y, rtol=1e-8):
    """Two fits, the first of a dense X, are the same."""
    np.testing.assert_allclose(other.coef_, model.coef_, rtol=rtol, atol=rtol * np.abs(model.coef_).max())
    np.testing.assert_allclose(other.intercept_, model.intercept_, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(other.scale_, model.scale_, rtol=1e-6)
    assert other.converged_
    assert other.kkt_residual_ <= 1e-9
    assert other.n_features_in_ == X.shape[1]
    np.testing.assert_allclose(other.predict(X), model.predict(X.toarray()), rtol=1e-7)
    assert other.score(X, y) == pytest.approx(model.score(X.toarray(), y))


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@pytest.mark.parametrize("regularizer", ["UnRegularized", "Ridge"])
def test_smooth_fits_are_those_of_dense_arrays(family, regularizer, rng):
    X, y, weight, offset = draw(rng, family)
    link = "exp" if family == "Gamma" else None
    model = GLM(family, link, regularizer, REGULARIZERS[regularizer], solver_kwargs={"tol": 1e-11})
    dense = model.fit(X.toarray(), y, sample_weight=weight, offset=offset)
    other = GLM(**model.get_params(deep=False)).fit(X, y, sample_weight=weight, offset=offset)
    agree(dense, other, X, y)
    np.testing.assert_allclose(other.dof_resid_, dense.dof_resid_)


@pytest.mark.parametrize(
    ("family", "regularizer"),
    [("Poisson", "Lasso"), ("Gaussian", "ElasticNet"), ("Bernoulli", "GroupLasso"), (FAMILIES[4], "Lasso")]
    + [
        pytest.param(family, regularizer, marks=pytest.mark.slow)
        for family in FAMILIES[:4]
        for regularizer in ("Lasso", "ElasticNet", "GroupLasso")
    ],
    ids=str,
)
def test_fits_under_kinks_are_those_of_dense_arrays(family, regularizer, rng):
    X, y, weight, offset = draw(rng, family)
    link = "exp" if family == "Gamma" else None
    model = GLM(family, link, regularizer, REGULARIZERS[regularizer], solver_kwargs={"tol": 1e-11})
    dense = model.fit(X.toarray(), y, sample_weight=weight, offset=offset)
    other = GLM(**model.get_params(deep=False)).fit(X, y, sample_weight=weight, offset=offset)
    agree(dense, other, X, y)
    np.testing.assert_array_equal(other.coef_ == 0, dense.coef_ == 0)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_fits_without_an_intercept_are_those_of_dense_arrays(regularizer, rng):
    X, y, weight, offset = draw(rng, "Poisson", outputs=2)
    model = PopulationGLM(
        regularizer=regularizer,
        regularizer_strength=REGULARIZERS[regularizer],
        fit_intercept=False,
        solver_kwargs={"tol": 1e-11},
    )
    arguments = {"sample_weight": weight, "offset": np.stack([offset, -offset], 1)}
    dense = model.fit(X.toarray(), y, **arguments)
    other = PopulationGLM(**model.get_params(deep=False)).fit(X, y, **arguments)
    agree(dense, other, X, y)
    assert (other.intercept_ == 0).all()
    np.testing.assert_array_equal(other.coef_ == 0, dense.coef_ == 0)


SOME_FLAT = np.where(np.arange(9) < 2, 0.0, 0.03)


def draw_labels(rng, shape=(200, 9), n_classes=3, density=0.4):
    """Sparse features and labels of two columns."""
    X = sparse.random_array(shape, density=density, rng=rng, format="csr")
    eta = 3 * X @ rng.normal(size=(shape[1], n_classes))
    labels = [(eta[:, order] + rng.gumbel(size=eta.shape)).argmax(1) for order in (slice(None), slice(None, None, -1))]
    return X, np.column_stack(labels)


@pytest.mark.parametrize(
    ("regularizer", "strength"),
    [*REGULARIZERS.items(), ("Ridge", SOME_FLAT), ("Lasso", SOME_FLAT)],
    ids=str,
)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_classes_are_those_of_dense_arrays(regularizer, strength, fit_intercept, rng):
    X, y = draw_labels(rng)
    settings = {"fit_intercept": fit_intercept, "solver_kwargs": {"tol": 1e-11}}
    arguments = {"sample_weight": rng.integers(0, 4, len(y)), "offset": 0.1 * rng.normal(size=(len(y), 2, 3))}
    dense, other = (
        ClassifierGLM(regularizer, strength, **settings).fit(features, y, **arguments)
        for features in (X.toarray(), X)
    )  # fmt: skip
    np.testing.assert_allclose(other.coef_, dense.coef_, atol=2e-9)
    np.testing.assert_allclose(other.intercept_, dense.intercept_, atol=2e-9)
    np.testing.assert_array_equal(other.coef_ == 0, dense.coef_ == 0)
    assert other.converged_
    assert other.kkt_residual_ <= 1e-10
    if regularizer in ("UnRegularized", "Ridge"):
        np.testing.assert_allclose(other.dof_resid_, dense.dof_resid_)
    np.testing.assert_allclose(other.predict_proba(X), dense.predict_proba(X.toarray()), rtol=1e-7)
    assert other.score(X, y) == dense.score(X.toarray(), y)


@pytest.mark.parametrize("regularizer", ["Ridge", "Lasso"])
def test_classes_of_more_features_than_samples(regularizer, rng):
    X, y = draw_labels(rng, (40, 300), density=0.1)
    model = ClassifierGLM(regularizer, 0.01, solver_kwargs={"tol": 1e-10})
    dense, other = (ClassifierGLM(regularizer, 0.01).fit(features, y[:, 0]) for features in (X.toarray(), X))
    np.testing.assert_allclose(other.coef_, dense.coef_, atol=1e-7)
    assert other.converged_
    np.testing.assert_allclose(40 - other.dof_resid_, 40 - dense.dof_resid_, rtol=0.1)
    grid = strength_grid(model, X, y[:, 0], 4)
    np.testing.assert_allclose(grid, strength_grid(model, X.toarray(), y[:, 0], 4))
    chosen, same = (
        GLMCV(model, 3, cv=3, progress_bar=False).fit(features, y[:, 0]) for features in (X, X.toarray())
    )  # fmt: skip
    np.testing.assert_allclose(chosen.validation_scores_, same.validation_scores_, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_many_coefficients_of_classes_are_found_by_products(dtype, rng, monkeypatch):
    X, y = draw_labels(rng)
    features, model = X.toarray().astype(dtype), ClassifierGLM("Ridge", 0.01)
    dense = model.fit(features, y)
    monkeypatch.setattr("bayesglm._fitting.MOST_OF_CLASSES", 10)
    other = ClassifierGLM("Ridge", 0.01).fit(features, y)
    np.testing.assert_allclose(other.coef_, dense.coef_, atol=1e-9 if dtype == np.float64 else 1e-5)
    assert other.coef_.dtype == other.intercept_.dtype == dtype
    assert other.converged_
    np.testing.assert_allclose(other.dof_resid_, dense.dof_resid_, rtol=1e-5)
    monkeypatch.setattr("bayesglm._working_set.MOST_OF_CLASSES", 10)
    with pytest.raises(ValueError, match="more than 10 coefficients of classes that may not be zero"):
        ClassifierGLM("Lasso", 0.001).fit(X, y)


def test_classes_that_separate_or_are_collinear_are_told(rng):
    X, y = draw_labels(rng)
    with pytest.warns(ConvergenceWarning, match="one of many"):
        ClassifierGLM().fit(sparse.hstack([X, X[:, :1]]), y[:, 0])
    with pytest.warns(ConvergenceWarning, match="separate"):
        ClassifierGLM().fit(X, (X[:, [0]].toarray() > 0).ravel())


@pytest.mark.parametrize("regularizer", ["Ridge", "Lasso"])
def test_more_features_than_samples(regularizer, rng):
    X, y, *_ = draw(rng, "Gaussian", (60, 400), density=0.1)
    model = GLM("Gaussian", regularizer=regularizer, regularizer_strength=0.1, solver_kwargs={"tol": 1e-12})
    dense, other = model.fit(X.toarray(), y), GLM(**model.get_params(deep=False)).fit(X, y)
    agree(dense, other, X, y)
    np.testing.assert_allclose(other.dof_resid_, dense.dof_resid_, rtol=1e-7)


@pytest.mark.parametrize("as_kind", [*FORMATS, "matrix", "BCOO", "integers", "twice"])
def test_all_kinds_of_sparse_matrices_are_read(as_kind, rng):
    X, y, *_ = draw(rng, "Poisson")
    X.data = np.round(4 * X.data)
    held = X.tocoo()
    made = {
        "matrix": lambda: sparse.csr_matrix(X),
        # Padded with entries beyond the shape, as JAX does.
        "BCOO": lambda: BCOO.fromdense(X.toarray(), nse=X.nnz + 5),
        "integers": lambda: X.astype(np.int32),
        "twice": lambda: sparse.coo_array((np.tile(held.data, 2) / 2, np.tile(held.coords, 2)), shape=X.shape),
    }.get(as_kind, lambda: X.asformat(as_kind))()
    model = GLM(regularizer="Ridge", regularizer_strength=0.1).fit(made, y)
    np.testing.assert_allclose(model.coef_, GLM(**model.get_params(deep=False)).fit(X.toarray(), y).coef_, rtol=1e-6)
    np.testing.assert_allclose(model.predict(made), model.predict(X.toarray()))


def test_the_users_matrix_stays_as_it_is(rng):
    X, y, *_ = draw(rng, "Poisson")
    twice = sparse.csr_array(
        (np.concatenate([X.data, [1.0, 2.0]]), np.append(X.indices, [3, 3]), np.append(X.indptr[:-1], X.nnz + 2)),
        shape=X.shape,
    )
    before = twice.data.copy()
    GLM(regularizer="Ridge").fit(twice, y, sample_weight=np.arange(len(y)) % 3)
    np.testing.assert_array_equal(twice.data, before)


def test_one_sparse_leaf_makes_all_of_them_sparse(rng):
    X, y, *_ = draw(rng, "Poisson")
    ages = rng.normal(50.0, 10.0, size=(len(y), 2))
    tree, strengths = {"words": X, "age": ages}, {"words": 0.1, "age": [0.0, 1.0]}
    model = GLM(regularizer="Ridge", regularizer_strength=strengths).fit(tree, y)
    dense = GLM(**model.get_params(deep=False)).fit({"words": X.toarray(), "age": ages}, y)
    for leaf in tree:
        np.testing.assert_allclose(model.coef_[leaf], dense.coef_[leaf], rtol=1e-7, atol=1e-10)
    assert "coef.words" in model.prior_summary().index
    some = Design(tree)[:50]
    np.testing.assert_allclose(model.predict(some), model.predict(tree)[:50])


@pytest.mark.parametrize("regularizer", ["Ridge", "Lasso"])
def test_populations_with_masks_and_strengths_of_every_form(regularizer, rng):
    X, y, weight, offset = draw(rng, "Poisson", outputs=3)
    mask = rng.random((X.shape[1], 3)) < 0.7
    for strength in (0.05, rng.uniform(0.01, 0.1, size=(X.shape[1], 1)), rng.uniform(0.01, 0.1, size=mask.shape)):
        model = PopulationGLM(regularizer=regularizer, regularizer_strength=strength, feature_mask=mask)
        arguments = {"sample_weight": weight, "offset": np.stack([offset, 2 * offset, 0 * offset], 1)}
        dense, other = (
            model.fit(X.toarray(), y, **arguments),
            PopulationGLM(**model.get_params(deep=False)).fit(X, y, **arguments),
        )
        agree(dense, other, X, y)
        assert (other.coef_[~mask] == 0).all()


@pytest.mark.slow
def test_groups_that_span_outputs(rng):
    X, y, *_ = draw(rng, "Poisson", outputs=3)
    groups = np.repeat(np.eye(X.shape[1])[:, :, None], 3, axis=2)
    model = PopulationGLM(
        regularizer=GroupLasso(groups), regularizer_strength=0.02, solver_kwargs={"tol": 1e-11}
    )  # fmt: skip
    dense, other = model.fit(X.toarray(), y), PopulationGLM(**model.get_params(deep=False)).fit(X, y)
    agree(dense, other, X, y)


@pytest.mark.parametrize("regularizer", ["Ridge", "Lasso"])
def test_paths_grids_and_folds(regularizer, rng):
    X, y, *_ = draw(rng, "Poisson")
    model = GLM(regularizer=regularizer, solver_kwargs={"tol": 1e-10})
    assert largest_strength(model, X, y) == pytest.approx(largest_strength(model, X.toarray(), y))
    grid = strength_grid(model, X, y, 4)
    np.testing.assert_allclose(grid, strength_grid(model, X.toarray(), y, 4))
    pairs = zip(strength_path(model, X, y, grid), strength_path(model, X.toarray(), y, grid), strict=True)
    for sparse_fit, dense_fit in pairs:
        np.testing.assert_allclose(sparse_fit.coef_, dense_fit.coef_, rtol=1e-6, atol=1e-8)
    chosen = GLMCV(model, 4, cv=3, progress_bar=False).fit(X, y)
    dense = GLMCV(model, 4, cv=3, progress_bar=False).fit(X.toarray(), y)
    np.testing.assert_allclose(chosen.validation_scores_, dense.validation_scores_, atol=1e-8)
    np.testing.assert_allclose(chosen.coef_, dense.coef_, rtol=1e-6, atol=1e-9)
    assert chosen.score(X, y) == pytest.approx(dense.score(X.toarray(), y))


def test_scorers_and_searches_of_scikit_learn(rng):
    X, y, *_ = draw(rng, "Poisson")
    for kind in (X, BCOO.fromdense(X.toarray())):
        GLMCV(GLM(regularizer="Ridge"), 3, cv=3, scoring="neg_mean_poisson_deviance", progress_bar=False).fit(kind, y)
    grid = {"regularizer_strength": [0.01, 0.1]}
    search = GridSearchCV(GLM(regularizer="Ridge"), grid, cv=3).fit(X, y)
    dense = GridSearchCV(GLM(regularizer="Ridge"), grid, cv=3).fit(X.toarray(), y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], dense.cv_results_["mean_test_score"], rtol=1e-7)


TIGHT = {"tol": 1e-12, "max_iter": 100_000}


@pytest.mark.parametrize(
    ("family", "estimator"),
    [
        ("Poisson", PoissonRegressor(alpha=0.1, solver="newton-cholesky", tol=1e-10)),
        ("Gaussian", TheirLasso(0.02, **TIGHT)),
        ("Gaussian", TheirElasticNet(0.02, l1_ratio=0.4, **TIGHT)),
        ("Bernoulli", LogisticRegression(C=0.1, tol=1e-11, max_iter=1000)),
        ("Bernoulli", LogisticRegression(C=1.0, l1_ratio=1.0, solver="saga", tol=1e-9, max_iter=100_000)),
        ("Poisson", PoissonRegressor(alpha=0.1, fit_intercept=False, solver="newton-cholesky", tol=1e-10)),
        ("Gaussian", TheirLasso(0.02, fit_intercept=False, **TIGHT)),
    ],
    ids=str,
)
def test_fits_are_those_of_scikit_learn(family, estimator, rng):
    X, y, *_ = draw(rng, family, (300, 40), density=0.1)
    estimator.fit(X, y)
    ours = from_sklearn(estimator, n_samples=len(y)).fit(X, y)
    np.testing.assert_allclose(ours.coef_, np.ravel(estimator.coef_), atol=2e-6)
    np.testing.assert_allclose(ours.intercept_, estimator.intercept_, atol=2e-6)


def wide(rng, shape, held):
    """Poisson data with so many entries that are not zero; ten features matter."""
    places = rng.integers(0, shape[0], held), rng.integers(0, shape[1], held)
    places[1][: held // 10] = rng.integers(0, 10, held // 10)
    X = sparse.coo_array((np.ones(held), places), shape=shape).tocsr()
    coef = np.zeros(shape[1])
    coef[:10] = np.linspace(-1, 1, 10)
    return X, rng.poisson(np.exp(np.minimum(X @ coef, 3.0)))


@pytest.mark.parametrize("regularizer", ["UnRegularized", "Ridge", "Lasso"])
def test_nothing_is_made_dense(regularizer, rng):
    X, y = wide(rng, (20_000, 4_000), 60_000)
    strength = {"UnRegularized": None, "Ridge": 1e-3, "Lasso": 3e-3}[regularizer]
    model = GLM(regularizer=regularizer, regularizer_strength=strength)
    y = y + 1.0  # without rare features whose every y is zero, which have no optimum
    model.fit(X[:, :10], y)
    tracemalloc.start()
    model.fit(X, y).predict(X)
    model.score(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert model.converged_
    # Dense, X alone would be 640 MB.
    assert peak < 40e6


@pytest.mark.slow
@pytest.mark.parametrize(("regularizer", "strength"), [("Ridge", 1e-4), ("Lasso", 1e-3)])
def test_what_would_be_32_gigabytes_is_fitted(regularizer, strength, rng):
    X, y = wide(rng, (200_000, 20_000), 10**6)
    path = strength_path(GLM(regularizer=regularizer), X, y, [10 * strength, strength])
    assert all(model.converged_ for model in path)
    assert path[-1].score(X, y) > 0.05
    np.testing.assert_allclose(path[-1].coef_[:10], np.linspace(-1, 1, 10), atol=0.3)


def test_estimated_degrees_of_freedom_are_close(rng, monkeypatch):
    X, y, *_ = draw(rng, "Gaussian", (600, 300), density=0.05)
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.01)
    exact = model.fit(X, y).dof_resid_
    monkeypatch.setattr("bayesglm._sparse_smooth.EXACT_TRACE", 100)
    estimate = model.fit(X, y).dof_resid_
    assert estimate != exact
    np.testing.assert_allclose(estimate, exact, rtol=0.02)


def test_what_has_no_unique_or_finite_optimum_is_told(rng):
    X, y, *_ = draw(rng, "Poisson")
    twin = sparse.hstack([X, X[:, :1]])
    with pytest.warns(ConvergenceWarning, match="one of many"):
        model = GLM().fit(twin, y)
    assert model.coef_[0] == pytest.approx(model.coef_[-1])
    with pytest.warns(ConvergenceWarning, match="separate"):
        GLM("Bernoulli").fit(X, (X[:, [0]].toarray() > 0).ravel().astype(int))
    with pytest.warns(ConvergenceWarning, match="every y is 0"):
        GLM("Poisson", regularizer="Lasso").fit(X, 0 * y)


@pytest.mark.parametrize("family", ["Poisson", "Bernoulli"])
def test_rare_features_that_separate_are_told_of_many(family, rng):
    X, y = wide(rng, (20_000, 400), 60_000)
    y = np.minimum(y, 1)
    for feature in (100, 200, 300):
        y[X[:, [feature]].toarray()[:, 0] != 0] = 0
    with pytest.warns(ConvergenceWarning, match="has no finite optimum, for 3 of the features without a penalty"):
        GLM(family).fit(X, y)
    strength = np.where(np.isin(np.arange(400), [100, 200, 300]), 1e-3, 0.0)
    assert GLM(family, regularizer="Ridge", regularizer_strength=strength).fit(X, y).converged_


def test_what_needs_a_dense_array_says_so(rng):
    X, y, *_ = draw(rng, "Poisson")
    ridge = GLM(regularizer="Ridge").fit(X, y)
    message = r"needs X as a dense array: hand over X.toarray\(\)"
    calls = [
        lambda: ridge.covariance_,
        lambda: ridge.criteria_,
        lambda: ridge.standard_errors_,
        lambda: ridge.summary(),
        lambda: ridge.prior_summary(X),
        lambda: GLM(regularizer="Ridge", intercept_prior=dist.Normal()).fit(X, y).prior_predictive(X),
        lambda: ridge.numpyro_model(X, y),
        lambda: approximate_loo(ridge, X, y),
        lambda: GLMCV(ridge, 3, cv="loo", progress_bar=False).fit(X, y),
        lambda: GLM(regularizer="Ridge").sample(X, y, progress_bar=False),
        lambda: GLM(regularizer="Ridge", regularizer_strength="learn").sample(X, y, progress_bar=False),
        lambda: GLM(regularizer="Ridge", regularizer_strength="evidence").fit(X, y),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
    ridge.sample(X.toarray(), y, method="laplace", num_samples=20, num_chains=1, progress_bar=False)
    with pytest.raises(ValueError, match=message):
        ridge.posterior_predictive(X)
    y, mean = ridge.simulate(0, X)
    assert y.shape == mean.shape == (len(mean),)


def test_bad_entries_are_told(rng):
    X, y, *_ = draw(rng, "Poisson")
    bad = X.tolil()
    bad[7, 3] = np.nan
    with pytest.raises(ValueError, match=r"X has 1 NaN or infinite entry, the first at \(7, 3\)"):
        GLM().fit(bad, y)
    with pytest.raises(ValueError, match=r"X\['a'\] must have two dimensions"):
        GLM().fit({"a": sparse.coo_array(np.ones(5)), "b": X}, y)
    with pytest.raises(ValueError, match="X must hold real numbers.*Complex data not supported"):
        GLM().fit(X * 1j, y)
    with pytest.raises(ValueError, match="two sparse dimensions"):
        GLM().fit(BCOO.fromdense(X.toarray(), n_batch=1), y)
    with pytest.raises(ValueError, match="has no features"):
        GLM().fit(X[:, :0], y)
    with pytest.raises(ValueError, match="X and y must have the same number of samples"):
        GLM().fit(X, y[:-1])
    model = GLM(regularizer="Ridge").fit(X, y)
    with pytest.raises(ValueError, match="has 8 features, but GLM is expecting 9"):
        model.predict(X[:, :8])


def test_the_tag_says_that_sparse_matrices_are_taken():
    assert GLM().__sklearn_tags__().input_tags.sparse
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GLM(regularizer="Ridge").fit(sparse.eye_array(6), np.arange(6))


@pytest.mark.parametrize("regularizer", ["Ridge", "ElasticNet"])
@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_links_that_are_not_canonical_take_the_steps_of_dense_arrays(link, regularizer, rng):
    X, y, *_ = draw(rng, "Gamma", (150, 5))
    model = GLM("Gamma", link, regularizer, REGULARIZERS[regularizer])
    dense, other = (clone(model).fit(features, y) for features in (X.toarray(), X))
    assert other.n_iter_ <= dense.n_iter_ + 1
    np.testing.assert_allclose(other.coef_, dense.coef_, atol=1e-9)
    np.testing.assert_allclose(other.dof_resid_, dense.dof_resid_)
    warm = clone(model).set_params(warm_start=True).fit(X, y[::-1]).fit(1000 * X, y)
    np.testing.assert_allclose(warm.coef_, clone(model).fit(1000 * X, y).coef_, atol=1e-10)
