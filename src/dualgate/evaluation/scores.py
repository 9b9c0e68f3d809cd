"""Scores of predictions: any weighting of the rows, any slice, and the bootstrap over rows.

R^2, mean absolute error, root mean square error and bias are ratios of weighted sums over rows, so that one matrix
product scores all predictions in all resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike

from dualgate._validation import check_choice, check_number
from dualgate.snr import SNR_NAMES, quality_bins

ALL_ROWS = "all"
BLOCK_ELEMENTS = 4_000_000  # bootstrap weights held at once: 32 MB of float64


@dataclass(frozen=True)
class Interval:
    """A number with a confidence interval.

    Parameters
    ----------
    value : float
        The estimate itself.
    low, high : float
        Ends of the interval, `low <= high`.
    confidence : float, default=0.95
        Nominal coverage, between 0 and 1.

    Examples
    --------
    >>> print(Interval(0.05, 0.041, 0.062))
    +0.050 [+0.041, +0.062]
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95

    def __str__(self):
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number and its bootstrap draws; sums, differences and multiples of estimates stay paired.

    Parameters
    ----------
    value : float
        The number itself.
    draws : ndarray of shape (n_resamples,)
        The same number in every resample.

    Examples
    --------
    >>> better, worse = Estimate(0.6, np.array([0.5, 0.7])), Estimate(0.5, np.array([0.4, 0.6]))
    >>> print((better - worse).interval())
    +0.100 [+0.100, +0.100]
    """

    value: float
    draws: np.ndarray

    def __add__(self, other):
        return Estimate(self.value + other.value, self.draws + other.draws)

    def __sub__(self, other):
        return Estimate(self.value - other.value, self.draws - other.draws)

    def __truediv__(self, number):
        return Estimate(self.value / number, self.draws / number)

    def interval(self, confidence: float = 0.95) -> Interval:
        """Percentile interval of the finite draws, with NaN ends where there is none.

        Parameters
        ----------
        confidence : float, default=0.95
            Coverage, between 0 and 1; else a ValueError is raised.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"Estimate.interval.confidence={confidence} must lie between 0 and 1. Try 0.95.")
        draws, tail = self.draws[np.isfinite(self.draws)], (1 - confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail]) if len(draws) else (np.nan, np.nan)
        return Interval(float(self.value), float(low), float(high), confidence)


def bootstrap_weights(n_samples: int, *, n_resamples: int = 1000, random_state=None) -> np.ndarray:
    """How often every row appears in every bootstrap resample.

    Parameters
    ----------
    n_samples : int
        Rows to resample, at least 2; else a ValueError is raised.
    n_resamples : int, default=1000
        Resamples, at least 1; else a ValueError is raised.
    random_state : int, SeedSequence or Generator, default=None
        Passed to :func:`numpy.random.default_rng`.

    Returns
    -------
    weights : ndarray of shape (n_resamples, n_samples)
        Multinomial counts; every resample sums to `n_samples`.

    References
    ----------
    Efron, B. (1979). Bootstrap methods: another look at the jackknife. Annals of Statistics 7, 1.

    Examples
    --------
    >>> bootstrap_weights(5, n_resamples=3, random_state=0).sum(axis=1).tolist()
    [5.0, 5.0, 5.0]
    """
    check_number("bootstrap_weights", "n_samples", n_samples, kind=Integral, low=2)
    check_number("bootstrap_weights", "n_resamples", n_resamples, kind=Integral, low=1)
    rng = np.random.default_rng(random_state)
    drawn = rng.integers(n_samples, size=(n_resamples, n_samples))
    drawn += n_samples * np.arange(n_resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float)


