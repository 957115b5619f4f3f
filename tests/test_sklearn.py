"""The estimators among scikit-learn's tools."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone, is_regressor
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from bayesglm import GLM, ClassifierGLM, Design, PopulationGLM
from bayesglm.observation_models import NegativeBinomialObservations
from bayesglm.priors import GroupLasso

# Checks of scikit-learn that the estimators do not pass, with the reason.
EXPECTED = {
    "check_dtype_object": "an element that is no number is a ValueError here, as all bad input; the check asks for a "
    "TypeError. Its first half, an array of Python's numbers, is tested below",
}


COUNTS = {"check_regressor_multioutput": "it draws negative y, although the tags say that y must not be"}


SEPARABLE = {
    f"check_sample_weight_equivalence_on_{kind}_data": "its classes can be told apart: without a penalty there is no "
    "finite optimum to compare"
    for kind in ("dense", "sparse")
}


def expected(estimator):
    """Checks that an estimator does not pass."""
    of_counts = isinstance(estimator, PopulationGLM) and estimator.observation_model == "Poisson"
    without_optimum = isinstance(estimator, ClassifierGLM) and estimator.regularizer is None
    return EXPECTED | (COUNTS if of_counts else {}) | (SEPARABLE if without_optimum else {})


# The checks' data are often collinear, of which an unpenalized fit warns.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([GLM()], expected_failed_checks=expected)
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
# As many features as samples leave no dispersion, of which a fit warns, too.
@pytest.mark.filterwarnings("ignore:scale_ is NaN:UserWarning")
@parametrize_with_checks(
    [
        GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.01),
        GLM("Gamma", "exp"),
        PopulationGLM(),
        PopulationGLM("Gaussian", regularizer="Lasso", regularizer_strength=0.001),
        ClassifierGLM(),
        ClassifierGLM("Ridge", 0.01),
    ],
    expected_failed_checks=expected,
)
def test_more_estimator_checks(estimator, check):
    check(estimator)


def test_arrays_of_objects_are_read_if_all_are_numbers(rng):
    X, y = rng.normal(size=(50, 2)), rng.poisson(1.0, size=50)
    fit = GLM().fit(X, y)
    np.testing.assert_array_equal(GLM().fit(X.astype(object), y.astype(object)).coef_, fit.coef_)
    words = X.astype(object)
    words[3, 1] = "0.5"
    with pytest.raises(ValueError, match=r"X must hold real numbers; got ndarray of dtype object"):
        GLM().fit(words, y)


def test_a_grid_is_that_of_an_exhaustive_loop_and_compiles_in_the_first_fold(seed, compilations):
    X, y, strengths = np.hstack([*seed["X"].values()]), seed["y"], np.logspace(-4, 0, 10)
    model, folds = GLM(regularizer="Ridge"), KFold(5)
    cross_val_score(clone(model), X, y, cv=KFold(5).split(X))
    first = len(compilations)
    search = GridSearchCV(model, {"regularizer_strength": strengths}, cv=folds, refit=False).fit(X, y)
    assert len(compilations) == first
    scores = np.zeros((len(strengths), 5))
    for i, strength in enumerate(strengths):
        for j, (train, test) in enumerate(folds.split(X)):
            fit = GLM(regularizer="Ridge", regularizer_strength=strength).fit(X[train], y[train])
            scores[i, j] = fit.score(X[test], y[test])
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], scores.mean(1), rtol=1e-9)
    assert search.best_index_ == scores.mean(1).argmax()


def test_a_dict_is_split_as_a_design(seed, compilations):
    X, y = seed["X"], seed["y"]
    design = Design(X)
    assert design.shape == (500, 7)
    assert len(design) == 500
    grid = {"regularizer_strength": [{"f1": 0.1, "f2": 0.5}, 0.01, {"f1": [0.1] * len(X["f1"][0]), "f2": 1.0}]}
    model = GLM(regularizer="Ridge")
    search = GridSearchCV(model, grid, cv=KFold(5)).fit(design, y)
    assert set(search.best_estimator_.coef_) == {"f1", "f2"}
    first = len(compilations)
    again = GridSearchCV(model, grid, cv=KFold(5)).fit(design, y[::-1])
    assert len(compilations) == first
    assert again.predict(design).shape == again.predict(X).shape == (500,)
    matrix = GridSearchCV(model, {"regularizer_strength": [0.01]}, cv=KFold(5)).fit(np.hstack([*X.values()]), y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"][1], matrix.best_score_, rtol=1e-6)
    assert cross_val_score(model, design, y, cv=4).shape == (4,)
    train, test, y_train, y_test = train_test_split(design, y, random_state=0)
    assert GLM().fit(train, y_train).score(test, y_test) < 1
    np.testing.assert_array_equal(np.sort(np.concatenate([train.tree["f1"], test.tree["f1"]]), 0), np.sort(X["f1"], 0))


def test_a_design_of_frames_keeps_names_and_samples(rng):
    frame = pd.DataFrame(rng.normal(size=(60, 2)), columns=["dose", "age"], index=np.arange(60) + 100)
    design = Design([frame, rng.normal(size=(60, 1))])
    y = rng.poisson(1.0, size=60)
    part = design[np.arange(60) % 2 == 0]
    assert part.tree[0].index.tolist() == list(range(100, 160, 2))
    assert repr(part) == "Design([(30, 2), (30, 1)])"
    model = GLM(regularizer="Ridge")
    tree = model.sample(design[5:], y[5:], num_samples=50, num_chains=1, method="laplace", progress_bar=False)
    assert tree.posterior["coef.0"].coords["0_feature"].values.tolist() == ["dose", "age"]
    assert model.posterior_predictive(design).predictions["y"].shape == (1, 50, 60)


def test_a_design_tells_what_is_wrong(rng):
    with pytest.raises(ValueError, match=r"same number of rows; got the shapes \[\(5, 2\), \(4, 1\)\]"):
        Design({"a": np.ones((5, 2)), "b": np.ones((4, 1))})
    with pytest.raises(ValueError, match="must hold matrices"):
        Design({"a": np.ones(5)})
    design = Design({"a": np.ones((5, 2))})
    with pytest.raises(IndexError, match="by its rows alone"):
        design[:, 1]
    with pytest.raises(IndexError, match="several rows"):
        design[0]
    with pytest.raises(TypeError, match="no single rows"):
        list(design)
    with pytest.raises(TypeError, match="no array"):
        np.asarray(design)
    assert Design(design).tree is design.tree


def test_frames_that_a_pipeline_makes_give_their_names(rng):
    data = pd.DataFrame({"site": rng.choice(["a", "b", "c"], 200), "age": rng.normal(50, 10, 200)})
    y = rng.poisson(np.exp(0.3 * (data["site"] == "b")))
    columns = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["site"]), (StandardScaler(), ["age"]), verbose_feature_names_out=False
    ).set_output(transform="pandas")
    pipeline = make_pipeline(columns, GLM(regularizer="Ridge", regularizer_strength=0.1)).fit(data, y)
    model = pipeline[-1]
    assert model.feature_names_in_.tolist() == ["site_a", "site_b", "site_c", "age"]
    assert model.summary().index.tolist() == ["intercept", *(f"coef[{name}]" for name in model.feature_names_in_)]
    assert pipeline.predict(data).shape == (200,)
    shuffled = GridSearchCV(pipeline, {"glm__regularizer_strength": [0.1, 1.0]}, cv=3).fit(data, y)
    assert shuffled.best_params_
    model.fit(np.ones((200, 1)) * np.arange(200)[:, None], y)
    assert not hasattr(model, "feature_names_in_")


def test_weights_are_routed(rng):
    X, y, weight = rng.normal(size=(60, 2)), rng.poisson(1.0, size=60), rng.integers(1, 4, size=60)
    folds = KFold(3)
    with sklearn.config_context(enable_metadata_routing=True):
        model = GLM(regularizer="Ridge").set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        routed = cross_val_score(model, X, y, cv=folds, params={"sample_weight": weight})
    loop = [
        GLM(regularizer="Ridge")
        .fit(X[train], y[train], sample_weight=weight[train])
        .score(X[test], y[test], sample_weight=weight[test])
        for train, test in folds.split(X)
    ]
    np.testing.assert_allclose(routed, loop)


@pytest.mark.slow
def test_workers_fit_as_the_parent_does(rng):
    X, y = rng.normal(size=(60, 2)), rng.poisson(1.0, size=60)
    model = GLM(inverse_link_function="softplus", regularizer="Lasso", regularizer_strength=0.01)
    alone = cross_val_score(model, X, y, cv=2)
    np.testing.assert_allclose(cross_val_score(model, X, y, cv=2, n_jobs=2), alone)


def test_tags_say_what_the_models_are():
    assert is_regressor(GLM())
    assert GLM().__sklearn_tags__().target_tags.positive_only
    assert not GLM("Gaussian").__sklearn_tags__().target_tags.positive_only
    assert PopulationGLM().__sklearn_tags__().target_tags.multi_output
    assert not PopulationGLM().__sklearn_tags__().target_tags.single_output


def test_parameters_of_the_regularizer_and_the_observation_model_are_nested(rng):
    X, y = rng.normal(size=(60, 4)), rng.poisson(1.0, size=60)
    masks = [np.eye(4)[:2], np.repeat(np.eye(2), 2, axis=1)]
    model = GLM("NegativeBinomial", regularizer="GroupLasso", regularizer_strength=0.01)
    assert GLM(NegativeBinomialObservations(0.3)).get_params()["observation_model__scale"] == 0.3
    assert "observation_model__scale" not in model.get_params()  # which has names only
    grid = {"regularizer__mask": masks, "observation_model__scale": [0.5, 2.0]}
    search = GridSearchCV(model, grid, cv=3).fit(X, y)
    assert search.best_estimator_.get_params()["observation_model__scale"] in (0.5, 2.0)
    assert model.regularizer == "GroupLasso"
    own = GLM(regularizer=GroupLasso(mask=masks[0]))
    twin = clone(own).set_params(regularizer__mask=masks[1])
    assert own.regularizer.mask is masks[0]
    assert twin.regularizer.mask is masks[1]
    with pytest.raises(ValueError, match="regularizer__mask is no parameter of GLM with regularizer=UnRegularized"):
        GLM().set_params(regularizer__mask=masks[0])
    with pytest.raises(ValueError, match="observation_model__scale is no parameter of ClassifierGLM"):
        ClassifierGLM().set_params(observation_model__scale=1.0)


@pytest.mark.parametrize("score_type", [None, "log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"])
def test_outputs_have_scores_of_their_own(score_type, rng):
    X, y = rng.normal(size=(60, 4)), rng.poisson(1.0, size=(60, 2))
    model = PopulationGLM(regularizer="Ridge", regularizer_strength=0.1).fit(X, y)
    each = model.score(X, y, score_type=score_type, multioutput="raw_values")
    alone = [
        GLM(regularizer="Ridge", regularizer_strength=0.1).fit(X, one).score(X, one, score_type=score_type)
        for one in y.T
    ]
    np.testing.assert_allclose(each, alone)
    if score_type in (None, "log-likelihood"):
        assert model.score(X, y, score_type=score_type) == pytest.approx(each.mean())
    labels = ClassifierGLM("Ridge", 0.1).fit(X, np.minimum(y, 1))
    np.testing.assert_allclose(
        labels.score(X, np.minimum(y, 1), multioutput="raw_values"), (labels.predict(X) == np.minimum(y, 1)).mean(0)
    )
    with pytest.raises(
        ValueError, match="multioutput must be 'uniform_average' or 'raw_values'; got 'variance_weighted'"
    ):
        model.score(X, y, multioutput="variance_weighted")
