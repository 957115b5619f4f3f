"""Models of NeMoS and scikit-learn, as models of this package that give the same fit, and back to NeMoS.

Nothing here loads either package's models: what they are is read off the object, so any version of them will do that
has the attributes.
"""

import math
import numbers
from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator

from bayesglm import observation_models, priors
from bayesglm._numpyro import is_distribution
from bayesglm.glm import GLM, ClassifierGLM, PopulationGLM

__all__ = ["from_nemos", "from_sklearn", "to_nemos"]

# Names of NeMoS's functions that are called otherwise here.
NEMOS_LINKS = {
    "exp": "exp",
    "identity": "identity",
    "logistic": "logistic",
    "expit": "logistic",
    "softplus": "softplus",
    "norm_cdf": "norm.cdf",
    "cdf": "norm.cdf",
    "one_over_x": "one_over_x",
}
LINKS_IN_NEMOS = set(NEMOS_LINKS.values())
NEMOS_MODELS: dict[str, type] = {
    "GLM": GLM,
    "PopulationGLM": PopulationGLM,
    "ClassifierGLM": ClassifierGLM,
    "ClassifierPopulationGLM": ClassifierGLM,
}
# Estimators of scikit-learn that choose by cross-validation: what they chose, and what that is of the plain ones.
CHOSEN: dict[str, dict[str, str]] = {
    "RidgeCV": {"alpha_": "alpha"},
    "LassoCV": {"alpha_": "alpha"},
    "ElasticNetCV": {"alpha_": "alpha", "l1_ratio_": "l1_ratio"},
    "LogisticRegressionCV": {"C_": "C", "l1_ratio_": "l1_ratio"},
}
# How many times the penalty counts against the loss in NeMoS what it does here: its squared error has no 1/2.
NEMOS_GAUSSIAN = 2.0


def from_nemos(model):
    """Model that `fit`s what a model of NeMoS fits, and can then be sampled.

    Parameters
    ----------
    model : nemos.glm.GLM, PopulationGLM, ClassifierGLM or ClassifierPopulationGLM
        Fitted or not. It is not changed. What was fitted is not taken over: `fit` finds it, to a tighter tolerance.

    Returns
    -------
    GLM, PopulationGLM or ClassifierGLM
        Not fitted. Strengths of Gaussian observations are halved, since NeMoS's squared error has no factor 1/2;
        all others are the same numbers. Solvers and their options are left behind.

    Raises
    ------
    ValueError
        If the model is none of these, or has a part that has no counterpart here.
    """
    name = type(model).__name__
    if name not in NEMOS_MODELS or not type(model).__module__.startswith("nemos"):
        raise ValueError(f"model must be one of NeMoS's {list(NEMOS_MODELS)}; got {_written(model)}.")
    family = type(model.observation_model).__name__
    if family not in observation_models.__all__:
        raise ValueError(f"model has the observation_model {family}, which has no counterpart here.")
    observation_model: Any = family.removesuffix("Observations")
    if family == "NegativeBinomialObservations":
        observation_model = observation_models.NegativeBinomialObservations(float(model.observation_model.scale))
    regularizer = type(model.regularizer).__name__
    if regularizer not in priors.__all__:
        raise ValueError(f"model has the regularizer {regularizer}, which has no counterpart here.")
    strength = model.regularizer_strength
    if strength is not None and family == "GaussianObservations":
        strength = _times(strength, 1 / NEMOS_GAUSSIAN, regularizer)
    mask = getattr(model.regularizer, "mask", None)
    # A fit leaves the mask as one of coefficients and intercepts.
    mask = getattr(mask, "coef", mask)
    settings = {
        "regularizer": regularizer if mask is None else priors.GroupLasso(mask=_as_numpy(mask)),
        "regularizer_strength": _as_numpy(strength),
        "nan_policy": "drop",
    }
    if NEMOS_MODELS[name] is ClassifierGLM:
        mask = getattr(model, "feature_mask", None)
        return ClassifierGLM(**settings, feature_mask=_as_numpy(mask))
    settings["observation_model"] = observation_model
    settings["inverse_link_function"] = _link_from_nemos(model.inverse_link_function, family)
    if name == "PopulationGLM":
        settings["feature_mask"] = _as_numpy(model.feature_mask)
    return NEMOS_MODELS[name](**settings)


