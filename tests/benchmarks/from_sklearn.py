"""Compare linear models of scikit-learn with what `from_sklearn` makes of them.

``python tests/benchmarks/from_sklearn.py``. Writes docs/from-sklearn.md; exit status 1 if a difference is above the
bar.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import sklearn
from sklearn.base import clone
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
)

from bayesglm import from_sklearn

PAGE = Path(__file__).resolve().parents[2] / "docs" / "from-sklearn.md"
BAR = 1e-6
# The peers' own tolerances, so tight that rounding stops them.
COORDINATES = {"tol": 1e-14, "max_iter": 100_000}
NEWTON = {"tol": 1e-12, "max_iter": 10_000, "solver": "newton-cholesky"}
SAGA = {"tol": 1e-13, "max_iter": 100_000, "solver": "saga"}
OUTCOMES = {
    LinearRegression: ("real", "real, 3 columns"),
    Ridge: ("real", "real, 3 columns"),
    Lasso: ("real", "real, 3 columns"),
    ElasticNet: ("real", "real, 3 columns"),
    PoissonRegressor: ("counts",),
    GammaRegressor: ("positive",),
    LogisticRegression: ("0 and 1", "2 labels", "3 labels"),
}
# Without labels beside them: for all outcomes of the estimator.
ESTIMATORS = (
    LinearRegression(),
    LinearRegression(fit_intercept=False),
    LinearRegression(positive=True),
    Ridge(3.0),
    Ridge(3.0, fit_intercept=False),
    Ridge(3.0, positive=True, tol=1e-14),
    Ridge([1.0, 5.0, 20.0]),
    Lasso(0.1, **COORDINATES),
    Lasso(0.1, fit_intercept=False, **COORDINATES),
    Lasso(0.1, positive=True, **COORDINATES),
    ElasticNet(0.2, l1_ratio=0.3, **COORDINATES),
    ElasticNet(0.2, l1_ratio=0.3, fit_intercept=False, **COORDINATES),
    ElasticNet(0.2, l1_ratio=0.3, positive=True, **COORDINATES),
    PoissonRegressor(alpha=0.0, **NEWTON),
    PoissonRegressor(alpha=0.1, **NEWTON),
    PoissonRegressor(alpha=0.1, fit_intercept=False, **NEWTON),
    GammaRegressor(alpha=0.0, **NEWTON),
    GammaRegressor(alpha=0.1, **NEWTON),
    GammaRegressor(alpha=0.1, fit_intercept=False, **NEWTON),
    LogisticRegression(C=np.inf, **NEWTON),
    LogisticRegression(C=0.1, **NEWTON),
    LogisticRegression(C=0.1, fit_intercept=False, **NEWTON),
    LogisticRegression(C=0.2, l1_ratio=1.0, **SAGA),
    LogisticRegression(C=0.2, l1_ratio=0.4, **SAGA),
)
HEADER = """\
# Models of scikit-learn, read and fitted here

`from_sklearn(estimator).fit(X, y)` beside `estimator.fit(X, y)` of scikit-learn {version}, at tolerances so tight that
rounding stops it: the largest absolute difference of coefficients and intercepts, without sample weights and with them
(between 0 and 3). X has 300 samples by 6 features, some without an effect. For labels, what adds the same to the
predictors of all classes changes no probability: differences between classes are compared, which for two labels are
the coefficients of scikit-learn.

Written by `tests/benchmarks/from_sklearn.py`.

| estimator | y | became | difference | with weights |
|---|---|---|---|---|
"""


def make_data(outcome):
    """Features, observations with effects of some of them, and weights."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(300, 6)) * [1.0, 0.5, 2.0, 1.0, 1.0, 1.0] + 0.2
    eta = X[:, :3] @ rng.normal(size=(3, 3)) * 0.4
    labels = (eta + rng.gumbel(size=eta.shape)).argmax(1)
    y = {
        "real": eta[:, 0] + rng.normal(size=300),
        "real, 3 columns": eta + rng.normal(size=eta.shape),
        "counts": rng.poisson(np.exp(eta[:, 0])).astype(float),
        "positive": rng.gamma(4.0, np.exp(eta[:, 0]) / 4),
        "0 and 1": (labels > 0).astype(float),
        "2 labels": np.array(["low", "high", "high"])[labels],
        "3 labels": np.array(["low", "middle", "high"])[labels],
    }[outcome]
    return X, y, rng.uniform(0.0, 3.0, size=300)


def differ(estimator, X, y, weight):
    """The model that the estimator became, and the largest difference of a parameter."""
    theirs = clone(estimator)
    # A fit that did not converge would be no reference.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs.fit(X, y, sample_weight=weight)
        ours = from_sklearn(theirs, n_samples=len(y) if weight is None else weight.sum())
        ours.fit(X, y, sample_weight=weight)
    coef, intercept = ours.coef_, ours.intercept_
    coef_, intercept_ = theirs.coef_.T, np.asarray(theirs.intercept_)
    if "classes_" in vars(ours):
        # scikit-learn has one predictor for two labels.
        if len(ours.classes_) == 2:
            coef, intercept = coef[:, 1:] - coef[:, :1], intercept[1:] - intercept[:1]
        else:
            coef, intercept, coef_, intercept_ = map(without_mean, (coef, intercept, coef_, intercept_))
    gaps = abs(coef - coef_.reshape(coef.shape)).max(), abs(intercept - intercept_).max()
    return type(ours).__name__, float(max(gaps))


def without_mean(array):
    """Parameters less their mean over classes."""
    return array - array.mean(-1, keepdims=True)


def compare(estimator, outcome):
    """A row of the table, and the larger difference."""
    X, y, weight = make_data(outcome)
    kind, plain = differ(estimator, X, y, None)
    _, weighted = differ(estimator, X, y, weight)
    options = {
        name: value
        for name, value in estimator.get_params().items()
        if value != clone(type(estimator)()).get_params()[name] and name not in ("tol", "max_iter")
    }
    written = ", ".join(f"{name}={value!r}" for name, value in options.items())
    row = f"| `{type(estimator).__name__}({written})` | {outcome} | {kind} | {plain:.0e} | {weighted:.0e} |"
    print(row, flush=True)
    return row, max(plain, weighted)


def has_outcome(estimator, outcome):
    """Whether the estimator fits such observations; one with an alpha per column fits several only."""
    if np.ndim(estimator.get_params().get("alpha", 0.0)):
        return outcome == "real, 3 columns"
    # Its bounded Ridge of several columns does not converge.
    return outcome != "real, 3 columns" or not (isinstance(estimator, Ridge) and estimator.positive)


def main():
    """Write the page."""
    cases = [
        (estimator, outcome)
        for estimator in ESTIMATORS
        for outcome in OUTCOMES[type(estimator)]
        if has_outcome(estimator, outcome)
    ]
    rows = [compare(*case) for case in cases]
    text = HEADER.format(version=sklearn.__version__) + "\n".join(row for row, _ in rows) + "\n"
    within = sum(gap <= BAR for _, gap in rows)
    PAGE.write_text(text + f"\n{within} of {len(rows)} differences are at most {BAR:g}.\n")
    return int(within < len(rows))


if __name__ == "__main__":
    sys.exit(main())
