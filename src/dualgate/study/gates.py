"""What the gates say: trends with SNR, the towers' axes and contributions, confusion of regimes, edges."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from dualgate.evaluation import (
    Interval,
    boundary_crossings,
    gate_confidence,
    mean_weights,
    regime_confusion,
    regime_weights,
    tower_correlation,
    trend,
)
from dualgate.evaluation.resampling import weight_blocks
from dualgate.study.fits import gate_trace
from dualgate.study.methods import DUAL, Method
from dualgate.study.roster import BINNED, GLOBAL, PLAIN
from dualgate.study.runner import SeedRecord
from dualgate.study.scoring import StudyScores, bins_of, boundary_of
from dualgate.study.verdict import pool_intervals, seed_interval

N_BINS = {PLAIN: 1, BINNED: 4}
MIN_ROWS = 4  # a trend asks for as many
MAX_RESAMPLES = 300
TOWER_NAMES = ("physics", "quality")


def describe_gates(records: Sequence[SeedRecord], methods: Sequence[Method], scores: StudyScores, bars) -> dict:
    """Describe every gate of the given methods, pooled over seeds.

    Returns
    -------
    found : dict of str to dict
        By method name, as far as rows and methods tell: `entropy`, `confidence` and `temperature` (trends with SNR:
        `rho`, `p_value`, `means` by SNR bin), `towers` (likeness of their outputs), `axes` (lead of each tower's own
        axis), `shapley`, `permutation`, `accuracy`, `confusion` (mean weight by true regime), `weights` (mean weight by
        true regime, SNR bin and regime) and `boundary`.
    """
    return {method.name: _describe(records, method, scores, bars) for method in methods}


def _describe(records, method, scores, bars):
    traces = [_test_trace(record, method) for record in records]
    if any(trace is None for trace in traces):
        return {}
    found = _trends(records, method, traces)
    if all(t["phys"] is not None and t["quality"] is not None for t in traces):
        found["towers"] = float(np.mean([tower_correlation(t["phys"], t["quality"]) for t in traces]))
        if method.parameters.get("fusion") == "logit_add" and _known(records):
            found["axes"] = _axes(records, traces)
    four = GLOBAL.name, f"phys_{method.experts}", f"quality_{method.experts}", method.name
    shares = scores.shapley(*four) if method.kind == DUAL else None
    if shares is not None:
        found["shapley"] = {name: asdict(each) for name, each in shares.items()}
    if all("permutation" in record.traces[method.name] for record in records):
        table = np.stack([record.traces[method.name]["permutation"] for record in records])  # (n_seeds, 3, 3)
        found["permutation"] = {
            part: asdict(pool_intervals(Interval(*line) for line in table[:, place]))
            for place, part in enumerate(("phys", "quality", "both"))
        }
    return found | _regimes(records, method, traces, bars)


def _test_trace(record, method):
    """Weights and towers' outputs of the test rows; None where nothing was traced."""
    arrays = record.traces.get(method.name)
    if arrays is None:
        return None
    cut, trace = record.n_validation, gate_trace(method, arrays)
    outputs = {name: getattr(trace, f"{name}_logits") for name in ("phys", "quality")}
    return {"weights": trace.weights[cut:]} | {n: None if o is None else o[cut:] for n, o in outputs.items()}


def _known(records):
    return all(record.snr is not None and record.regimes is not None for record in records)


def _trends(records, method, traces):
    """Trends with SNR of entropy, confidence and temperature."""
    if any(record.snr is None or len(record.snr) < MIN_ROWS for record in records):
        return {}
    columns = {
        "entropy": [record.entropy[method.name] for record in records],
        "confidence": [gate_confidence(t["weights"]) for t in traces],
    }
    if method.parameters.get("fusion") == "temperature":
        columns["temperature"] = [1 + np.logaddexp(0, t["quality"][:, 0]) for t in traces]
    return {name: _pooled_trend(records, values) for name, values in columns.items()}


def _pooled_trend(records, values):
    found = [trend(record.snr, each) for record, each in zip(records, values, strict=True)]
    means = zip(*(each.means for each in found), strict=True)
    rho = pool_intervals(each.rho for each in found)  # three seeds may have an interval wider than any correlation
    return {
        "rho": asdict(replace(rho, low=max(rho.low, -1.0), high=min(rho.high, 1.0))),
        "p_value": max(each.p_value for each in found),  # of the seed that shows it least
        "means": [asdict(pool_intervals(each)) for each in means],
    }


