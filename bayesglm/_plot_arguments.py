"""What plots are given: models, strengths, scores and features, read and checked."""

import copy
from collections.abc import Mapping

import jax
import numpy as np
from sklearn.exceptions import NotFittedError

from bayesglm.glm import GLM, ClassifierGLM, PopulationGLM
from bayesglm.priors import ElasticNet

__all__ = [
    "check_prob",
    "chosen_panels",
    "coef_of",
    "draws_of",
    "is_integer",
    "names_of_features",
    "names_of_outputs",
    "own_strength",
    "predict_draws",
    "read_scores",
    "read_search",
    "read_strengths",
    "shapes_of",
    "spec_of",
    "kind_of",
    "widths_of",
]

# Names of features are written out up to this number, and legends have at most this many entries.
SOME = 20


def spec_of(model, argument):
    """What the fit of a model fixed."""
    if not isinstance(model, GLM | PopulationGLM | ClassifierGLM):
        raise ValueError(f"{argument} must be a fitted GLM, PopulationGLM or ClassifierGLM; got {kind_of(model)}.")
    if "spec_" not in vars(model):
        raise NotFittedError(f"{argument} is not fitted yet: call fit or sample first.")
    return model.spec_


def coef_of(model):
    """Coefficients (p, outputs); NaN where a mask leaves them out."""
    coef = np.concatenate(jax.tree.leaves(model.coef_)).reshape(model.spec_.free.shape)
    return np.where(model.spec_.free, coef, np.nan)


def draws_of(model, spec):
    """Draws of the coefficients (draws, p, outputs), or None."""
    # ArviZ has loaded by the time that there is a posterior.
    from bayesglm._inference_data import read_posterior

    if "posterior_" not in vars(model):
        return None
    coef = read_posterior(model.posterior_, spec)[0].coef
    return coef.reshape(-1, *spec.free.shape)


def check_prob(prob):
    if isinstance(prob, bool) or not isinstance(prob, int | float | np.number) or not 0 < prob < 1:
        raise ValueError(f"prob must be a probability between 0 and 1, such as 0.89; got {prob!r}.")


def is_integer(value):
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def kind_of(value):
    """How an error message shows what came."""
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} of shape {shape}" if shape is not None else f"{value!r:.80}"


def shapes_of(spec):
    return ", ".join(f"{name or 'X'} ({width}, {spec.free.shape[1]})" for name, width in widths_of(spec.layout))


def widths_of(layout):
    return zip(layout.names, layout.widths, strict=True)


def names_of_outputs(spec):
    """How legends call each output."""
    labels = spec.outputs.labels()
    unnamed = spec.outputs.classes is None and spec.outputs.names is None
    return [f"output {label}" for label in labels] if unnamed else labels


def names_of_features(layout, leaf):
    columns = layout.columns[leaf]
    return list(columns) if columns is not None else [str(index) for index in range(layout.widths[leaf])]


def read_search(search, best):
    """Strengths, scores, best index and label of the axis of a fitted cross-validation."""
    if isinstance(search, list | tuple | np.ndarray | int | float):
        raise ValueError("scores is missing: a dict of label to array, unless strengths is a fitted cross-validation.")
    if best is not None:
        raise ValueError(f"best is the cross-validation's own best_index_; got {best!r}.")
    fitted = getattr(search, "__dict__", {})
    if "validation_scores_" not in fitted:
        if callable(getattr(search, "fit", None)):
            raise NotFittedError(f"This {type(search).__name__} is not fitted yet: call fit first.")
        raise ValueError(f"strengths must be numbers, or a fitted cross-validation; got {kind_of(search)}.")
    strengths = fitted["strengths_"]
    if len({strength[1] if _is_pair(strength) else None for strength in strengths}) == 1:
        # Pairs of one ratio differ in their first numbers.
        strengths = [strength[0] if _is_pair(strength) else strength for strength in strengths]
    numbers = [_as_number(strength) for strength in strengths]
    scores = {"validation": fitted["validation_scores_"]}
    if fitted.get("train_scores_") is not None:
        scores = {"training": fitted["train_scores_"]} | scores
    label = "strength"
    if any(number is None for number in numbers):
        label = "multiple of the strengths"
        numbers = fitted["multiples_"]
        if numbers is None:
            label, numbers = "place in strengths_, from 1", list(range(1, len(strengths) + 1))
    return numbers, scores, int(fitted["best_index_"]), label


