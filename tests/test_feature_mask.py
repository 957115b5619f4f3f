"""Coefficients that a population's mask holds at zero are no part of the model."""

import jax
import numpy as np
import pytest
from numpyro.infer.util import log_density

from bayesglm import GLM, ClassifierGLM, PopulationGLM
from bayesglm.priors import GroupLasso

MASK = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 0], [0, 0, 1]])
STRENGTHS = {"UnRegularized": None, "Ridge": 0.1, "Lasso": 0.03, "ElasticNet": (0.03, 0.5), "GroupLasso": 0.03}


@pytest.fixture
def data(rng):
    X = rng.normal(size=(200, 4)) + 0.5
    coef = MASK * rng.normal(size=MASK.shape) * 0.3
    return X, rng.poisson(np.exp(X @ coef)).astype(float)


@pytest.mark.parametrize(
    "regularizer",
    [name if name in ("Ridge", "GroupLasso") else pytest.param(name, marks=pytest.mark.slow) for name in STRENGTHS],
)
def test_fit_is_that_of_the_features_each_output_sees(regularizer, data):
    X, y = data
    arguments = {"regularizer": regularizer, "regularizer_strength": STRENGTHS[regularizer]}
    model = PopulationGLM(**arguments, feature_mask=MASK).fit(X, y)
    assert model.converged_
    for output, sees in enumerate(MASK.T.astype(bool)):
        alone = GLM(**arguments).fit(X[:, sees], y[:, output])
        np.testing.assert_allclose(model.coef_[sees, output], alone.coef_, atol=1e-9)
        np.testing.assert_allclose(model.intercept_[output], alone.intercept_[0], atol=1e-9)
        np.testing.assert_allclose(model.dof_resid_[output], alone.dof_resid_[0], atol=1e-6)
        np.testing.assert_array_equal(model.coef_[~sees, output], 0)
        np.testing.assert_allclose(model.predict(X)[:, output], alone.predict(X[:, sees]), atol=1e-8)


def test_forms_of_a_mask(data):
    X, y = data
    full = PopulationGLM(regularizer="Ridge", feature_mask=MASK).fit(X, y).coef_
    parts = {"a": X[:, :1], "b": X[:, 1:]}
    split = {"a": MASK[:1], "b": MASK[1:]}
    by_leaf = PopulationGLM(regularizer="Ridge", feature_mask=split).fit(parts, y).coef_
    np.testing.assert_allclose(np.concatenate([by_leaf["a"], by_leaf["b"]]), full, atol=1e-10)
    per_output = PopulationGLM(regularizer="Ridge", feature_mask={"a": [1, 0, 1], "b": 1}).fit(parts, y).coef_
    np.testing.assert_array_equal(per_output["a"] == 0, [[False, True, False]])
    assert (per_output["b"] != 0).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (MASK[:, :2], r"feature_mask must have shape \(4, 3\); got shape \(4, 2\)"),
        (MASK * 0.5, "feature_mask must hold zeros and ones; got 0.5"),
        ({"a": 1}, r"feature_mask must hold|feature_mask must have|feature_mask must be"),
        ([1, 1, 0, 1], r"feature_mask must have shape \(4, 3\); got shape \(4,\)"),
    ],
)
def test_bad_masks_are_refused(mask, message, data):
    X, y = data
    with pytest.raises(ValueError, match=message):
        PopulationGLM(feature_mask=mask).fit(X, y)


def test_missing_keys_are_refused(data):
    X, y = data
    with pytest.raises(ValueError, match=r"feature_mask must have the keys of X, \['a', 'b'\]: missing \['b'\]"):
        PopulationGLM(feature_mask={"a": 1}).fit({"a": X[:, :1], "b": X[:, 1:]}, y)


def test_an_array_for_a_container_is_refused(data):
    X, y = data
    with pytest.raises(
        ValueError, match=r"feature_mask must be a container like X.*\['a', 'b'\]; got an array of shape"
    ):
        PopulationGLM(feature_mask=MASK).fit({"a": X[:, :1], "b": X[:, 1:]}, y)


def test_flat_features_that_an_output_does_not_see_may_be_collinear(data):
    X, y = data
    X = np.column_stack([X, X[:, 0]])
    mask = np.ones((5, 3))
    mask[4] = 0
    PopulationGLM(feature_mask=mask).fit(X, y)  # a warning would be an error


def test_groups_across_outputs_leave_out_what_is_masked(data):
    """A group of two outputs, one of which sees half of the features: the penalty counts what is there."""
    X, y = data
    groups = np.ones((1, 4, 2))
    mask = MASK[:, :2]
    model = PopulationGLM(regularizer=GroupLasso(groups), regularizer_strength=0.03, feature_mask=mask).fit(X, y[:, :2])

    def objective(values):
        coef = np.zeros((4, 2))
        coef[mask == 1] = values[:-2]
        eta = X @ coef + values[-2:]
        norm = np.sqrt(mask.sum()) * np.linalg.norm(coef)
        return np.mean(np.sum(np.exp(eta) - y[:, :2] * eta, 1)) + 0.03 * norm

    found = np.append(model.coef_[mask == 1], model.intercept_)
    rng = np.random.default_rng(0)
    for size in (1e-1, 1e-3, 1e-5):
        assert all(objective(found + size * rng.normal(size=len(found))) > objective(found) for _ in range(50))


