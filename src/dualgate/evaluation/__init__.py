"""Scores of predictions, measures of gates, the leakage audit and Displays, all of arrays and traces.

Importing this package loads neither torch nor matplotlib.
"""

from dualgate.evaluation.audit import LeakageAudit, leakage_audit
from dualgate.evaluation.contribution import permutation_contribution, shapley_values, tower_correlation
from dualgate.evaluation.displays import (
    CoefficientDisplay,
    IntervalDisplay,
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
    "SNRDisplay",
    "ScoreTable",
    "TrendDisplay",
    "bootstrap_scores",
    "bootstrap_weights",
    "boundary_crossings",
    "boundary_samples",
    "leakage_audit",
    "permutation_contribution",
    "quality_bins",
    "row_slices",
    "shapley_values",
    "tower_correlation",
    "trend",
]
