"""Strengths learned by the evidence: against other implementations, quadrature, and simulations of known strength."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ARDRegression, BayesianRidge

from bayesglm import GLM, PopulationGLM
from bayesglm.observation_models import GammaObservations, GaussianObservations
from bayesglm.priors import GroupLasso

X, Y = load_diabetes(return_X_y=True)
X, Y = X - X.mean(0), Y - Y.mean()
NO_PRIOR = dict.fromkeys(["alpha_1", "alpha_2", "lambda_1", "lambda_2"], 0)


def without_constant(*arrays):
    """As many rows as samples but one that hold all but the mean: a flat intercept integrated out."""
    n = len(arrays[0])
    basis = np.linalg.qr(np.c_[np.ones(n), np.eye(n)[:, 1:]])[0][:, 1:]
    return [basis.T @ array for array in arrays]


def test_one_strength_is_that_of_bayesian_ridge():
    peer = BayesianRidge(fit_intercept=False, tol=1e-14, max_iter=100_000, **NO_PRIOR).fit(*without_constant(X, Y))
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength="evidence").fit(X, Y)
    assert model.regularizer_strength_ == pytest.approx(peer.lambda_ / peer.alpha_ / len(Y), rel=1e-8)
    assert model.scale_[0] == pytest.approx(1 / peer.alpha_, rel=1e-8)
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-7)


def test_one_strength_per_feature_is_automatic_relevance_determination():
    peer = ARDRegression(fit_intercept=False, tol=1e-12, max_iter=100_000, threshold_lambda=1e10, **NO_PRIOR)
    peer.fit(*without_constant(X, Y))
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength=["evidence"] * 10).fit(X, Y)
    kept = peer.coef_ != 0
    np.testing.assert_allclose(model.coef_[kept], peer.coef_[kept], rtol=1e-6)
    assert np.abs(model.coef_[~kept]).max() < 1e-6
    assert model.regularizer_strength_.shape == (10,)


def test_more_features_than_samples():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(30, 60))
    y = wide @ rng.normal(size=60) * 0.3 + rng.normal(size=30)
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength="evidence").fit(wide, y)
    peer = BayesianRidge(fit_intercept=False, tol=1e-14, max_iter=100_000, **NO_PRIOR)
    peer.fit(*without_constant(wide, y))
    assert model.regularizer_strength_ == pytest.approx(peer.lambda_ / peer.alpha_ / 30, rel=1e-6)


def test_many_more_features_than_samples(monkeypatch):
    """Rotated into the row space of each leaf, strengths are those of the features as they came."""
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(25, 200))
    leaves = {"a": wide[:, :120], "b": wide[:, 120:190], "c": wide[:, 190:]}
    y = rng.poisson(np.exp(wide[:, :120] @ rng.normal(size=120) * 0.1))
    model = GLM(regularizer="Ridge", regularizer_strength={"a": "evidence", "b": "evidence", "c": 0.5})
    rotated = dict(model.fit(leaves, y).regularizer_strength_)
    monkeypatch.setattr("bayesglm._evidence.reduce_by_rotation", lambda *problem: problem)
    plain = model.fit(leaves, y).regularizer_strength_
    for leaf in "ab":
        assert rotated[leaf] == pytest.approx(plain[leaf], rel=1e-5)
    assert rotated["c"] == 0.5


def log_evidence(model, X, y, weight):
    """Laplace's approximation at the strengths of a fitted Ridge model of one output, by its definition."""
    spec = model.spec_
    design = np.c_[np.ones(len(y)), X]
    position = np.concatenate([model.intercept_, model.coef_])
    phi = float(np.asarray(spec.form.family.phi(spec.scale))[0])
    precision = np.r_[0, weight.sum() / phi * spec.strength[:, 0]]
    with jax.enable_x64(True):

        def loss(position):
            nll = spec.form.family.nll(y, design @ position, spec.form.link, spec.scale[0])
            return (weight * nll).sum() / phi

        hessian = np.asarray(jax.hessian(loss)(position)) + np.diag(precision)
        value = float(loss(position))
    log_prior = 0.5 * np.log(precision[1:]).sum() - 0.5 * (precision * position**2).sum()
    return -value + log_prior - 0.5 * np.linalg.slogdet(hessian)[1]