@pytest.mark.slow
def test_draws_are_those_of_the_features_each_output_sees(data):
    X, y = data
    arguments = {"regularizer": "GroupLasso", "regularizer_strength": 0.03}
    model = PopulationGLM(**arguments, feature_mask=MASK)
    idata = model.sample(X, y, num_samples=2000, progress_bar=False)
    coef = idata.posterior["coef"].values.swapaxes(-2, -1).reshape(-1, 4, 3)
    np.testing.assert_array_equal(np.isnan(coef).all(0), MASK == 0)
    np.testing.assert_array_equal(idata.constant_data["feature_mask"].T, MASK == 1)
    sees = MASK[:, 1] == 1
    alone = GLM(**arguments).sample(X[:, sees], y[:, 1], num_samples=2000, progress_bar=False)
    theirs = alone.posterior["coef"].values.reshape(-1, 2)
    np.testing.assert_allclose(coef[:, sees, 1].mean(0), theirs.mean(0), atol=0.1 * theirs.std(0).min())
    np.testing.assert_allclose(coef[:, sees, 1].std(0), theirs.std(0), rtol=0.1)
    # Log densities are those of the model without the masked coefficients.
    lp = idata.sample_stats_output["lp"].sel(output=1).values
    assert abs(lp.mean() - alone.sample_stats["lp"].values.mean()) < 0.2
    assert abs(lp.std() / alone.sample_stats["lp"].values.std() - 1) < 0.1


@pytest.mark.parametrize("regularizer", ["Lasso", "GroupLasso"])
def test_numpyro_model_has_only_what_is_free(regularizer, data, rng):
    X, y = data
    arguments = {"regularizer": regularizer, "regularizer_strength": STRENGTHS[regularizer]}
    model = PopulationGLM(**arguments, feature_mask=MASK).fit(X, y)
    free, intercept = rng.normal(size=MASK.sum()), rng.normal(size=3)
    coef = np.zeros(MASK.shape)
    coef[MASK == 1] = free
    with jax.enable_x64(True):
        together, trace = log_density(model.numpyro_model, (X, y), {}, {"coef_free": free, "intercept": intercept})
        np.testing.assert_array_equal(trace["coef"]["value"], coef)
        alone = 0.0
        for output, sees in enumerate(MASK.T.astype(bool)):
            single = GLM(**arguments).fit(X[:, sees], y[:, output])
            sites = {"coef": coef[sees, output], "intercept": intercept[output]}
            alone += log_density(single.numpyro_model, (X[:, sees], y[:, output]), {}, sites)[0]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


CLASS_MASK = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1], [0, 0, 0]])


@pytest.fixture
def labels(data, rng):
    X, _ = data
    eta = X @ (CLASS_MASK * rng.normal(size=CLASS_MASK.shape))
    return (eta + rng.gumbel(size=eta.shape)).argmax(1)


def loss_of_classes(free, intercept, X, labels):
    """Coefficients from those that are free, and the mean cross-entropy."""
    coef = np.zeros(CLASS_MASK.shape)
    coef[CLASS_MASK == 1] = free
    eta = X @ coef + intercept
    return coef, np.mean(np.log(np.exp(eta).sum(1)) - eta[np.arange(len(eta)), labels])


PENALTIES = {
    "UnRegularized": lambda coef: 0.0,
    "Ridge": lambda coef: 0.1 / 2 * np.sum(coef**2),
    "Lasso": lambda coef: 0.03 * np.sum(abs(coef)),
    "ElasticNet": lambda coef: 0.03 * (np.sum(abs(coef)) / 2 + np.sum(coef**2) / 4),
    "GroupLasso": lambda coef: 0.03 * np.sqrt(CLASS_MASK.sum(0)) @ np.linalg.norm(coef, axis=0),
}


@pytest.mark.parametrize("regularizer", PENALTIES)
def test_classes_may_have_features_of_their_own(regularizer, data, labels):
    X, _ = data
    model = ClassifierGLM(regularizer, STRENGTHS[regularizer], feature_mask=CLASS_MASK).fit(X, labels)
    np.testing.assert_array_equal(model.coef_[CLASS_MASK == 0], 0)

    def objective(free, intercept):
        coef, loss = loss_of_classes(free, intercept, X, labels)
        return loss + PENALTIES[regularizer](coef)

    best = objective(model.coef_[CLASS_MASK == 1], model.intercept_)
    rng = np.random.default_rng(0)
    for size in (1e-1, 1e-3, 1e-5):
        for _ in range(50):
            apart = (
                model.coef_[CLASS_MASK == 1] + size * rng.normal(size=6),
                model.intercept_ + size * rng.normal(size=3),
            )
            assert objective(*apart) > best - 1e-14


