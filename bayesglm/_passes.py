"""What solvers ask of the samples: the loss and its derivatives, and sums over X, block by block.

X is read in blocks of samples that fit into cache, centered there and used as often as needed, so that each sum costs
one pass over memory and X is never copied.
"""

import jax
import jax.numpy as jnp

__all__ = [
    "blocks",
    "correlate",
    "curvature_of_steps",
    "expected_curvature",
    "joint_curvature",
    "own_curvature",
    "hessian_with_intercept",
    "moments",
    "positive",
    "value_and_slope",
    "weighted_gram",
]

BLOCK_BYTES = 1 << 20
LEAST_CURVATURE = 0.1
# Rows of a block of a Gram matrix, and columns of which such a block fits into cache.
GRAM_ROWS, GRAM_COLUMNS = 64, 2048


def positive(x):
    """x, with 1 in place of what is not positive, for divisions."""
    return jnp.where(x > 0, x, 1.0)


def value_and_slope(loss, y, eta, *, joint=False):
    """Loss and its derivative in eta, elementwise; if it is joint, the derivative of its sum over the last axis."""
    if joint:
        return loss(y, eta), jax.grad(lambda e: jnp.sum(loss(y, e)))(eta)
    return jax.jvp(lambda e: loss(y, e), (eta,), (jnp.ones_like(eta),))


def expected_curvature(loss, mean, eta):
    """Expected second derivative of the loss in eta, elementwise.

    The loss is linear in y, or has a second derivative free of y, so it is the second derivative at y = mean.
    """
    expected = jax.lax.stop_gradient(mean(eta))
    return jax.jvp(lambda e: value_and_slope(loss, expected, e)[1], (eta,), (jnp.ones_like(eta),))[1]


def curvature_of_steps(loss, mean, y, eta):
    """Second derivative of the loss in eta for Newton's steps, elementwise: as it is, but not far below the expected.

    Far away, what is expected leads on; near the mode, what is observed makes steps Newton's.
    """
    observed = jax.jvp(lambda e: value_and_slope(loss, y, e)[1], (eta,), (jnp.ones_like(eta),))[1]
    return jnp.maximum(observed, LEAST_CURVATURE * expected_curvature(loss, mean, eta))


def joint_curvature(mean, eta):
    """Expected second derivatives (n, m, m) of a joint loss in eta (n, m), its link canonical: the covariance of y."""
    share = mean(eta)
    return share[:, :, None] * jnp.eye(share.shape[1], dtype=eta.dtype) - share[:, :, None] * share[:, None]


def own_curvature(curvature):
    """Second derivatives (n, m) by each linear predictor alone, of elementwise (n, m) or joint (n, m, m) ones."""
    return curvature if curvature.ndim == 2 else jnp.diagonal(curvature, axis1=1, axis2=2)


def hessian_with_intercept(X, curvature):
    """Second derivatives of the loss of one output by (intercept, coefficients), shape (1 + p, 1 + p).

    Parameters
    ----------
    X : (n, p)
    curvature : (n,)
    """
    total, cross = jnp.sum(curvature), X.T @ curvature
    return jnp.block([[total[None, None], cross[None]], [cross[:, None], (X * curvature[:, None]).T @ X]])


