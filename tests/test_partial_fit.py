"""partial_fit: the fit to all samples of all calls, from batches that are not kept."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from bayesglm import GLM, ClassifierGLM, PopulationGLM, load, save
from bayesglm.observation_models import NegativeBinomialObservations
from bayesglm.priors import GroupLasso

N, P = 800, 5


@pytest.fixture
def X(rng):
    """Features of unlike scales, far from zero, and one that does not vary."""
    X = rng.normal(size=(N, P)) * [1, 10, 0.1, 1, 1] + [0, 5, 0, 1000, 0]
    X[:, 4] = 3.7
    return X


def means(X):
    return 0.3 * X[:, 0] - 0.03 * X[:, 1] + 0.2 * (X[:, 3] - 1000)


def stream(model, X, y, size=200, **others):
    """A twin of a model, fitted in batches; `others` are arrays to be split, too."""
    twin = type(model)(**model.get_params(deep=False))
    for first in range(0, len(y), size):
        rows = slice(first, first + size)
        twin.partial_fit(rows_of(X, rows), y[rows], **{name: array[rows] for name, array in others.items()})
    return twin


def rows_of(X, rows):
    return {name: leaf[rows] for name, leaf in X.items()} if isinstance(X, dict) else X[rows]


def coefs(model):
    return np.concatenate([*model.coef_.values()] if isinstance(model.coef_, dict) else [model.coef_])


def assert_same(one, other, rtol=1e-8):
    size = max(abs(coefs(other)).max(), 1e-3)
    np.testing.assert_allclose(coefs(one), coefs(other), atol=rtol * size)
    np.testing.assert_array_equal(coefs(one) == 0, coefs(other) == 0)
    np.testing.assert_allclose(one.intercept_, other.intercept_, rtol=1e-6, atol=1e-8)
    for name in ("scale_", "dof_resid_"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-6, err_msg=name)
    # What is beside the largest on the diagonal is rounding.
    size = np.nanmax(other.covariance_)
    np.testing.assert_allclose(one.covariance_, other.covariance_, rtol=1e-6, atol=1e-12 * size)
    assert one.converged_


@pytest.mark.parametrize(
    "settings",
    [
        {"regularizer": "Ridge", "regularizer_strength": 0.1},
        {"regularizer": "Lasso", "regularizer_strength": 0.1},
        {"regularizer": "ElasticNet", "regularizer_strength": (0.1, 0.5), "fit_intercept": False},
        pytest.param({"regularizer": "GroupLasso", "regularizer_strength": 0.1}, marks=pytest.mark.slow),
        {"regularizer": "Ridge", "regularizer_strength": 0.1, "positive": True},
    ],
    ids=["Ridge", "Lasso", "ElasticNet", "GroupLasso", "positive"],
)
def test_gaussian_observations_lose_nothing(settings, X, rng):
    y, weight, offset = means(X) + rng.normal(size=N), rng.integers(0, 3, N) * 1.0, rng.normal(size=N)
    y = y + offset
    given = {"sample_weight": weight, "offset": offset}
    whole = GLM("Gaussian", **settings).fit(X, y, **given)
    assert_same(stream(whole, X, y, **given), whole)


def test_observations_far_from_zero(X, rng):
    y = 1e6 + means(X) + rng.normal(size=N)
    whole = GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.1).fit(X, y)
    assert_same(stream(whole, X, y), whole)


@pytest.mark.filterwarnings("ignore:The fit is one of many", "ignore:scale_")
def test_batches_smaller_than_the_number_of_features(X, rng):
    X, y = X[:90, :4], (means(X) + rng.normal(size=N))[:90]
    whole = GLM("Gaussian").fit(X, y)
    assert_same(stream(whole, X, y, size=3), whole, rtol=1e-6)


@pytest.mark.slow
def test_groups_that_span_outputs_masks_and_leaves(X, rng):
    Y = means(X)[:, None] * [1.0, 2.0, 0.0] + rng.normal(size=(N, 3))
    groups = np.zeros((2, P, 3))
    groups[0, :2] = groups[1, 2:] = 1
    spanning = PopulationGLM("Gaussian", regularizer=GroupLasso(mask=groups), regularizer_strength=0.05).fit(X, Y)
    assert_same(stream(spanning, X, Y), spanning)
    leaves, mask = {"a": X[:, :2], "b": X[:, 2:]}, rng.random((P, 3)) < 0.7
    strength = {"a": 0.1, "b": 0.02}
    masked = PopulationGLM("Gaussian", regularizer="Lasso", regularizer_strength=strength)
    masked.set_params(feature_mask={"a": mask[:2], "b": mask[2:]}).fit(leaves, Y)
    assert_same(stream(masked, leaves, Y), masked)


@pytest.mark.parametrize(
    ("family", "regularizer"),
    [("Poisson", "Ridge"), ("Bernoulli", "Lasso"), ("Gamma", "Ridge"), (NegativeBinomialObservations(2.0), "Lasso")],
    ids=["Poisson", "Bernoulli", "Gamma", "NegativeBinomial"],
)
def test_other_families_are_close(family, regularizer, X, rng):
    y = {
        "Poisson": lambda: rng.poisson(np.exp(means(X))),
        "Bernoulli": lambda: rng.random(N) < 1 / (1 + np.exp(-means(X))),
        "Gamma": lambda: rng.gamma(2.0, np.exp(means(X))),
    }.get(family, lambda: rng.poisson(np.exp(means(X)) * rng.gamma(0.5, 2.0, N)))()
    link = "exp" if family == "Gamma" else None
    whole = GLM(family, link, regularizer=regularizer, regularizer_strength=0.01).fit(X, y)
    parts = stream(whole, X, y, size=400)
    error = np.append(whole.standard_errors_[:4], np.sqrt(whole.covariance_[0, 0]))
    apart = np.append(parts.coef_ - whole.coef_, parts.intercept_ - whole.intercept_)[[0, 1, 2, 3, -1]]
    assert (abs(apart) <= 0.1 * np.nan_to_num(error)).all()
    np.testing.assert_allclose(parts.standard_errors_, whole.standard_errors_, rtol=0.05)
    np.testing.assert_allclose(parts.scale_, whole.scale_, rtol=0.02)


@pytest.mark.parametrize(
    ("regularizer", "strength"),
    [("Ridge", 0.01), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (("GroupLasso", 0.01), (None, None)))],
)
def test_classes(regularizer, strength, X, rng):
    X = X[:, :4]
    y = np.array(["u", "v", "w"])[(means(X)[:, None] * [0, 1, -1] + rng.gumbel(size=(N, 3))).argmax(1)]
    whole = ClassifierGLM(regularizer, strength).fit(X, y)
    parts = ClassifierGLM(regularizer, strength)
    for first in range(0, N, 200):
        parts.partial_fit(X[first : first + 200], y[first : first + 200], classes=["w", "u", "v"])
    assert abs(parts.predict_proba(X) - whole.predict_proba(X)).max() < 0.02
    np.testing.assert_allclose(parts.standard_errors_, whole.standard_errors_, rtol=0.1)
    np.testing.assert_array_equal(parts.classes_, whole.classes_)


def test_samples_without_a_finite_fit_are_kept(X):
    X, y = X[:, :2], (np.arange(N) % 3 == 0) * 1.0
    first, rest = slice(0, 40), slice(40, N)
    parts = GLM("Bernoulli")
    with pytest.warns(ConvergenceWarning, match="no finite optimum"):
        parts.partial_fit(X[first], 0 * y[first])
    parts.partial_fit(X[rest], y[rest])
    whole = GLM("Bernoulli").fit(X, np.append(0 * y[first], y[rest]))
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-8)


def test_after_fit_it_goes_on_with_its_samples(X, rng):
    y = rng.poisson(np.exp(means(X)))
    parts = GLM(regularizer="Ridge", regularizer_strength=0.1).fit(X[:500], y[:500])
    assert parts.covariance_.shape == (6, 6)
    parts.partial_fit(X[500:], y[500:])
    whole = GLM(regularizer="Ridge", regularizer_strength=0.1).fit(X, y)
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-8)
    np.testing.assert_allclose(parts.fit(X[:300], y[:300]).dof_resid_, 300, atol=6)


def test_a_strength_may_change_and_float32_and_missing_rows(X, rng):
    y = (means(X) + rng.normal(size=N)).astype(np.float32)
    X = X.astype(np.float32)
    X[[3, 500], 0] = np.nan
    parts = GLM("Gaussian", regularizer="Ridge", regularizer_strength=3.0, nan_policy="drop")
    parts.partial_fit(X[:400], y[:400])
    parts.set_params(regularizer="Lasso", regularizer_strength=0.1).partial_fit(X[400:], y[400:])
    whole = GLM(**parts.get_params(deep=False)).fit(X.astype(float), y)
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-8)
    assert parts.n_samples_dropped_ == whole.n_samples_dropped_ == 2


def test_formulas(X, rng):
    frame = pd.DataFrame({"x": X[:, 0], "group": rng.choice(list("abc"), N)})
    frame["y"] = frame["x"] + rng.normal(size=N)
    whole = GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.1, formula="y ~ 0 + x + group").fit(frame)
    parts = GLM(**whole.get_params(deep=False))
    for first in range(0, N, 400):
        parts.partial_fit(frame[first : first + 400])
    assert_same(parts, whole)


def test_names_are_those_of_the_first_call(X, rng):
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = (
        GLM("Gaussian", regularizer="Ridge").partial_fit(frame, X[:, 0]).partial_fit(X, X[:, 0] + rng.normal(size=N))
    )
    assert list(model.summary().index[1:]) == [f"coef[{name}]" for name in "abcde"]
    with pytest.raises(ValueError, match="the model was fitted with"):
        model.partial_fit(frame[list("edcba")], X[:, 0])


def test_files_and_pickles_go_on(X, rng, tmp_path):
    y = rng.poisson(np.exp(means(X)))
    model = GLM(regularizer="Ridge", regularizer_strength=0.1).partial_fit(X[:400], y[:400])
    save(model, tmp_path / "model.bayesglm")
    twins = load(tmp_path / "model.bayesglm"), pickle.loads(pickle.dumps(model))
    model.partial_fit(X[400:], y[400:])
    for twin in twins:
        np.testing.assert_array_equal(twin.partial_fit(X[400:], y[400:]).coef_, model.coef_)
        np.testing.assert_array_equal(twin.covariance_, model.covariance_)
    fitted = pickle.loads(pickle.dumps(GLM().fit(X[:, :2], y)))
    with pytest.raises(NotFittedError, match="goes on from the samples of the last fit"):
        fitted.partial_fit(X[:, :2], y)


def test_batches_of_one_size_compile_once(X, rng, compilations):
    y = rng.poisson(np.exp(means(X)))
    model = GLM(regularizer="Lasso", regularizer_strength=0.1)
    for first in range(0, 400, 200):
        model.partial_fit(X[first : first + 200], y[first : first + 200])
    before = len(compilations)
    model.set_params(regularizer_strength=0.2)
    for first in range(400, 800, 200):
        model.partial_fit(X[first : first + 200], y[first : first + 200])
    assert len(compilations) == before


def test_errors_leave_the_model_as_it_was(X, rng):
    y = rng.poisson(np.exp(means(X)))
    model = PopulationGLM(regularizer="Ridge").partial_fit(X, np.stack([y, y], 1))
    coef, memory = model.coef_, model.memory_
    for bad, message in [
        ((X[:, :3], np.stack([y, y], 1)), "X has 3 features, but GLM is expecting 5"),
        ((X, np.stack([y, y, y], 1)), "y must have 2 outputs, as in the calls before; got 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.partial_fit(*bad)
    with pytest.raises(ValueError, match="must be those of the fit before"):
        model.set_params(inverse_link_function="softplus").partial_fit(X, np.stack([y, y], 1))
    assert model.coef_ is coef
    assert model.memory_ is memory
    with pytest.raises(ValueError, match='information must be "observed" after partial_fit'):
        model.summary(information="expected")
    with pytest.raises(NotFittedError, match="which partial_fit does not keep"):
        model.criteria_  # noqa: B018


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (GLM(regularizer="Ridge", regularizer_strength="evidence"), "must be numbers for partial_fit; got 'evidence'"),
        (GLM(NegativeBinomialObservations(None)), "must have a known overdispersion for partial_fit"),
        (ClassifierGLM(), "classes must hold all labels that may come"),
    ],
)
def test_what_needs_all_samples_at_once(model, message):
    with pytest.raises(ValueError, match=message):
        model.partial_fit(np.eye(4), [0, 1, 0, 2])


def test_classes_are_read():
    for classes in (["a"], ["a", "a", "b"], [["a", "b"]], [1.0, np.nan]):
        with pytest.raises(ValueError, match="classes must"):
            ClassifierGLM().partial_fit(np.eye(2), ["a", "b"], classes)
    model = ClassifierGLM(regularizer="Ridge").partial_fit(np.eye(2), ["a", "b"], ["b", "a"])
    with pytest.raises(ValueError, match=r"classes must be those of the calls before, \['a', 'b'\]"):
        model.partial_fit(np.eye(2), ["a", "b"], ["a", "c"])
    with pytest.raises(ValueError, match="labels that the fit does not know"):
        model.partial_fit(np.eye(2), ["a", "c"])


@pytest.mark.parametrize("regularizer", ["Ridge", "Lasso"])
def test_masks_and_bounds_may_change(regularizer, rng):
    X = rng.normal(size=(120, 2))
    y = np.stack([X @ [1.0, -1.0], X @ [0.5, 2.0]], 1) + rng.normal(size=(120, 2))
    settings = {"observation_model": "Gaussian", "regularizer": regularizer, "regularizer_strength": 0.1}
    for model, new, target in (
        (PopulationGLM(**settings), {"feature_mask": [[1, 0], [1, 1]]}, y),
        (GLM(**settings), {"positive": True}, y[:, 0]),
    ):
        model.partial_fit(X[:60], target[:60]).set_params(**new).partial_fit(X[60:], target[60:])
        whole = type(model)(**settings, **new).fit(X, target)
        np.testing.assert_allclose(model.coef_, whole.coef_, atol=1e-8)
        assert model.converged_
