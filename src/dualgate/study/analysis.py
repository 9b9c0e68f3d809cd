"""From predictions to the results: scores with intervals, choices made on validation rows, verdicts."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from dualgate.evaluation import SNR_NAMES, Interval, bin_members, bootstrap_r2, r2_by_bin, snr_bins
from dualgate.evaluation.resampling import weight_blocks
from dualgate.study.config import Thresholds
from dualgate.study.methods import DUAL, REFERENCE, SINGLE, Method
from dualgate.study.roster import BINNED, GLOBAL, ORACLES, PLAIN, all_methods
from dualgate.study.runner import SeedRecord
from dualgate.study.verdict import decide, seed_interval

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
        """Share of the oracle's gain over the global ridge; None without both, or where there is nothing to share."""
        if GLOBAL.name not in self.index or oracle not in self.index:
            return None
        places = [self.index[each] for each in (name, GLOBAL.name, oracle)]
        gate, lower, upper = np.moveaxis(self.values[:, 0, places], 1, 0)
        if not (upper > lower).all():
            return None
        gates, lowers, uppers = np.moveaxis(self.draws[:, 0, places], 1, 0)
        shares = np.divide(gates - lowers, uppers - lowers, where=uppers > lowers, out=np.full_like(gates, np.nan))
        return seed_interval((gate - lower) / (upper - lower), shares)


def analyse(
    records: Sequence[SeedRecord],
    *,
    methods: Sequence[Method] | None = None,
    n_resamples: int = 1000,
    thresholds: Thresholds | None = None,
) -> dict:
    """Everything the report shows, as plain numbers and words.

    Which single tower is the best, and which dual model is to beat it, the validation rows decide; the test
    rows then judge these two alone. The best of many duals on the test rows would look better than it is.

    Parameters
    ----------
    records : sequence of SeedRecord
        What :func:`~dualgate.study.run_study` kept.
    methods : sequence of Method, default=None
        Methods to judge; None is all that the records hold.
    n_resamples : int, default=1000
        Bootstrap resamples of every seed's test rows.
    thresholds : Thresholds, default=None
        What a gain must reach; None is `Thresholds()`.

    Returns
    -------
    results : dict
        `rows`, `thresholds`, `best_single`, `methods`, `questions` (those that the methods can answer), `regimes`,
        `entropy` and `seconds`, ready for JSON.
    """
    bars = thresholds or Thresholds()
    if methods is None:
        methods = [method for method in all_methods() if method.name in records[0].predictions]
    scores = Scores(records, methods, n_resamples)
    answers = {key: _answer(key, records, methods, scores, bars) for key in QUESTIONS}
    questions = {key: answer for key, answer in answers.items() if answer is not None}
    single = _best_single(records, methods)
    name = None if single is None else single.name
    duals = [questions[key]["dual"] for key in ("gate", "experts") if key in questions]
    clouds = {each: _points(records, each) for each in dict.fromkeys([name, *duals]) if each is not None}
    return {
        "rows": {
            "train": records[0].n_train,
            "validation": records[0].n_validation,
            "test": len(records[0].y),
            "test_by_snr": _count_snr(records),
        },
        "thresholds": {"continue": bars.continue_, **{k: getattr(bars, k) for k in ("marginal", "low_snr", "rho")}},
        "best_single": name,
        "methods": [_describe(method, records, scores, single, bars) for method in methods],
        "questions": questions,
        "regimes": _by_regime(records, questions.get("overall", {"single": name, "dual": None})),
        "entropy": {name: points for name, points in clouds.items() if points is not None},
        "seconds": {str(record.seed): record.seconds for record in records},
    }


def _score_seed(record, names, n_resamples):
    """R^2 of one seed: values (5, n_methods) and draws (5, n_methods, n_resamples)."""
    guesses = [record.predictions[name] for name in names]
    bins = _snr_members(record)
    parts = np.vstack([np.ones(len(record.y)), bins])
    blocks = [
        [bootstrap_r2(record.y, guesses, weights * part) for part in parts]
        for weights in weight_blocks(len(record.y), n_resamples, record.seed)
    ]
    return bootstrap_r2(record.y, guesses, parts), np.concatenate(blocks, axis=1).swapaxes(1, 2)


