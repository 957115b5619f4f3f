"""Families and links against statsmodels and scikit-learn, and their simulated moments."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.base import clone
from sklearn.linear_model import GammaRegressor

from bayesglm import GLM
from bayesglm.links import LINKS, Link
from bayesglm.observation_models import GammaObservations, GaussianObservations, NegativeBinomialObservations


@pytest.fixture
def data(rng):
    X = rng.normal(size=(500, 3))
    mean = np.exp(X @ np.array([0.3, -0.2, 0.0]) + 1)
    return X, rng.gamma(2.0, mean / 2), rng.poisson(rng.gamma(2.0, mean / 2)).astype(float)


@pytest.mark.parametrize("strength", [0.1, 0.001])
def test_gamma_with_exp_link_is_scikit_learns(data, strength):
    X, y, _ = data
    ours = GLM("Gamma", inverse_link_function="exp", regularizer="Ridge", regularizer_strength=strength).fit(X, y)
    theirs = GammaRegressor(alpha=strength, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-8)
    np.testing.assert_allclose(ours.score(X, y), theirs.score(X, y), rtol=1e-8)


@pytest.mark.filterwarnings("ignore:The InversePower link")
def test_gamma_with_its_own_link_is_statsmodels(rng):
    X = rng.uniform(size=(500, 3))
    y = rng.gamma(2.0, 0.5 / (0.4 + X @ np.array([0.3, 0.1, 0.0])))
    ours = GLM("Gamma").fit(X, y)
    theirs = sm.GLM(y, sm.add_constant(X), family=sm.families.Gamma()).fit(tol=1e-14)
    assert (theirs.fittedvalues > 0).all()
    np.testing.assert_allclose(ours.coef_, theirs.params[1:], atol=1e-7)
    np.testing.assert_allclose(ours.scale_, theirs.scale, rtol=1e-7)  # Pearson chi-square / residual dof


def test_negative_binomial_with_fixed_overdispersion_is_statsmodels(data):
    X, _, y = data
    ours = GLM(NegativeBinomialObservations(scale=0.5)).fit(X, y)
    theirs = sm.GLM(y, sm.add_constant(X), family=sm.families.NegativeBinomial(alpha=0.5)).fit(tol=1e-14)
    np.testing.assert_allclose(ours.coef_, theirs.params[1:], atol=1e-7)
    assert ours.scale_ == 0.5


def test_learned_overdispersion_is_statsmodels(data):
    X, _, y = data
    ours = GLM(NegativeBinomialObservations(scale=None)).fit(X, y)
    theirs = sm.NegativeBinomial(y, sm.add_constant(X)).fit(disp=0, method="newton", tol=1e-14, maxiter=1000)
    np.testing.assert_allclose(ours.coef_, theirs.params[1:4], atol=1e-6)
    np.testing.assert_allclose(ours.scale_, theirs.params[4], atol=1e-6)


def test_probit_is_statsmodels(data, rng):
    X, _, _ = data
    y = (rng.random(500) < 0.4).astype(float)
    family = sm.families.Binomial(sm.families.links.Probit())
    theirs = sm.GLM(y, sm.add_constant(X), family=family).fit(tol=1e-14)
    np.testing.assert_allclose(
        GLM("Bernoulli", inverse_link_function="norm.cdf").fit(X, y).coef_, theirs.params[1:], atol=1e-7
    )


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_logarithms_and_inverse_of_links(link):
    with jax.enable_x64(True):
        eta = jnp.array([0.05, 0.3, 0.9]) if link.name in ("identity", "one_over_x") else jnp.linspace(-4, 1, 6)
        mean = link.inverse(eta)
        np.testing.assert_allclose(link.log_inverse(eta), jnp.log(mean), atol=1e-12)
        inside = mean < 1
        np.testing.assert_allclose(link.log1m_inverse(eta)[inside], jnp.log1p(-mean)[inside], atol=1e-9)
        np.testing.assert_allclose(link.predictor(mean), eta, atol=1e-9)
        if link.name not in ("identity", "one_over_x"):
            assert np.isfinite(link.log_inverse(jnp.array(-500.0)))


def test_callables_are_links(data):
    X, _, y = data
    named = GLM(inverse_link_function="softplus").fit(X, y)
    known = GLM(inverse_link_function=jax.nn.softplus).fit(X, y)
    own = GLM(inverse_link_function=lambda eta: jnp.log1p(jnp.exp(eta))).fit(X, y)
    np.testing.assert_array_equal(named.coef_, known.coef_)
    np.testing.assert_allclose(named.coef_, own.coef_, atol=1e-7)


@pytest.mark.parametrize("link", ["softplus", jax.nn.softplus, jnp.exp, jax.nn.elu, Link("mine", jnp.square)])
def test_copies_keep_the_identity_of_links(link):
    model = GLM(inverse_link_function=link)
    for twin in (clone(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.inverse_link_function == link


def test_fitted_models_with_jax_callables_are_pickled(data):
    X, _, y = data
    model = GLM(inverse_link_function=lambda_free_link).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def lambda_free_link(eta):
    """A link of the user's own, in a module."""
    return jax.nn.softplus(eta) + 0.01


