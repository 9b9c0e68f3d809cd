"""How unusual a row is among rows that were measured as well: p-values that are calibrated on the training rows."""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import gammainccinv, gammaincinv, softmax

from dualgate._validation import owner_name
from dualgate.features.factors import STEP, split_information, unfold

BIN_ROWS, MOST_BINS = 300, 20  # training rows that are compared with each other at least, and bins of noise at most
MOST_ROWS = 100  # from which the reason is guessed
TAIL = 0.02  # of the training rows, whose mean excess says how p-values fall beyond the last of them
FAR, RARE = 5.0, 1e-9  # times beyond those of all training rows, and probability, that make a misfit an extrapolation
FEW_ROWS = 100  # training rows of which the extremes say little
_TINY = 1e-6


class ExtrapolationWarning(UserWarning):
    """Rows are described by no component of the mixture; their predictions are extrapolations.

    `novelty` gives a p-value for every row. To silence it: `warnings.simplefilter("ignore", ExtrapolationWarning)`.
    """


@dataclass(frozen=True, eq=False)
class Oddities:
    """In what ways rows can be unlike others.

    Parameters
    ----------
    values : ndarray of shape (n_rows, 4)
        Residual outside the factors in standard deviations of chi-square, squared distance from the components within
        the factors, pixels that were left out, and squares of the nuisances.
    level : ndarray of shape (n_rows,)
        Logarithm of the information of a row, summed over the factors: how well it was measured.
    n_measured : ndarray of shape (n_rows,)
        Pixels that were measured and kept.
    misfit : ndarray of shape (n_rows,)
        Squared Mahalanobis distance of a row from the components, in units of its stated errors, for each pixel.
    """

    values: np.ndarray
    level: np.ndarray
    n_measured: np.ndarray
    misfit: np.ndarray

    @classmethod
    def of(cls, columns, information, evidence, explained):
        """Take them from what the projection informs of rows and a mixture predicts.

        Parameters
        ----------
        columns : dict of str to ndarray
            ``chi_square``, ``n_measured`` and, where there are, ``error_scale`` and ``n_bad``.
        information : ndarray of shape (n_rows, n_packed)
        evidence, explained : ndarray of shape (n_rows, n_components)
        """
        square = np.square(columns.get("error_scale", np.ones(len(evidence))))
        by_mixture = (softmax(evidence, axis=1) * explained).sum(axis=1)
        by_factors, level = np.empty((2, len(information)))
        for start in range(0, len(information), STEP):
            rows = slice(start, start + STEP)
            folded, moment = split_information(information[rows])
            precision = unfold(folded, moment.shape[1])
            trace = np.einsum("nii->n", precision)
            precision += ((_TINY * trace + 1e-30) / len(moment[0]))[:, None, None] * np.eye(moment.shape[1])
            moment = moment.astype(np.float64)
            by_factors[rows] = np.einsum("nj,nj->n", moment, np.linalg.solve(precision, moment[..., None])[..., 0])
            level[rows] = np.log(trace + 1e-30)
        n_free = np.maximum(columns["n_measured"] - split_information(information[:1])[1].shape[1], 1)
        residual = (columns["chi_square"] - square * by_factors - n_free) / np.sqrt(2 * n_free)
        further = [columns.get(name, np.zeros(len(evidence))) for name in ("n_bad", "nuisance_size")]
        values = np.column_stack([residual, by_factors - by_mixture, *further])
        return cls(values, level, columns["n_measured"], misfit_of(columns, by_mixture))


def misfit_of(columns, explained):
    """Squared Mahalanobis distance for each pixel, 1 for a row without any; `explained` (n_rows,) by the mixture."""
    n_measured, square = columns["n_measured"], np.square(columns.get("error_scale", 1.0))
    left = np.maximum(columns["chi_square"] - square * explained, 0)
    return np.where(n_measured > 0, left / np.maximum(n_measured, 1), 1.0)


