"""Checks of row-wise arrays that scores and intervals share."""

import numpy as np


def same_rows(**columns):
    """Finite float arrays of one length, or a message that names the one that is not."""
    arrays = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
    first, n_samples = next((name, array.shape) for name, array in arrays.items())
    for name, array in arrays.items():
        if array.ndim != 1 or array.shape != n_samples:
            raise ValueError(f"{name} has shape {array.shape} and must be 1-D with the rows of {first}, {n_samples}.")
        if not np.isfinite(array).all():
            where = int(np.flatnonzero(~np.isfinite(array))[0])
            raise ValueError(f"{name} is {array[where]} at row {where} and must be finite. Leave such rows out.")
    if n_samples[0] < 2:
        raise ValueError(f"{first} has {n_samples[0]} rows and must have at least 2: R^2 needs a spread of targets.")
    return tuple(arrays.values())