@pytest.mark.parametrize(
    ("family", "variance"),
    [
        ("Poisson", lambda m: m),
        (GaussianObservations(scale=3.0), lambda m: 3.0 + 0 * m),
        (GammaObservations(scale=0.25), lambda m: 0.25 * m**2),
        (NegativeBinomialObservations(scale=0.5), lambda m: m + 0.5 * m**2),
    ],
)
def test_simulated_moments(family, variance, rng):
    X = rng.normal(size=(100, 1))
    y = rng.gamma(3.0, 1.0, 100) if isinstance(family, GammaObservations) else rng.poisson(3.0, 100)
    model = GLM(family, inverse_link_function=None if isinstance(family, GaussianObservations) else "exp").fit(X, y)
    n = 200_000
    draws, mean = model.simulate(jax.random.key(3), np.zeros((n, 1)))
    np.testing.assert_allclose(mean, mean[0])
    squares = (draws - mean[0]) ** 2
    assert abs(draws.mean() - mean[0]) < 4 * draws.std() / np.sqrt(n)
    assert abs(squares.mean() - variance(mean[0])) < 4 * squares.std() / np.sqrt(n)
    again, _ = model.simulate(jax.random.key(3), np.zeros((n, 1)))
    np.testing.assert_array_equal(draws, again)


def test_gamma_wants_positive_numbers(data):
    X, y, _ = data
    with pytest.raises(ValueError, match=r"y must hold numbers > 0 for GammaObservations; 1 of 500"):
        GLM("Gamma").fit(X, np.where(np.arange(500) == 3, 0.0, y))


def complementary_log_log(eta):
    return -jnp.expm1(-jnp.exp(eta))


@pytest.mark.parametrize("regularizer", [None, "Ridge", "Lasso"])
def test_means_that_round_to_one_are_no_obstacle(regularizer, rng):
    X = rng.normal(size=(300, 4))
    y = (rng.random(300) < -np.expm1(-np.exp(2 * X[:, 0] - 0.5))).astype(float)
    strength = None if regularizer is None else 1e-4
    named, own = (
        GLM("Bernoulli", link, regularizer, strength).fit(X, y) for link in ("cloglog", complementary_log_log)
    )
    assert own.predict(X).max() == 1
    assert own.converged_
    np.testing.assert_allclose(own.coef_, named.coef_, atol=1e-7)
    if regularizer is None:
        family = sm.families.Binomial(sm.families.links.CLogLog())
        theirs = sm.GLM(y, sm.add_constant(X), family=family).fit(tol=1e-14)
        np.testing.assert_allclose(named.coef_, theirs.params[1:], atol=1e-7)
        errors = named.summary(information="expected")["se"]
        np.testing.assert_allclose(errors, theirs.bse, rtol=1e-6)


@pytest.mark.parametrize("link", ["exp", "softplus"])
@pytest.mark.parametrize(("regularizer", "strength"), [(None, None), ("Ridge", 0.01), ("Lasso", 0.01)])
def test_steps_are_newtons_where_the_link_is_not_canonical(link, regularizer, strength, rng):
    X = rng.normal(size=(300, 4))
    y = (X @ [1.0, 0.0, -1.0, 0.5] + rng.normal(size=300)) ** 2  # far from any Gamma distribution
    model = GLM("Gamma", link, regularizer, strength).fit(X, y)
    assert model.converged_
    if link == "exp":
        assert model.n_iter_ <= 12
        alpha = strength or 0.0
        if regularizer != "Lasso":
            theirs = GammaRegressor(alpha=alpha, solver="newton-cholesky", tol=1e-12).fit(X, y)
            np.testing.assert_allclose(model.coef_, theirs.coef_, atol=1e-8)