def test_without_a_penalty_all_free_coefficients_of_a_masked_feature_count(data, labels):
    """Adding the same to all classes changes something where one of them is held at zero."""
    X, _ = data
    model = ClassifierGLM(feature_mask=CLASS_MASK).fit(X, labels)
    # Two intercepts, two of the first feature, two of the second that no class is held in, one of the third.
    np.testing.assert_allclose(model.criteria_["edf"], 7)
    np.testing.assert_allclose(model.coef_[1].sum(), 0, atol=1e-12)
    table = model.summary()
    assert len(table) == 3 + CLASS_MASK.sum()
    # Standard errors by numerical second derivatives, the second feature's and the intercepts' last class held.
    from statsmodels.tools.numdiff import approx_hess

    chosen = np.array([0, 1, 2, 3, 5])  # of the free coefficients, less that one

    def loss(values):
        free = np.zeros(6)
        free[chosen] = values[2:]
        return len(X) * loss_of_classes(free, np.append(values[:2], 0.0), X, labels)[1]

    held = model.coef_.copy()
    held[1] -= held[1, 2]
    at = np.concatenate([model.intercept_[:2] - model.intercept_[2], held[CLASS_MASK == 1][chosen]])
    covariance = np.linalg.inv(approx_hess(at, loss))
    np.testing.assert_allclose(table["se"][["coef[0, 0]", "coef[1, 0]"]], np.sqrt(np.diag(covariance))[2:4], rtol=1e-3)


def test_responses_have_masks_of_their_own(data, labels, rng):
    X, _ = data
    pair = np.column_stack([labels, rng.permutation(labels)])
    masks = np.stack([CLASS_MASK, 1 - CLASS_MASK], axis=1)
    arguments = {"regularizer": "Lasso", "regularizer_strength": 0.01}
    both = ClassifierGLM(**arguments, feature_mask=masks).fit(X, pair)
    for response in range(2):
        alone = ClassifierGLM(**arguments, feature_mask=masks[:, response]).fit(X, pair[:, response])
        np.testing.assert_allclose(both.coef_[:, response], alone.coef_, atol=1e-8)
    parts, split = {"a": X[:, :1], "b": X[:, 1:]}, {"a": [[1, 1, 0], [1, 0, 1]], "b": masks[1:]}
    by_leaf = ClassifierGLM(**arguments, feature_mask=split).fit(parts, pair)
    np.testing.assert_array_equal(by_leaf.coef_["a"][0] == 0, [[False, False, True], [False, True, False]])
    with pytest.raises(ValueError, match=r"feature_mask must have shape \(4, 2, 3\); got shape \(4, 3\)"):
        ClassifierGLM(feature_mask=CLASS_MASK).fit(X, pair)


@pytest.mark.parametrize("regularizer", ["UnRegularized", "Lasso"])
def test_numpyro_model_of_classes_has_only_what_is_free(regularizer, data, labels, rng):
    X, _ = data
    model = ClassifierGLM(regularizer, STRENGTHS[regularizer], feature_mask=CLASS_MASK).fit(X, labels)
    is_flat = regularizer == "UnRegularized"

    def log_densities(free, intercept):
        coef, loss = loss_of_classes(free, np.append(intercept, 0.0), X, labels)
        sites = {"intercept_free": intercept[None], "coef_free": free}
        if is_flat:
            coef[1] -= coef[1, 2]
            sites["coef_free"] = np.delete(coef[CLASS_MASK == 1], 4)
        with jax.enable_x64(True):
            theirs = log_density(model.numpyro_model, (X, labels), {}, sites)[0]
        return theirs, -len(X) * (loss + PENALTIES[regularizer](coef))

    theirs, ours = np.transpose([log_densities(rng.normal(size=6), rng.normal(size=2)) for _ in range(3)])
    np.testing.assert_allclose(np.diff(theirs), np.diff(ours), rtol=1e-9)


@pytest.mark.slow
def test_draws_of_classes_are_those_of_the_numpyro_model(data, labels):
    from numpyro.infer import MCMC, NUTS

    X, _ = data
    model = ClassifierGLM("Lasso", 0.03, feature_mask=CLASS_MASK)
    draws = model.sample(X, labels, num_samples=2000, progress_bar=False).posterior["coef"]
    draws = draws.values.swapaxes(-2, -1).reshape(-1, 4, 3)
    np.testing.assert_array_equal(np.isnan(draws).all(0), CLASS_MASK == 0)
    with jax.enable_x64(True):
        mcmc = MCMC(NUTS(model.numpyro_model), num_warmup=500, num_samples=4000, progress_bar=False)
        mcmc.run(jax.random.key(0), X, labels)
    theirs = np.asarray(mcmc.get_samples()["coef"])[:, CLASS_MASK == 1]
    ours = draws[:, CLASS_MASK == 1]
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.1 * theirs.std(0).min())
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.08)
