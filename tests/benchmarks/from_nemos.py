"""Compare models of NeMoS with what `from_nemos` makes of them, in NeMoS's environment.

``PYTHONPATH=. DIRECTORY/nemos/bin/python tests/benchmarks/from_nemos.py``, where DIRECTORY holds the environments that
tests/benchmarks/venvs.py makes. Writes docs/from-nemos.md; exit status 1 if a difference is above the bar.
"""

import sys
import warnings
from pathlib import Path

import jax
import nemos
import numpy as np

from bayesglm import from_nemos, to_nemos

PAGE = Path(__file__).resolve().parents[2] / "docs" / "from-nemos.md"
BAR = 1e-6
# NeMoS's own tolerances: its quasi-Newton method reaches 1e-12, its accelerated gradients rarely do.
SOLVER = {"tol": 1e-12, "maxiter": 20_000}
FAMILIES = ("Poisson", "Gaussian", "Bernoulli", "Gamma", "NegativeBinomial")
STRENGTHS = {
    "UnRegularized": None,
    "Ridge": 0.1,
    "Lasso": 0.02,
    "ElasticNet": (0.03, 0.4),
    "GroupLasso": 0.02,
}
N_OUTPUTS = {
    nemos.glm.GLM: 1,
    nemos.glm.PopulationGLM: 3,
    nemos.glm.ClassifierGLM: 1,
    nemos.glm.ClassifierPopulationGLM: 2,
}
HEADER = """\
# Models of NeMoS, read and fitted here

`from_nemos(model).fit(X, y)` beside `model.fit(X, y)` of NeMoS {version} with tolerance 1e-12 in float64: for every
observation model and regularizer, with one output (`GLM`) and three (`PopulationGLM`), and for labels of three classes
with one response (`ClassifierGLM`) and two (`ClassifierPopulationGLM`), the largest absolute difference of coefficients
and intercepts; and the largest relative difference between the predictions of the model here and those of `to_nemos` of
it. X is a dict of two leaves, 400 samples by 3 and 4 features. What adds the same to the coefficients of all classes
changes no probability: where nothing is penalized, and for intercepts, differences between classes are compared.

Where NeMoS does not reach that tolerance in {steps} iterations it warns: "no" in the last column.

Written by `tests/benchmarks/from_nemos.py`, run in NeMoS's environment.

| model | observation model | regularizer | difference | back in NeMoS | NeMoS converged |
|---|---|---|---|---|---|
"""


def make_data(family, n_outputs):
    """Features and observations with effects in some of them."""
    rng = np.random.default_rng(11)
    X = {"spikes": rng.normal(size=(400, 3)), "stimulus": 0.5 * rng.normal(size=(400, 4)) + 0.3}
    shape = (400, n_outputs)
    eta = X["spikes"] @ rng.normal(size=(3, n_outputs)) * 0.3 + 0.2
    y = {
        "Poisson": lambda: rng.poisson(np.exp(eta)),
        "Gaussian": lambda: eta + rng.normal(size=shape),
        "Bernoulli": lambda: rng.random(shape) < 1 / (1 + np.exp(-eta)),
        "Gamma": lambda: rng.gamma(4.0, 1 / (4.0 * np.maximum(3 + eta, 0.5))),
        "NegativeBinomial": lambda: rng.poisson(np.exp(eta) * rng.gamma(2.0, 0.5, size=shape)),
        "Categorical": lambda: labels(eta, rng),
    }[family]()
    return X, np.asarray(y, float)


def labels(eta, rng):
    """Labels 0, 1 and 2 for each column of linear predictors, which prefers high or low ones."""
    preference = eta[:, :, None] * np.array([-3.0, 0.0, 3.0])
    return (preference + rng.gumbel(size=preference.shape)).argmax(-1)


def compare(kind, family, regularizer):
    """A row of the table, and the difference."""
    X, y = make_data(family, N_OUTPUTS[kind])
    y = y if N_OUTPUTS[kind] > 1 else y[:, 0]
    settings = {"regularizer": regularizer, "regularizer_strength": STRENGTHS[regularizer], "solver_kwargs": SOLVER}
    of_classes = family == "Categorical"
    theirs = kind(3, **settings) if of_classes else kind(observation_model=family, **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        theirs.fit(X, y)
    converged = not any("converge" in str(warning.message) for warning in caught)
    ours = from_nemos(theirs).fit(X, y)
    pairs = [(np.asarray(theirs.coef_[leaf]), ours.coef_[leaf]) for leaf in X]
    if of_classes and regularizer == "UnRegularized":
        pairs = [tuple(map(without_mean, pair)) for pair in pairs]
    intercepts = np.asarray(theirs.intercept_), ours.intercept_
    pairs.append(tuple(map(without_mean, intercepts)) if of_classes else intercepts)
    gap = max(abs(one - other).max() for one, other in pairs)
    if of_classes:
        mean, theirs_again = ours.predict_proba(X), np.exp(to_nemos(ours).predict_proba(X, return_type="log-proba"))
    else:
        mean, theirs_again = ours.predict(X), to_nemos(ours).predict(X)
    back = abs(np.asarray(theirs_again) / mean - 1).max()
    row = f"| {kind.__name__} | {family} | {regularizer} | {gap:.0e} | {back:.0e} | {'yes' if converged else 'no'} |"
    print(row, flush=True)
    return row, gap


def without_mean(array):
    """Coefficients less their mean over classes."""
    return array - array.mean(-1, keepdims=True)


def main():
    """Write the page."""
    jax.config.update("jax_enable_x64", True)
    of_classes = (nemos.glm.ClassifierGLM, nemos.glm.ClassifierPopulationGLM)
    cases = [(kind, family) for kind in (nemos.glm.GLM, nemos.glm.PopulationGLM) for family in FAMILIES]
    cases += [(kind, "Categorical") for kind in of_classes]
    rows = [compare(kind, family, regularizer) for kind, family in cases for regularizer in STRENGTHS]
    text = HEADER.format(version=nemos.__version__, steps=SOLVER["maxiter"]) + "\n".join(row for row, _ in rows) + "\n"
    within = sum(gap <= BAR for _, gap in rows)
    PAGE.write_text(text + f"\n{within} of {len(rows)} differences are at most {BAR:g}.\n")
    return int(within < len(rows))


if __name__ == "__main__":
    sys.exit(main())
