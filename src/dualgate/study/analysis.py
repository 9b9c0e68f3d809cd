"""From predictions to the results: scores with intervals, choices made on validation rows, verdicts."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from dualgate.evaluation import SNR_NAMES, Interval, bin_members, bootstrap_r2, r2_by_bin, snr_bins
from dualgate.evaluation.resampling import weight_blocks
from dualgate.study.roster import BINNED, DUAL, GLOBAL, ORACLES, PLAIN, SINGLE, Method, all_methods
from dualgate.study.runner import SeedRecord
from dualgate.study.verdict import LOW_SNR_GAIN, decide, seed_interval

QUESTIONS = {  # title, experts of the duals that may answer, experts of the single towers they must beat
    "overall": ("any dual model against any single tower", (PLAIN, BINNED), (PLAIN, BINNED)),
    "gate": ("quality at the gate: 9 experts against 9", (PLAIN,), (PLAIN,)),
    "experts": ("quality in the experts too: 9x4 against 9", (BINNED,), (PLAIN,)),
}
MAX_POINTS = 1500  # rows of the entropy figure


class Scores:
    """R^2 of every method in every seed, on all test rows and within the SNR bins, with paired resamples.

    Parameters
    ----------
    records : sequence of SeedRecord
        What the runner kept.
    methods : sequence of Method
        Methods to score.
    n_resamples : int
        Bootstrap resamples of every seed's test rows.

    Attributes
    ----------
    values : ndarray of shape (n_seeds, 5, n_methods)
        On all rows, then in bins X, L, M and H.
    draws : ndarray of shape (n_seeds, 5, n_methods, n_resamples)
        The same in every resample; all methods of a resample are judged on the same rows.
    """

    def __init__(self, records: Sequence[SeedRecord], methods: Sequence[Method], n_resamples: int):
        self.index = {method.name: place for place, method in enumerate(methods)}
        pairs = [_score_seed(record, list(self.index), n_resamples) for record in records]
        self.values, self.draws = (np.stack(parts) for parts in zip(*pairs, strict=True))

    def r2(self, name: str, part: int = 0) -> Interval:
        """R^2 of a method on all rows (part 0) or in an SNR bin (parts 1 to 4)."""
        place = self.index[name]
        return seed_interval(self.values[:, part, place], self.draws[:, part, place])

    def gain(self, name: str, reference: str, part: int = 0) -> Interval:
        """R^2 of a method minus that of another on the same rows."""
        here, there = self.index[name], self.index[reference]
        return seed_interval(
            self.values[:, part, here] - self.values[:, part, there],
            self.draws[:, part, here] - self.draws[:, part, there],
        )

    def recovery(self, name: str, oracle: str) -> Interval | None:
        """Share of the oracle's gain over the global ridge; None where an oracle gains nothing to share."""
        places = [self.index[each] for each in (name, GLOBAL.name, oracle)]
        gate, lower, upper = np.moveaxis(self.values[:, 0, places], 1, 0)
        if not (upper > lower).all():
            return None
        gates, lowers, uppers = np.moveaxis(self.draws[:, 0, places], 1, 0)
        shares = np.divide(gates - lowers, uppers - lowers, where=uppers > lowers, out=np.full_like(gates, np.nan))
        return seed_interval((gate - lower) / (upper - lower), shares)


def analyse(records: Sequence[SeedRecord], *, n_resamples: int = 1000) -> dict:
    """Everything the report shows, as plain numbers and words.

    Which single tower is the best, and which dual model is to beat it, the validation rows decide; the test
    rows then judge these two alone. The best of eight duals on the test rows would look better than it is.

    Parameters
    ----------
    records : sequence of SeedRecord
        What :func:`~dualgate.study.run_study` kept.
    n_resamples : int, default=1000
        Bootstrap resamples of every seed's test rows.

    Returns
    -------
    results : dict
        `rows`, `methods`, `questions`, `regimes`, `entropy` and `seconds`, ready for JSON.
    """
    methods = all_methods()
    scores = Scores(records, methods, n_resamples)
    questions = {key: _answer(key, records, methods, scores) for key in QUESTIONS}
    single = next(method for method in methods if method.name == questions["overall"]["single"])
    shown = [single.name, questions["gate"]["dual"], questions["experts"]["dual"]]
    return {
        "rows": {
            "train": records[0].n_train,
            "validation": records[0].n_validation,
            "test": len(records[0].y),
            "test_by_snr": _count_snr(records),
        },
        "best_single": single.name,
        "methods": [_describe(method, records, scores, single) for method in methods],
        "questions": questions,
        "regimes": _by_regime(records, single.name, questions["overall"]["dual"]),
        "entropy": {name: _points(records, name) for name in dict.fromkeys(shown)},
        "seconds": {str(record.seed): record.seconds for record in records},
    }


