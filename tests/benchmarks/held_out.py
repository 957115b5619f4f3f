"""Held-out scores of learned and cross-validated strengths: ``python tests/benchmarks/held_out.py [DATA ...]``.

Four designs with two or three leaves, 20 random splits each: a simulation whose leaves differ a hundredfold in the size
of their coefficients; visits to a doctor in the RAND health insurance experiment, 400 people to fit and 4000 to score;
the progression of diabetes, and tumours, of scikit-learn's data sets, half to fit, half to score. Ridge has one
strength chosen by 5 folds among 30, one by the evidence, or one per leaf by the evidence. Features are standardized.
"""

import sys

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes
from statsmodels.datasets import randhie

from bayesglm import GLM, GLMCV

SPLITS = 20


def simulation(rng):
    """Counts; half of the features matter."""
    X = rng.normal(size=(1150, 60))
    coef = np.repeat([0.3, 0.003], 30) * rng.normal(size=60)
    y = rng.poisson(np.exp(0.2 + X @ coef))
    return "Poisson", {"strong": X[:, :30], "weak": X[:, 30:]}, y, 150


def visits(rng):
    """Visits to a doctor, with squares and products of the features as a leaf of their own."""
    data = randhie.load_pandas().data
    rows = rng.choice(len(data), 4400, replace=False)
    X = standardize(data.drop(columns="mdvis").to_numpy(float)[rows])
    left, right = np.triu_indices(X.shape[1])
    products = standardize(X[:, left] * X[:, right])
    keep = np.abs(products).max(0) < 30
    return "NegativeBinomial", {"features": X, "products": products[:, keep]}, data["mdvis"].to_numpy(float)[rows], 400


def progression(rng):
    """Progression of diabetes, with squares and products of the features as a leaf of their own."""
    X, y = load_diabetes(return_X_y=True)
    rows = rng.permutation(len(y))
    X = standardize(X[rows])
    left, right = np.triu_indices(X.shape[1])
    return "Gaussian", {"features": X, "products": standardize(X[:, left] * X[:, right])}, y[rows], 221


def tumours(rng):
    """Whether a tumour is benign, by the means, standard errors and extremes of ten measures of its cells."""
    bunch = load_breast_cancer()
    rows = rng.permutation(len(bunch.target))
    X = standardize(bunch.data)[rows]
    return "Bernoulli", {"means": X[:, :10], "errors": X[:, 10:20], "extremes": X[:, 20:]}, bunch.target[rows], 285


def standardize(X):
    """Features of mean 0 and standard deviation 1."""
    spread = X.std(0)
    return (X - X.mean(0)) / np.where(spread > 0, spread, 1.0)


def main():
    """Print one line for each design."""
    print("| data | null | one, by folds | one, by evidence | one per leaf, by evidence | the last is better in |")
    print("|---|---|---|---|---|---|")
    designs = {design.__name__: design for design in (simulation, visits, progression, tumours)}
    for design in [designs[name] for name in sys.argv[1:] or designs]:
        deviances = np.array([compare(*design(np.random.default_rng(split))) for split in range(SPLITS)])
        mean = " | ".join(f"{value:.4f}" for value in deviances.mean(0))
        wins = (deviances[:, 3] < deviances[:, 1]).sum()
        gain = deviances[:, 1] - deviances[:, 3]
        error = gain.std(ddof=1) / np.sqrt(SPLITS)
        better = f"{wins} of {SPLITS} splits, by {gain.mean():.4f} ± {error:.4f}"
        print(f"| {design.__name__} | {mean} | {better} |", flush=True)


def compare(family, X, y, n_train):
    """Minus the held-out log-likelihood of the mean of y, and of strengths chosen in three ways."""
    halves = slice(None, n_train), slice(n_train, None)
    train, test = ({name: leaf[rows] for name, leaf in X.items()} for rows in halves)
    y_train, y_test = y[:n_train], y[n_train:]
    base = GLM(family, regularizer="Ridge")
    models = [
        GLM(family, regularizer="Ridge", regularizer_strength=1e6).fit(train, y_train),
        GLMCV(base, 30, progress_bar=False).fit(train, y_train).best_estimator_,
        GLM(family, regularizer="Ridge", regularizer_strength="evidence").fit(train, y_train),
        GLM(family, regularizer="Ridge", regularizer_strength=dict.fromkeys(X, "evidence")).fit(train, y_train),
    ]
    return [-model.score(test, y_test, score_type="log-likelihood") for model in models]


if __name__ == "__main__":
    main()