def to_nemos(model):
    """Model of NeMoS with the settings of a GLM or PopulationGLM and, if it is fitted, its fit.

    NeMoS need not be installed for anything else of this package.

    Parameters
    ----------
    model : GLM, PopulationGLM or ClassifierGLM
        Priors of the intercept and of the dispersion have no counterpart and are left behind.

    Returns
    -------
    nemos.glm.GLM, PopulationGLM, ClassifierGLM or ClassifierPopulationGLM
        That predicts, scores and simulates as `model` does, in NeMoS's precision. (NeMoS 0.2.9 scores, but cannot
        predict from, any model of several outputs whose GroupLasso has a mask.)

    Raises
    ------
    ValueError
        If `model` has a part that NeMoS lacks: no intercept, bounds, strengths that are not numbers yet, a learned
        overdispersion that is not fitted or differs between outputs, classes that are not fitted.
    """
    if not isinstance(model, GLM | PopulationGLM | ClassifierGLM):
        raise ValueError(f"model must be a GLM, PopulationGLM or ClassifierGLM; got {_written(model)}.")
    if isinstance(model, ClassifierGLM) and "spec_" not in vars(model):
        raise ValueError("The classes of model are not known before fit; NeMoS takes their number.")
    import nemos

    parts, fitted = model._resolve(), "spec_" in vars(model)
    if parts.prior.has_bounds:
        raise ValueError("model has coefficients that positive bounds; NeMoS has no bounds.")
    if not parts.fit_intercept:
        raise ValueError("model has fit_intercept=False; models of NeMoS have an intercept.")
    family, regularizer = type(parts.family).__name__, type(parts.prior).__name__
    strength = model.regularizer_strength_ if fitted else model.regularizer_strength
    if family == "BinomialObservations":
        raise ValueError("model has binomial observations, which NeMoS lacks: hand over every trial as a sample.")
    if _is_open(strength):
        raise ValueError("regularizer_strength of model is not known before fit; NeMoS takes numbers only.")
    if fitted and not _is_plain(strength):
        if regularizer != "GroupLasso" and _has_lists(model.spec_.layout.skeleton()):
            raise ValueError(
                "regularizer_strength of model is for a list of features; NeMoS takes a dict or one number."
            )
        strength = _strength_like_coef(model.spec_)
    elif not fitted and _wants_shapes(strength, regularizer):
        raise ValueError(
            "regularizer_strength of model has to be spread over coefficients for NeMoS, unknown before fit."
        )
    if strength is None and regularizer != "UnRegularized":
        strength = (1.0, 0.5) if regularizer == "ElasticNet" else 1.0
    if strength is not None and family == "GaussianObservations":
        strength = _times(strength, NEMOS_GAUSSIAN, regularizer)
    observation_model = getattr(nemos.observation_models, family)()
    if family == "NegativeBinomialObservations":
        scale = model.scale_[0] if fitted else parts.family.scale
        if fitted and (model.scale_ != scale).any():
            raise ValueError(f"The outputs of model have overdispersions of their own, {model.scale_}; NeMoS has one.")
        if not isinstance(scale, numbers.Real):
            raise ValueError("The overdispersion of model is not known before fit; NeMoS takes a number only.")
        observation_model = nemos.observation_models.NegativeBinomialObservations(scale=float(scale))
    chosen = getattr(nemos.regularizer, regularizer)
    settings = {
        "regularizer": chosen() if regularizer != "GroupLasso" else chosen(mask=parts.prior.mask),
        "regularizer_strength": strength,
    }
    if isinstance(model, ClassifierGLM):
        kind = nemos.glm.ClassifierGLM
        if model.spec_.outputs.several:
            kind, settings["feature_mask"] = nemos.glm.ClassifierPopulationGLM, _mask_in_nemos(model)
        elif model.feature_mask is not None:
            raise ValueError("model has a feature_mask; NeMoS's has none for classes of one response.")
        twin = kind(len(model.classes_), **settings)
        twin.set_classes(model.classes_)
    else:
        settings["observation_model"] = observation_model
        settings["inverse_link_function"] = parts.link.name if parts.link.name in LINKS_IN_NEMOS else parts.link.inverse
        if isinstance(model, PopulationGLM):
            settings["feature_mask"] = _mask_in_nemos(model)
        twin = (nemos.glm.PopulationGLM if isinstance(model, PopulationGLM) else nemos.glm.GLM)(**settings)
    if fitted:
        twin.coef_ = jax.tree.map(jax.numpy.asarray, model.coef_)
        for name in ("intercept_", "scale_", "dof_resid_"):
            setattr(twin, name, jax.numpy.asarray(getattr(model, name)))
    return twin