def _is_pair(strength):
    return type(strength) is tuple and len(strength) == 2 and np.ndim(strength[1]) == 0


def _as_number(strength):
    """A strength as one number, or None if it is not one."""
    is_number = isinstance(strength, int | float | np.number | np.ndarray | jax.Array) and np.ndim(strength) == 0
    return float(strength) if is_number else None


def own_strength(model, spec, index):
    """The number that a model has as its strength."""
    strength = model.regularizer_strength
    if issubclass(spec.form.prior, ElasticNet) and type(strength) is tuple:
        strength = strength[0]
    number = _as_number(1.0 if strength is None else strength)
    if number is None:
        raise ValueError(
            f"strengths is needed, one number for each model: the regularizer_strength of models[{index}] is "
            f"{kind_of(strength)}."
        )
    return number


def read_strengths(strengths):
    """Array (strengths,) of finite numbers >= 0, some of them positive."""
    try:
        values = np.asarray(strengths, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"strengths must be a list of numbers; got {kind_of(strengths)}.") from error
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(
            f"strengths must be one number each, an array of shape (strengths,); got shape {values.shape}."
        )
    if not np.isfinite(values).all() or (values < 0).any() or not (values > 0).any():
        raise ValueError(f"strengths must be finite and not negative, and not all 0; got {_listed(values)}.")
    return values


def _listed(values):
    return np.array2string(values, threshold=6, edgeitems=2)


def read_scores(scores, label, n_strengths):
    """Array (strengths, folds); NaN where not finite."""
    try:
        array = np.asarray(scores, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"scores[{label!r}] must be an array of numbers; got {kind_of(scores)}.") from error
    if array.ndim not in (1, 2) or len(array) != n_strengths or array.size == 0:
        raise ValueError(
            f"scores[{label!r}] must have shape ({n_strengths},) or ({n_strengths}, folds); got {array.shape}."
        )
    array = array.reshape(n_strengths, -1)
    return np.where(np.isfinite(array), array, np.nan)


def predict_draws(model, X, offset, num_samples, seed, shape):
    """Draws of y, and the mean in each, shape (draws, samples, outputs)."""
    # Predictions become a part of the posterior's tree: of a copy of it, so that the model stays as it is.
    twin = copy.copy(model)
    twin.posterior_ = model.posterior_.copy(deep=False)
    found = twin.posterior_predictive(X, offset=offset, num_samples=num_samples, seed=seed)["predictions"]
    y = found["y"].values
    if model.spec_.outputs.classes is not None:
        y = y[..., None] == np.arange(model.spec_.outputs.n_classes)
    return tuple(values.reshape(-1, *shape) for values in (y, found["mean"].values))


def chosen_panels(features, layout):
    """Title and row of each chosen feature."""
    if not layout.is_array and not isinstance(features, Mapping):
        raise ValueError(
            f"features must be a dict by leaf, of {list(layout.names)}, since X is a container; got "
            f"{kind_of(features)}."
        )
    by_leaf = features if not layout.is_array else {"": features}
    panels = []
    for name, wanted in by_leaf.items():
        if name not in layout.names:
            raise ValueError(f"features must have leaves of X as keys, {list(layout.names)}; got {name!r}.")
        leaf = layout.names.index(name)
        label = f"features[{name!r}]" if name else "features"
        for feature in [wanted] if isinstance(wanted, str) or np.ndim(wanted) == 0 else wanted:
            row = _find_feature(feature, layout, leaf, label)
            title = (
                f"{name}[{names_of_features(layout, leaf)[row]}]"
                if name
                else f"feature {names_of_features(layout, leaf)[row]}"
            )
            panels.append((title, [layout.slices[leaf].start + row]))
    if not panels:
        raise ValueError("features is empty; expected at least one feature.")
    return panels


def _find_feature(feature, layout, leaf, label):
    """Index within its leaf of a feature given by index or name."""
    width, columns = layout.widths[leaf], layout.columns[leaf]
    if isinstance(feature, str) and columns is not None and feature in columns:
        return columns.index(feature)
    if not is_integer(feature) or not -width <= feature < width:
        names = f", or one of {list(columns)[:SOME]}" if columns is not None else ""
        raise ValueError(f"{label} must be an index below {width}{names}; got {feature!r}.")
    return int(feature) % width