def _axes(records, traces):
    """By how much each tower's own axis explains more of its outputs than the other axis does."""
    leads = {}
    for tower, name in zip(TOWER_NAMES, ("phys", "quality"), strict=True):
        values, draws = [], []
        for record, trace in zip(records, traces, strict=True):
            outputs = trace[name] - trace[name].mean(axis=1, keepdims=True)  # a common offset changes no weight
            axes = record.regimes, bins_of(record)
            own, other = axes if name == "phys" else axes[::-1]
            weights = np.concatenate(list(weight_blocks(len(outputs), MAX_RESAMPLES, record.seed)))
            values.append(float(lead_of(outputs, own, other, np.ones((1, len(outputs))))[0]))
            resampled = lead_of(outputs, own, other, weights)  # rows drawn twice look like groups: a bias
            draws.append(resampled - resampled.mean() + values[-1])
        leads[tower] = asdict(seed_interval(values, draws))
    return leads


def lead_of(outputs, own, other, weights) -> np.ndarray:
    r"""Share of the outputs' variance that the groups of `own` explain, less what the groups of `other` explain.

    Of any groups, k of them among n rows, the sum of squares between groups holds k - 1 times the variance within
    groups by chance alone. That is taken off, as more groups would otherwise explain more of nothing
    (:math:`\epsilon^2`; Kelley 1935, PNAS 21, 554).

    Parameters
    ----------
    outputs : ndarray of shape (n_rows, n_outputs)
    own, other : ndarray of int, shape (n_rows,)
    weights : ndarray of shape (n_weightings, n_rows)

    Returns
    -------
    lead : ndarray of shape (n_weightings,)
        From -1 to 1, about 0 by chance; NaN where the outputs do not vary.

    Examples
    --------
    >>> outputs, own, other = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 0, 1, 1]), np.zeros(4)
    >>> lead_of(outputs, own, other, np.ones((1, 4)))
    array([1.])
    """
    outputs = outputs - outputs.mean(axis=0)
    total = weights.sum(axis=1)
    mean = weights @ outputs / total[:, None]
    whole = weights @ np.square(outputs).sum(axis=1) - total * np.square(mean).sum(axis=1)

    def between(groups):
        found, n_groups = -total * np.square(mean).sum(axis=1), np.zeros(len(weights))
        for code in np.unique(groups):
            rows = groups == code
            size = weights[:, rows].sum(axis=1)
            sums = np.square(weights[:, rows] @ outputs[rows]).sum(axis=1)
            found += np.divide(sums, size, where=size > 0, out=np.zeros_like(sums))
            n_groups += size > 0
        return found - (n_groups - 1) * (whole - found) / np.maximum(total - n_groups, 1)

    lead = between(own) - between(other)
    return np.divide(lead, whole, where=whole > 1e-12, out=np.full_like(lead, np.nan))


def _regimes(records, method, traces, bars):
    """Confusion, mean weights and edges, where regimes are known and experts are theirs."""
    n_bins = N_BINS.get(method.experts)
    if n_bins is None or any(record.regimes is None for record in records):
        return {}
    n_regimes = traces[0]["weights"].shape[1] // n_bins
    if traces[0]["weights"].shape[1] % n_bins or any(record.regimes.max() >= n_regimes for record in records):
        return {}
    tables = [regime_confusion(t["weights"], r.regimes, n_bins) for r, t in zip(records, traces, strict=True)]
    counts = np.sum([table.counts for table in tables], axis=0)
    found = {
        "accuracy": float(np.trace(counts) / counts.sum()),
        "confusion": _mean_known([table.mean_weights for table in tables]),
    }
    if all(record.snr is not None for record in records):
        found["weights"] = _mean_known([
            mean_weights(regime_weights(t["weights"], n_bins), r.regimes, bins_of(r), n_regimes=n_regimes)
            for r, t in zip(records, traces, strict=True)
        ])  # fmt: skip
    edges = [boundary_of(record, bars) for record in records]
    if all(each is not None and int(np.prod(each.shape)) == n_regimes for each in edges):
        crossings = [boundary_crossings(t["weights"], b, n_bins) for t, b in zip(traces, edges, strict=True)]
        found["boundary"] = {
            name: asdict(pool_intervals(getattr(each, name) for each in crossings))
            for name in ("crossing_rate", "missed_near", "missed_far")
        }
    return found


def _mean_known(tables):
    """Mean over seeds of what is known, as nested lists; None where no seed knows."""
    tables = np.stack(tables)
    known = np.isfinite(tables)
    counts = known.sum(axis=0)
    means = np.divide(
        np.where(known, tables, 0).sum(axis=0), counts, where=counts > 0, out=np.full(counts.shape, np.nan)
    )
    return np.round(means, 4).tolist()
