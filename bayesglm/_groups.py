"""Sums over groups of coefficients, given as integer group ids; ids equal to `n_groups` mean no group."""

import jax.numpy as jnp


def group_sizes(groups, n_groups):
    """Number of members of each group, shape (n_groups,)."""
    return jnp.zeros(n_groups + 1, int).at[jnp.ravel(groups)].add(1)[:n_groups]


def group_norms(value, groups, n_groups):
    """Euclidean norm of each group, shape (..., n_groups); all derivatives are 0 at zero."""
    leading = value.shape[: value.ndim - groups.ndim]
    squares = jnp.zeros((*leading, n_groups + 1), value.dtype)
    squares = squares.at[..., jnp.ravel(groups)].add(value.reshape(*leading, groups.size) ** 2)[..., :n_groups]
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def spread(per_group, groups, outside):
    """Give each member its group's value, shape (..., *groups.shape); members of no group get `outside`."""
    padding = jnp.full((*per_group.shape[:-1], 1), outside, per_group.dtype)
    return jnp.concatenate([per_group, padding], -1)[..., groups]
