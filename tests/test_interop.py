"""Models of other packages give the same fit here."""

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.linear_model import (
    ElasticNet,
    ElasticNetCV,
    GammaRegressor,
    Lasso,
    LassoCV,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    PoissonRegressor,
    Ridge,
    RidgeCV,
    SGDClassifier,
)

from bayesglm import GLM, ClassifierGLM, PopulationGLM, from_nemos, from_sklearn, to_nemos
from bayesglm.observation_models import NegativeBinomialObservations

TIGHT = {"tol": 1e-12, "max_iter": 100_000}
REGRESSORS = [
    LinearRegression(),
    Ridge(3.0, tol=1e-12),
    Lasso(0.5, **TIGHT),
    ElasticNet(0.3, l1_ratio=0.4, **TIGHT),
    ElasticNet(0.3, l1_ratio=1.0, **TIGHT),
    PoissonRegressor(alpha=0.1, solver="newton-cholesky", tol=1e-10),
    GammaRegressor(alpha=0.1, solver="newton-cholesky", tol=1e-10),
    Ridge(3.0, tol=1e-12, fit_intercept=False),
    PoissonRegressor(alpha=0.1, solver="newton-cholesky", tol=1e-10, fit_intercept=False),
    LinearRegression(positive=True),
    Lasso(0.5, positive=True, **TIGHT),
    ElasticNet(0.3, l1_ratio=0.4, positive=True, fit_intercept=False, **TIGHT),
]
CLASSIFIERS = [
    LogisticRegression(C=0.1, tol=1e-10, max_iter=1000),
    LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000),
    LogisticRegression(C=0.1, tol=1e-10, max_iter=1000, solver="liblinear", fit_intercept=False),
    LogisticRegression(C=0.1, l1_ratio=1.0, solver="saga", tol=1e-9, max_iter=100_000),
    LogisticRegression(C=0.1, l1_ratio=0.3, solver="saga", tol=1e-9, max_iter=100_000),
]


@pytest.mark.parametrize("estimator", REGRESSORS, ids=repr)
def test_regressors_of_scikit_learn(estimator):
    X, y = load_diabetes(return_X_y=True)
    X, weight = 10 * X, np.random.default_rng(0).integers(1, 4, len(y)).astype(float)
    estimator.fit(X, y, sample_weight=weight)
    ours = from_sklearn(estimator, n_samples=weight.sum()).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(ours.coef_, estimator.coef_, atol=1e-6)
    np.testing.assert_allclose(ours.intercept_, estimator.intercept_, rtol=1e-7)


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=repr)
def test_classifiers_of_scikit_learn(estimator):
    X, y = load_breast_cancer(return_X_y=True)
    X = ((X - X.mean(0)) / X.std(0))[:, :6]
    estimator.fit(X, y)
    ours = from_sklearn(estimator, n_samples=len(y)).fit(X, y)
    np.testing.assert_allclose(ours.coef_, estimator.coef_[0], atol=1e-6)
    np.testing.assert_allclose(ours.predict(X), estimator.predict_proba(X)[:, 1], atol=1e-6)


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=repr)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_classifiers_of_scikit_learn_with_other_labels(estimator, n_classes):
    X, y = load_wine(return_X_y=True)
    X = ((X - X.mean(0)) / X.std(0))[:, :4]
    labels = np.array(["a", "b", "c"])[np.minimum(y, n_classes - 1)]
    if n_classes == 3 and estimator.solver == "liblinear":
        pytest.skip("fits each class against all others")
    estimator = clone(estimator).set_params(tol=1e-12).fit(X, labels)
    ours = from_sklearn(estimator, n_samples=len(y)).fit(X, labels)
    assert isinstance(ours, ClassifierGLM)
    np.testing.assert_allclose(ours.predict_proba(X), estimator.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    ("regularizer", "strength"), [("Ridge", 0.1), pytest.param("Lasso", 0.05, marks=pytest.mark.slow)]
)
def test_classifiers_of_nemos(regularizer, strength, several, nemos):
    rng = np.random.default_rng(4)
    X = {"a": rng.normal(size=(150, 2)), "b": rng.normal(size=(150, 1))}
    numbers = (X["a"] @ rng.normal(size=(2, 3)) + rng.gumbel(size=(150, 3))).argmax(1)
    labels = np.array(["x", "y", "z"])[np.stack([numbers, numbers[::-1]], 1) if several else numbers]
    kind = nemos.glm.ClassifierPopulationGLM if several else nemos.glm.ClassifierGLM
    with jax.enable_x64(True):
        settings = {"regularizer": regularizer, "regularizer_strength": strength}
        theirs = kind(3, **settings, solver_kwargs={"tol": 1e-12, "maxiter": 20_000}).fit(X, labels)
        ours = from_nemos(theirs).fit(X, labels)
        for leaf in X:
            np.testing.assert_allclose(ours.coef_[leaf], theirs.coef_[leaf], atol=1e-6)
        back = to_nemos(ours)
        np.testing.assert_array_equal(back.predict(X), ours.predict(X))
        log_p = back.predict_proba(X, return_type="log-proba")
        np.testing.assert_allclose(np.exp(log_p), ours.predict_proba(X), rtol=1e-6)


