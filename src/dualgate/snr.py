"""Signal-to-noise ratio of rows, and the bins that it is cut into."""

import numpy as np

from dualgate._validation import MASK_ROWS, find_missing

SNR_EDGES = (2.0, 4.0, 7.0)
SNR_NAMES = ("X", "L", "M", "H")
SNR_RANGES = ("≤ 2", "2 to 4", "4 to 7", "> 7")


def signal_to_noise(flux, error):
    r"""Signal-to-noise ratio of whole rows, the norm of the flux divided by the norm of the error.

    .. math:: \mathrm{SNR} = \lVert flux \rVert / \lVert error \rVert

    The flux is the measured one, so pure noise has a ratio of about one. It is not the per-pixel S/N: for the spectra
    of the simulator the median per-pixel S/N of bins X, L, M and H is 2.1, 4.4, 8.7 and 12.6.

    Parameters
    ----------
    flux, error : ndarray of shape (n_samples, n_pixels), [same unit]
        Measured values and their standard deviations. A pixel whose flux or error is NaN or infinite is left out.

    Returns
    -------
    snr : ndarray of shape (n_samples,), [dimensionless]
        0 where no pixel was measured.

    Examples
    --------
    >>> signal_to_noise(np.array([[3.0, 4.0]]), np.array([[1.0, 0.0]]))
    array([5.])
    """
    power = _powers(flux, error)
    odd = np.flatnonzero(~np.isfinite(power).all(axis=0))
    for start in range(0, len(odd), MASK_ROWS):
        rows = odd[start : start + MASK_ROWS]
        parts = flux[rows], error[rows]
        missing = find_missing(*parts)
        if missing is not None:
            for part in parts:
                np.copyto(part, 0, where=missing)
            power[:, rows] = _powers(*parts)
            power[1, rows[missing.all(axis=1)]] = 1
    return np.sqrt(power[0] / power[1])


def _powers(flux, error):
    """Sum the squares of each row (2, n_samples)."""
    return np.array([np.einsum("ij,ij->i", part, part, dtype=np.float64) for part in (flux, error)])


def quality_bins(snr, edges=SNR_EDGES):
    """Quality bin of every row; with the default edges X (at most 2), L (2 to 4), M (4 to 7) or H (above 7).

    Parameters
    ----------
    snr : array-like of shape (n_samples,), [dimensionless]
        Signal-to-noise ratio, ||flux|| / ||error||.
    edges : array-like of shape (n_bins - 1,), default=SNR_EDGES
        Increasing upper ends of all bins but the last; a row on an edge belongs to the bin below it.

    Returns
    -------
    bins : ndarray of int, shape (n_samples,)
        Codes from 0 for the noisiest bin; those of the default edges are named in `SNR_NAMES`.

    Raises
    ------
    ValueError
        If a ratio is NaN or negative, or the edges do not increase.

    Examples
    --------
    >>> [SNR_NAMES[code] for code in quality_bins([1.0, 2.0, 3.0, 7.5])]
    ['X', 'X', 'L', 'H']
    """
    snr, edges = np.asarray(snr, dtype=float), np.asarray(edges, dtype=float)
    if not (np.diff(edges) > 0).all():
        raise ValueError(f"quality_bins.edges={edges.tolist()} must increase. Try {SNR_EDGES}.")
    wrong = ~(snr >= 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"quality_bins.snr is {snr[row]} at row {row} and must be a ratio of norms, 0 or more.")
    return np.digitize(snr, edges, right=True)


def equal_edges(values, n_bins):
    """Edges that cut `values` (n_samples,) into `n_bins` bins of equal counts, each halfway between two values.

    There are fewer where ties are many; they are for :func:`quality_bins`.
    """
    ordered = np.sort(values)
    last = np.unique(ordered[-(-np.arange(1, n_bins) * len(ordered) // n_bins) - 1])  # largest of each bin but one
    last = last[last < ordered[-1]]
    following = ordered[np.searchsorted(ordered, last, side="right")]
    return np.minimum((last + following) / 2, np.nextafter(following, -np.inf))  # neighbouring floats round up