def from_sklearn(estimator, n_samples=None):
    """Model that `fit`s what a linear model of scikit-learn fits, and can then be sampled.

    Parameters
    ----------
    estimator : LinearRegression, Ridge, Lasso, ElasticNet, PoissonRegressor, GammaRegressor or LogisticRegression
        Fitted or not; also a fitted RidgeCV, LassoCV, ElasticNetCV or LogisticRegressionCV, at what it chose. It is
        not changed, and what was fitted is not taken over: `fit` finds it.
    n_samples : float, optional
        Number of samples that the model is to be fitted to, or the sum of their weights. Ridge and LogisticRegression
        need it: they weigh the penalty against the sum of the losses, this package weighs it against their mean.

    Returns
    -------
    GLM
        Not fitted; PopulationGLM if a Ridge has one alpha per target, or was fitted to several. LogisticRegression is
        taken to be that of zeros and ones, unless it was fitted to other labels: then it is a ClassifierGLM.

    Raises
    ------
    ValueError
        If the estimator is none of these, or has an option that has no counterpart here.
    """
    # Half a second that a fit can do without.
    from sklearn import linear_model

    estimator = _at_choice(estimator)
    kind = type(estimator).__name__
    readers = {
        "LinearRegression": _read_linear,
        "Ridge": _read_ridge,
        "Lasso": _read_lasso,
        "ElasticNet": _read_elastic_net,
        "PoissonRegressor": _read_poisson,
        "GammaRegressor": _read_gamma,
        "LogisticRegression": _read_logistic,
    }
    if kind not in readers or not isinstance(estimator, getattr(linear_model, kind)):
        raise ValueError(
            f"estimator must be one of {list(readers)}, or a fitted one of {list(CHOSEN)}; got {_written(estimator)}."
        )
    options = estimator.get_params()
    if options.get("class_weight") is not None:
        raise ValueError(f"estimator has class_weight={options['class_weight']!r}, which has no counterpart here.")
    if options.get("solver") == "liblinear" and options["fit_intercept"]:
        raise ValueError("estimator has solver='liblinear', which penalizes the intercept; nothing here does.")
    if options.get("solver") == "liblinear" and len(getattr(estimator, "classes_", (0, 1))) > 2:
        raise ValueError("estimator has solver='liblinear', which fits each class against all others.")
    if n_samples is not None and not (isinstance(n_samples, numbers.Real) and float(n_samples) > 0):
        raise ValueError(f"n_samples must be a positive number; got {n_samples!r}.")
    if n_samples is None and kind in ("Ridge", "LogisticRegression") and not math.isinf(options.get("C", 1.0)):
        raise ValueError(
            f"n_samples must be given for {kind}, whose penalty is weighed against the sum over samples: the number "
            "of samples, or the sum of their weights."
        )
    settings = readers[kind](estimator, n_samples)
    settings |= {name: bool(options.get(name, plain)) for name, plain in (("fit_intercept", True), ("positive", False))}
    if kind == "LogisticRegression" and not _is_binary(estimator):
        return ClassifierGLM(**_in_classes(settings, estimator))
    several = np.ndim(settings.get("regularizer_strength")) == 2 or np.ndim(getattr(estimator, "coef_", 0.0)) == 2
    return (PopulationGLM if several and kind != "LogisticRegression" else GLM)(**settings)