@pytest.mark.parametrize(
    ("family", "link"),
    [
        ("Poisson", None),
        pytest.param("Bernoulli", None, marks=pytest.mark.slow),
        pytest.param(GammaObservations(scale=0.5), "exp", marks=pytest.mark.slow),
        pytest.param("NegativeBinomial", "softplus", marks=pytest.mark.slow),
    ],
    ids=["Poisson", "Bernoulli", "Gamma", "NegativeBinomial"],
)
def test_learned_strengths_are_where_the_evidence_is_highest(family, link):
    rng = np.random.default_rng(5)
    design = rng.normal(size=(60, 8))
    eta = 0.5 + design @ (rng.normal(size=8) * np.repeat([0.8, 0.2], 4)) * 0.7
    name = family if isinstance(family, str) else "Gamma"
    y = {
        "Poisson": rng.poisson(np.exp(eta)),
        "Bernoulli": rng.binomial(1, 1 / (1 + np.exp(-eta))),
        "Gamma": rng.gamma(2, np.exp(eta) / 2),
        "NegativeBinomial": rng.poisson(np.logaddexp(0, eta) * rng.gamma(1, 1, size=60)),
    }[name].astype(float)
    weight = rng.integers(1, 3, 60).astype(float)

    def objective(log_strengths):
        strength = np.repeat(np.exp(log_strengths), 4)
        model = GLM(family, link, regularizer="Ridge", regularizer_strength=strength)
        return -log_evidence(model.fit(design, y, sample_weight=weight), design, y, weight)

    leaves = {"a": design[:, :4], "b": design[:, 4:]}
    model = GLM(family, link, regularizer="Ridge", regularizer_strength=dict.fromkeys("ab", "evidence"))
    learned = model.fit(leaves, y, sample_weight=weight).regularizer_strength_
    best = minimize(
        objective, np.log([learned["a"], learned["b"]]) + 0.3, method="Nelder-Mead", options={"xatol": 1e-5}
    )
    np.testing.assert_allclose(np.log([learned["a"], learned["b"]]), best.x, atol=2e-3)


def test_fixed_and_learned_leaves_and_outputs():
    leaves = {"body": X[:, :4], "blood": X[:, 4:]}
    strength = {"body": 0.01, "blood": "evidence"}
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength=strength).fit(leaves, Y)
    assert model.regularizer_strength_["body"] == 0.01
    assert model.regularizer_strength == strength
    assert model.regularizer_strength_["blood"] > 0
    outputs = np.stack([Y, X @ np.ones(10) + np.random.default_rng(0).normal(size=len(Y))], 1)
    several = PopulationGLM("Gaussian", regularizer="Ridge", regularizer_strength=[["evidence", "evidence"]])
    learned = several.fit(X, outputs).regularizer_strength_
    for output in range(2):
        one = GLM("Gaussian", regularizer="Ridge", regularizer_strength="evidence").fit(X, outputs[:, output])
        assert np.ravel(learned)[output] == pytest.approx(one.regularizer_strength_, rel=1e-6)


def test_known_strengths_are_recovered():
    """Two leaves whose strengths differ by 100: the ratio within a factor of two."""
    rng = np.random.default_rng(2)
    design = rng.normal(size=(1000, 120))
    sd = np.repeat([0.3, 0.03], 60)
    y = rng.poisson(np.exp(0.2 + design @ (sd * rng.normal(size=120)) * 0.5))
    leaves = {"strong": design[:, :60], "weak": design[:, 60:]}
    model = GLM(regularizer="Ridge", regularizer_strength={"strong": "evidence", "weak": "evidence"}).fit(leaves, y)
    ratio = model.regularizer_strength_["weak"] / model.regularizer_strength_["strong"]
    assert 50 < ratio < 200


