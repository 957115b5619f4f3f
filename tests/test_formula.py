"""Models by formula, against the same designs made by hand."""

import pickle

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from sklearn.model_selection import GridSearchCV, cross_val_score

import bayesglm
from bayesglm import GLM, GLMCV, PopulationGLM, strength_path


@pytest.fixture
def data(rng):
    """Visits by plan and age."""
    frame = pd.DataFrame({"plan": rng.choice(["a", "b", "c"], 200), "age": rng.uniform(20, 60, 200)})
    frame["visits"] = rng.poisson(np.exp(0.3 * (frame["plan"] == "b") + 0.01 * frame["age"]))
    return frame


def test_terms_are_leaves(data):
    strengths = {"plan": [0.1, 0.2, 0.3], "np.log(age)": 0.01}
    model = GLM.from_formula(
        "visits ~ 0 + plan + np.log(age)", data, regularizer="Ridge", regularizer_strength=strengths
    )
    X = {"plan": pd.get_dummies(data["plan"]).astype(float), "np.log(age)": np.log(data[["age"]].to_numpy())}
    by_hand = GLM(regularizer="Ridge", regularizer_strength=strengths).fit(X, data["visits"])
    for leaf in X:
        np.testing.assert_allclose(model.coef_[leaf], by_hand.coef_[leaf], rtol=1e-8)
    assert model.summary().index.tolist() == [
        "intercept", "coef.np.log(age)[np.log(age)]", "coef.plan[a]", "coef.plan[b]", "coef.plan[c]",
    ]  # fmt: skip
    assert model.score(data) == pytest.approx(by_hand.score(X, data["visits"]))


def test_unpenalized_it_is_the_model_of_statsmodels(data):
    formula = "visits ~ plan * age"
    theirs = smf.glm(formula, data, family=sm.families.Poisson()).fit(tol=1e-12)
    ours = GLM.from_formula(formula, data)
    assert list(ours.coef_) == ["age", "plan", "plan:age"]
    np.testing.assert_allclose(ours.intercept_[0], theirs.params["Intercept"], rtol=1e-6)
    np.testing.assert_allclose(ours.coef_["plan"], theirs.params[["plan[T.b]", "plan[T.c]"]], rtol=1e-5)
    np.testing.assert_allclose(ours.coef_["plan:age"], theirs.params[["plan[T.b]:age", "plan[T.c]:age"]], rtol=1e-5)
    assert ours.summary().loc["coef.plan:age[plan[T.b]:age]", "se"] == pytest.approx(theirs.bse["plan[T.b]:age"])


def test_new_data_are_coded_as_those_of_the_fit(data):
    model = GLM.from_formula("visits ~ 0 + plan + poly(age, 2)", data, regularizer="Ridge", regularizer_strength=0.1)
    part = data[data["plan"] == "c"].iloc[:3].drop(columns="visits")
    np.testing.assert_allclose(model.predict(part), model.predict(data)[part.index])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(part), model.predict(part))
    tree = model.sample(data, method="laplace", num_samples=50, num_chains=1, progress_bar=False)
    assert tree.posterior["coef.plan"].coords["plan_feature"].values.tolist() == ["a", "b", "c"]
    assert model.posterior_predictive(part).predictions["y"].shape == (1, 50, 3)
    assert "sd_of_effect" in model.prior_summary(data)


def test_tools_of_scikit_learn_need_no_y(data):
    model = GLM(formula="visits ~ plan + age", regularizer="Ridge")
    assert cross_val_score(model, data, cv=3).shape == (3,)
    search = GridSearchCV(model, {"regularizer_strength": [0.1, {"plan": 0.1, "age": 0.0}]}, cv=3).fit(data)
    assert set(search.best_estimator_.coef_) == {"plan", "age"}


def test_several_outputs(data):
    data["calls"] = data["visits"][::-1].to_numpy()
    model = PopulationGLM.from_formula("visits + calls ~ age", data)
    assert model.coef_["age"].shape == (1, 2)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("~ age", "formula must have two sides"),
        ("visits ~ 1", "must have a term besides the intercept"),
        ("visits ~ (age", "cannot be read"),
        ("visits ~ weight", "formula and data do not fit: .*weight"),
        ("visits ~ missing", "formula and data do not fit: .*null"),
        (3, "formula 3 cannot be read"),
    ],
)
def test_bad_formulas_are_told(formula, message, data):
    data["missing"] = np.where(np.arange(200) == 5, np.nan, 1.0)
    with pytest.raises(ValueError, match=message):
        GLM.from_formula(formula, data)


def test_what_goes_wrong_later_is_told(data, tmp_path):
    model = GLM.from_formula("visits ~ age", data)
    with pytest.raises(ValueError, match="formula and data do not fit"):
        model.predict(data[["plan"]])
    with pytest.raises(ValueError, match="A model with a formula cannot be saved"):
        bayesglm.save(model, tmp_path / "model")


def test_a_y_beside_a_formula_is_refused(data):
    model = GLM(formula="visits ~ age", regularizer="Ridge")
    y = data["age"]
    options = {"method": "laplace", "num_samples": 10, "progress_bar": False}
    calls = [
        lambda: model.fit(data, y),
        lambda: model.sample(data, y, **options),
        lambda: model.fit(data).score(data, y),
        lambda: strength_path(model, data, y, [0.1]),
        lambda: GLMCV(model, 3, progress_bar=False).fit(data, y),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="y must be None, or what the formula has on its left side"):
            call()
    assert GLMCV(model, 3, progress_bar=False).fit(data, None).best_estimator_.score(data) <= 1
    # The formula's own y is what scikit-learn's scorers need.
    scores = cross_val_score(model, data, data["visits"], scoring="neg_mean_poisson_deviance", cv=3)
    assert np.isfinite(scores).all()
    labels = bayesglm.ClassifierGLM(formula="plan ~ age", regularizer="Ridge")
    assert cross_val_score(labels, data, data["plan"], scoring="neg_log_loss", cv=3).shape == (3,)


def test_what_a_formula_cannot_say_is_told(data):
    with pytest.warns(UserWarning, match="leaves the intercept out, but the model has one: say fit_intercept=False"):
        GLM.from_formula("visits ~ age - 1", data, regularizer="Ridge")
    GLM.from_formula("visits ~ age - 1", data, regularizer="Ridge", fit_intercept=False)
    GLM.from_formula("visits ~ age + plan - 1", data, regularizer="Ridge")
    for formula, message in [
        ("visits ~ age | plan", "two sides, as in 'y ~ a \\+ b', and no '|'"),
        ("visits ~ .", "name them"),
        ("visits ~ age + offset(np.log(age))", "hand it over as offset="),
    ]:
        with pytest.raises(ValueError, match=message):
            GLM.from_formula(formula, data)


def test_levels_that_the_fit_did_not_have_are_refused(rng):
    data = pd.DataFrame({"y": rng.poisson(2.0, 60), "g": rng.choice(list("abc"), 60)})
    model = GLM.from_formula("y ~ g", data, regularizer="Ridge")
    with pytest.raises(ValueError, match="formula and data do not fit.*zz"):
        model.predict(pd.DataFrame({"g": ["a", "zz"]}))
