"""The constructor's arguments, resolved: names to objects, options to numbers."""

import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist

from bayesglm import links, observation_models, priors

__all__ = ["Parts", "check_run_options", "read_key", "resolve"]

FAMILIES: dict[str, type] = {
    "Poisson": observation_models.PoissonObservations,
    "Gaussian": observation_models.GaussianObservations,
    "Bernoulli": observation_models.BernoulliObservations,
    "Gamma": observation_models.GammaObservations,
    "NegativeBinomial": observation_models.NegativeBinomialObservations,
}
REGULARIZERS: dict[str, type] = {
    "UnRegularized": priors.UnRegularized,
    "Ridge": priors.Ridge,
    "Lasso": priors.Lasso,
    "ElasticNet": priors.ElasticNet,
    "GroupLasso": priors.GroupLasso,
}
SOLVERS = ("Newton", "ProximalNewton")
METHODS = ("nuts",)


class Parts(NamedTuple):
    """The constructor's arguments, resolved."""

    family: Any
    link: links.Link
    prior: Any
    intercept_prior: Any
    tol: float | None
    max_iter: int


def resolve(observation_model, inverse_link_function, regularizer, solver_name, solver_kwargs, intercept_prior):
    """Turn the constructor's arguments into objects.

    Returns
    -------
    Parts

    Raises
    ------
    ValueError
        That names the argument, what came and what is known.
    """
    family = _from_name(observation_model, FAMILIES, "observation_model")
    link = _resolve_link(inverse_link_function, family)
    prior = _from_name("UnRegularized" if regularizer is None else regularizer, REGULARIZERS, "regularizer")
    if solver_name is not None and not (isinstance(solver_name, str) and solver_name in SOLVERS):
        raise ValueError(f"solver_name must be None or one of {SOLVERS}; got {solver_name!r}.")
    if solver_name == "Newton" and not prior.smooth:
        raise ValueError(f"solver_name 'Newton' needs a smooth regularizer; {prior} wants 'ProximalNewton'.")
    if intercept_prior is not None and not isinstance(intercept_prior, dist.Distribution):
        raise ValueError(f"intercept_prior must be None or a NumPyro distribution; got {intercept_prior!r}.")
    _check_scale(family.scale)
    return Parts(family, link, prior, intercept_prior, *_read_solver_kwargs(solver_kwargs))


def check_run_options(method, counts, seed, target_accept_prob):
    """Raise a ValueError that names the first option of `sample` that does not make sense."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}; got {method!r}.")
    for name, value in counts.items():
        least = 0 if name == "num_warmup" else 1
        if not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"seed must be an integer >= 0; got {seed!r}.")
    if not isinstance(target_accept_prob, numbers.Real) or not 0.0 < float(target_accept_prob) < 1.0:
        raise ValueError(f"target_accept_prob must lie between 0 and 1; got {target_accept_prob!r}.")


def read_key(key):
    """Entropy for a NumPy generator from an integer or a JAX key."""
    if isinstance(key, numbers.Integral) and int(key) >= 0:
        return int(key)
    try:
        return np.asarray(jax.random.key_data(key)).tolist()
    except TypeError as error:
        raise ValueError(f"key must be an integer >= 0 or a JAX random key; got {key!r}.") from error


def _from_name(value, known, argument):
    """An instance: of a known name, or the object itself if it is of a known type."""
    if isinstance(value, str):
        if value not in known:
            raise ValueError(f"{argument} must be one of {list(known)}; got {value!r}.")
        return known[value]()
    if isinstance(value, tuple(known.values())):
        return value
    raise ValueError(f"{argument} must be one of {list(known)} or such an object; got {value!r}.")


def _resolve_link(link, family):
    if link is None:
        return family.default_link
    if isinstance(link, links.Link):
        return link
    if isinstance(link, str):
        if link not in links.LINKS:
            raise ValueError(f"inverse_link_function must be one of {list(links.LINKS)} or callable; got {link!r}.")
        return links.LINKS[link]
    if not callable(link):
        raise ValueError(f"inverse_link_function must be None, a name or a JAX callable; got {link!r}.")
    for known in links.LINKS.values():
        if link is known.inverse or link is jax.scipy.special.expit and known is links.LOGISTIC:
            return known
    try:
        shape = jax.eval_shape(link, jax.ShapeDtypeStruct((3,), "float32")).shape
    except Exception as error:
        raise ValueError(f"inverse_link_function {link!r} must accept and return JAX arrays: {error}") from error
    if shape != (3,):
        raise ValueError(f"inverse_link_function {link!r} must work elementwise; shape (3,) became {shape}.")
    return links.Link("custom", link)


def _read_solver_kwargs(kwargs):
    if kwargs is None:
        return None, 100
    if not isinstance(kwargs, Mapping) or not set(kwargs) <= {"tol", "maxiter"}:
        raise ValueError(f"solver_kwargs must be a dict with the keys 'tol' and 'maxiter'; got {kwargs!r}.")
    tol, max_iter = kwargs.get("tol"), kwargs.get("maxiter", 100)
    if tol is not None and not (isinstance(tol, numbers.Real) and 0.0 < float(tol) < 1.0):
        raise ValueError(f"solver_kwargs['tol'] must be a number between 0 and 1; got {tol!r}.")
    if not isinstance(max_iter, numbers.Integral) or max_iter < 1:
        raise ValueError(f"solver_kwargs['maxiter'] must be a positive integer; got {max_iter!r}.")
    return tol, int(max_iter)


def _check_scale(scale):
    if scale is None or isinstance(scale, dist.Distribution):
        return
    if not isinstance(scale, numbers.Real) or not 0.0 < float(scale) < np.inf:
        raise ValueError(f"The scale of the observation model must be a positive number; got {scale!r}.")
