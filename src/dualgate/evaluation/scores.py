"""Many scores of many predictions in many slices of the same rows, all on the same bootstrap resamples."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dualgate.evaluation._checks import same_rows
from dualgate.evaluation.diagnostics import SNR_NAMES, snr_bins
from dualgate.evaluation.metrics import bin_members
from dualgate.evaluation.resampling import Interval, percentile_interval, weight_blocks

SCORES = ("r2", "mae", "rmse", "bias")
ALL_ROWS = "all"


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of several predictions in several slices, and the same in every bootstrap resample.

    Everything of one resample is judged on the same rows, so that any difference or ratio of entries is paired.
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

    def sample(self, score: str, name: str, part: str = ALL_ROWS, *, reference: str | None = None):
        """One number and its draws, ready to be pooled with those of other seeds.

        Parameters
        ----------
        score : {"r2", "mae", "rmse", "bias"}
            Which score.
        name : str
            Which prediction.
        part : str, default="all"
            Which slice.
        reference : str, default=None
            A prediction whose score is subtracted; None subtracts nothing.

        Returns
        -------
        value : float
        draws : ndarray of shape (n_resamples,)

        Raises
        ------
        ValueError
            If the table has no such score, prediction or slice.
        """
        row, column = self._place("part", self.slices, part), self._place("name", self.names, name)
        if score not in self.values:
            raise ValueError(f"ScoreTable.score={score!r} must be one of {', '.join(self.values)}.")
        value, draws = self.values[score][row, column], self.draws[score][row, column]
        if reference is not None:
            other = self._place("reference", self.names, reference)
            value, draws = value - self.values[score][row, other], draws - self.draws[score][row, other]
        return float(value), draws

    def recovery_sample(self, name: str, base: str, oracle: str, part: str = ALL_ROWS):
        """Share of the oracle's gain that a prediction keeps, and its draws; see :func:`recovery_ratio`.

        Parameters
        ----------
        name, base, oracle : str
            The prediction of the mixture, of one ridge for all, of the true expert.
        part : str, default="all"
            Which slice.

        Returns
        -------
        value : float, [dimensionless]
            NaN where the oracle is no better than the base: there is then no gain to keep a share of.
        draws : ndarray of shape (n_resamples,)
        """
        gain, gains = self.sample("r2", name, part, reference=base)
        room, rooms = self.sample("r2", oracle, part, reference=base)
        shares = np.divide(gains, rooms, where=rooms > 0, out=np.full_like(gains, np.nan))
        return gain / room if room > 0 else float("nan"), shares

    def interval(
        self, score: str, name: str, part: str = ALL_ROWS, *, reference: str | None = None, confidence: float = 0.95
    ) -> Interval:
        """One number with its percentile interval over the rows of this table; arguments as in :meth:`sample`."""
        return percentile_interval(*self.sample(score, name, part, reference=reference), confidence)

    def recovery(self, name: str, base: str, oracle: str, part: str = ALL_ROWS, *, confidence=0.95) -> Interval:
        """Share of the oracle's gain with its percentile interval; arguments as in :meth:`recovery_sample`."""
        return percentile_interval(*self.recovery_sample(name, base, oracle, part), confidence)

    def _place(self, argument, known, wanted):
        if wanted not in known:
            raise ValueError(f"ScoreTable.{argument}={wanted!r} must be one of {', '.join(known)}.")
        return known.index(wanted)


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
    slice's own mean. All rows are resampled together; a slice has as many of them as fall into it.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), [unit of y]
        Observed targets.
    predictions : dict of str to array-like of shape (n_samples,), [unit of y]
        Predictions by name.
    slices : dict of str to array-like of bool, shape (n_samples,), default=None
        Members of every slice, such as :func:`row_slices` makes; slices may overlap or be empty. None is one
        slice "all".
    n_resamples : int, default=1000
        Bootstrap resamples.
    random_state : int, SeedSequence or Generator, default=None
        Passed to :func:`numpy.random.default_rng`. The resamples are those of :func:`bootstrap_r2` with
        :func:`~dualgate.evaluation.resampling.weight_blocks`.

    Returns
    -------
    table : ScoreTable

    Raises
    ------
    ValueError
        If the numbers of rows differ, a value is not finite, a slice is no mask or there is no prediction.

    References
    ----------
    Efron, B., & Tibshirani, R. (1993). An introduction to the bootstrap. Chapman & Hall, chapter 13.

    Examples
    --------
    >>> table = bootstrap_scores([0.0, 1.0, 2.0], {"good": [0.0, 1.0, 2.0], "mean": [1.0, 1.0, 1.0]}, random_state=0)
    >>> table.values["mae"].round(3).tolist()
    [[0.0, 0.667]]
    >>> table.sample("r2", "good", reference="mean")[0]
    1.0
    """
    if not predictions:
        raise ValueError("bootstrap_scores.predictions is empty and must hold at least one prediction by name.")
    y_true, *guesses = same_rows(y_true=y_true, **{f"predictions[{n!r}]": each for n, each in predictions.items()})
    slices = {ALL_ROWS: np.ones(len(y_true), dtype=bool)} if slices is None else slices
    members = [np.flatnonzero(_mask(name, mask, len(y_true))) for name, mask in slices.items()]
    errors, y = np.stack(guesses, axis=1) - y_true[:, None], y_true - y_true.mean()
    columns = np.column_stack([np.ones_like(y), y, y**2, errors**2, np.abs(errors), errors])
    blocks = weight_blocks(len(y), n_resamples, random_state)
    sums = np.concatenate([_weighted_sums(weights, columns, members) for weights in blocks])
    (whole,) = _weighted_sums(np.ones((1, len(y))), columns, members)
    draws = {score: np.moveaxis(each, 0, -1) for score, each in _scores(sums).items()}
    counts = np.array([len(rows) for rows in members])
    return ScoreTable(tuple(predictions), tuple(slices), counts, _scores(whole), draws)


def row_slices(
    n_samples: int,
    *,
    snr: ArrayLike | None = None,
    regimes: ArrayLike | None = None,
    n_regimes: int | None = None,
    near: ArrayLike | None = None,
) -> dict[str, np.ndarray]:
    """Name the slices that a comparison looks at: all rows, SNR bins, regimes, boundary and interior.

    Parameters
    ----------
    n_samples : int
        How many rows there are.
    snr : array-like of shape (n_samples,), [dimensionless], default=None
        Signal-to-noise ratio; makes slices "X", "L", "M" and "H" of :func:`snr_bins`.
    regimes : array-like of int, shape (n_samples,), default=None
        True regime; makes slices "regime 0", "regime 1", ...
    n_regimes : int, default=None
        How many regimes there are; None takes the largest code plus one. Give it where tables shall stack.
    near : array-like of bool, shape (n_samples,), default=None
        Rows near a regime edge, such as ``boundary_samples(...).near``; makes "boundary" and "interior".

    Returns
    -------
    slices : dict of str to ndarray of bool, shape (n_samples,)
        "all" first, then the others in the order above.

    Raises
    ------
    ValueError
        If an array has another number of rows.

    Examples
    --------
    >>> slices = row_slices(3, snr=[1.0, 3.0, 9.0], near=[True, False, False])
    >>> {name: int(mask.sum()) for name, mask in slices.items()}
    {'all': 3, 'X': 1, 'L': 1, 'M': 0, 'H': 1, 'boundary': 1, 'interior': 2}
    """
    slices = {ALL_ROWS: np.ones(n_samples, dtype=bool)}
    if snr is not None:
        slices |= zip(SNR_NAMES, bin_members(snr_bins(snr), n_samples, len(SNR_NAMES)) > 0, strict=True)
    if regimes is not None:
        members = bin_members(regimes, n_samples, n_regimes) > 0
        slices |= {f"regime {code}": mask for code, mask in enumerate(members)}
    if near is not None:
        near = _mask("boundary", near, n_samples)
        slices |= {"boundary": near, "interior": ~near}
    return slices


def _mask(name, mask, n_samples):
    mask = np.asarray(mask)
    if mask.shape != (n_samples,) or mask.dtype != bool:
        raise ValueError(
            f"slices[{name!r}] has shape {mask.shape} and dtype {mask.dtype} and must be a bool mask of "
            f"({n_samples},): one mark for every row."
        )
    return mask


def _weighted_sums(weights, columns, members):
    """Add up columns over the rows of every slice, (n_weightings, n_slices, n_columns)."""
    return np.stack([np.take(weights, rows, axis=1) @ columns[rows] for rows in members], axis=1)


def _scores(sums):
    """Scores from weighted sums of 1, y, y^2, then squared, absolute and plain errors of every prediction."""
    total, first, second = np.moveaxis(sums[..., :3], -1, 0)
    squared, absolute, plain = np.split(sums[..., 3:], 3, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = second - first**2 / total
        spread = np.where(spread > 1e-12 * second, spread, np.nan)[..., None]
        n = total[..., None]
        return {"r2": 1.0 - squared / spread, "mae": absolute / n, "rmse": np.sqrt(squared / n), "bias": plain / n}