@pytest.mark.slow
@pytest.mark.parametrize("regularizer", ["Lasso", "ElasticNet", "GroupLasso"])
def test_kinked_priors_against_quadrature(regularizer):
    """Orthonormal features and a known variance: the evidence is a product of integrals in one or two dimensions."""
    rng = np.random.default_rng(1)
    n, p = 64, 16
    design = np.linalg.qr(np.c_[np.ones(n), rng.normal(size=(n, p))])[0][:, 1:] * np.sqrt(n)
    y = design @ (rng.laplace(size=p) * 0.2) + rng.normal(size=n)
    y -= y.mean()
    hits = design.T @ y / n
    strength = ("evidence", 0.5) if regularizer == "ElasticNet" else "evidence"
    pairs = GroupLasso(np.repeat(np.eye(p // 2), 2, axis=1))
    prior = pairs if regularizer == "GroupLasso" else regularizer
    model = GLM(GaussianObservations(scale=1.0), regularizer=prior, regularizer_strength=strength)
    learned = model.fit(design, y).regularizer_strength_
    learned = learned[0] if isinstance(learned, tuple) else learned
    w = np.linspace(-3, 3, 2001)
    grid = np.exp(np.linspace(np.log(learned) - 1, np.log(learned) + 1, 201))
    total = np.array([_log_evidence_by_grid(regularizer, s * n, hits, n, w) for s in grid])
    best = grid[np.argmax(total)]
    assert learned == pytest.approx(best, rel=0.06)


def _log_evidence_by_grid(regularizer, rate, hits, n, w):
    step = w[1] - w[0]
    if regularizer == "GroupLasso":
        w = w[::8]
        step = w[1] - w[0]
        first, second = np.meshgrid(w, w)
        log_prior = -rate * np.sqrt(2) * np.hypot(first, second)
        normalizer = np.log(np.exp(log_prior).sum() * step**2) if rate < 30 else np.log(2 * np.pi / (2 * rate**2))
        terms = [
            np.log(np.exp(log_prior - n / 2 * ((a - first) ** 2 + (b - second) ** 2)).sum() * step**2) - normalizer
            for a, b in hits.reshape(-1, 2)
        ]
        return np.sum(terms)
    penalty = np.abs(w) if regularizer == "Lasso" else 0.5 * np.abs(w) + 0.25 * w**2
    prior = np.exp(-rate * penalty)
    prior /= prior.sum() * step
    return sum(np.log((prior * np.exp(-n / 2 * (hit - w) ** 2)).sum() * step) for hit in hits)


def test_only_numbers_where_nothing_can_be_learned():
    for strength, regularizer in ((("evidence", "evidence"), "ElasticNet"), ("automatic", "Ridge")):
        with pytest.raises(ValueError, match="regularizer_strength"):
            GLM("Gaussian", regularizer=regularizer, regularizer_strength=strength).fit(X, Y)


# Medians and 95 % intervals of Park and Casella, The Bayesian Lasso, 2008, table 1.
PUBLISHED = np.array(
    [
        (-3.73, -112.02, 103.62),
        (-214.55, -334.42, -94.24),
        (522.62, 393.07, 653.82),
        (307.56, 180.26, 436.70),
        (-173.16, -579.33, 128.54),
        (-1.50, -274.62, 341.48),
        (-152.12, -381.60, 69.75),
        (90.43, -129.48, 349.82),
        (523.26, 332.11, 732.75),
        (62.47, -51.22, 188.75),
    ]
)


@pytest.mark.slow
def test_bayesian_lasso_of_the_literature():
    """A model of a user's own, from `bayesglm.distributions`, whose strength expectation maximization finds."""
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions as dist
    from numpyro.infer import MCMC, NUTS, init_to_value

    from bayesglm.distributions import ElasticNet

    def model(X, y, strength):
        sigma = jnp.exp(numpyro.sample("log_sigma", dist.Normal(4.0, 100.0).mask(False)))
        coef = numpyro.sample("coef", ElasticNet(strength / sigma, 0.0).expand([10]).to_event(1))
        numpyro.sample("y", dist.Normal(X @ coef, sigma), obs=y)

    with jax.enable_x64(True):
        kernel = NUTS(model, init_strategy=init_to_value(values={"log_sigma": 4.0, "coef": jnp.asarray(0.3 * X.T @ Y)}))
        chain = MCMC(kernel, num_warmup=500, num_samples=4000, progress_bar=False)
        strength, expected = 0.2, 0.0
        for step in range(8):
            chain.run(jax.random.key(step), jnp.asarray(X), jnp.asarray(Y), jnp.asarray(strength))
            draws = {name: np.asarray(values) for name, values in chain.get_samples().items()}
            found = (np.abs(draws["coef"]).sum(1) / np.exp(draws["log_sigma"])).mean()
            expected = found if step < 4 else expected + (found - expected) / (step - 3)
            strength = 10 / expected
    assert strength == pytest.approx(0.237, rel=0.02)
    quantiles = np.quantile(draws["coef"], [0.5, 0.025, 0.975], axis=0).T
    width = (PUBLISHED[:, 2] - PUBLISHED[:, 1])[:, None]
    assert np.abs((quantiles - PUBLISHED) / width).max() < 0.06
