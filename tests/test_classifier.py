"""Classes: against scikit-learn, statsmodels, refits and the NumPyro model."""

import jax
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from numpyro.infer.util import log_density
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from statsmodels.tools.numdiff import approx_hess

from bayesglm import GLM, GLMCV, ClassifierGLM, approximate_loo, load, save, strength_grid, strength_path
from bayesglm.priors import GroupLasso

WINE, NUMBERS = load_wine(return_X_y=True)
WINE = (WINE - WINE.mean(0)) / WINE.std(0)
LABELS = np.array(["barolo", "grignolino", "barbera"])[NUMBERS]
FEW = WINE[:, :4]
LEAVES = {"acids": WINE[:, :2], "ash": WINE[:, 2:4]}
STRENGTHS = {"UnRegularized": None, "Ridge": 0.02, "Lasso": 0.02, "ElasticNet": (0.03, 0.4), "GroupLasso": 0.02}


def objective(coef, intercept, penalty):
    """Mean cross-entropy plus penalty, written anew."""
    log_p = np.log(np.exp(WINE @ coef + intercept))
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    own = np.searchsorted(np.unique(LABELS), LABELS)
    return -log_p[np.arange(len(own)), own].mean() + penalty(coef)


@pytest.mark.parametrize("strength", [0.1, 0.001])
@pytest.mark.parametrize(("regularizer", "l1_ratio"), [("Ridge", 0.0), ("Lasso", 1.0)])
def test_fits_are_those_of_scikit_learn(regularizer, l1_ratio, strength):
    ours = ClassifierGLM(regularizer=regularizer, regularizer_strength=strength).fit(WINE, LABELS)
    solver = {"solver": "saga", "max_iter": 50_000} if l1_ratio else {"max_iter": 5_000}
    theirs = LogisticRegression(C=1 / (len(WINE) * strength), l1_ratio=l1_ratio, tol=1e-11, **solver)
    theirs.fit(WINE, LABELS)
    assert ours.converged_
    # scikit-learn's solvers stop earlier.
    np.testing.assert_allclose(ours.coef_.T, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.predict_proba(WINE), theirs.predict_proba(WINE), atol=1e-6)
    np.testing.assert_array_equal(ours.predict(WINE), theirs.predict(WINE))
    np.testing.assert_allclose(ours.intercept_.sum(), 0, atol=1e-12)
    penalty = (lambda w: strength * abs(w).sum()) if l1_ratio else (lambda w: strength * (w**2).sum() / 2)
    assert (
        objective(ours.coef_, ours.intercept_, penalty) <= objective(theirs.coef_.T, theirs.intercept_, penalty) + 1e-12
    )


@pytest.mark.parametrize("regularizer", STRENGTHS)
def test_the_objective_is_minus_the_log_density_of_the_numpyro_model(regularizer):
    """And the gradient of both vanishes at the mode; weights and offsets count."""
    rng = np.random.default_rng(2)
    weight, offset = rng.integers(0, 3, len(FEW)), 0.3 * rng.normal(size=(len(FEW), 3))
    model = ClassifierGLM(regularizer=regularizer, regularizer_strength=STRENGTHS[regularizer])
    model.fit(LEAVES, LABELS, sample_weight=weight, offset=offset)
    X, n, own = np.hstack([*LEAVES.values()]), weight.sum(), np.searchsorted(model.classes_, LABELS)
    free = model.spec_.form.prior.is_flat(model.spec_.strength).all()
    coef, intercept = np.concatenate([*model.coef_.values()]), model.intercept_

    def density(coef, intercept):
        """Of what the model's sites are: classes less the last one, where only their differences mean something."""
        apart = (intercept - intercept[-1])[None, :-1]
        sites = {"intercept_free": apart} | (
            {"coef_free": (coef - coef[:, -1:])[:, :-1].ravel()} if free else {"coef": coef}
        )
        data = (LEAVES, LABELS), {"sample_weight": weight, "offset": offset}
        return log_density(model.numpyro_model, *data, sites)[0]

    def objective(coef, intercept):
        log_p = jax.nn.log_softmax(X @ coef + intercept + offset)
        loss = -(weight * log_p[np.arange(len(X)), own]).sum() / n
        return loss + model.spec_.form.prior.penalty(coef, model.spec_.strength)

    with jax.enable_x64(True):
        apart = coef + 0.1 * rng.normal(size=coef.shape), intercept + 0.1 * rng.normal(size=3)
        gain = density(coef, intercept) - density(*apart)
        np.testing.assert_allclose(gain, n * (objective(*apart) - objective(coef, intercept)), rtol=1e-6)
        slopes = jax.grad(density, (0, 1))(*apart)
        for slope, other in zip(slopes, jax.grad(objective, (0, 1))(*apart), strict=True):
            np.testing.assert_allclose(slope, -n * other, rtol=1e-6, atol=1e-8)
        at_mode = jax.grad(objective, (0, 1))(coef, intercept)
    np.testing.assert_allclose(at_mode[1], 0, atol=1e-9)
    np.testing.assert_allclose(at_mode[0][coef != 0], 0, atol=1e-9)