def _at_choice(estimator):
    """What an estimator that chose its penalty by cross-validation is at its choice; any other as it is."""
    kind = type(estimator).__name__
    if kind not in CHOSEN or not type(estimator).__module__.startswith("sklearn."):
        return estimator
    if "coef_" not in vars(estimator):
        raise ValueError(f"estimator is a {kind} that is not fitted; GLMCV chooses a strength here.")
    from sklearn import linear_model

    options, plain = estimator.get_params(), getattr(linear_model, kind.removesuffix("CV"))()
    shared = {name: value for name, value in options.items() if name in plain.get_params()}
    twin = plain.set_params(**shared)
    for source, target in CHOSEN[kind].items():
        values = {each for each in np.ravel(np.asarray(getattr(estimator, source), object)) if each is not None}
        if len(values) > 1:
            raise ValueError(f"estimator has several values of {source}, {sorted(values)}; one model has one.")
        if values:
            setattr(twin, target, float(*values))
    for name in ("coef_", "classes_"):
        if name in vars(estimator):
            setattr(twin, name, getattr(estimator, name))
    return twin


def _read_linear(estimator, n_samples):
    return {"observation_model": "Gaussian"}


def _read_ridge(estimator, n_samples):
    alpha = np.asarray(estimator.alpha, float) / n_samples
    return {
        "observation_model": "Gaussian",
        "regularizer": "Ridge",
        "regularizer_strength": alpha.reshape(1, -1) if alpha.size > 1 else float(alpha.squeeze()),
    }


def _read_lasso(estimator, n_samples):
    return {"observation_model": "Gaussian", "regularizer": "Lasso", "regularizer_strength": float(estimator.alpha)}


def _read_elastic_net(estimator, n_samples):
    return {"observation_model": "Gaussian"} | _elastic_net(float(estimator.alpha), float(estimator.l1_ratio))


def _read_poisson(estimator, n_samples):
    return {"observation_model": "Poisson", "regularizer": "Ridge", "regularizer_strength": float(estimator.alpha)}


def _read_gamma(estimator, n_samples):
    settings = {"observation_model": "Gamma", "inverse_link_function": "exp"}
    return settings | {"regularizer": "Ridge", "regularizer_strength": float(estimator.alpha)}


def _read_logistic(estimator, n_samples):
    # Older versions name the penalty; newer ones leave it to l1_ratio and to an infinite C.
    penalty = estimator.penalty
    ratio = {"l1": 1.0, "l2": 0.0}.get(str(penalty), estimator.l1_ratio or 0.0)
    settings = {"observation_model": "Bernoulli"}
    if penalty is None or math.isinf(estimator.C):
        return settings
    return settings | _elastic_net(1 / (n_samples * estimator.C), float(ratio))


def _is_binary(estimator):
    """Whether labels are zeros and ones, as far as is known."""
    return np.array_equal(getattr(estimator, "classes_", (0, 1)), (0, 1))


def _in_classes(settings, estimator):
    """Settings of logistic regression with coefficients of their own for all classes."""
    settings = {name: value for name, value in settings.items() if name not in ("observation_model", "positive")}
    if len(estimator.classes_) > 2 or "regularizer" not in settings:
        return settings
    # Halves of opposite sign have the same absolute values in sum, and half of the squares.
    strength = settings["regularizer_strength"]
    size, ratio = strength if type(strength) is tuple else (strength, float(settings["regularizer"] == "Lasso"))
    absolute, square = size * ratio, 2 * size * (1 - ratio)
    return settings | _elastic_net(absolute + square, absolute / (absolute + square))