def test_several_targets_of_scikit_learn():
    X, y = load_diabetes(return_X_y=True)
    y = np.column_stack([y, y**0.5])
    assert isinstance(from_sklearn(Ridge(np.array([2.0])), n_samples=5), GLM)
    estimator = Ridge([1.0, 0.1]).fit(X, y)
    ours = from_sklearn(estimator, n_samples=len(y)).fit(X, y)
    assert isinstance(ours, PopulationGLM)
    np.testing.assert_allclose(ours.coef_.T, estimator.coef_, rtol=1e-6)


@pytest.mark.parametrize(
    ("estimator", "n_samples", "message"),
    [
        (LogisticRegression(class_weight="balanced"), 10, "class_weight='balanced'"),
        (LogisticRegression(solver="liblinear"), 10, "liblinear', which penalizes the intercept"),
        (Ridge(), None, "n_samples must be given for Ridge"),
        (Ridge(), -1, "n_samples must be a positive number; got -1"),
        (SGDClassifier(), 10, "estimator must be one of .*; got sklearn's SGDClassifier"),
        ("Ridge", 10, "estimator must be one of .*; got 'Ridge'"),
    ],
)
def test_what_scikit_learn_has_alone_is_told(estimator, n_samples, message):
    with pytest.raises(ValueError, match=message):
        from_sklearn(estimator, n_samples)


@pytest.fixture
def nemos():
    """NeMoS in double precision."""
    import nemos

    with jax.enable_x64(True):
        yield nemos


def data(n_outputs=1):
    rng = np.random.default_rng(3)
    X = {"f1": rng.normal(size=(300, 3)), "f2": rng.normal(size=(300, 2))}
    y = rng.poisson(np.exp(X["f1"][:, [0]] * 0.4 - X["f2"][:, [1]] * 0.2) * np.ones(n_outputs))
    return X, y.astype(float) if n_outputs > 1 else y[:, 0].astype(float)


CASES = {
    "default": ("GLM", {}),
    "tree": ("GLM", {"regularizer": "Ridge", "regularizer_strength": {"f1": 0.1, "f2": np.array([0.3, 0.0])}}),
    "Gaussian": ("GLM", {"observation_model": "Gaussian", "regularizer": "Ridge", "regularizer_strength": 0.2}),
    "ratio": (
        "GLM",
        {"observation_model": "Gaussian", "regularizer": "ElasticNet", "regularizer_strength": (0.04, 0.6)},
    ),
    "softplus": ("GLM", {"inverse_link_function": jax.nn.softplus, "regularizer": "Ridge"}),
    "groups": ("PopulationGLM", {"regularizer": "GroupLasso", "regularizer_strength": 0.01}),
    "mask": ("PopulationGLM", {"feature_mask": {"f1": np.array([1, 0]), "f2": np.array([1, 1])}}),
}


