"""From predictions to the results: scores with intervals, choices made on validation rows, verdicts."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from dualgate.evaluation import SNR_NAMES, Interval
from dualgate.study.answers import Candidates, answer_all, comparisons, recommend
from dualgate.study.bayes import bayes_share
from dualgate.study.config import Thresholds
from dualgate.study.extras import AUDIT_NUMBERS
from dualgate.study.gates import describe_gates
from dualgate.study.methods import DUAL, REFERENCE, SINGLE, Method
from dualgate.study.places import changes, places_of_quality
from dualgate.study.roster import GLOBAL, ORACLES, PLAIN, all_methods
from dualgate.study.runner import SeedRecord
from dualgate.study.scoring import StudyScores
from dualgate.study.verdict import FAIL, MARGINAL, PASS

METRICS = ("r2", "mae", "rmse", "bias")
MAX_POINTS = 1500  # rows of the figures that show rows
PIXELS_SHOWN = 1024  # of the coefficients


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
        Ready for JSON; its keys are described in the documentation of the study.
    """
    bars = thresholds or Thresholds()
    if methods is None:
        methods = [method for method in all_methods() if method.name in records[0].predictions]
    scores = StudyScores(records, methods, n_resamples, bars)
    candidates = Candidates(methods, scores)
    single, questions = candidates.best(SINGLE), comparisons(candidates, bars)
    name = None if single is None else single.name
    gates = describe_gates(records, _shown_gates(candidates, questions, name), scores, bars)
    limit = bayes_share(records, scores)
    shipped = recommend(candidates, questions["overall"]["verdict"] if "overall" in questions else None)
    return {
        "rows": {
            "train": records[0].n_train,
            "validation": records[0].n_validation,
            "test": len(records[0].y),
            "test_by_snr": {bin_: scores.counts()[bin_] for bin_ in SNR_NAMES},
            "test_by_slice": scores.counts(),
        },
        "thresholds": {name.rstrip("_"): getattr(bars, name) for name in bars.__dataclass_fields__},
        "best_single": name,
        "methods": [_describe(method, records, scores, single, limit, bars) for method in methods],
        "questions": questions,
        "answers": answer_all(candidates, gates, bars),
        "recommendation": shipped,
        "places": places_of_quality(candidates),
        "changes": changes(candidates),
        "gates": gates,
        "limit": None if limit is None else limit["limit"],
        "audit": _audit(records, bars),
        "regimes": _by_regime(scores, questions.get("overall", {"single": name, "dual": None})),
        "entropy": _clouds(records, gates),
        "predictions": _guesses(records, shipped),
        "coefficients": _coefficients(records[0], methods),
        "seconds": {str(record.seed): record.seconds for record in records},
    }


def _shown_gates(candidates, questions, single):
    """Methods whose gates are described: those compared, and the factorised ones."""
    names = [single, *(questions[key]["dual"] for key in ("gate", "experts") if key in questions)]
    names += ["concat_9", "logit_add_9", "temperature_9", "concat_9x4", "temperature_9x4"]
    found = [candidates[name] for name in dict.fromkeys(names) if name is not None]
    return [method for method in found if method is not None]


def _describe(method, records, scores, single, limit, bars):
    """One line of the table, and its scores in every slice."""
    gauged = method.kind != REFERENCE and method.experts in ORACLES and method.group != "representation"
    ratio = scores.recovery(method.name, GLOBAL.name, ORACLES[method.experts].name) if gauged else None
    reference = None if single is None or method.name == single.name else single.name
    gain = None if reference is None else scores.gain(method.name, reference)
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
        "share_of_limit": None if limit is None else asdict(limit["shares"][method.name]),
        "r2_by_snr": {bin_: asdict(scores.r2(method.name, bin_)) for bin_ in SNR_NAMES},
        "r2_by_seed": {
            str(record.seed): table.sample("r2", method.name)[0]
            for record, table in zip(records, scores.tables, strict=True)
        },
        "slices": {part: _slice(scores, method.name, reference, part) for part in scores.slices},
        "validation_r2": scores.validation_r2(method.name),
        "mean_entropy": float(np.mean(entropies)) if entropies else None,
        "tower_likeness": float(np.mean(towers)) if towers else None,
    }


