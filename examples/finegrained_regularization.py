"""Strengths of any granularity: one number, one per group of features, one per coefficient.

The sections follow NeMoS' how-to on regularizing parameters with different strengths, with its data; the
last one adds what a penalty alone does not give, the posterior. Run it with
``python finegrained_regularization.py``; it takes about twenty seconds.
"""

import numpy as np

from bayesglm import GLM, PopulationGLM


def make_data():
    """Two groups of features, `f1` and `f2`, as a dict, and counts of shape (500,): those of the how-to."""
    rng = np.random.RandomState(123)  # the same stream as np.random.seed(123)
    X = {"f1": 0.5 * rng.normal(size=(500, 5)), "f2": 0.5 * rng.normal(size=(500, 2))}
    w1, w2 = rng.uniform(size=5), rng.uniform(size=2)
    return X, rng.poisson(np.exp(X["f1"] @ w1 + X["f2"] @ w2 + 1.0))


def show(title, model):
    """Print the fit as `coef_` holds it: in the container of X."""
    print(f"\n{title}\n{'-' * len(title)}")
    for name, coef in model.coef_.items():
        print(f"{name}: {np.array2string(coef, precision=4, suppress_small=True, prefix='    ')}")
    print(f"intercept: {np.array2string(model.intercept_, precision=4)}")


def fit_all(X, counts):
    """Fit every example of the page; returns the models by title."""
    models = {}

    # One number: all seven coefficients share it. The intercept is never penalized.
    models["Ridge, one strength"] = GLM(regularizer="Ridge", regularizer_strength=0.1)

    # A dict like X: one strength for each group.
    models["Ridge, one per group"] = GLM(regularizer="Ridge", regularizer_strength={"f1": 0.1, "f2": 0.2})

    # Lists in it: one strength for each coefficient.
    models["Ridge, one per coefficient"] = GLM(
        regularizer="Ridge",
        regularizer_strength={"f1": [0.1, 0.3, 0.3, 0.1, 1.0], "f2": [0.2, 0.1]},
    )

    # Both at once.
    models["Ridge, mixed"] = GLM(regularizer="Ridge", regularizer_strength={"f1": 0.1, "f2": [0.2, 0.1]})

    # ElasticNet takes a pair (strength, ratio); the ratio is the share of the absolute values.
    models["ElasticNet, one pair"] = GLM(regularizer="ElasticNet", regularizer_strength=(1.0, 0.5))

    # Each of the two may be a tree.
    models["ElasticNet, one pair per coefficient"] = GLM(
        regularizer="ElasticNet",
        regularizer_strength=(
            {"f1": [0.1, 0.3, 0.3, 0.1, 1.0], "f2": [0.2, 0.1]},
            {"f1": [0.5, 0.3, 0.5, 0.5, 0.5], "f2": [0.5, 0.4]},
        ),
    )

    # GroupLasso keeps a group or drops it; its strengths are one per group. Without a mask the groups are
    # the leaves of X.
    models["GroupLasso, one per group"] = GLM(regularizer="GroupLasso", regularizer_strength=[0.1, 0.4])

    for title, model in models.items():
        show(title, model.fit(X, counts))
    return models


def fit_population(X, counts):
    """Two outputs at once; strengths per coefficient and output."""
    outputs = np.stack([counts, 2 * counts], axis=1)
    title = "PopulationGLM, one per coefficient and output"
    model = PopulationGLM(
        regularizer="Ridge",
        regularizer_strength={"f1": [[0.1, 0.2]] * 5, "f2": [[0.1, 0.2]] * 2},
    )
    show(title, model.fit(X, outputs))

    # A row of shape (1, outputs) broadcasts over the coefficients and says the same.
    short = PopulationGLM(regularizer="Ridge", regularizer_strength={"f1": [[0.1, 0.2]], "f2": [[0.1, 0.2]]}).fit(
        X, outputs
    )
    same = all(np.allclose(model.coef_[name], short.coef_[name]) for name in X)
    print(f"strengths of shape (1, 2) give the same fit: {same}")
    return model


def show_posterior(X, counts):
    """Sample one of the models, and show for each coefficient what its strength did."""
    strength = {"f1": [0.1, 0.3, 0.3, 0.1, 1.0], "f2": [0.2, 0.1]}
    model = GLM(regularizer="Ridge", regularizer_strength=strength)
    idata = model.sample(X, counts, num_samples=500, num_warmup=300, seed=1, progress_bar=False)

    title = "The posterior of 'Ridge, one per coefficient'"
    print(f"\n{title}\n{'-' * len(title)}")
    print(f"{'':8}{'strength':>10}{'prior':>18}{'coef_':>9}{'mean':>9}{'sd':>8}")
    for leaf, strengths in strength.items():
        draws = idata["posterior"][f"coef.{leaf}"]
        mean, sd = draws.mean(("chain", "draw")).to_numpy(), draws.std(("chain", "draw")).to_numpy()
        for i, s in enumerate(strengths):
            prior = f"Normal(0, {1 / np.sqrt(len(counts) * s):.3f})"
            print(f"{f'{leaf}[{i}]':8}{s:10}{prior:>18}{model.coef_[leaf][i]:9.4f}{mean[i]:9.4f}{sd[i]:8.4f}")
    print("The prior of a coefficient is Normal(0, 1 / sqrt(k s)); here k = 500, the number of samples.")
    return idata


def main():
    """Run every example."""
    X, counts = make_data()
    print(f"{len(counts)} counts, {counts.sum()} in total, the first ten: {counts[:10]}")
    fit_all(X, counts)
    fit_population(X, counts)
    show_posterior(X, counts)


if __name__ == "__main__":
    main()
