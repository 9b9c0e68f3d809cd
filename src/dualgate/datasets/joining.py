"""Flux and errors of spectra as the rows that the estimators take."""

import numpy as np


def join_spectra(flux, error, mask=None):
    """Join flux, errors and a mask to rows X = [flux | error] that are not finite where a pixel is masked.

    Parameters
    ----------
    flux, error : array-like of shape (n_samples, n_pixels), [same unit]
        Measured values and their standard deviations.
    mask : None or array-like of bool or int of shape (n_samples, n_pixels), default=None
        True, or any bit set, for pixels that must not count; ``mask & bits`` selects some bits. None masks nothing.

    Returns
    -------
    X : ndarray of shape (n_samples, 2 * n_pixels), float32 if flux and error are, else float64
        The flux of masked pixels is NaN and their error infinite, which estimators with error columns take for not
        measured. Other NaN and infinite values stay, with the same meaning.

    Raises
    ------
    ValueError
        If shapes differ, or the mask holds neither bool nor integers.

    Examples
    --------
    >>> join_spectra([[1.0, 9.0]], [[0.1, 0.1]], [[0, 4]])
    array([[1. , nan, 0.1, inf]])
    """
    flux, error = np.asarray(flux), np.asarray(error)
    mask = np.zeros(flux.shape, dtype=bool) if mask is None else np.asarray(mask)
    for name, values, kinds in (("flux", flux, "fiu"), ("error", error, "fiu"), ("mask", mask, "biu")):
        if values.ndim != 2 or values.shape != flux.shape or values.dtype.kind not in kinds:
            raise ValueError(
                f"join_spectra.{name} has shape {values.shape} and dtype {values.dtype}, flux has shape {flux.shape}: "
                f"it must hold {'bool or integers' if name == 'mask' else 'numbers'} of one common shape "
                "(n_samples, n_pixels)."
            )
    single = flux.dtype == error.dtype == np.float32
    X = np.hstack([flux, error], dtype=np.float32 if single else np.float64, casting="same_kind")
    X[:, : flux.shape[1]][mask != 0] = np.nan
    X[:, flux.shape[1] :][mask != 0] = np.inf
    return X
