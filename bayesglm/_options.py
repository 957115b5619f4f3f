"""The constructor's arguments, resolved: names to objects, options to numbers."""

import numbers
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from bayesglm import links, observation_models, priors
from bayesglm._numpyro import check_prior, dist, is_distribution

__all__ = [
    "PARTS",
    "Parts",
    "check_draws",
    "check_method",
    "check_prior_shapes",
    "check_random_strengths",
    "check_run_options",
    "drops_missing",
    "is_conjugate",
    "part_of",
    "read_key",
    "resolve",
]

FAMILIES: dict[str, type] = {
    "Poisson": observation_models.PoissonObservations,
    "Gaussian": observation_models.GaussianObservations,
    "Bernoulli": observation_models.BernoulliObservations,
    "Binomial": observation_models.BinomialObservations,
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
# Arguments that are objects with arguments of their own, and their names.
PARTS = {"observation_model": FAMILIES, "regularizer": REGULARIZERS}
# Links by whose own name users may call their inverses.
INVERSES = {"log": "exp", "logit": "logistic", "probit": "norm.cdf", "inverse": "one_over_x"}
# Other names of inverses, those of SciPy and NeMoS.
SYNONYMS = {"expit": "logistic"}
SOLVERS = ("Newton", "ProximalNewton")
METHODS = ("auto", "exact", "hmc", "laplace", "nuts")
PARAMETRIZATIONS = ("auto", "direct", "mixture")
NAN_POLICIES = ("raise", "drop")
DISPERSION_PRIORS = ("plug-in", "conditional")


class Parts(NamedTuple):
    """The constructor's arguments, resolved."""

    family: Any
    link: links.Link
    prior: Any
    intercept_prior: Any
    conditional_prior: bool
    tol: float | None
    max_iter: int
    fit_intercept: bool = True


def resolve(
    observation_model,
    inverse_link_function,
    regularizer,
    solver_name,
    solver_kwargs,
    intercept_prior,
    dispersion_prior,
    fit_intercept=True,
    positive=False,
    families=None,
):
    """Turn the constructor's arguments into objects.

    `families` are the observation models that there are, by their names.

    Returns
    -------
    Parts

    Raises
    ------
    ValueError
        That names the argument, what came and what is known.
    """
    family = _from_name(observation_model, families or FAMILIES, "observation_model")
    link = _resolve_link(inverse_link_function, family)
    prior = _from_name("UnRegularized" if regularizer is None else regularizer, REGULARIZERS, "regularizer")
    if _is_somewhere_true(positive):
        prior = priors.nonnegative(prior)
    if solver_name is not None and not (isinstance(solver_name, str) and solver_name in SOLVERS):
        raise ValueError(f"solver_name must be None or one of {SOLVERS}; got {solver_name!r}.")
    if solver_name == "Newton" and not prior.smooth:
        raise ValueError(f"solver_name 'Newton' needs a smooth regularizer; {prior} wants 'ProximalNewton'.")
    if intercept_prior is not None:
        check_prior(intercept_prior, dist.constraints.real, "the real numbers", "intercept_prior")
    if not isinstance(dispersion_prior, str) or dispersion_prior not in DISPERSION_PRIORS:
        raise ValueError(f"dispersion_prior must be one of {DISPERSION_PRIORS}; got {dispersion_prior!r}.")
    if not isinstance(fit_intercept, bool | np.bool_):
        raise ValueError(f"fit_intercept must be True or False; got {fit_intercept!r}.")
    if intercept_prior is not None and not fit_intercept:
        raise ValueError(
            "intercept_prior must be None where fit_intercept is False: there is no intercept then; got "
            f"{type(intercept_prior).__name__}."
        )
    conditional = dispersion_prior == "conditional"
    family = _with_plain_scale(family)
    tol, max_iter = _read_solver_kwargs(solver_kwargs)
    return Parts(family, link, prior, intercept_prior, conditional, tol, max_iter, bool(fit_intercept))


def check_run_options(method, parametrization, counts, seed, target_accept_prob):
    """Raise a ValueError that names the first option of `sample` that does not make sense."""
    for name, value, known in (
        ("method", method, METHODS),
        ("parametrization", parametrization, PARAMETRIZATIONS),
    ):
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{name} must be one of {known}; got {value!r}.")
    for name, value in counts.items():
        if not (name == "num_warmup" and value is None):
            _check_integer(name, value, 0 if name == "num_warmup" else 1)
    _check_seed(seed)
    if not isinstance(target_accept_prob, numbers.Real) or not 0.0 < float(target_accept_prob) < 1.0:
        raise ValueError(f"target_accept_prob must lie between 0 and 1; got {target_accept_prob!r}.")


def drops_missing(nan_policy):
    """Whether samples with missing entries are left out; a ValueError if that is not clear."""
    if not isinstance(nan_policy, str) or nan_policy not in NAN_POLICIES:
        raise ValueError(f"nan_policy must be one of {NAN_POLICIES}; got {nan_policy!r}.")
    return nan_policy == "drop"


def is_conjugate(family, link, prior, intercept_prior, *, conditional):
    """Whether the posterior of a model has independent draws in closed form.

    Parameters
    ----------
    family : class
    conditional : bool
        Whether the priors follow the sampled dispersion.
    """
    normal = family is observation_models.GaussianObservations and link == links.IDENTITY and prior.smooth
    if intercept_prior is None:
        return normal
    return normal and type(intercept_prior) is dist.Normal and not conditional


def check_method(method, parts):
    """Raise a ValueError if the model does not allow the method."""
    conjugate = is_conjugate(
        type(parts.family), parts.link, parts.prior, parts.intercept_prior, conditional=parts.conditional_prior
    )
    if method == "exact" and not conjugate:
        raise ValueError(
            "method 'exact' needs Gaussian observations with the identity link, Ridge or no regularizer, "
            "coefficients of any sign, and a flat or Normal intercept_prior (flat where dispersion_prior is "
            "'conditional'); use method='auto'."
        )


def check_random_strengths(method, kinds):
    """Raise a ValueError if the method cannot sample strengths, or some are to be found by the evidence instead."""
    if method in ("exact", "laplace"):
        raise ValueError(f"method {method!r} does not sample strengths; use 'auto', 'hmc' or 'nuts'.")
    if any(isinstance(kind, str) and kind == "evidence" for kind in kinds):
        raise ValueError(
            "regularizer_strength has both 'evidence' and random strengths ('learn' or distributions): one run finds "
            "the first or samples the second."
        )


def check_draws(num_samples, seed, *, optional=True):
    """Raise a ValueError unless there is a number of draws, or None where that is allowed, and a seed."""
    if not (optional and num_samples is None):
        _check_integer("num_samples", num_samples, 1)
    _check_seed(seed)


def _check_seed(seed):
    _check_integer("seed", seed, 0)
    if seed >= 2**32:
        raise ValueError(f"seed must be below 2**32; got {seed!r}.")


def _check_integer(name, value, least):
    if not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")


def read_key(key):
    """Entropy for a NumPy generator from an integer or a JAX key."""
    if isinstance(key, numbers.Integral) and int(key) >= 0:
        return int(key)
    try:
        return np.asarray(jax.random.key_data(key)).tolist()
    except TypeError as error:
        raise ValueError(f"key must be an integer >= 0 or a JAX random key; got {key!r}.") from error


def part_of(name, value):
    """The object that an argument of PARTS stands for; what does not make sense is for `resolve` to refuse."""
    value = "UnRegularized" if value is None else value
    return PARTS[name][value]() if isinstance(value, str) and value in PARTS[name] else value


def _from_name(value, known, argument):
    """An instance: of a known name, or the object itself if it is of a known type."""
    if isinstance(value, str):
        if value not in known:
            raise ValueError(f"{argument} must be one of {list(known)}; got {value!r}.")
        return known[value]()
    if isinstance(value, tuple(known.values())):
        return value
    example = next(iter(known.values())).__name__
    if type(value).__module__.startswith("nemos"):
        raise ValueError(f"{argument} is NeMoS's {value!r}: name it, as in {list(known)}, or use bayesglm.from_nemos.")
    raise ValueError(f"{argument} must be one of {list(known)} or an instance such as {example}(); got {value!r}.")


def _is_somewhere_true(positive):
    """Whether some coefficient may not be negative; what does not make sense is for `read_positive` to refuse."""
    return any(bool(np.asarray(leaf, object).astype(bool).any()) for leaf in jax.tree.leaves(positive))


def _resolve_link(link, family):
    if link is None:
        return family.default_link
    if isinstance(link, links.Link):
        return link
    if isinstance(link, str):
        link = SYNONYMS.get(link, link)
        if link not in links.LINKS:
            hint = f" The inverse of {link} is {INVERSES[link]!r}." if link in INVERSES else ""
            raise ValueError(
                f"inverse_link_function must be one of {list(links.LINKS)} or callable; got {link!r}.{hint}"
            )
        return links.LINKS[link]
    if not callable(link):
        raise ValueError(f"inverse_link_function must be None, a name or a JAX callable; got {link!r}.")
    for known in links.LINKS.values():
        if link is known.inverse or link is jax.scipy.special.expit and known is links.LOGISTIC:
            return known
    try:
        shape = jax.eval_shape(link, jax.ShapeDtypeStruct((3,), "float32")).shape
    except Exception as error:
        raise ValueError(
            f"inverse_link_function must be a name ({', '.join(links.LINKS)}) or a function of JAX arrays such as "
            f"jnp.exp; {link!r} fails on one: {error}"
        ) from error
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


def check_prior_shapes(parts, outputs):
    """Raise a ValueError unless the priors of the intercept and the scale fit the outputs."""
    allowed = [(), (outputs.count,)] if outputs.shape else [()]
    if parts.intercept_prior is not None and parts.intercept_prior.batch_shape not in allowed:
        expected = " or ".join(map(str, allowed))
        raise ValueError(
            f"intercept_prior must have the batch shape {expected}; got {parts.intercept_prior.batch_shape}."
        )
    scale = parts.family.scale
    if is_distribution(scale) and scale.batch_shape != ():
        raise ValueError(f"scale must be one distribution, of batch shape (); got {scale.batch_shape}.")


def _with_plain_scale(family):
    """The family with its scale checked and, if it is a number, as a Python float."""
    name, scale = f"{type(family).__name__}(scale=...)", family.scale
    if scale is None:
        return family
    if is_distribution(scale):
        check_prior(scale, dist.constraints.positive, "the positive numbers", name)
        return family
    if not (isinstance(scale, numbers.Real) or (isinstance(scale, np.ndarray) and scale.shape == ())):
        raise ValueError(f"{name} must be a positive number, None or a NumPyro distribution; got {scale!r}.")
    if not 0.0 < float(scale) < np.inf:
        raise ValueError(f"{name} must be positive and finite; got {scale!r}.")
    return replace(family, scale=float(scale)) if "scale" in {field.name for field in fields(family)} else family
