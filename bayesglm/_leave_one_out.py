"""Leave-one-out at the mode without refitting.

Leaving a sample out moves the mode by about one Newton step of the objective without it (Rahnama Rad and Maleki, A
scalable estimate of the extra-sample prediction error via approximate leave-one-out, 2020). Under smooth penalties all
steps follow from one factorization. Under penalties with kinks a step is the minimizer of the loss's quadratic model
without the sample plus the penalty itself, so that coefficients may become zero, or cease to be.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from bayesglm._composite import Hessian, optimality, profiled_hessian
from bayesglm._expansion import expand, loss_slopes
from bayesglm._passes import own_curvature, positive
from bayesglm._quadratic import composite_step

__all__ = ["leave_out"]

# Residual of a step, a correlation.
GOAL = 1e-8
# Numbers of features that a step moves at most are this times powers of 2, so that few programs are compiled.
SMALLEST_WIDTH = 64
# How much nearer to its kink than the largest effect of a single sample a zero coefficient must be to take part.
MARGIN = 2.0


def leave_out(fitted):
    """Linear predictor of each sample at the mode of all others, shape (n, outputs).

    The prior is held: strengths grow by W / (W - 1), W the sum of the weights. Of a sample of weight above 1, one is
    left out.
    """
    data, spec = fitted.data, fitted.spec
    X, y, weight, offset = data.in_double()
    coef = fitted.coef.astype(np.float64)
    eta = offset + fitted.intercept + X @ coef
    moved = np.array(eta)
    prior, fit_intercept = spec.form.prior, spec.form.fit_intercept
    with jax.enable_x64(True):
        for batch in fitted.batches:
            for b, outputs in enumerate(batch.outputs):
                strength = jax.tree.map(lambda leaf: leaf[b], batch.strength)  # noqa: B023
                slope, curvature = loss_slopes(y[:, outputs], eta[:, outputs], weight, spec.form, spec.scale[outputs])
                step = _smooth_steps if prior.smooth else _kinked_steps
                moved[:, outputs] += step(
                    X, weight, slope, curvature, strength, coef[:, outputs], batch.free[b], prior, fit_intercept
                )
    return moved


def _smooth_steps(X, weight, slope, curvature, strength, coef, free, prior, fit_intercept):
    """What leaving each sample out adds to its linear predictor, shape (n, m)."""
    one = np.minimum(weight, 1.0)[:, None]
    weighted = weight.reshape(-1, *(1,) * (curvature.ndim - 1)) * curvature
    reach = expand(X, weighted, strength, coef, free, weight.sum(), prior, fit_intercept).covariance
    if curvature.ndim == 2:
        return reach[:, :, 0] * one * slope / (1 - reach[:, :, 0] * one * curvature)
    left = np.eye(slope.shape[1]) - reach @ (one[:, :, None] * curvature)
    return np.linalg.solve(left, reach @ (one * slope)[:, :, None])[:, :, 0]


def _kinked_steps(X, weight, slope, curvature, strength, coef, free, prior, fit_intercept):
    """What leaving each sample out adds to its linear predictor, shape (n, m)."""
    mean = weight @ X / weight.sum() * fit_intercept
    square = weight @ (X - mean) ** 2
    whole = prior.times(strength, weight.sum())
    # The intercepts' conditions hold at the mode, so the slopes may be taken with features that are centered or not.
    grad = (X - mean).T @ (weight[:, None] * slope)
    rms = np.sqrt((weight[:, None] * slope**2).sum())
    total = weight @ own_curvature(curvature)
    largest = np.abs(slope).max() * np.abs(X - mean).max(0)[:, None]
    far = grad + np.asarray(prior.outward(grad, whole)) * MARGIN * largest
    near = np.asarray(optimality(coef, far, whole, square, rms, total, prior)) > 0
    rows = np.flatnonzero((free & (near | (coef != 0))).any(1) & (square > 0))
    width = SMALLEST_WIDTH
    while width < len(rows):
        width *= 2
    padded = np.zeros(min(width, X.shape[1]), int)
    padded[: len(rows)] = rows
    counts = np.arange(len(padded)) < len(rows)
    features = np.where(counts[:, None], (X[:, padded] - mean[padded]).T, 0.0)
    arguments = features, weight, slope, curvature, prior.rows(whole, padded)
    start, moves = np.where(counts[:, None], coef[padded], 0.0), free[padded] & counts[:, None]
    return np.asarray(_steps(*arguments, start, moves, len(rows), prior=prior, fit_intercept=fit_intercept))


@partial(jax.jit, static_argnames=("prior", "fit_intercept"))
def _steps(X, weight, slope, curvature, strength, coef, free, count, *, prior, fit_intercept):
    """Steps from the first `count` of centered features (p, n), one sample after the other."""
    one = jnp.minimum(weight, 1.0)
    joint = curvature.ndim == 3
    weighted = weight.reshape(-1, *(1,) * (curvature.ndim - 1)) * curvature
    everything = profiled_hessian(X, weighted, free, count, fit_intercept=fit_intercept)
    # With the intercepts again, so that samples can be taken out.
    gram = everything.gram + _profile(everything)
    grad = jnp.where(free, X @ (weight[:, None] * slope), 0.0)
    square = X**2 @ weight
    scale = jnp.sqrt(square)[:, None] * jnp.sqrt(jnp.sum(weight[:, None] * slope**2))

    def without(sample):
        x, one, slope, curvature = sample
        row = jnp.where(free, x[:, None], 0.0)
        slope, curvature = one * slope, one * curvature
        if joint:
            m = len(slope)
            own = (row[:, :, None] * curvature).reshape(-1, m)
            taken = (row[:, :, None, None] * curvature[:, None] * row).reshape(len(own), -1)
        else:
            own, taken = row * curvature, jnp.einsum("jo,ko->ojk", row, row * curvature)
        rest = Hessian(None, (everything.cross - own) * fit_intercept, everything.total - curvature, None)
        left = gram - taken - _profile(rest)
        profiled = grad - row * slope + rest.by_coef(rest.inner(slope))
        target = composite_step(left, profiled, coef, strength, free, scale, GOAL, count, prior)
        move = target - coef
        return x @ move + rest.inner(slope - rest.by_intercept(move)) * fit_intercept

    return jax.lax.map(without, (X.T, one, slope, curvature))


def _profile(hessian):
    """What profiling the intercepts out takes from the second derivatives by the coefficients."""
    if hessian.total.ndim == 1:
        return jnp.einsum("jo,ko->ojk", hessian.cross, hessian.cross / positive(hessian.total))
    return hessian.cross @ jax.vmap(hessian.inner, 1, 1)(hessian.cross.T)
