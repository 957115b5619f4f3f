"""Data and models that several tests share."""

import json
import os
import shutil
import tempfile
from itertools import count
from pathlib import Path

# Tests are thousands of small programs that take longer to compile than to run. XLA reads this when JAX first computes.
# Long Monte Carlo checks are faster with XLA_FLAGS set to nothing.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Workers share what they compile, in a directory named for the process that starts them.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{tempfile.gettempdir()}/bayesglm-tests-{os.getpid()}")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import matplotlib
import numpy as np
import pytest
from numpyro import distributions  # noqa: F401  before ArviZ, which would put a stand-in in its place

matplotlib.use("Agg")
SEED_FILE = Path(__file__).parent / "data" / "seed_reference.json"


def pytest_unconfigure():
    """Remove what the workers shared, in the process that started them."""
    if os.environ["JAX_COMPILATION_CACHE_DIR"].endswith(f"bayesglm-tests-{os.getpid()}"):
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def seed():
    """The seed page's data {X, y} and its cases with their exact optima."""
    content = json.loads(SEED_FILE.read_text())
    content["X"] = {leaf: np.array(values) for leaf, values in content["X"].items()}
    content["y"] = np.array(content["y"])
    return content


@pytest.fixture
def rng():
    """A generator with a fixed seed."""
    return np.random.default_rng(20)


TESTS = count(1)


@pytest.fixture(autouse=True)
def few_compiled_programs():
    """Forget compiled programs now and then: thousands of them exhaust a process's memory maps."""
    yield
    if next(TESTS) % 60 == 0:
        jax.clear_caches()


COMPILATION = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations():
    """A list that grows by one with every compilation."""
    seen = []

    def listen(event, duration, **_):
        if event == COMPILATION:
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)