def _score_seed(record, names, n_resamples):
    """R^2 of one seed: values (5, n_methods) and draws (5, n_methods, n_resamples)."""
    guesses = [record.predictions[name] for name in names]
    bins = bin_members(snr_bins(record.snr), len(record.y), len(SNR_NAMES))
    parts = np.vstack([np.ones(len(record.y)), bins])
    blocks = [
        [bootstrap_r2(record.y, guesses, weights * part) for part in parts]
        for weights in weight_blocks(len(record.y), n_resamples, record.seed)
    ]
    return bootstrap_r2(record.y, guesses, parts), np.concatenate(blocks, axis=1).swapaxes(1, 2)


def _choose(records, candidates):
    """Return the candidate with the largest validation R^2, averaged over seeds."""
    return max(candidates, key=lambda method: _validation_r2(records, method.name))


def _validation_r2(records, name):
    return float(np.mean([record.validation_r2[name] for record in records]))


def _answer(key, records, methods, scores):
    """One question: which models were chosen, what the second tower gains, and what follows."""
    title, kinds, rivals = QUESTIONS[key]
    single = _choose(records, [m for m in methods if m.kind == SINGLE and m.experts in rivals])
    dual = _choose(records, [m for m in methods if m.kind == DUAL and m.experts in kinds])
    gain = scores.gain(dual.name, single.name)
    by_snr = {bin_: scores.gain(dual.name, single.name, part) for part, bin_ in enumerate(SNR_NAMES, start=1)}
    return {
        "title": title,
        "dual": dual.name,
        "single": single.name,
        "gain": asdict(gain),
        **asdict(decide(gain)),
        "gain_by_snr": {
            bin_: {**asdict(each), "helps": each.value >= LOW_SNR_GAIN and each.low > 0}
            for bin_, each in by_snr.items()
        },
    }


def _describe(method, records, scores, single):
    """One line of the table."""
    ratio = scores.recovery(method.name, ORACLES[method.experts].name) if method.kind in (SINGLE, DUAL) else None
    towers = [record.towers[method.name] for record in records if method.name in record.towers]
    entropies = [record.entropy[method.name].mean() for record in records if method.name in record.entropy]
    return {
        "name": method.name,
        "label": method.label,
        "kind": method.kind,
        "experts": method.experts,
        "r2": asdict(scores.r2(method.name)),
        "delta": None if method == single else asdict(scores.gain(method.name, single.name)),
        "rho": None if ratio is None else asdict(ratio),
        "r2_by_snr": {bin_: asdict(scores.r2(method.name, part)) for part, bin_ in enumerate(SNR_NAMES, start=1)},
        "r2_by_seed": {
            str(record.seed): float(value)
            for record, value in zip(records, scores.values[:, 0, scores.index[method.name]], strict=True)
        },
        "validation_r2": _validation_r2(records, method.name),
        "mean_entropy": float(np.mean(entropies)) if entropies else None,
        "tower_likeness": float(np.mean(towers)) if towers else None,
    }


def _count_snr(records):
    """Test rows in every SNR bin, over all seeds."""
    counts = sum(np.bincount(snr_bins(record.snr), minlength=len(SNR_NAMES)) for record in records)
    return dict(zip(SNR_NAMES, counts.tolist(), strict=True))


def _by_regime(records, single, dual):
    """R^2 within every regime, averaged over seeds that have rows of it."""
    n_regimes = 1 + max(int(record.regimes.max()) for record in records)
    counts = sum(np.bincount(record.regimes, minlength=n_regimes) for record in records)
    table = {
        name: np.array([r2_by_bin(r.y, r.predictions[name], r.regimes, n_regimes) for r in records])
        for name in (single, dual)
    }
    return [
        {"regime": regime, "rows": int(counts[regime])}
        | {kind: _known_mean(table[name][:, regime]) for kind, name in [("single", single), ("dual", dual)]}
        for regime in range(n_regimes)
    ]


def _known_mean(values):
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _points(records, name):
    """Evenly many rows of every seed for the entropy figure."""
    step = max(1, sum(len(record.y) for record in records) // MAX_POINTS)
    return {
        "n_experts": records[0].n_experts[name],
        "snr": [round(float(snr), 3) for record in records for snr in record.snr[::step]],
        "entropy": [round(float(each), 4) for record in records for each in record.entropy[name][::step]],
    }
