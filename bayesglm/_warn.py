"""Warnings that point at the user's line."""

import warnings
from pathlib import Path

__all__ = ["warn_user"]

HERE = str(Path(__file__).parent)


def warn_user(message, category=UserWarning):
    """Warn, and name the first line outside this package as the place."""
    warnings.warn(message, category, skip_file_prefixes=(HERE,))
