"""The numbers of a study as one long table: a line for every seed, method, slice and metric."""

import csv
import io
import math
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.metrics import r2_score

from dualgate.evaluation import SNR_NAMES, snr_bins
from dualgate.study.config import Thresholds
from dualgate.study.methods import Method
from dualgate.study.runner import SeedRecord

COLUMNS = ("seed", "method", "group", "slice", "metric", "value", "rows")


def tidy_rows(
    records: Sequence[SeedRecord],
    methods: Sequence[Method],
    best_single: str | None,
    thresholds: Thresholds | None = None,
) -> list[tuple]:
    """Score every method in every slice of every seed's test rows.

    Parameters
    ----------
    records : sequence of SeedRecord
    methods : sequence of Method
    best_single : str or None
        The method that `delta_r2` is measured against; without it there is none.
    thresholds : Thresholds, default=None
        Its `boundary` says which rows are boundary samples.

    Returns
    -------
    lines : list of tuple
        In the order of `COLUMNS`. Slices are "all", "snr X" to "snr H", "regime 0", ..., "boundary" and, for the R^2
        that chose among models, "validation". Metrics are r2, delta_r2 [dimensionless], mae, rmse and bias [unit of
        y]; r2 is NaN where the targets of a slice do not vary.
    """
    lines = []
    for record in records:
        slices = list(slices_of(record, thresholds or Thresholds()))
        for method in methods:
            head = record.seed, method.name, method.group
            score = record.validation_r2[method.name]
            lines.append((*head, "validation", "r2", score, record.n_validation))
            for name, members in slices:
                for metric, value in _scores(record, method.name, best_single, members):
                    lines.append((*head, name, metric, value, int(members.sum())))
    return lines


def slices_of(record: SeedRecord, thresholds: Thresholds) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the marks (n_test,) of every slice of the test rows that is not empty."""
    parts = {"all": np.ones(len(record.y), dtype=bool)}
    if record.snr is not None:
        codes = snr_bins(record.snr)
        parts |= {f"snr {name}": codes == code for code, name in enumerate(SNR_NAMES)}
    if record.regimes is not None:
        parts |= {f"regime {regime}": record.regimes == regime for regime in np.unique(record.regimes)}
    if record.conditions is not None and thresholds.boundary is not None:
        parts["boundary"] = near_edges(record.conditions, record.edges, thresholds.boundary)
    return ((name, members) for name, members in parts.items() if members.any())


def near_edges(conditions, edges, distances) -> np.ndarray:
    """Mark the rows that lie within a distance of any edge, along any condition.

    Parameters
    ----------
    conditions : ndarray of shape (n_rows, n_conditions)
    edges : sequence of array-like
        Edges along each condition, in its unit.
    distances : sequence of float
        One for each condition, in its unit.

    Examples
    --------
    >>> near_edges(np.array([[4450.0, 0.5], [5000.0, -0.05], [5000.0, 0.5]]), ((4500, 5250), (-1, 0)), (100, 0.1))
    array([ True,  True, False])
    """
    near = [
        (np.abs(values[:, None] - np.asarray(these)) <= distance).any(axis=1)
        for values, these, distance in zip(np.asarray(conditions).T, edges, distances, strict=True)
    ]
    return np.any(near, axis=0)


def tidy_text(lines: Sequence[tuple]) -> str:
    """Return the lines as CSV with a header; what is not a number is empty."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([*line[:5], _text(line[5]), line[6]] for line in lines)
    return target.getvalue()


def _scores(record, name, best_single, members):
    y, prediction = record.y[members], record.predictions[name][members]
    off, r2 = prediction - y, _r2(y, prediction)
    yield "r2", r2
    if best_single is not None:
        yield "delta_r2", r2 - _r2(y, record.predictions[best_single][members])
    yield "mae", float(np.abs(off).mean())
    yield "rmse", float(np.sqrt(np.square(off).mean()))
    yield "bias", float(off.mean())


def _r2(y, prediction):
    return float(r2_score(y, prediction)) if np.ptp(y) > 0 else math.nan


def _text(value):
    return repr(float(value)) if math.isfinite(value) else ""
