"""Time a first `sample` in a fresh process, and what of it is tracing and compiling.

``python tests/benchmarks/first_sample.py [METHOD]``, METHOD of `GLM.sample`, by default "auto"; Poisson counts 500 x 7
under Ridge. For a single core, start it under ``taskset -c 0``.
"""

import sys
import time

START = time.perf_counter()

import jax  # noqa: E402  its import is part of what is timed
import numpy as np  # noqa: E402

from bayesglm import GLM  # noqa: E402

STAGES = {"traced": "jaxpr_trace", "lowered": "jaxpr_to_mlir", "compiled": "backend_compile"}


def main(method):
    """Print the times of the first call and of three more, and the number of programs that these compiled."""
    events = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, seconds, **_: events.append((name, seconds)))
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 7))
    y = rng.poisson(np.exp(X @ np.full(7, 0.2)))
    model = GLM(regularizer="Ridge", regularizer_strength=0.1)
    begin = time.perf_counter()
    model.sample(X, y, method=method, progress_bar=False)
    end = time.perf_counter()
    print(f"first call {end - begin:.1f} s, imports included {end - START:.1f} s")
    for stage, word in STAGES.items():
        each = sorted((seconds for name, seconds in events if word in name), reverse=True)
        print(f"{stage}: {sum(each):.1f} s in all, the largest program {each[0]:.1f} s")
    before = len(events)
    for seed in (1, 2, 3):
        begin = time.perf_counter()
        model.sample(X, y, seed=seed, method=method, progress_bar=False)
        print(f"again {time.perf_counter() - begin:.2f} s")
    print("programs compiled later:", sum(STAGES["compiled"] in name for name, _ in events[before:]))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "auto")
