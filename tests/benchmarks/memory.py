"""How much memory a fit takes beyond X and y.

``python tests/benchmarks/memory.py`` fits a Poisson Ridge to 100000 x 200 numbers, each time in a new process: X as
NumPy makes it, X whose memory starts at a multiple of 64 bytes, and X as a dict of two leaves. It prints the largest
resident memory during the first fit (compiling included) and during the second, beyond that of the process before it.
"""

import subprocess
import sys

import numpy as np
from contenders import start_of_peak
from jobs import peak_rss_mb

SHAPE = 100_000, 200
ALIGNMENT = 64


def make_features(kind):
    """X of this kind; made in parts, so that the process was never larger than it has to be."""
    rng = np.random.default_rng(0)
    size = SHAPE[0] * SHAPE[1] * 8
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT + (0 if kind == "aligned" else 8)
    X = room[start : start + size - 8].view(float)[: (SHAPE[0] - 1) * SHAPE[1]].reshape(-1, SHAPE[1])
    for part in np.array_split(X, 100):
        part[...] = rng.normal(size=part.shape)
    if kind != "dict":
        return X
    half = SHAPE[1] // 2
    return {"first": X[:, :half].copy(), "last": X[:, half:].copy()}


def measure(kind):
    """Print the memory of two fits to X of this kind."""
    from bayesglm import GLM

    X = make_features(kind)
    first = X["first"] if kind == "dict" else X
    y = np.random.default_rng(1).poisson(np.exp(0.1 * first[:, 0])).astype(float)
    model = GLM("Poisson", regularizer="Ridge", regularizer_strength=1e-3)
    of_features = first.nbytes / 1e6 * (2 if kind == "dict" else 1)
    for words in ("compiling included", "after compiling"):
        before = start_of_peak()
        model.fit(X, y)
        beyond = peak_rss_mb() - before
        print(f"{kind:>8}, {words:18}: {beyond:4.0f} MB beyond X and y, {beyond / of_features:.2f} of X", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        for each in ("plain", "aligned", "dict"):
            subprocess.run([sys.executable, __file__, each], check=True)
