"""Where a mixture does well and what its towers say: slices of rows and the towers' likeness."""

import numpy as np
from numpy.typing import ArrayLike

SNR_EDGES = (2.0, 4.0, 7.0)
SNR_NAMES = ("X", "L", "M", "H")
SNR_RANGES = ("≤ 2", "2 to 4", "4 to 7", "> 7")


def snr_bins(snr: ArrayLike, edges: ArrayLike = SNR_EDGES) -> np.ndarray:
    """Quality bin of every row: X (at most 2), L (2 to 4), M (4 to 7) or H (above 7).

    Parameters
    ----------
    snr : array-like of shape (n_samples,), [dimensionless]
        Signal-to-noise ratio, ||flux|| / ||error||.
    edges : array-like of shape (n_bins - 1,), default=SNR_EDGES
        Increasing upper ends of all bins but the last; a row on an edge belongs below it.

    Returns
    -------
    bins : ndarray of int, shape (n_samples,)
        Codes from 0 for the noisiest bin, names in `SNR_NAMES`.

    Raises
    ------
    ValueError
        If a ratio is NaN or negative, or the edges do not increase.

    Examples
    --------
    >>> [SNR_NAMES[code] for code in snr_bins([1.0, 2.0, 3.0, 7.5])]
    ['X', 'X', 'L', 'H']
    """
    snr, edges = np.asarray(snr, dtype=float), np.asarray(edges, dtype=float)
    if not (np.diff(edges) > 0).all():
        raise ValueError(f"snr_bins.edges={edges.tolist()} must increase. Try {SNR_EDGES}.")
    wrong = ~(snr >= 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"snr_bins.snr is {snr[row]} at row {row} and must be a ratio of norms, 0 or more.")
    return np.digitize(snr, edges, right=True)


def tower_correlation(phys: ArrayLike, quality: ArrayLike) -> float:
    r"""Linear likeness of two towers' outputs, whatever their widths: the RV coefficient.

    .. math:: RV = \|A^T B\|_F^2 / (\|A^T A\|_F \, \|B^T B\|_F)

    with A and B the outputs less their column means. For towers of width one it is the squared correlation. A
    common offset of a row's logits changes no weight; pass softmax weights where it should not count.

    Parameters
    ----------
    phys : array-like of shape (n_samples, n_phys_outputs)
        Outputs of the physics tower, such as `trace.phys_logits`.
    quality : array-like of shape (n_samples, n_quality_outputs)
        Outputs of the quality tower for the same rows.

    Returns
    -------
    likeness : float, [dimensionless]
        0 for towers that share no linear direction, 1 for towers that say the same up to a rotation and a
        factor; NaN where one of them says the same for every row.

    Raises
    ------
    ValueError
        If the two differ in rows or are not 2-D.

    References
    ----------
    Robert, P., & Escoufier, Y. (1976). A unifying tool for linear multivariate statistical methods: the
    RV-coefficient. Applied Statistics 25, 257.

    Examples
    --------
    >>> towers = [[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]
    >>> round(tower_correlation(towers, towers), 3)
    1.0
    """
    phys, quality = np.asarray(phys, dtype=float), np.asarray(quality, dtype=float)
    if phys.ndim != 2 or quality.ndim != 2 or len(phys) != len(quality):
        raise ValueError(
            f"tower_correlation.phys has shape {phys.shape} and quality {quality.shape}: both must be 2-D "
            "with the same rows. Pass trace.phys_logits and trace.quality_logits of one trace."
        )
    a, b = phys - phys.mean(axis=0), quality - quality.mean(axis=0)
    scale = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    tiny = 1e-12 * np.square(np.linalg.norm(phys)) * np.square(np.linalg.norm(quality))
    return float(np.square(np.linalg.norm(a.T @ b)) / scale) if scale > tiny else float("nan")