# Accelerated gradients rarely get to a tolerance of 1e-11, but near enough.
@pytest.mark.filterwarnings("ignore:The fit did not converge:RuntimeWarning")
@pytest.mark.parametrize(
    "case", [case if case == "ratio" else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_models_of_nemos_there_and_back(case, nemos):
    kind, settings = CASES[case]
    X, y = data(2 if kind == "PopulationGLM" else 1)
    theirs = getattr(nemos.glm, kind)(**settings, solver_kwargs={"tol": 1e-11, "maxiter": 20_000})
    ours = from_nemos(theirs).fit(X, y)
    theirs.fit(X, y)
    for leaf in X:
        np.testing.assert_allclose(ours.coef_[leaf], theirs.coef_[leaf], atol=1e-6)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-6)
    back = to_nemos(ours)
    np.testing.assert_allclose(back.predict(X), ours.predict(X), rtol=1e-9)
    # Its own fit, at the default tolerance of NeMoS: a wrong strength or family would be farther off.
    np.testing.assert_allclose(back.fit(X, y).intercept_, ours.intercept_, atol=1e-2)
    np.testing.assert_allclose(from_nemos(back).fit(X, y).intercept_, ours.intercept_, rtol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"positive": True}, "model has coefficients that positive bounds"), ({"fit_intercept": False}, "intercept")],
)
def test_what_nemos_lacks_is_told(settings, message, nemos):
    with pytest.raises(ValueError, match=message):
        to_nemos(GLM(**settings))


def test_overdispersion_goes_there_and_back(nemos):
    X, y = data()
    ours = from_nemos(nemos.glm.GLM(nemos.observation_models.NegativeBinomialObservations(scale=0.3)))
    assert ours.observation_model == NegativeBinomialObservations(0.3)
    learned = GLM(NegativeBinomialObservations(None))
    with pytest.raises(ValueError, match="overdispersion of model is not known before fit"):
        to_nemos(learned)
    learned.fit(X, y)
    assert to_nemos(learned).observation_model.scale == pytest.approx(learned.scale_[0])
    rng = np.random.default_rng(0)
    several = np.column_stack([y, rng.poisson(y * rng.gamma(0.5, 2.0, len(y)))])
    several = PopulationGLM(NegativeBinomialObservations(None)).fit(X, several)
    with pytest.raises(ValueError, match="overdispersions of their own"):
        to_nemos(several)


def test_what_one_package_has_alone_is_told(nemos):
    with pytest.raises(ValueError, match="model must be one of NeMoS's .*; got bayesglm's GLM"):
        from_nemos(GLM())
    X, y = data()
    masked = ClassifierGLM(feature_mask={"f1": 1, "f2": [1, 0]}).fit(X, y > 0)
    with pytest.raises(ValueError, match="feature_mask; NeMoS's has none for classes of one response"):
        to_nemos(masked)
    with pytest.raises(ValueError, match="classes of model are not known before fit"):
        to_nemos(ClassifierGLM())
    with pytest.raises(ValueError, match="model must be a GLM, PopulationGLM or ClassifierGLM; got sklearn's Ridge"):
        to_nemos(Ridge())
    with pytest.raises(ValueError, match="regularizer_strength of model is not known before fit"):
        to_nemos(GLM(regularizer="Ridge", regularizer_strength={"f1": "learn", "f2": 0.1}))


@pytest.mark.slow
def test_masks_of_classes_go_there_and_back(nemos):
    X, y = data(2)
    X, labels = X["f1"], np.minimum(y, 2)
    mask = np.array([[[1.0, 1, 0], [1, 1, 1]], [[0, 0, 1], [1, 1, 1]], [[1, 1, 1], [1, 0, 0]]])
    theirs = nemos.glm.ClassifierPopulationGLM(
        3, regularizer="Ridge", regularizer_strength=0.1, feature_mask=mask, solver_kwargs={"tol": 1e-12}
    ).fit(X, labels)
    ours = from_nemos(theirs).fit(X, labels)
    np.testing.assert_allclose(ours.coef_, theirs.coef_ * mask, atol=1e-6)
    back = to_nemos(ours)
    np.testing.assert_allclose(np.exp(back.predict_proba(X, return_type="log-proba")), ours.predict_proba(X), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The fit did not converge:RuntimeWarning")
def test_groups_with_masks_go_there_and_back(nemos):
    X, y = data()
    X = np.hstack([X["f1"], X["f2"]])
    mask = np.array([[1.0, 1, 0, 0, 0], [0, 0, 1, 1, 0]])
    theirs = nemos.glm.GLM(
        regularizer=nemos.regularizer.GroupLasso(mask=mask),
        regularizer_strength=np.array([0.02, 0.05]),
        solver_kwargs={"tol": 1e-11, "maxiter": 20_000},
    )
    ours = from_nemos(theirs).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.fit(X, y).coef_, atol=1e-6)
    np.testing.assert_allclose(to_nemos(ours).predict(X), ours.predict(X), rtol=1e-9)
    np.testing.assert_allclose(from_nemos(theirs).fit(X, y).coef_, ours.coef_, rtol=1e-9)
    holes = np.vstack([X, np.full((2, 5), np.nan)]), np.append(y, [1.0, 2.0])
    np.testing.assert_allclose(from_nemos(theirs).fit(*holes).coef_, ours.coef_, rtol=1e-9)


