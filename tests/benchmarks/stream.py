"""How long and how much memory a stream of samples takes, and how far it ends from the fit to all of them.

``python tests/benchmarks/stream.py`` fits a million samples of 50 features under a Ridge, in batches of 10000, for each
of three families: by `GLM.partial_fit`, and by scikit-learn's `SGDRegressor` or `SGDClassifier`, whose `partial_fit`
takes one pass of stochastic steps, too, where it has the family. A line tells the median time of a batch, the largest
resident memory beyond that of the process before, and the largest distance from `GLM.fit` to all samples at once, in
standard errors of that; then the same of `GLM.fit`.
"""

import subprocess
import sys
import tempfile
import time

import numpy as np
from contenders import start_of_peak
from jobs import peak_rss_mb
from sklearn.linear_model import SGDClassifier, SGDRegressor

N_BATCHES, SIZE, N_FEATURES, STRENGTH = 100, 10_000, 50, 1e-3
DRAWS = {
    "Gaussian": lambda rng, eta: eta + rng.normal(size=len(eta)),
    "Poisson": lambda rng, eta: rng.poisson(np.exp(eta)).astype(float),
    "Bernoulli": lambda rng, eta: (rng.random(len(eta)) < 1 / (1 + np.exp(-eta))).astype(float),
}


def make_batch(family, number):
    """X and y of one batch, the same each time."""
    rng = np.random.default_rng(number)
    X = rng.normal(size=(SIZE, N_FEATURES))
    return X, DRAWS[family](rng, X @ (0.1 * np.sin(np.arange(N_FEATURES))) + 0.2)


def measure(family, way):
    """Print one line."""
    from bayesglm import GLM

    settings = {"regularizer": "Ridge", "regularizer_strength": STRENGTH}
    if way == "fit":
        X, y = map(np.concatenate, zip(*(make_batch(family, number) for number in range(N_BATCHES)), strict=True))
        before, begin = start_of_peak(), time.perf_counter()
        model = GLM(family, **settings).fit(X, y)
        seconds, memory = time.perf_counter() - begin, peak_rss_mb() - before + X.nbytes / 1e6
        np.savez(sys.argv[3], coef=model.coef_, error=model.standard_errors_)
        print(f"{family:>9}, GLM.fit            : {seconds:6.2f} s in all, {memory:5.0f} MB with X", flush=True)
        return
    theirs = {"Gaussian": SGDRegressor(alpha=STRENGTH), "Bernoulli": SGDClassifier("log_loss", alpha=STRENGTH)}
    model = GLM(family, **settings) if way == "ours" else theirs[family]
    others = {"classes": [0.0, 1.0]} if way == "theirs" and family == "Bernoulli" else {}
    times, before = [], start_of_peak()
    for number in range(N_BATCHES):
        X, y = make_batch(family, number)
        begin = time.perf_counter()
        model.partial_fit(X, y, **others)
        times.append(time.perf_counter() - begin)
    memory, whole = peak_rss_mb() - before, np.load(sys.argv[3])
    apart = (abs(np.ravel(model.coef_) - whole["coef"]) / whole["error"]).max()
    print(
        f"{family:>9}, {type(model).__name__:>13}.partial_fit: {np.median(times) * 1e3:6.1f} ms a batch, "
        f"{sum(times):6.2f} s in all, {memory:5.0f} MB, {apart:.1e} standard errors from GLM.fit",
        flush=True,
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(*sys.argv[1:3])
    else:
        with tempfile.TemporaryDirectory() as folder:
            for family in DRAWS:
                ways = ["fit", "ours", *(["theirs"] if family != "Poisson" else [])]
                for way in ways:
                    subprocess.run([sys.executable, __file__, family, way, f"{folder}/{family}.npz"], check=True)
