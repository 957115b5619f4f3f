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
HEADER = """\
# Models of NeMoS, read and fitted here

`from_nemos(model).fit(X, y)` beside `model.fit(X, y)` of NeMoS {version} with tolerance 1e-12 in float64: for every
observation model and regularizer, with one output (`GLM`) and three (`PopulationGLM`), the largest absolute difference
of coefficients and intercepts; and the largest relative difference between the predictions of the model here and those
of `to_nemos` of it. X is a dict of two leaves, 400 samples by 3 and 4 features.

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
    }[family]()
    return X, np.asarray(y, float)


def compare(kind, family, regularizer):
    """A row of the table, and the difference."""
    X, y = make_data(family, 3 if kind is nemos.glm.PopulationGLM else 1)
    y = y if kind is nemos.glm.PopulationGLM else y[:, 0]
    strength = STRENGTHS[regularizer]
    theirs = kind(
        observation_model=family, regularizer=regularizer, regularizer_strength=strength, solver_kwargs=SOLVER
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        theirs.fit(X, y)
    converged = not any("converge" in str(warning.message) for warning in caught)
    ours = from_nemos(theirs).fit(X, y)
    gaps = [abs(np.asarray(theirs.coef_[leaf]) - ours.coef_[leaf]).max() for leaf in X]
    gap = max(*gaps, abs(np.asarray(theirs.intercept_) - ours.intercept_).max())
    mean = ours.predict(X)
    back = abs(np.asarray(to_nemos(ours).predict(X)) / mean - 1).max()
    row = f"| {kind.__name__} | {family} | {regularizer} | {gap:.0e} | {back:.0e} | {'yes' if converged else 'no'} |"
    print(row, flush=True)
    return row, gap


def main():
    """Write the page."""
    jax.config.update("jax_enable_x64", True)
    kinds = (nemos.glm.GLM, nemos.glm.PopulationGLM)
    rows = [compare(kind, family, regularizer) for kind in kinds for family in FAMILIES for regularizer in STRENGTHS]
    text = HEADER.format(version=nemos.__version__, steps=SOLVER["maxiter"]) + "\n".join(row for row, _ in rows) + "\n"
    within = sum(gap <= BAR for _, gap in rows)
    PAGE.write_text(text + f"\n{within} of {len(rows)} differences are at most {BAR:g}.\n")
    return int(within < len(rows))


if __name__ == "__main__":
    sys.exit(main())