def weight_blocks(n_samples, n_resamples, random_state=None):
    """Yield the rows of :func:`bootstrap_weights` in blocks of limited size."""
    rng = np.random.default_rng(random_state)
    step = max(1, BLOCK_ELEMENTS // n_samples)
    for start in range(0, n_resamples, step):
        yield bootstrap_weights(n_samples, n_resamples=min(step, n_resamples - start), random_state=rng)


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of several predictions in several slices, and the same in every bootstrap resample.

    All entries of one resample are of the same rows, so that any difference or ratio of entries is paired.
    Tables of several seeds with the same names and slices stack: ``numpy.stack([t.values["r2"] for t in tables])``.

    Parameters
    ----------
    names : tuple of str
        Names of the predictions.
    slices : tuple of str
        Names of the slices.
    counts : ndarray of int, shape (n_slices,)
        Rows in every slice.
    values : dict of str to ndarray of shape (n_slices, n_predictions)
        By score: "r2" [dimensionless], "mae", "rmse" and "bias" [unit of y]. NaN where a slice has no rows, or
        targets that do not vary.
    draws : dict of str to ndarray of shape (n_slices, n_predictions, n_resamples)
        The same in every resample.
    """

    names: tuple
    slices: tuple
    counts: np.ndarray
    values: dict
    draws: dict

    def estimate(self, score: str, name: str, part: str = ALL_ROWS, *, reference: str | None = None) -> Estimate:
        """One number with its draws, or a ValueError where the table does not have it.

        Parameters
        ----------
        score : {"r2", "mae", "rmse", "bias"}
            Which score.
        name : str
            Which prediction.
        part : str, default="all"
            Which slice.
        reference : str, default=None
            A prediction whose score is subtracted, on the same resamples, so that errors common to both cancel. The
            interval excludes variation between fits, which takes several seeds to measure. None subtracts nothing.

        Returns
        -------
        estimate : Estimate, [unit of the score]
            With "r2" and a `reference`, positive where the prediction is better.
        """
        check_choice("ScoreTable", "score", score, self.values)
        row = self.slices.index(check_choice("ScoreTable", "part", part, self.slices))
        column = self.names.index(check_choice("ScoreTable", "name", name, self.names))
        found = Estimate(float(self.values[score][row, column]), self.draws[score][row, column])
        return found if reference is None else found - self.estimate(score, reference, part)

    def recovery(self, name: str, base: str, oracle: str, part: str = ALL_ROWS) -> Estimate:
        r"""Share of the oracle's gain over the global model that the gate keeps.

        .. math:: \rho = (R^2_{gate} - R^2_{global}) / (R^2_{oracle} - R^2_{global})

        Parameters
        ----------
        name, base, oracle : str
            The prediction of the mixture, of one ridge for all, of the expert of the true regime.
        part : str, default="all"
            Which slice.

        Returns
        -------
        share : Estimate, [dimensionless]
            1 when the gate loses nothing, 0 when it is no better than the global model; soft weights may exceed 1. NaN
            where the oracle is no better than the global model: there is then no gain to keep a share of.
        """
        gain, whole = (self.estimate("r2", each, part, reference=base) for each in (name, oracle))
        shares = np.divide(gain.draws, whole.draws, where=whole.draws > 0, out=np.full_like(gain.draws, np.nan))
        return Estimate(gain.value / whole.value if whole.value > 0 else float("nan"), shares)


def bootstrap_scores(
    y_true: ArrayLike,
    predictions: Mapping[str, ArrayLike],
    slices: Mapping[str, ArrayLike] | None = None,
    *,
    n_resamples: int = 1000,
    random_state=None,
) -> ScoreTable:
    r"""R^2, mean absolute error, root mean square error and bias of predictions, in slices, with paired draws.

    Errors are prediction minus target, so a positive bias predicts too much. R^2 is within the slice, against the
    slice's own mean. All rows are resampled together; a slice has as many of them as fall into it. A ValueError is
    raised where the numbers of rows differ, a value is not finite, a slice is no mask or there is no prediction.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), [unit of y]
        Observed targets.
    predictions : dict of str to array-like of shape (n_samples,), [unit of y]
        Predictions by name.
    slices : dict of str to array-like of bool, shape (n_samples,), default=None
        Members of every slice, such as :func:`row_slices` makes; slices may overlap or be empty. None is one
        slice "all".
    n_resamples, random_state : default=1000 and None
        Resamples and their seed, as in :func:`bootstrap_weights`.

    Returns
    -------
    table : ScoreTable

    References
    ----------
    Efron, B., & Tibshirani, R. (1993). An introduction to the bootstrap. Chapman & Hall, chapter 13.

    Examples
    --------
    >>> table = bootstrap_scores([0.0, 1.0, 2.0], {"good": [0.0, 1.0, 2.0], "mean": [1.0, 1.0, 1.0]}, random_state=0)
    >>> table.values["mae"].round(3).tolist()
    [[0.0, 0.667]]
    >>> table.estimate("r2", "good", reference="mean").value
    1.0
    """
    if not predictions:
        raise ValueError("bootstrap_scores.predictions is empty and must hold at least one prediction by name.")
    check_number("bootstrap_scores", "n_resamples", n_resamples, kind=Integral, low=1)
    y_true, *guesses = same_rows(y_true=y_true, **{f"predictions[{n!r}]": each for n, each in predictions.items()})
    slices = row_slices(len(y_true)) if slices is None else slices
    members = [np.flatnonzero(_mask(name, mask, len(y_true))) for name, mask in slices.items()]
    columns = _columns(y_true, guesses)

    def scores(weights):
        sums = [np.take(weights, rows, axis=1) @ columns[rows] for rows in members]
        return _scores(np.stack(sums))  # (n_slices, n_weightings, n_predictions)

    blocks = [scores(weights) for weights in weight_blocks(len(y_true), n_resamples, random_state)]
    draws = {name: np.concatenate([block[name] for block in blocks], axis=1).swapaxes(1, 2) for name in blocks[0]}
    values = {name: found[:, 0] for name, found in scores(np.ones((1, len(y_true)))).items()}
    counts = np.array([len(rows) for rows in members])
    return ScoreTable(tuple(predictions), tuple(slices), counts, values, draws)


def row_slices(
    n_samples: int,
    *,
    snr: ArrayLike | None = None,
    regimes: ArrayLike | None = None,
    n_regimes: int | None = None,
    near: ArrayLike | None = None,
) -> dict[str, np.ndarray]:
    """Name the slices of a comparison: all rows, SNR bins, regimes, boundary and interior.

    Parameters
    ----------
    n_samples : int
        How many rows there are; a ValueError is raised where an array has another number.
    snr : array-like of shape (n_samples,), [dimensionless], default=None
        Signal-to-noise ratio; makes slices "X", "L", "M" and "H" of :func:`~dualgate.evaluation.quality_bins`.
    regimes : array-like of int, shape (n_samples,), default=None
        True regime; makes slices "regime 0", "regime 1", ...
    n_regimes : int, default=None
        How many regimes there are; None takes the largest code plus one. Give it where tables are to stack.
    near : array-like of bool, shape (n_samples,), default=None
        Rows near a regime edge, such as ``boundary_samples(...).near``; makes "boundary" and "interior".

    Returns
    -------
    slices : dict of str to ndarray of bool, shape (n_samples,)
        "all" first, then the others in the order above.

    Examples
    --------
    >>> slices = row_slices(3, snr=[1.0, 3.0, 9.0], near=[True, False, False])
    >>> {name: int(mask.sum()) for name, mask in slices.items()}
    {'all': 3, 'X': 1, 'L': 1, 'M': 0, 'H': 1, 'boundary': 1, 'interior': 2}
    """
    slices = {ALL_ROWS: np.ones(n_samples, dtype=bool)}
    if snr is not None:
        slices |= zip(SNR_NAMES, _members(quality_bins(snr), n_samples, len(SNR_NAMES)), strict=True)
    if regimes is not None:
        slices |= {f"regime {code}": mask for code, mask in enumerate(_members(regimes, n_samples, n_regimes))}
    if near is not None:
        near = _mask("boundary", near, n_samples)
        slices |= {"boundary": near, "interior": ~near}
    return slices


def _members(bins, n_samples, n_bins=None):
    """Mark the rows of every bin (n_bins, n_samples)."""
    bins = np.asarray(bins)
    if bins.shape != (n_samples,) or not np.issubdtype(bins.dtype, np.integer):
        raise ValueError(f"bins has shape {bins.shape}, dtype {bins.dtype} and must hold {n_samples} integer codes.")
    n_bins = int(bins.max(initial=-1)) + 1 if n_bins is None else n_bins
    if bins.min(initial=0) < 0 or bins.max(initial=-1) >= n_bins:
        raise ValueError(
            f"bins runs from {bins.min()} to {bins.max()} and must stay within 0 and n_bins - 1 = "
            f"{n_bins - 1}. Leave out rows without a bin, or raise n_bins."
        )
    return bins == np.arange(n_bins)[:, None]


def same_rows(**columns):
    """Finite float arrays of one length, at least 2, or a message that names the one that is not."""
    first, n_samples = next((name, np.size(values)) for name, values in columns.items())
    found = [check_finite(n, np.asarray(v, dtype=float), (n_samples,), f" like {first}") for n, v in columns.items()]
    if n_samples < 2:
        raise ValueError(f"{first} has {n_samples} rows and must have at least 2: R^2 needs targets that vary.")
    return tuple(found)


def check_finite(name, values, shape, like=""):
    """Finite float array of this shape, where None is any size, or a message that names what does not fit."""
    values = np.asarray(values)
    values = values if values.dtype.kind == "f" else values.astype(float)
    if len(shape) != values.ndim or any(n not in (None, size) for n, size in zip(shape, values.shape, strict=True)):
        wanted = str(shape).replace("None", "any")
        raise ValueError(f"{name} has shape {values.shape} and must be {wanted}{like}.")
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row = wrong[0, 0]
        raise ValueError(f"{name} is {values[tuple(wrong[0])]} at row {row} and must be finite. Leave such rows out.")
    return values


def _mask(name, mask, n_samples):
    mask = np.asarray(mask)
    if mask.shape != (n_samples,) or mask.dtype != bool:
        raise ValueError(
            f"slices[{name!r}] has shape {mask.shape} and dtype {mask.dtype} and must be a bool mask of ({n_samples},)."
        )
    return mask


def _columns(y, guesses):
    """Stack what is summed over rows (n_samples, 3 + 3 n_predictions): 1, y, y^2; squared, absolute, plain errors."""
    errors = np.stack(guesses, axis=1) - y[:, None]
    y = y - y.mean()  # sums of squares lose fewer digits around zero
    return np.column_stack([np.ones_like(y), y, y**2, errors**2, np.abs(errors), errors])


def _scores(sums):
    """Scores (..., n_predictions) from weighted sums of `_columns`."""
    total, first, second = np.moveaxis(sums[..., :3], -1, 0)
    squared, absolute, plain = np.split(sums[..., 3:], 3, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = second - first**2 / total
        spread = np.where(spread > 1e-12 * second, spread, np.nan)[..., None]
        n = total[..., None]
        return {"r2": 1.0 - squared / spread, "mae": absolute / n, "rmse": np.sqrt(squared / n), "bias": plain / n}
