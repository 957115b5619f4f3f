"""Penalized generalized linear models: the mode by `fit`, the posterior by `sample`."""

from bayesglm._bayesian import BayesianGLM

__all__ = ["GLM", "PopulationGLM"]


class GLM(BayesianGLM):
    """Generalized linear model of one output whose regularizer strengths are priors.

    Parameters
    ----------
    observation_model : str or object
        "Poisson", "Gaussian", "Bernoulli", "Gamma", "NegativeBinomial", or an object of
        `bayesglm.observation_models`.
    inverse_link_function : str, callable or Link, optional
        "exp", "identity", "logistic", "softplus", "norm.cdf", "one_over_x", or an increasing function of JAX
        arrays. By default the family's.
    regularizer : str or object, optional
        "UnRegularized" (default), "Ridge", "Lasso", "ElasticNet", "GroupLasso", or an object of
        `bayesglm.priors`.
    regularizer_strength : number, array_like or tree, optional
        One number, one per leaf of X, one per coefficient, or any mixture; see the page on strengths. None
        is 1.0, for ElasticNet (1.0, 0.5). "evidence" in place of a number: the strength at which the data are most
        likely, the coefficients integrated out.
    solver_name : str, optional
        "Newton" (smooth regularizers) or "ProximalNewton"; by default chosen by the regularizer.
    solver_kwargs : dict, optional
        ``tol``, the largest correlation of a feature with the residuals that optimality leaves (default 1e-10
        in float64, 2e-6 in float32), and ``maxiter`` (default 100; for large problems with kinks, of each working set).
    intercept_prior : NumPyro distribution, optional
        Prior of the intercept in `sample`; flat by default. `fit` never penalizes the intercept.
    dispersion_prior : {"plug-in", "conditional"}, optional
        Where the variance of Gaussian or the dispersion of Gamma observations is sampled: whether the priors of the
        coefficients keep that of the fit ("plug-in"), or follow the sampled one (k = n / dispersion in each draw).
    formula : str, optional
        What makes y and X from a data frame: see `from_formula`.
    nan_policy : {"raise", "drop"}
        What to do about NaN in X, y, `sample_weight` and `offset`: refuse it, or leave those samples out of `fit`,
        `sample` and `score`, and predict NaN for them. Infinite entries are refused always.
    warm_start : bool
        Whether `fit` starts from the coefficients of the last one, if X has the same structure: the same fit, found
        sooner where little changed.

    Attributes
    ----------
    coef_ : numpy.ndarray (p,), or the container of X with one such per leaf
    intercept_ : numpy.ndarray, shape (1,)
    scale_ : numpy.ndarray, shape (1,)
        The family's second parameter: the variance of Gaussian and the dispersion of Gamma observations, Pearson's
        chi-square divided by `dof_resid_`; the overdispersion of NegativeBinomial; 1 for the others.
    dof_resid_ : numpy.ndarray, shape (1,)
        Sum of the weights minus the effective degrees of freedom. Where `scale_` does not rest on them, large problems
        make do with an approximate trace of the hat matrix: that of some samples (smooth penalties), or of the
        solver's last Hessian. For a sparse X under a smooth penalty, beyond 2000 features and samples (500, where
        `scale_` does not rest on it) the trace is estimated from random vectors, the same ones each time.
    regularizer_strength_ : number, array_like or tree
        The strengths of the fit: `regularizer_strength` with numbers in place of "evidence".
    n_iter_ : int
    converged_ : bool
    kkt_residual_ : float
        Largest violation of the optimality conditions, as a correlation of a feature with the residuals.
    n_features_in_ : int
    n_samples_dropped_ : int
        Samples with a missing entry, that were left out.
    feature_names_in_ : numpy.ndarray of str
        Where X is a data frame.
    posterior_ : xarray.DataTree
        After `sample`.
    """

    _population = False


class PopulationGLM(BayesianGLM):
    """Generalized linear models of several outputs that share the features.

    Arguments and attributes are those of `GLM`, with one more axis for the outputs: leaves of `coef_` are
    (p, outputs), `intercept_` and `scale_` are (outputs,). Outputs are independent given the features unless
    a group of GroupLasso spans them.

    Parameters
    ----------
    feature_mask : array_like (p, outputs) or tree like X, optional
        Zeros and ones: coefficients with a zero are not part of the model. In a tree, a leaf may be (outputs,),
        whether the output sees the features of the leaf, or (leaf's features, outputs).
    """

    _population = True

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
        feature_mask=None,
        formula=None,
        nan_policy="raise",
        warm_start=False,
    ):
        super().__init__(
            observation_model,
            inverse_link_function,
            regularizer,
            regularizer_strength,
            solver_name,
            solver_kwargs,
            intercept_prior,
            dispersion_prior,
            formula,
            nan_policy,
            warm_start,
        )
        self.feature_mask = feature_mask
