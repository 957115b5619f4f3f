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

from bayesglm._composite import optimality, profiled_hessian
from bayesglm._expansion import expand, loss_slopes
from bayesglm._passes import positive
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
    X, y, weight, offset = (leaf.astype(np.float64) for leaf in data)
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
    """What leaving each sample out adds to its linear predictor, shape (n, 1)."""
    one = np.minimum(weight, 1.0)[:, None]
    arguments = X, weight[:, None] * curvature, strength, coef, free, weight.sum(), prior, fit_intercept
    reach = expand(*arguments).covariance[:, :, 0]
    return reach * one * slope / (1 - reach * one * curvature)


def _kinked_steps(X, weight, slope, curvature, strength, coef, free, prior, fit_intercept):
    """What leaving each sample out adds to its linear predictor, shape (n, m)."""
    mean = weight @ X / weight.sum() * fit_intercept
    square = weight @ (X - mean) ** 2
    whole = prior.times(strength, weight.sum())
    # The intercepts' conditions hold at the mode, so the slopes may be taken with features that are centered or not.
    grad = (X - mean).T @ (weight[:, None] * slope)
    rms = np.sqrt((weight[:, None] * slope**2).sum())
    total = weight @ curvature
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
    everything = profiled_hessian(X, weight[:, None] * curvature, free, count, fit_intercept=fit_intercept)
    # With the intercepts again, so that samples can be taken out.
    outer = partial(jnp.einsum, "jo,ko->ojk")
    gram = everything.gram + outer(everything.cross, everything.cross / positive(everything.total))
    grad = jnp.where(free, X @ (weight[:, None] * slope), 0.0)
    square = X**2 @ weight
    scale = jnp.sqrt(square)[:, None] * jnp.sqrt(jnp.sum(weight[:, None] * slope**2))

    def without(sample):
        x, one, slope, curvature = sample
        row = jnp.where(free, x[:, None], 0.0)
        slope, curvature = one * slope, one * curvature
        total, cross = everything.total - curvature, (everything.cross - row * curvature) * fit_intercept
        left = gram - outer(row, row * curvature) - outer(cross, cross / positive(total))
        profiled = grad - row * slope + cross * slope / positive(total)
        target = composite_step(left, profiled, coef, strength, free, scale, GOAL, count, prior)
        move = target - coef
        return x @ move + (slope - jnp.sum(cross * move, 0)) / positive(total) * fit_intercept

    return jax.lax.map(without, (X.T, one, slope, curvature))