def _slice(scores, name, reference, part):
    """Every metric in a slice as [value, low, high]."""
    found = {metric: scores.interval(metric, name, part) for metric in METRICS}
    if reference is not None:
        found["delta_r2"] = scores.gain(name, reference, part)
    return {metric: [each.value, each.low, each.high] for metric, each in found.items()}


def _by_regime(scores, pair):
    """R^2 of a single tower and a dual model within every regime."""
    counts = scores.counts()
    chosen = {kind: pair[kind] for kind in ("single", "dual") if pair[kind] is not None}
    lines = []
    for part in (part for part in scores.slices if part.startswith("regime ")):
        line = {"regime": int(part.removeprefix("regime ")), "rows": counts[part], "single": None, "dual": None}
        lines.append(line | {kind: asdict(scores.r2(name, part)) for kind, name in chosen.items()})
        both = len(chosen) == len(("single", "dual"))
        lines[-1]["gain"] = asdict(scores.gain(chosen["dual"], chosen["single"], part)) if both else None
    return lines


def _audit(records, bars):
    """Leakage audit of the seed that has one: its numbers, and whether it passes; None without."""
    found = next((record.audit for record in records if record.audit is not None), None)
    if found is None:
        return None
    numbers = {name: Interval(*map(float, line)) for name, line in zip(AUDIT_NUMBERS, found["audit"], strict=True)}
    target = [numbers[name] for name in AUDIT_NUMBERS if name.startswith("target")]
    snr = [numbers[name] for name in AUDIT_NUMBERS if name.startswith("snr")]
    if all(each.high < bars.leak_target for each in target) and all(each.low > bars.leak_snr for each in snr):
        verdict, reason = PASS, "the quality features know the SNR and not the target"
    elif any(each.low >= bars.leak_target for each in target):
        verdict, reason = FAIL, "the quality features give the target away"
    elif any(each.high <= bars.leak_snr for each in snr):
        verdict, reason = FAIL, "the quality features do not know the SNR"
    else:
        verdict, reason = MARGINAL, "an interval holds its limit"
    return {"rows": int(found["rows"]), "verdict": verdict, "reason": reason,
            "numbers": {name: asdict(each) for name, each in numbers.items()}}  # fmt: skip


def _clouds(records, gates):
    """Evenly many rows of every seed for the entropy figure, of the gates described; empty where there is no SNR."""
    if any(record.snr is None for record in records):
        return {}
    step = max(1, sum(len(record.y) for record in records) // MAX_POINTS)
    return {
        name: {
            "n_experts": records[0].n_experts[name],
            "snr": [round(float(snr), 3) for record in records for snr in record.snr[::step]],
            "entropy": [round(float(each), 4) for record in records for each in record.entropy[name][::step]],
        }
        for name in gates
        if all(name in record.entropy for record in records)
    }


def _guesses(records, shipped):
    """Targets and predictions of the recommended model, for some rows of every seed; None without one."""
    if shipped is None:
        return None
    step = max(1, sum(len(record.y) for record in records) // (2 * MAX_POINTS))
    name = shipped["name"]
    return {
        "name": name,
        "true": [_rounded(each, 6) for record in records for each in record.y[::step]],
        "predicted": [_rounded(each, 6) for record in records for each in record.predictions[name][::step]],
    }


def _coefficients(record, methods):
    """Coefficients of nine experts on the pixels, neighbours averaged, in the first seed; None where unknown."""
    if record.wave is None:
        return None
    for method in methods:
        arrays = record.traces.get(method.name, {})
        if method.experts == PLAIN and method.kind in (REFERENCE, SINGLE, DUAL) and "coef_pixels" in arrays:
            coefs, wave = np.asarray(arrays["coef_pixels"], dtype=float), np.asarray(record.wave, dtype=float)
            step = max(1, len(wave) // PIXELS_SHOWN)
            kept = len(wave) // step * step
            shown = coefs[:, :kept].reshape(len(coefs), -1, step).mean(axis=2)
            return {
                "method": method.name,
                "wave": wave[:kept].reshape(-1, step).mean(axis=1).round(2).tolist(),
                "experts": [[_rounded(each, 4) for each in row] for row in shown],  # the root last
            }
    return None


def _rounded(value, digits):
    """Round to so many significant digits: targets have any unit."""
    return float(f"{value:.{digits}g}")
