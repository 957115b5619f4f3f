"""Penalized GLMs whose regularizer strengths are priors: fit the mode, then sample the posterior."""

import importlib

from bayesglm import links as links
from bayesglm import observation_models as observation_models
from bayesglm import priors as priors
from bayesglm._design import Design as Design
from bayesglm.glm import GLM as GLM
from bayesglm.glm import ClassifierGLM as ClassifierGLM
from bayesglm.glm import PopulationGLM as PopulationGLM
from bayesglm.interop import from_nemos as from_nemos
from bayesglm.interop import from_sklearn as from_sklearn
from bayesglm.interop import to_nemos as to_nemos
from bayesglm.model_selection import GLMCV as GLMCV
from bayesglm.model_selection import approximate_loo as approximate_loo
from bayesglm.model_selection import largest_strength as largest_strength
from bayesglm.model_selection import strength_grid as strength_grid
from bayesglm.model_selection import strength_path as strength_path
from bayesglm.saving import load as load
from bayesglm.saving import save as save

__version__ = "0.1.0"
__all__ = [
    "GLM",
    "GLMCV",
    "ClassifierGLM",
    "Design",
    "PopulationGLM",
    "approximate_loo",
    "distributions",
    "from_nemos",
    "from_sklearn",
    "largest_strength",
    "links",
    "load",
    "observation_models",
    "plots",
    "priors",
    "save",
    "strength_grid",
    "strength_path",
    "to_nemos",
]


def __getattr__(name):
    """Load the modules of distributions and of plots on first use: they load NumPyro and matplotlib."""
    if name in ("distributions", "plots"):
        return importlib.import_module(f"bayesglm.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
