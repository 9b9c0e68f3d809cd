"""The known noise of what the experts read: its power in every row, and the strategy that removes and restores it."""

from dataclasses import dataclass

import numpy as np

from dualgate._validation import owner_name, take_columns
from dualgate.experts.ridges import Ridges, fall_back, training_sets
from dualgate.features import NoiseWhitenedPCA
from dualgate.statistics import CellStatistics, solve_ridge

EXPONENTS = (0.0, 0.5, 1.0)  # of the inverse noise power by which cells weigh; the first is equal weight


@dataclass(frozen=True, eq=False)
class KnownNoise:
    """Noise of the projected columns, cell by cell.

    Parameters
    ----------
    power : ndarray of shape (n_folds, n_regimes, n_bins)
        Sum of the noise power of the rows.
    variances : ndarray of shape (n_projected,)
        Diagonal of the noise covariance of a row of power one.
    """

    power: np.ndarray
    variances: np.ndarray


def knows_noise(experts):
    """Tell whether the errors give the noise of the projected columns."""
    inner = experts._unfrozen()
    if experts._error_columns is None:
        return False
    return inner is None or (isinstance(inner, NoiseWhitenedPCA) and inner.error_columns is not None)


def require_known_noise(experts):
    """Raise a ValueError where ``sharing="noise"`` is asked for and the noise is not known."""
    if experts.sharing != "noise" or knows_noise(experts):
        return
    name = owner_name(experts)
    if experts._error_columns is None:
        raise ValueError(
            f"{name}.sharing='noise' needs error_columns, which is None: name the columns of X that hold the errors, "
            "or use another sharing."
        )
    raise ValueError(
        f"{name}.sharing='noise' does not know the noise behind projection={experts.projection!r}: set projection to "
        "'whitened', to a NoiseWhitenedPCA with error_columns, or to None."
    )


def typical_noise(experts, sample):
    """Root mean square error of each pixel: the projection's or, without one, of a sample; None where not known."""
    if not knows_noise(experts):
        return None
    if experts.projection_ is not None:
        return experts._unfrozen().noise_
    error = experts._split(sample)[1]
    return np.sqrt(np.square(error, dtype=np.float64).mean(axis=0))


def noise_power(experts, block):
    r"""Noise power of rows, :math:`r_i = \langle e_{ip}^2 / N_p \rangle_p` with N the squared typical noise."""
    if experts.projection_ is None:
        error = experts._split(block)[1]
    else:
        error = take_columns(experts._projection_input(block), experts._unfrozen()._error_columns)
    ratio = error / experts._noise.astype(error.dtype)
    return np.einsum("ij,ij->i", ratio, ratio, dtype=np.float64) / ratio.shape[1]


def known_noise(experts, power):
    """Put the summed noise power of folds x cells beside the noise covariance of the projected columns."""
    whitening = experts._unfrozen()
    variances = experts._noise**2 if whitening is None else np.ones(len(whitening.components_))
    return KnownNoise(power.reshape(experts.n_folds_, experts.n_regimes_, experts.n_quality_bins_), variances)