def _snr_members(record):
    """Mark the rows of every SNR bin (4, n_test); none where there is no SNR."""
    if record.snr is None:
        return np.zeros((len(SNR_NAMES), len(record.y)))
    return bin_members(snr_bins(record.snr), len(record.y), len(SNR_NAMES))


def _choose(records, candidates):
    """Return the candidate with the largest validation R^2, averaged over seeds; None where there is none."""
    return max(candidates, key=lambda method: _validation_r2(records, method.name), default=None)


def _best_single(records, methods):
    """Return the single tower that validation rows choose."""
    return _choose(records, [method for method in methods if method.kind == SINGLE])


def _validation_r2(records, name):
    return float(np.mean([record.validation_r2[name] for record in records]))


def _answer(key, records, methods, scores, bars):
    """One question: which models were chosen, what the second tower gains, and what follows; None without models."""
    title, kinds, rivals = QUESTIONS[key]
    single = _choose(records, [m for m in methods if m.kind == SINGLE and m.experts in rivals])
    dual = _choose(records, [m for m in methods if m.kind == DUAL and m.experts in kinds])
    if single is None or dual is None:
        return None
    gain = scores.gain(dual.name, single.name)
    by_snr = {bin_: scores.gain(dual.name, single.name, part) for part, bin_ in enumerate(SNR_NAMES, start=1)}
    return {
        "title": title,
        "dual": dual.name,
        "single": single.name,
        "gain": asdict(gain),
        **asdict(decide(gain, bars)),
        "gain_by_snr": {
            bin_: {**asdict(each), "helps": each.value >= bars.low_snr and each.low > 0}
            for bin_, each in by_snr.items()
        },
    }


def _describe(method, records, scores, single, bars):
    """One line of the table."""
    gauged = method.kind != REFERENCE and method.experts in ORACLES
    ratio = scores.recovery(method.name, ORACLES[method.experts].name) if gauged else None
    gain = None if single is None or method == single else scores.gain(method.name, single.name)
    towers = [record.towers[method.name] for record in records if method.name in record.towers]
    entropies = [record.entropy[method.name].mean() for record in records if method.name in record.entropy]
    return {
        "name": method.name,
        "label": method.label,
        "kind": method.kind,
        "group": method.group,
        "experts": method.experts,
        "r2": asdict(scores.r2(method.name)),
        "delta": None if gain is None else asdict(gain),
        "rho": None if ratio is None else {**asdict(ratio), "reached": ratio.low >= bars.rho},
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
    counts = sum(_snr_members(record).sum(axis=1) for record in records)
    return dict(zip(SNR_NAMES, counts.astype(int).tolist(), strict=True))


def _by_regime(records, pair):
    """R^2 of a single tower and a dual model within every regime, averaged over seeds that have rows of it."""
    if any(record.regimes is None for record in records):
        return []
    n_regimes = 1 + max(int(record.regimes.max()) for record in records)
    counts = sum(np.bincount(record.regimes, minlength=n_regimes) for record in records)
    table = {
        kind: np.array([r2_by_bin(r.y, r.predictions[pair[kind]], r.regimes, n_regimes) for r in records])
        for kind in ("single", "dual")
        if pair[kind] is not None
    }
    return [
        {"regime": regime, "rows": int(counts[regime]), "single": None, "dual": None}
        | {kind: _known_mean(values[:, regime]) for kind, values in table.items()}
        for regime in range(n_regimes)
    ]


def _known_mean(values):
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _points(records, name):
    """Evenly many rows of every seed for the entropy figure; None where there is no SNR."""
    if any(record.snr is None for record in records):
        return None
    step = max(1, sum(len(record.y) for record in records) // MAX_POINTS)
    return {
        "n_experts": records[0].n_experts[name],
        "snr": [round(float(snr), 3) for record in records for snr in record.snr[::step]],
        "entropy": [round(float(each), 4) for record in records for each in record.entropy[name][::step]],
    }
