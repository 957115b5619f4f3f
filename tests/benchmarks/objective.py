"""The objective and its optimality conditions in NumPy, with no code of bayesglm: the judge where packages differ."""

import math

import numpy as np
from scipy.special import expit, gammaln, log_ndtr


def objective(problem, coef, intercept, scale=None):
    """Penalized mean negative log-likelihood; `scale` is the overdispersion where it is learned."""
    case = problem.case
    eta = predictor(problem, coef, intercept)
    values = nll(case.family, case.link, problem.y, eta, case.scale if scale is None else scale)
    if scale is not None:
        values = values + gammaln(1 / scale) - gammaln(problem.y + 1 / scale)
    weight = np.ones(len(problem.y)) if problem.weight is None else problem.weight
    return float(np.sum(weight @ values) / weight.sum() + penalty(problem, coef))


def predictor(problem, coef, intercept):
    """Linear predictor, of the shape of y."""
    offset = 0.0 if problem.offset is None else problem.offset
    return problem.X @ coef + (intercept if problem.y.ndim == 2 else intercept[0]) + offset


def nll(family, link, y, eta, scale):
    """Negative log-likelihood of each observation at unit dispersion, up to terms free of eta."""
    if family == "Gaussian":
        return (y - eta) ** 2 / 2
    if family == "Bernoulli":
        sign = 2 * y - 1
        return np.logaddexp(0, -sign * eta) if link == "logistic" else -log_ndtr(sign * eta)
    with np.errstate(invalid="ignore"):
        log_mean = {"exp": lambda: eta, "one_over_x": lambda: -np.log(eta), "softplus": lambda: np.log(softplus(eta))}
        log_mu = log_mean[link]()
    if family == "Poisson":
        return np.exp(log_mu) - y * log_mu
    if family == "Gamma":
        return y * np.exp(-log_mu) + log_mu
    return (y + 1 / scale) * np.logaddexp(0, np.log(scale) + log_mu) - y * (np.log(scale) + log_mu)


def slope(family, link, y, eta, scale):
    """Derivative of `nll` by eta."""
    if family == "Gaussian":
        return eta - y
    if family == "Bernoulli" and link == "logistic":
        return expit(eta) - y
    if family == "Bernoulli":
        sign = 2 * y - 1
        return -sign * np.exp(-(eta**2) / 2 - 0.5 * math.log(2 * math.pi) - log_ndtr(sign * eta))
    mean, change = {
        "exp": lambda: (np.exp(eta), np.exp(eta)),
        "one_over_x": lambda: (1 / eta, -1 / eta**2),
        "softplus": lambda: (softplus(eta), expit(eta)),
    }[link]()
    variance = {"Poisson": lambda: mean, "Gamma": lambda: mean**2, "NegativeBinomial": lambda: mean + scale * mean**2}
    return (mean - y) / variance[family]() * change


def softplus(eta):
    """log(1 + exp(eta))."""
    return np.logaddexp(0, eta)


def penalty(problem, coef):
    """Penalty of the case's prior."""
    case = problem.case
    if case.prior == "UnRegularized":
        return 0.0
    if case.prior == "GroupLasso":
        return sum(rate * np.linalg.norm(coef[inside]) for rate, inside in groups_of(problem))
    lasso, ridge = split(problem)
    return float(np.sum(lasso * np.abs(coef) + ridge * coef**2 / 2))


def split(problem):
    """Strengths of the absolute values and of the squares, in the shape of the coefficients."""
    case = problem.case
    shape = problem.X.shape[1:] + problem.y.shape[1:]
    strength = np.broadcast_to(0.0 if problem.strength is None else problem.strength, shape)
    share = {"UnRegularized": 0.0, "Ridge": 0.0, "Lasso": 1.0, "ElasticNet": case.ratio}[case.prior]
    return strength * share, strength * (1 - share)


def groups_of(problem):
    """Pairs of (strength times the root of the size, which coefficients) of the groups."""
    numbers = np.unique(problem.groups)
    strengths = np.broadcast_to(problem.strength, numbers.shape)
    masks = [problem.groups == number for number in numbers]
    return [(s * math.sqrt(mask.sum()), mask) for s, mask in zip(strengths, masks, strict=True)]


def kkt_residual(problem, coef, intercept, scale=None):
    """Largest violation of the optimality conditions of coefficients and intercept, in units of the gradient."""
    case = problem.case
    eta = predictor(problem, coef, intercept)
    weight = np.ones(len(problem.y)) if problem.weight is None else problem.weight
    residual = slope(case.family, case.link, problem.y, eta, case.scale if scale is None else scale)
    residual = (residual.T * (weight / weight.sum())).T
    gradient = problem.X.T @ residual
    return float(max(np.abs(violation(problem, coef, gradient)).max(), np.abs(residual.sum(0)).max()))


def violation(problem, coef, gradient):
    """Distance of minus the gradient from the subdifferential of the penalty, of the shape of the coefficients."""
    if problem.case.prior == "GroupLasso":
        out = np.abs(gradient)
        for rate, inside in groups_of(problem):
            norm = np.linalg.norm(coef[inside])
            if norm > 0:
                out[inside] = np.abs(gradient[inside] + rate * coef[inside] / norm)
            else:
                out[inside] = max(np.linalg.norm(gradient[inside]) - rate, 0.0)
        return out
    lasso, ridge = split(problem)
    smooth = gradient + ridge * coef
    return np.where(coef != 0, np.abs(smooth + lasso * np.sign(coef)), np.maximum(np.abs(smooth) - lasso, 0.0))