def noise(folds, alphas, root, known):
    r"""Let all rows of a regime inform every quality bin: take the known noise out, and put the bin's own back.

    .. math::
        w_{ks} = (C_k + s_{ks}^2 D + \tfrac{\alpha_k}{n_k} I)^{-1} c_k, \qquad
        C_k = \Big[ \tfrac{1}{n_k} \sum_{i \in k} \omega_i \big( (x_i - \bar x_k)(x_i - \bar x_k)^T - r_i D \big)
        \Big]_+, \qquad
        c_k = \tfrac{1}{n_k} \sum_{i \in k} \omega_i (x_i - \bar x_k)(y_i - \bar y_k)

    D is the noise covariance of a row of power one in projected columns: the identity after a NoiseWhitenedPCA, the
    mean squared errors on the diagonal without a projection. r_i is the noise power of row i, and :math:`s_{ks}^2` its
    mean over the cell. :math:`[\cdot]_+` lifts negative eigenvalues, in units of D, to zero.

    Noisy rows say less about C_k and c_k: the rows of a cell weigh :math:`\omega_i \propto s_{ks}^{-2\rho}`, n_k in
    all, and the means are weighted alike. One rho of `EXPONENTS` is chosen for all regimes, one alpha for each, by
    held-out error.

    Where noise level and physics are independent within a regime, this is the best linear rule at that level; its line
    goes through the regime's means, as it then must. With one bin it is the regime's ridge. A cell without rows takes
    the mean noise power of its bin, and of its regime where the bin is empty everywhere.
    """
    if known is None:
        raise ValueError(
            "HierarchicalExperts.sharing='noise': earlier calls of partial_fit summed their rows without noise power: "
            "begin anew with sharing='noise', or keep the sharing of the first call."
        )
    sets = training_sets(folds)
    power = np.concatenate([known.power.sum(0) - known.power, known.power.sum(0)[None]])
    levels = _noise_levels(power, sets.count)
    descending = np.sort(alphas)[::-1]  # a tie goes to the stronger penalty
    lowest = np.inf
    for exponent in EXPONENTS:
        coef, intercept = _solve_path(sets, power, levels, known.variances, descending, exponent)
        coef, intercept = fall_back(sets, coef, intercept, root)
        errors = folds.squared_error(coef[:, :-1], intercept[:, :-1]).sum((1, 3))  # (n_alphas, n_regimes)
        if errors.min(axis=0).sum() < lowest:
            lowest, best, models = errors.min(axis=0).sum(), errors.argmin(axis=0), (coef, intercept)
    coef, intercept = (np.stack([each[i, :, k] for k, i in enumerate(best)], axis=1) for each in models)
    return Ridges.of_cells(coef, intercept, descending[best][:, None], folds.count)


def _solve_path(sets, power, levels, variances, alphas, exponent):
    """Models (n_alphas, n_sets, n_regimes, n_bins, ...) from cells that weigh as ``levels**-exponent``."""
    weights = np.where(sets.count > 0, np.where(levels > 0, levels, 1.0) ** -exponent, 0.0)
    weights *= _ratio(sets.count.sum(2), (weights * sets.count).sum(2))[..., None]  # as many rows as there are
    regimes = _weighted(sets, weights).sum(2)
    gram, moment = regimes.centred()
    unit_noise = np.diag(variances)
    signal = _positive_part(gram - (weights * power).sum(2)[..., None, None] * unit_noise, np.sqrt(variances))
    n_rows = regimes.count[..., None, None]
    coef = [
        solve_ridge(signal + n_rows * levels[:, :, level, None, None] * unit_noise, moment, alphas)
        for level in range(levels.shape[2])
    ]
    coef = np.stack(coef, axis=3)
    x_mean, y_mean = (values[:, :, None] for values in regimes.means())
    return coef, y_mean - (x_mean * coef).sum(-1)


def _ratio(total, count):
    """Divide where there is something to divide by; zero elsewhere."""
    return np.divide(total, count, out=np.zeros_like(total), where=count > 0)


def _weighted(sets, weights):
    """Statistics of cells whose rows all weigh as given."""
    vector, matrix = weights[..., None], weights[..., None, None]
    return CellStatistics(
        weights * sets.count,
        vector * sets.x_sum,
        weights * sets.y_sum,
        weights * sets.y_square_sum,
        vector * sets.moment,
        matrix * sets.gram,
        sets.origin,
    )


def _noise_levels(power, count):
    """Mean noise power of each cell (n_sets, n_regimes, n_bins), of its bin or its regime where it has no rows."""
    of_bin = power.sum(1, keepdims=True), count.sum(1, keepdims=True)
    of_regime = power.sum(2, keepdims=True), count.sum(2, keepdims=True)
    level = np.zeros_like(power)
    for total, n_rows in (of_regime, of_bin, (power, count)):
        level = np.where(n_rows > 0, total / np.maximum(n_rows, 1.0), level)
    return level


def _positive_part(matrix, unit):
    """Lift the negative eigenvalues of ``matrix / (unit unit')`` to zero."""
    values, vectors = np.linalg.eigh(matrix / (unit[:, None] * unit))
    negative = np.matmul(vectors * values.clip(max=0)[..., None, :], vectors.swapaxes(-1, -2))
    return matrix - negative * (unit[:, None] * unit)