def test_without_a_regularizer_it_is_the_multinomial_logit_of_statsmodels():
    ours = ClassifierGLM().fit(FEW, LABELS)
    theirs = sm.MNLogit(LABELS, sm.add_constant(FEW)).fit(disp=0, method="newton", tol=1e-12)
    differences = np.vstack([ours.intercept_, ours.coef_])
    np.testing.assert_allclose(differences[:, 1:] - differences[:, :1], theirs.params, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(differences.sum(1), 0, atol=1e-12)
    criteria = ours.criteria_
    np.testing.assert_allclose(criteria["log_likelihood"], theirs.llf, rtol=1e-9)
    np.testing.assert_allclose([criteria["aic"], criteria["bic"]], [theirs.aic, theirs.bic], rtol=1e-9)
    np.testing.assert_allclose(criteria["edf"], 10)
    np.testing.assert_allclose(ours.score(FEW, LABELS, score_type="pseudo-r2-McFadden"), theirs.prsquared, rtol=1e-9)
    # The covariance of the differences follows from that of what sums to zero.
    turn = np.array([[-1.0, 1, 0], [-1, 0, 1]])
    covariance = np.einsum("ak,kwlv,bl->awbv", turn, ours.covariance_, turn).reshape(10, 10)
    np.testing.assert_allclose(covariance, theirs.cov_params(), rtol=1e-5, atol=1e-8)


def test_standard_errors_are_those_of_the_pseudo_inverse():
    strength = {"acids": 0.05, "ash": 0.0}
    model = ClassifierGLM(regularizer="Ridge", regularizer_strength=strength).fit(LEAVES, LABELS)
    X, n = np.hstack([*LEAVES.values()]), len(LABELS)
    own = np.searchsorted(model.classes_, LABELS)
    penalized = np.repeat([0.0, 0.05, 0.05, 0.0, 0.0], 3)

    def loss(flat):
        b = flat.reshape(5, 3)
        eta = b[0] + X @ b[1:]
        return np.sum(np.log(np.exp(eta).sum(1)) - eta[np.arange(n), own]) + n / 2 * penalized @ flat**2

    at = np.vstack([model.intercept_, *model.coef_.values()]).ravel()
    covariance = np.linalg.pinv(approx_hess(at, loss), rcond=1e-6)
    errors = np.sqrt(np.diag(covariance)).reshape(5, 3)
    np.testing.assert_allclose(model.standard_errors_["acids"], errors[1:3], rtol=1e-3)
    np.testing.assert_allclose(model.standard_errors_["ash"], errors[3:], rtol=1e-3)
    table = model.summary()
    np.testing.assert_allclose(table.loc["intercept[barbera]", "se"], errors[0, 0], rtol=1e-3)
    assert "coef.ash[grignolino, 1]" in table.index


@pytest.mark.parametrize(
    ("X", "regularizer", "strength"),
    [
        (FEW, "Ridge", 0.02),
        (FEW, "UnRegularized", None),
        pytest.param(FEW, "Lasso", 0.02, marks=pytest.mark.slow),
        pytest.param(LEAVES, "GroupLasso", 0.02, marks=pytest.mark.slow),
    ],
)
def test_leave_one_out_is_that_of_refits(X, regularizer, strength):
    model = ClassifierGLM(regularizer=regularizer, regularizer_strength=strength)
    found, n = approximate_loo(model, X, LABELS), len(LABELS)
    whole = clone(model).fit(X, LABELS).predict_proba(X)
    exact, some = [], range(0, n, 12)
    refit = clone(model).set_params(regularizer_strength=None if strength is None else strength * n / (n - 1))
    for i in some:
        weight = np.ones(n)
        weight[i] = 0
        exact.append(refit.fit(X, LABELS, sample_weight=weight).predict_proba(X)[i])
    exact = np.array(exact)
    gap = abs(exact - whole[some]).max()
    np.testing.assert_allclose(found.mean[some], exact, atol=0.05 * gap)


def test_posterior_has_classes_and_what_is_flat_sums_to_zero():
    model = ClassifierGLM(regularizer="Ridge", regularizer_strength={"acids": 0.02, "ash": 0.0})
    tree = model.sample(LEAVES, LABELS, num_samples=300, num_chains=2, progress_bar=False)
    posterior = tree.posterior
    assert posterior["coef.acids"].dims == ("chain", "draw", "class", "acids_feature")
    assert posterior["intercept"].coords["class"].values.tolist() == ["barbera", "barolo", "grignolino"]
    np.testing.assert_allclose(posterior["coef.ash"].sum("class"), 0, atol=1e-5)
    np.testing.assert_allclose(posterior["intercept"].sum("class"), 0, atol=1e-5)
    assert abs(posterior["coef.acids"].sum("class")).max() > 0.1
    assert tree.log_likelihood["y"].dims == tree.observed_data["y"].expand_dims(["chain", "draw"]).dims
    new = model.posterior_predictive(LEAVES, num_samples=50)
    assert new.predictions["mean"].dims == ("chain", "draw", "obs", "class")
    np.testing.assert_allclose(new.predictions["mean"].sum("class"), 1, rtol=1e-5)
    assert set(np.unique(new.predictions["y"])) == {0, 1, 2}
    table = model.prior_summary()
    assert table.loc["coef.ash", "prior"] == "flat"


@pytest.mark.slow
@pytest.mark.parametrize(("regularizer", "strength"), [("Ridge", 0.02), ("Lasso", 0.02), ("UnRegularized", None)])
def test_samplers_agree_with_numpyro(regularizer, strength):
    from numpyro.infer import MCMC, NUTS

    settings = {"regularizer": regularizer, "regularizer_strength": strength}
    draws = {
        method: ClassifierGLM(**settings).sample(
            FEW, LABELS, method=method, num_samples=4000, progress_bar=False, log_likelihood=False
        )
        for method in ("hmc", "nuts")
    }
    with jax.enable_x64(True):
        own = MCMC(
            NUTS(ClassifierGLM(**settings).fit(FEW, LABELS).numpyro_model),
            num_warmup=500, num_samples=4000, num_chains=4, chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
        own.run(jax.random.key(0), FEW, LABELS)
        peer = np.asarray(own.get_samples()["coef"])
    for tree in draws.values():
        ours = tree.posterior["coef"].values.swapaxes(-2, -1).reshape(-1, 4, 3)
        sd = peer.std(0)
        assert (abs(ours.mean(0) - peer.mean(0)) / sd).max() < 0.06
        assert (abs(ours.std(0) / sd - 1)).max() < 0.05


@pytest.mark.slow
def test_laplace_draws_are_close_and_intercepts_may_have_a_prior():
    import numpyro.distributions as dist

    model = ClassifierGLM(regularizer="Ridge", regularizer_strength=0.05, intercept_prior=dist.Normal(0, 2.0))
    exact = model.sample(FEW, LABELS, num_samples=4000, progress_bar=False, log_likelihood=False).posterior
    quick = model.sample(FEW, LABELS, method="laplace", num_samples=4000, progress_bar=False).posterior
    for name in ("coef", "intercept"):
        sd = exact[name].std(("chain", "draw"))
        assert (abs(exact[name].mean(("chain", "draw")) - quick[name].mean(("chain", "draw"))) / sd).max() < 0.08
    # Their sum has the prior's spread, since the data do not know it.
    assert abs(float(exact["intercept"].sum("class").std()) / (2 * np.sqrt(3)) - 1) < 0.06


def test_labels_of_any_kind(tmp_path):
    for labels in (NUMBERS == 1, NUMBERS - 5, NUMBERS.astype(float), np.array([7, "x", "y"], object)[NUMBERS]):
        model = ClassifierGLM(regularizer="Ridge", regularizer_strength=0.01).fit(WINE, labels)
        assert set(model.predict(WINE)) <= set(model.classes_.tolist())
        assert model.score(WINE, labels) > 0.95
        save(model, tmp_path / "model")
        again = load(tmp_path / "model")
        assert again.classes_.tolist() == model.classes_.tolist()
        np.testing.assert_array_equal(again.predict(WINE), model.predict(WINE))


def test_labels_may_come_as_a_column():
    model = ClassifierGLM(regularizer="Ridge").fit(FEW, LABELS)
    with pytest.warns(DataConversionWarning):
        assert model.score(FEW, LABELS[:, None]) == model.score(FEW, LABELS)
    assert model.score(FEW[:2], ["merlot", "barolo"]) in (0.0, 0.5)
    with pytest.raises(ValueError, match="same number of samples: X has 178, y has 3"):
        model.score(FEW, LABELS[:3])
    with pytest.raises(ValueError, match=r"y must have shape \(178,\), as in the fit; got \(178, 2\)"):
        model.score(FEW, np.stack([LABELS, LABELS], 1))
    np.testing.assert_allclose(np.exp(model.predict_log_proba(FEW)), model.predict_proba(FEW), rtol=1e-12)


def test_formulas_have_labels():
    data = pd.DataFrame(FEW[:, :2], columns=["acid", "ash"]).assign(cultivar=LABELS, other=np.roll(LABELS, 1))
    strength = {"regularizer": "Ridge", "regularizer_strength": 0.05}
    model = ClassifierGLM.from_formula("cultivar ~ acid + ash", data, **strength)
    plain = ClassifierGLM(**strength).fit(FEW[:, :2], LABELS)
    np.testing.assert_allclose(np.concatenate([*model.coef_.values()]), plain.coef_, atol=1e-8)
    assert model.score(data) == plain.score(FEW[:, :2], LABELS)
    data.loc[3, "acid"], data.loc[5, "cultivar"] = np.nan, None
    kept = ~data.isna().any(axis=1)
    dropped = ClassifierGLM.from_formula("cultivar ~ acid + ash", data, nan_policy="drop", **strength)
    fewer = ClassifierGLM(**strength).fit(FEW[kept, :2], LABELS[kept])
    np.testing.assert_allclose(np.concatenate([*dropped.coef_.values()]), fewer.coef_, atol=1e-8)
    assert dropped.score(data) == fewer.score(FEW[kept, :2], LABELS[kept])
    two = ClassifierGLM.from_formula("cultivar + other ~ ash", data[kept], **strength)
    assert two.coef_["ash"].shape == (1, 2, 3)
    with pytest.raises(ValueError, match=r"columns of labels on its left side, as they are; got \['C\(cultivar\)'\]"):
        ClassifierGLM.from_formula("C(cultivar) ~ ash", data[kept])


def test_several_responses_are_fits_of_their_own():
    both = np.stack([LABELS, np.roll(LABELS, 1)], 1)
    strength = np.full((4, 2, 1), 0.02) * np.array([1.0, 3.0])[:, None]
    joint = ClassifierGLM(regularizer="Ridge", regularizer_strength=strength).fit(FEW, both)
    assert joint.coef_.shape == (4, 2, 3)
    for response in range(2):
        alone = ClassifierGLM(regularizer="Ridge", regularizer_strength=[0.02, 0.06][response])
        alone.fit(FEW, both[:, response])
        np.testing.assert_allclose(joint.coef_[:, response], alone.coef_, atol=1e-9)
        np.testing.assert_allclose(joint.intercept_[response], alone.intercept_, atol=1e-9)
    assert joint.predict(FEW).shape == (178, 2)
    assert joint.predict_proba(FEW).shape == (178, 2, 3)
    assert 0 < joint.score(FEW, both) < 1
    tree = joint.sample(FEW, both, num_samples=50, num_chains=1, method="laplace", progress_bar=False)
    assert tree.posterior["coef"].dims == ("chain", "draw", "output", "class", "feature")
    assert tree.log_likelihood["y"].dims == ("chain", "draw", "obs", "output")


def test_two_classes_are_bernoulli_observations_with_half_the_strength():
    labels = np.where(NUMBERS == 1, "yes", "no")
    classes = ClassifierGLM(regularizer="Ridge", regularizer_strength=0.04).fit(FEW, labels)
    binary = GLM("Bernoulli", regularizer="Ridge", regularizer_strength=0.02).fit(FEW, NUMBERS == 1)
    np.testing.assert_allclose(classes.predict_proba(FEW)[:, 1], binary.predict(FEW), atol=1e-9)
    np.testing.assert_allclose(classes.coef_[:, 1] - classes.coef_[:, 0], binary.coef_, atol=1e-8)
    assert classes.decision_function(FEW).shape == (178,)


def test_strengths_are_chosen_by_folds():
    model = ClassifierGLM(regularizer="Lasso")
    grid = strength_grid(model, FEW, LABELS, 5)
    path = strength_path(model, FEW, LABELS, grid)
    assert not path[0].coef_.any()
    assert path[1].coef_.any()
    chosen = GLMCV(model, grid, progress_bar=False).fit(FEW, LABELS)
    assert is_classifier(chosen.best_estimator_)
    assert chosen.best_index_ > 0
    assert cross_val_score(ClassifierGLM(regularizer="Ridge"), FEW, LABELS).shape == (5,)


@pytest.mark.slow
def test_a_grid_search_chooses_as_folds_do():
    model = ClassifierGLM(regularizer="Lasso")
    grid = strength_grid(model, FEW, LABELS, 5)
    chosen = GLMCV(model, grid, progress_bar=False).fit(FEW, LABELS)
    search = GridSearchCV(model, {"regularizer_strength": grid}, scoring="neg_log_loss").fit(FEW, LABELS)
    assert abs(search.best_index_ - chosen.best_index_) <= 1


def test_compiles_once(compilations):
    model = ClassifierGLM(regularizer="Ridge").fit(FEW, LABELS)
    first = len(compilations)
    model.set_params(regularizer_strength=0.3).fit(FEW[::-1], LABELS)
    assert len(compilations) == first


def test_what_is_wrong_is_told():
    model = ClassifierGLM()
    with pytest.raises(NotFittedError):
        model.predict(FEW)
    with pytest.raises(ValueError, match="at least two classes; got one class: 'a'"):
        model.fit(FEW, ["a"] * len(FEW))
    with pytest.raises(ValueError, match="missing labels"):
        model.fit(FEW, np.where(NUMBERS == 1, None, LABELS))
    with pytest.raises(ValueError, match=r"offset must have shape \(178, 3\)"):
        model.fit(FEW, LABELS, offset=np.zeros(178))
    with pytest.raises(ValueError, match="must be numbers for ClassifierGLM; got 'evidence'"):
        ClassifierGLM(regularizer="Ridge", regularizer_strength="evidence").fit(FEW, LABELS)
    with pytest.raises(ValueError, match="1 labels that the fit does not know, the first is 'merlot'"):
        model.fit(FEW, LABELS).score(FEW[:2], ["merlot", "barolo"], score_type="log-likelihood")
    with pytest.warns(ConvergenceWarning, match="separate the data"):
        ClassifierGLM().fit(WINE, LABELS)
    with pytest.raises(ValueError, match="improper: features without a penalty separate"):
        ClassifierGLM().sample(WINE, LABELS, progress_bar=False)
    weight = (LABELS != "barbera") * 1.0
    with pytest.raises(ValueError, match="no sample is of the class 'barbera'"):
        ClassifierGLM(regularizer="Ridge").sample(FEW, LABELS, sample_weight=weight, progress_bar=False)
    spanning = GroupLasso(np.ones((1, 4, 2, 3)))
    with pytest.raises(ValueError, match="spans responses"):
        ClassifierGLM(regularizer=spanning).fit(FEW, np.stack([LABELS, LABELS], 1))


def test_labels_that_are_true_or_false_can_be_sampled():
    model = ClassifierGLM(regularizer="Ridge", regularizer_strength=0.05)
    tree = model.sample(FEW, LABELS == "barolo", num_samples=50, num_chains=2, method="laplace", progress_bar=False)
    assert tree.posterior.coords["class"].values.tolist() == ["False", "True"]
    assert model.posterior_predictive(FEW[:3]).predictions["y"].shape == (2, 50, 3)
    assert model.predict(FEW[:3]).dtype == bool


def test_glmcv_of_a_classifier_is_one():
    search = GLMCV(ClassifierGLM(regularizer="Ridge"), [0.01, 0.1], cv=3, progress_bar=False)
    assert is_classifier(search)
    assert not is_classifier(GLMCV(GLM()))
    search.fit(FEW, LABELS)
    assert search.classes_.tolist() == ["barbera", "barolo", "grignolino"]
    best = search.best_estimator_
    for name in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        np.testing.assert_array_equal(getattr(search, name)(FEW), getattr(best, name)(FEW))
    assert cross_val_score(search, FEW, LABELS, cv=3, scoring="roc_auc_ovr").min() > 0.8
    with pytest.raises(AttributeError, match="has no attribute 'predict_proba'"):
        GLMCV(GLM()).predict_proba(FEW)
    data = pd.DataFrame(FEW[:, :2], columns=["acid", "ash"]).assign(cultivar=LABELS)
    by_formula = ClassifierGLM(regularizer="Ridge", formula="cultivar ~ acid + ash")
    search = GLMCV(by_formula, [0.01, 0.1], cv=3, progress_bar=False).fit(data)
    assert search.score(data) > 0.5
