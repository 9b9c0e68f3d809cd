"""Scores of predictions, densities and intervals, measures of gates, the leakage audit and Displays.

All take arrays and traces, no estimators, but for `from_estimator` of a Display.
Importing this package loads neither torch nor matplotlib.
"""

from dualgate.evaluation.audit import LeakageAudit, leakage_audit
from dualgate.evaluation.contribution import permutation_contribution, shapley_values, tower_correlation
from dualgate.evaluation.densities import crps, interval_score, log_score, pit_values
from dualgate.evaluation.displays import (
    CoefficientDisplay,
    IntervalDisplay,
    ReliabilityDisplay,
    SNRDisplay,
    TrendDisplay,
)
from dualgate.evaluation.scores import (
    Estimate,
    Interval,
    ScoreTable,
    bootstrap_scores,
    bootstrap_weights,
    row_slices,
)
from dualgate.evaluation.weights import (
    boundary_crossings,
    boundary_samples,
    trend,
)
from dualgate.snr import SNR_EDGES, SNR_NAMES, SNR_RANGES, quality_bins

__all__ = [
    "SNR_EDGES",
    "SNR_NAMES",
    "SNR_RANGES",
    "CoefficientDisplay",
    "Estimate",
    "Interval",
    "IntervalDisplay",
    "LeakageAudit",
    "ReliabilityDisplay",
    "SNRDisplay",
    "ScoreTable",
    "TrendDisplay",
    "bootstrap_scores",
    "bootstrap_weights",
    "boundary_crossings",
    "boundary_samples",
    "crps",
    "interval_score",
    "leakage_audit",
    "log_score",
    "permutation_contribution",
    "pit_values",
    "quality_bins",
    "row_slices",
    "shapley_values",
    "tower_correlation",
    "trend",
]