@pytest.mark.parametrize(
    "estimator",
    [RidgeCV(), LassoCV(tol=1e-9), ElasticNetCV(l1_ratio=[0.2, 0.8], tol=1e-9),
     LogisticRegressionCV(l1_ratios=(0,), use_legacy_attributes=False, scoring="neg_log_loss", tol=1e-10),
     LogisticRegressionCV(Cs=3, l1_ratios=(1,), solver="saga", use_legacy_attributes=False, tol=1e-9,
                          scoring="neg_log_loss", max_iter=10_000)],
    ids=repr,
)  # fmt: skip
def test_choices_of_scikit_learn_are_read(estimator):
    with pytest.raises(ValueError, match="is not fitted; GLMCV chooses a strength here"):
        from_sklearn(estimator)
    rng = np.random.default_rng(2)
    X = rng.normal(size=(90, 4))
    y = X @ [1.0, 0.0, -1.0, 0.5] + rng.normal(size=90)
    y = (y > 0).astype(int) if isinstance(estimator, LogisticRegressionCV) else y
    estimator = clone(estimator).fit(X, y)
    ours = from_sklearn(estimator, n_samples=90).fit(X, y)
    np.testing.assert_allclose(ours.coef_, np.ravel(estimator.coef_), atol=1e-6)


def test_no_penalty_needs_no_number_of_samples():
    assert from_sklearn(LogisticRegression(C=np.inf)).regularizer is None


@pytest.mark.slow
def test_masks_of_features_are_written_as_nemos_takes_them(nemos):
    X, y = data(3)
    for mask in ({"f1": [1, 0, 1], "f2": [1, 1, 1]}, {"f1": 1, "f2": np.array([1, 0, 1])}):
        ours = PopulationGLM(regularizer="Ridge", regularizer_strength=0.02, feature_mask=mask).fit(X, y)
        np.testing.assert_allclose(to_nemos(ours).predict(X), ours.predict(X), rtol=1e-9)
    matrix = np.hstack([*X.values()])
    ours = PopulationGLM(feature_mask=np.ones((5, 3)).tolist()).fit(matrix, y)
    np.testing.assert_allclose(to_nemos(ours).predict(matrix), ours.predict(matrix), rtol=1e-9)
    with pytest.raises(ValueError, match="features of one leaf that differ"):
        to_nemos(PopulationGLM(feature_mask={"f1": np.eye(3), "f2": 1}).fit(X, y))
    for unfitted in (
        PopulationGLM(regularizer="Ridge", regularizer_strength={"f1": [[0.1, 0.2, 0.3]], "f2": 0.5}),
        GLM(regularizer="GroupLasso", regularizer_strength={"f1": 0.02, "f2": 0.05}),
    ):
        with pytest.raises(ValueError, match="unknown before fit"):
            to_nemos(unfitted)


def test_lists_of_features_go_to_nemos_with_one_strength(nemos):
    X, y = data()
    X = [*X.values()]
    ours = GLM(regularizer="ElasticNet", regularizer_strength=(0.1, 0.3)).fit(X, y)
    np.testing.assert_allclose(to_nemos(ours).predict(X), ours.predict(X), rtol=1e-9)
    with pytest.raises(ValueError, match="for a list of features; NeMoS takes a dict or one number"):
        to_nemos(GLM(regularizer="Lasso", regularizer_strength=[0.1, 0.2]).fit(X, y))
