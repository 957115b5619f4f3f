"""Penalized GLMs whose regularizer strengths are priors: fit the mode, then sample the posterior."""

from bayesglm import distributions as distributions
from bayesglm import links as links
from bayesglm import observation_models as observation_models
from bayesglm import priors as priors
from bayesglm.glm import GLM as GLM
from bayesglm.glm import PopulationGLM as PopulationGLM
from bayesglm.glm import strength_path as strength_path

__version__ = "0.1.0"
__all__ = ["GLM", "PopulationGLM", "distributions", "links", "observation_models", "priors", "strength_path"]
