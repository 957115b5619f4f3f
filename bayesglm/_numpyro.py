"""NumPyro, loaded on first use: a fit does not need it, and it takes half a second."""

import importlib
import sys

import jax

# NumPyro loads this, which adds flags to what JAX finds programs by: if it came later, all would compile again.
import jax.extend

__all__ = ["check_prior", "dist", "is_distribution", "numpyro", "own_dist"]


class _Later:
    """A module that is imported when an attribute of it is asked for."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        # What a module computes when it is loaded must not become part of a program that is being traced.
        with jax.ensure_compile_time_eval():
            # ArviZ puts a stand-in for NumPyro in place; parts that are imported before it is replaced are incomplete.
            importlib.import_module("numpyro").__version__  # noqa: B018
            return getattr(importlib.import_module(self._name), attribute)


numpyro = _Later("numpyro")
dist = _Later("numpyro.distributions")
own_dist = _Later("bayesglm.distributions")


def is_distribution(value):
    """Whether a value is a NumPyro distribution; where NumPyro is not loaded, nothing is."""
    return "numpyro.distributions" in sys.modules and isinstance(value, dist.Distribution)


def check_prior(value, support, description, argument):
    """Raise a ValueError that names the argument unless a value is a univariate distribution with this support."""
    if not is_distribution(value):
        raise ValueError(f"{argument} must be None or a NumPyro distribution; got {value!r}.")
    if value.event_shape != () or value.support is not support:
        raise ValueError(
            f"{argument} must be a univariate distribution on {description}; got {type(value).__name__} with event "
            f"shape {value.event_shape} on {value.support}."
        )