class Watch:
    """Counts rows far outside what the training rows were, while a source is read block by block.

    Parameters
    ----------
    scale : NoveltyScale
    reduction : Reduction
    """

    def __init__(self, scale, reduction):
        self._scale, self._reduction = scale, reduction
        self._n_far, self._n_rows, self._reasons = 0, 0, []

    def see(self, misfit, first_row, block):
        """Count the rows of a block; blocks may come from several threads."""
        lost = np.flatnonzero(~np.isfinite(misfit))
        if len(lost):
            raise ValueError(
                f"X: row {first_row + lost[0]:,} is so far from what the training rows were that numbers overflow. "
                f"{self._reduction.describe_units(block[lost][:MOST_ROWS])}Check the units of its flux and errors."
            )
        far = self._scale.is_far(misfit)
        self._n_rows += len(far)
        if far.any():
            self._n_far += int(far.sum())
            if not self._reasons:
                self._reasons.append(self._reduction.describe_units(block[far][:MOST_ROWS]))

    def warn(self, owner):
        """Warn of the rows that were counted, if there are any."""
        if self._n_far:
            low, high = self._scale.misfit_range
            warnings.warn(
                f"{owner_name(owner)}.predict: {self._n_far:,} of {self._n_rows:,} rows are far outside what the "
                f"training rows were: their chi-square per pixel is below {low:.3g} or above {high:.3g}. "
                f"{self._reasons[0]}novelty(X) tells which rows they are; their predictions are extrapolations.",
                ExtrapolationWarning,
                stacklevel=3,
            )


class NoveltyScale:
    """What is usual among the training rows, by how well a row was measured.

    Parameters
    ----------
    oddities : Oddities
        Of the training rows.
    """

    def __init__(self, oddities):
        n_rows = len(oddities.level)
        n_bins = int(np.clip(n_rows // BIN_ROWS, 1, MOST_BINS))
        self._edges = np.quantile(oddities.level, np.linspace(0, 1, n_bins + 1)[1:-1])
        bins = np.digitize(oddities.level, self._edges)
        self._middle, self._spread = np.zeros((2, n_bins, oddities.values.shape[1]))
        for place in range(n_bins):
            own = oddities.values[bins == place]
            if len(own):
                low, self._middle[place], high = np.quantile(own, [0.16, 0.5, 0.84], axis=0)
                self._spread[place] = (high - low) / 2
        self._spread = np.maximum(self._spread, 0.5)  # of pixels left out, most rows have none
        self._usual = np.sort(self._distance(oddities))
        tail = self._usual[int((1 - TAIL) * n_rows) :]
        self._fall = max((tail - tail[0]).mean(), 1e-3)
        room, n_pixels = FAR * (1 + FEW_ROWS / n_rows), max(np.median(oddities.n_measured), 1)
        self.misfit_range = (
            min(oddities.misfit.min() / room, 2 * gammaincinv(n_pixels / 2, RARE) / n_pixels),  # chi-square's
            max(oddities.misfit.max() * room, 2 * gammainccinv(n_pixels / 2, RARE) / n_pixels),
        )

    def _distance(self, oddities):
        """Largest deviation in any way; too good a fit is one too."""
        bins = np.digitize(oddities.level, self._edges)
        deviation = (oddities.values - self._middle[bins]) / self._spread[bins]
        deviation[:, 0] = np.abs(deviation[:, 0])
        return np.where(np.isfinite(deviation).all(axis=1), deviation.max(axis=1), np.inf)

    def p_values(self, oddities):
        """Share of the training rows that are as odd; beyond all of them it falls exponentially (n_rows,)."""
        distance = self._distance(oddities)
        n_usual = len(self._usual)
        rank = (1 + n_usual - np.searchsorted(self._usual, distance)) / (1 + n_usual)
        return rank * np.exp(-np.maximum(distance - self._usual[-1], 0) / self._fall)

    def is_far(self, misfit):
        """Whether the misfit of rows is beyond that of all training rows (n_rows,), bool."""
        low, high = self.misfit_range
        return ~((misfit >= low) & (misfit <= high))
