"""The numbers of a study as one long table: a line for every seed, method, slice and metric."""

import csv
import io
import math
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.metrics import r2_score

from dualgate.evaluation import SNR_NAMES
from dualgate.study.config import Thresholds
from dualgate.study.methods import Method
from dualgate.study.runner import SeedRecord
from dualgate.study.scoring import slices_of

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
        In the order of `COLUMNS`. Slices are "all", "snr X" to "snr H", "regime 0", ..., "boundary", "interior"
        and, for the R^2 that chose among models, "validation". Metrics are r2, delta_r2 [dimensionless], mae, rmse
        and bias [unit of y]; r2 is NaN where the targets of a slice do not vary.
    """
    lines = []
    for record in records:
        slices = list(named_slices(record, thresholds or Thresholds()))
        for method in methods:
            head = record.seed, method.name, method.group
            score = record.validation_r2[method.name]
            lines.append((*head, "validation", "r2", score, record.n_validation))
            for name, members in slices:
                for metric, value in _scores(record, method.name, best_single, members):
                    lines.append((*head, name, metric, value, int(members.sum())))
    return lines


def named_slices(record: SeedRecord, thresholds: Thresholds) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the marks (n_test,) of every slice of the test rows that is not empty."""
    for name, members in slices_of(record, thresholds).items():
        if members.any():
            yield f"snr {name}" if name in SNR_NAMES else name, members


def tidy_text(lines: Sequence[tuple], run: str) -> str:
    """Return the lines as CSV with a header and, as its last column, the hash of the run; NaN is empty."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow([*COLUMNS, "run"])
    writer.writerows([*line[:5], _text(line[5]), line[6], run] for line in lines)
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