def _elastic_net(strength, ratio):
    """Settings of an elastic net of any ratio from 0 to 1."""
    if ratio in (0.0, 1.0):
        return {"regularizer": "Lasso" if ratio else "Ridge", "regularizer_strength": strength}
    return {"regularizer": "ElasticNet", "regularizer_strength": (strength, ratio)}


def _link_from_nemos(function, family):
    """Name of a link, None if it is the family's default, or the function itself."""
    known = str(getattr(function, "__module__", "")).startswith(("nemos", "jax"))
    link = NEMOS_LINKS.get(getattr(function, "__name__", ""), function) if known else function
    return None if link == getattr(observation_models, family).default_link.name else link


def _times(strength, factor, regularizer):
    """Multiply a strength, but not the ratio of an elastic net."""
    if regularizer == "ElasticNet" and type(strength) is tuple:
        return _times(strength[0], factor, None), strength[1]
    return jax.tree.map(lambda leaf: np.asarray(leaf) * factor if np.ndim(leaf) else leaf * factor, strength)


def _as_numpy(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf) if np.ndim(leaf) else leaf, tree)


def _is_open(strength):
    """Whether some strength is a word or a distribution."""
    leaves = jax.tree.leaves(strength, is_leaf=is_distribution)
    return any(is_distribution(leaf) or np.asarray(leaf).dtype.kind in "OU" for leaf in leaves)


def _is_plain(strength):
    """Whether a strength is one number, or a pair of numbers of an elastic net."""
    parts = strength if type(strength) is tuple else (strength,)
    return all(isinstance(part, numbers.Real | None) for part in parts)


def _has_lists(skeleton):
    if isinstance(skeleton, dict):
        return any(map(_has_lists, skeleton.values()))
    return isinstance(skeleton, list | tuple)


def _wants_shapes(strength, regularizer):
    """Whether NeMoS takes a strength only once it is spread over coefficients or groups."""
    if regularizer == "GroupLasso":
        return isinstance(strength, dict)
    leaves = jax.tree.leaves(strength, is_leaf=lambda node: not isinstance(node, dict | tuple))
    return any(1 in np.shape(leaf) for leaf in leaves)


def _strength_like_coef(spec):
    """Strength with one number per coefficient, or per group, which is what NeMoS takes."""

    def split(array):
        return spec.layout.split(array.reshape(-1, *spec.outputs.shape))

    if not isinstance(spec.strength, tuple):
        return split(spec.strength)
    first, second = spec.strength
    if second.dtype.kind == "i":
        sizes = np.bincount(second.ravel(), minlength=len(first) + 1)[: len(first)]
        return first / np.sqrt(np.maximum(sizes, 1))
    return split(first), split(second)


def _mask_in_nemos(model):
    """feature_mask as NeMoS takes it: one element per coefficient; of a leaf without classes, one per output."""
    if "spec_" not in vars(model):
        if model.feature_mask is None:
            return None
        raise ValueError("feature_mask of model is for features that are not known before fit.")
    spec = model.spec_
    free = spec.free.reshape(-1, *spec.outputs.shape).astype(float)
    if spec.layout.is_array:
        return free
    leaves = [free[rows] for rows in spec.layout.slices]
    if spec.outputs.classes is not None:
        return spec.layout.unflatten(leaves)
    if any((leaf != leaf[0]).any() for leaf in leaves):
        raise ValueError(
            "feature_mask of model has features of one leaf that differ; NeMoS has one element per leaf and output."
        )
    return spec.layout.unflatten([leaf[0] for leaf in leaves])


def _written(value):
    cls = type(value)
    return f"{cls.__module__.partition('.')[0]}'s {cls.__name__}" if isinstance(value, BaseEstimator) else repr(value)
