"""Scores of every method in every slice of every seed, and what can be said of them over all seeds."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from dualgate.evaluation import (
    SNR_NAMES,
    Interval,
    bootstrap_scores,
    boundary_samples,
    row_slices,
    shapley_samples,
    snr_bins,
)
from dualgate.study.config import Thresholds
from dualgate.study.methods import Method
from dualgate.study.runner import SeedRecord
from dualgate.study.verdict import seed_interval

LOW_BINS = SNR_NAMES[:2]  # where a quality tower must show what it is worth


class StudyScores:
    """Paired scores of all methods on the test rows, and of the validation rows that chose among them.

    Parameters
    ----------
    records : sequence of SeedRecord
        What the runner kept.
    methods : sequence of Method
        Methods to score.
    n_resamples : int
        Bootstrap resamples of every seed's rows.
    thresholds : Thresholds
        Its `boundary` says which rows are boundary samples.

    Attributes
    ----------
    names : tuple of str
        Of the methods.
    slices : tuple of str
        "all", the SNR bins, "regime 0", ..., "boundary" and "interior", as far as they are known.
    tables, validation : list of ScoreTable
        One a seed.
    """

    def __init__(self, records: Sequence[SeedRecord], methods: Sequence[Method], n_resamples: int, thresholds):
        self.records = list(records)
        self.names = tuple(method.name for method in methods)
        known = [record.regimes for record in records if record.regimes is not None]
        n_regimes = 1 + max(int(codes.max()) for codes in known) if known else None
        self.tables = [
            bootstrap_scores(
                record.y, {name: record.predictions[name] for name in self.names},
                slices_of(record, thresholds, n_regimes), n_resamples=n_resamples, random_state=record.seed,
            )
            for record in records
        ]  # fmt: skip
        self.validation = [
            bootstrap_scores(
                record.y_validation, {name: record.validation[name] for name in self.names},
                n_resamples=n_resamples, random_state=record.seed,
            )
            for record in records
        ]  # fmt: skip
        self.slices = self.tables[0].slices

    def pool(self, sample: Callable, confidence: float = 0.95) -> Interval:
        """Interval over seeds of ``sample(table)``, which gives a value and its draws."""
        values, draws = zip(*(sample(table) for table in self.tables), strict=True)
        return seed_interval(values, draws, confidence=confidence)

    def interval(self, score: str, name: str, part: str = "all", *, reference=None, confidence=0.95) -> Interval:
        """One score of a method in a slice, less that of a reference where one is named."""
        return self.pool(lambda table: table.sample(score, name, part, reference=reference), confidence)

    def r2(self, name: str, part: str = "all") -> Interval:
        """R^2 of a method in a slice."""
        return self.interval("r2", name, part)

    def gain(self, name: str, reference: str, part: str = "all", confidence: float = 0.95) -> Interval:
        """R^2 of a method minus that of another on the same rows."""
        return self.interval("r2", name, part, reference=reference, confidence=confidence)

    def recovery(self, name: str, base: str, oracle: str) -> Interval | None:
        """Share of the oracle's gain over the base; None without both, or where there is no gain that is shown."""
        if base not in self.names or oracle not in self.names or not self.gain(oracle, base).low > 0:
            return None
        if any(math.isnan(table.recovery_sample(name, base, oracle)[0]) for table in self.tables):
            return None
        return self.pool(lambda table: table.recovery_sample(name, base, oracle))

    def shapley(self, none: str, phys: str, quality: str, both: str, part: str = "all") -> dict[str, Interval] | None:
        """Shapley value of each tower; None where one of the four methods is missing."""
        four = none, phys, quality, both
        if not set(four) <= set(self.names):
            return None
        found = [shapley_samples(table, *four, part=part) for table in self.tables]
        return {
            share: seed_interval([values[share] for values, _ in found], [draws[share] for _, draws in found])
            for share in found[0][0]
        }

    def counts(self) -> dict[str, int]:
        """Test rows in every slice, over all seeds."""
        return dict(zip(self.slices, sum(table.counts for table in self.tables).tolist(), strict=True))

    def validation_r2(self, name: str) -> float:
        """R^2 on the validation rows, averaged over seeds."""
        return float(np.mean([record.validation_r2[name] for record in self.records]))

    def validation_lag(self, name: str, best: str) -> tuple[float, float]:
        """How much less R^2 a method has on the validation rows than another, and the standard error of that.

        The error is the larger of the scatter between seeds and that between resamples of the rows.
        """
        values, draws = zip(*(table.sample("r2", best, reference=name) for table in self.validation), strict=True)
        errors = [float(np.nanstd(np.mean(draws, axis=0)))]
        if len(values) > 1:
            errors.append(float(np.std(values, ddof=1) / math.sqrt(len(values))))
        return float(np.mean(values)), max(errors)


def slices_of(record: SeedRecord, thresholds: Thresholds, n_regimes: int | None = None) -> dict[str, np.ndarray]:
    """Mark the test rows (n_test,) of every slice, by name; SNR bins are there, empty, where no SNR is known."""
    near = boundary_of(record, thresholds)
    slices = row_slices(
        len(record.y), snr=record.snr, regimes=record.regimes, n_regimes=n_regimes,
        near=None if near is None else near.near,
    )  # fmt: skip
    empty = {} if record.snr is not None else dict.fromkeys(SNR_NAMES, np.zeros(len(record.y), dtype=bool))
    return slices | empty


def boundary_of(record: SeedRecord, thresholds: Thresholds):
    """Boundary samples of the test rows; None where conditions or distances are not known."""
    if record.conditions is None or thresholds.boundary is None or not record.edges:
        return None
    return boundary_samples(record.conditions, record.edges, thresholds.boundary)


def bins_of(record: SeedRecord) -> np.ndarray | None:
    """SNR bin of the test rows; None where they have no SNR."""
    return None if record.snr is None else snr_bins(record.snr)