def blocks(X, carry, visit, *rows, lanes=1):
    """Fold `visit(carry, block of X, blocks of rows, whether each row is new)` over blocks of samples.

    The last block overlaps the one before; only its new rows count. `lanes` is how many numbers `visit` computes from
    each row: blocks are smaller if there are more than features.
    """
    n = len(X)
    size = min(n, max(1, BLOCK_BYTES // (max(X.shape[1], lanes) * X.dtype.itemsize)))
    if 2 * size >= n:
        return visit(carry, X, rows, jnp.ones(n, bool))

    def step(i, carry):
        first = jnp.minimum(i * size, n - size)
        block, *others = (jax.lax.dynamic_slice_in_dim(array, first, size) for array in (X, *rows))
        return visit(carry, block, others, first + jnp.arange(size) >= i * size)

    return jax.lax.fori_loop(0, -(-n // size), step, carry)


def moments(X, share, slope=None, *, centered=True):
    """Weighted mean (p,) of each feature, and its mean square around that; 0 for constant features.

    Where there is no intercept, features are not `centered`: the mean is taken to be 0.

    Given `slope` (n, m), also the products (p, m) of the centered features with it, from the same pass.
    """
    guess = X[jnp.argmax(share)] if centered else jnp.zeros(X.shape[1], X.dtype)
    slope = jnp.zeros((len(X), 0), X.dtype) if slope is None else slope

    def visit(carry, block, rows, fresh):
        weight, slope = jnp.where(fresh, rows[0], 0.0), jnp.where(fresh[:, None], rows[1], 0.0)
        deviation = jnp.where(weight[:, None] > 0, block - guess, 0.0)
        sums = weight @ deviation, weight @ deviation**2, slope.T @ deviation
        return jax.tree.map(jnp.add, carry, sums)

    zero = jnp.zeros(X.shape[1], X.dtype)
    start = zero, zero, jnp.zeros((slope.shape[1], len(zero)), X.dtype)
    first, second, products = blocks(X, start, visit, share, slope)
    first = first if centered else guess
    mean = guess + first
    square = jnp.maximum(second - first**2, 0.0)
    noise = 64 * jnp.finfo(X.dtype).eps
    varies = (jnp.sqrt(square) > noise * jnp.abs(mean)) & (square > noise * second)
    square = jnp.where(varies, square, 0.0)
    if slope.shape[1] == 0:
        return mean, square
    return mean, square, (products - first * slope.sum(0)[:, None]).T


def correlate(X, mean, slope):
    """Products (p, m) of the centered features with `slope` (n, m)."""

    def visit(carry, block, rows, fresh):
        return carry + jnp.where(fresh[:, None], rows[0], 0.0).T @ (block - mean)

    return blocks(X, jnp.zeros((slope.shape[1], X.shape[1]), X.dtype), visit, slope).T


def weighted_gram(X, weight, count, center=None):
    """X diag(weight) X' of some rows; what belongs to rows after the first `count` may be anything.

    Only blocks below the diagonal are computed.

    Parameters
    ----------
    X : (p, n)
    weight : (n,)
    count : int
    center : (n,), optional
        Subtracted from each row first.

    Returns
    -------
    (p, p)
    """
    p, n = X.shape
    columns = GRAM_COLUMNS if n > 2 * GRAM_COLUMNS else n
    size = min(GRAM_ROWS, p)

    def add_chunk(c, gram):
        first = jnp.minimum(c * columns, n - columns)
        part, some, middle = (
            jax.lax.dynamic_slice_in_dim(array, first, columns, array.ndim - 1)
            for array in (X, weight, jnp.zeros(n, X.dtype) if center is None else center)
        )
        part = part if center is None else part - middle
        some = jnp.where(first + jnp.arange(columns) >= c * columns, some, 0.0)

        def add_rows(i, gram):
            top = jnp.minimum(i * size, p - size)
            left = jax.lax.dynamic_slice_in_dim(part, top, size) * some
            left = jnp.where((top + jnp.arange(size) >= i * size)[:, None], left, 0.0)

            def add_block(j, gram):
                start = jnp.minimum(j * size, p - size)
                right = jax.lax.dynamic_slice_in_dim(part, start, size)
                right = jnp.where((start + jnp.arange(size) >= j * size)[:, None], right, 0.0)
                old = jax.lax.dynamic_slice(gram, (top, start), (size, size))
                return jax.lax.dynamic_update_slice(gram, old + left @ right.T, (top, start))

            return jax.lax.fori_loop(0, i + 1, add_block, gram)

        return jax.lax.fori_loop(0, -(-count // size), add_rows, gram)

    gram = jax.lax.fori_loop(0, -(-n // columns), add_chunk, jnp.zeros((p, p), X.dtype))
    return jnp.tril(gram) + jnp.tril(gram, -1).T
