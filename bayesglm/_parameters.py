"""The constructor's arguments: how scikit-learn's tools read, change, copy and pickle them."""

from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar

from sklearn.base import BaseEstimator
from sklearn.utils import RegressorTags

from bayesglm import links
from bayesglm._options import PARTS, part_of
from bayesglm.observation_models import GaussianObservations

__all__ = ["Parameters"]


class Parameters(BaseEstimator):
    """What all models share as estimators; they differ in what outputs are."""

    _population: ClassVar[bool]
    _has_labels: ClassVar[bool] = False
    feature_mask: Any = None

    def __init__(
        self,
        observation_model="Poisson",
        inverse_link_function=None,
        regularizer=None,
        regularizer_strength=None,
        solver_name=None,
        solver_kwargs=None,
        intercept_prior=None,
        dispersion_prior="plug-in",
        formula=None,
        fit_intercept=True,
        positive=False,
        nan_policy="raise",
        warm_start=False,
    ):
        self.observation_model = observation_model
        self.inverse_link_function = inverse_link_function
        self.regularizer = regularizer
        self.regularizer_strength = regularizer_strength
        self.solver_name = solver_name
        self.solver_kwargs = solver_kwargs
        self.intercept_prior = intercept_prior
        self.dispersion_prior = dispersion_prior
        self.formula = formula
        self.fit_intercept = fit_intercept
        self.positive = positive
        self.nan_policy = nan_policy
        self.warm_start = warm_start

    def get_params(self, deep=True):
        """Arguments of the constructor; with `deep` those of their objects, too, such as ``regularizer__mask``."""
        found = BaseEstimator.get_params(self, deep)
        parts = [(name, found[name]) for name in PARTS if deep and is_dataclass(found.get(name))]
        return found | {
            f"{name}__{field.name}": getattr(part, field.name) for name, part in parts for field in fields(part)
        }

    def set_params(self, **params):
        """Change arguments of the constructor; ``regularizer__mask=...`` makes a new regularizer, with that mask."""
        nested = {key: value for key, value in params.items() if key.partition("__")[0] in PARTS and "__" in key}
        BaseEstimator.set_params(self, **{key: value for key, value in params.items() if key not in nested})
        for key, value in nested.items():
            name, _, field = key.partition("__")
            part = part_of(name, getattr(self, name))
            known = [each.name for each in fields(part)] if is_dataclass(part) else []
            if field not in known or name not in self._get_param_names():
                raise ValueError(f"{key} is no parameter of {type(self).__name__} with {name}={part!r}.")
            setattr(self, name, replace(part, **{field: value}))
        return self

    def __sklearn_clone__(self):
        twin = BaseEstimator.__sklearn_clone__(self)
        # scikit-learn copies callables; a copy of a JAX function would compile anew.
        twin.inverse_link_function = self.inverse_link_function
        # It copies the elements of a list one by one; a distribution that comes twice is to stay one.
        twin.regularizer_strength = deepcopy(self.regularizer_strength)
        return twin

    def __sklearn_tags__(self):
        tags = BaseEstimator.__sklearn_tags__(self)
        tags.estimator_type = "regressor"
        tags.regressor_tags = RegressorTags()
        tags.input_tags.sparse = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = self._population
        tags.target_tags.single_output = not self._population
        tags.target_tags.positive_only = self.observation_model != "Gaussian" and not isinstance(
            self.observation_model, GaussianObservations
        )
        return tags

    def __getstate__(self):
        state = dict(BaseEstimator.__getstate__(self))
        state.pop("training_data_", None)
        # JAX's functions cannot be pickled, and a copy of one would compile anew: their address travels.
        state["_link_address"] = links.public_address(self.inverse_link_function)
        if state["_link_address"] is not None:
            state["inverse_link_function"] = None
        return state

    def __setstate__(self, state):
        state = dict(state)
        address = state.pop("_link_address")
        if address is not None:
            state["inverse_link_function"] = getattr(links.PUBLIC_MODULES[address[0]], address[1])
        BaseEstimator.__setstate__(self, state)
