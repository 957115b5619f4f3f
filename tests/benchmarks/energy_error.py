"""How far rounding disturbs energy differences in float32: ``python tests/benchmarks/energy_error.py``.

Prints, for several numbers of samples, the standard deviation of the difference between potentials in float32 and in
float64, at draws of the normal approximation, as docs/sampling.md quotes it.
"""

import jax
import numpy as np

from bayesglm import GLM
from bayesglm._frame import whiten
from bayesglm._posterior import Priors
from bayesglm._potential import potential
from bayesglm._sampling import targets_of


def errors(family, n, p=20, draws=200):
    """Errors of the potential in float32 at some draws, less their mean."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, p)).astype(np.float32)
    eta = X @ rng.normal(size=p) * 0.2
    y = rng.poisson(np.exp(eta)) if family == "Poisson" else rng.random(n) < 1 / (1 + np.exp(-eta))
    u = rng.normal(size=(draws, 1 + p)).astype(np.float32)
    fitted = GLM(family, regularizer="Ridge", regularizer_strength=0.01)
    fitted = fitted._fit(*fitted._read_all(X, y.astype(float), None, None))
    form = fitted.spec.form
    (target,) = targets_of(fitted)
    narrow = X, np.ones(n, np.float32), jax.tree.map(lambda leaf: leaf[0], target)
    narrow = (*narrow, jax.tree.map(np.asarray, whiten(*narrow, Priors(None, None), form)))
    wide = jax.tree.map(lambda leaf: leaf.astype(float) if leaf.dtype.kind == "f" else leaf, narrow)

    def potentials(arrays, u):
        *data, frame = arrays
        return jax.lax.map(lambda row: potential(row, *data, Priors(None, None), frame, form), u)

    with jax.enable_x64(True):
        exact = np.asarray(jax.jit(potentials)(wide, u.astype(float)))
    error = np.asarray(jax.jit(potentials)(narrow, u)) - exact
    return error - error.mean()


def main():
    """Print the errors."""
    for family in ("Poisson", "Bernoulli"):
        for n in (1_000, 10_000, 100_000, 1_000_000):
            print(f"{family}, {n} samples: {errors(family, n).std():.1e}", flush=True)


if __name__ == "__main__":
    main()
