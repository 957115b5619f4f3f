"""Long runs as chunks of draws: what is complete survives an interrupt."""

import jax
import numpy as np

from bayesglm._warn import warn_user

__all__ = ["join_chunks"]


def join_chunks(chunks, num_samples):
    """Put chunks of draws together, leaves (draws, ...); an interrupt (ctrl-C) keeps those that came before it.

    Parameters
    ----------
    chunks : iterable of trees of numpy.ndarray
    num_samples : int
        Draws that all chunks together would hold.

    Raises
    ------
    KeyboardInterrupt
        If there are no draws yet.
    """
    complete = []
    try:
        for chunk in chunks:
            complete.append(chunk)
    except KeyboardInterrupt:
        kept = sum(len(jax.tree.leaves(chunk)[0]) for chunk in complete)
        if kept == 0:
            raise
        warn_user(f"Interrupted: {kept} of {num_samples} draws per chain were kept.")
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *complete)
