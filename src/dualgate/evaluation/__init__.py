"""Scores of predictions, measures of gates, the leakage audit and Displays, all of arrays and traces.

Importing this package loads neither torch nor matplotlib.
"""

from dualgate.evaluation.audit import LeakageAudit, leakage_audit
from dualgate.evaluation.contribution import permutation_contribution, shapley_values, tower_correlation
from dualgate.evaluation.displays import (
    CoefficientDisplay,
    ConfusionDisplay,
    IntervalDisplay,
    PredictionDisplay,
    SNRDisplay,
    TrendDisplay,
)
from dualgate.evaluation.scores import (
    Estimate,
    Interval,
    ScoreTable,
    bootstrap_scores,
    bootstrap_weights,
    percentile_interval,
    r2_by_bin,
    row_slices,
)
from dualgate.evaluation.weights import (
    boundary_crossings,
    boundary_samples,
    gate_confidence,
    gate_entropy,
    mean_weights,
    regime_weights,
    trend,
)
from dualgate.snr import SNR_EDGES, SNR_NAMES, SNR_RANGES
from dualgate.snr import quality_bins as snr_bins

__all__ = [
    "SNR_EDGES",
    "SNR_NAMES",
    "SNR_RANGES",
    "CoefficientDisplay",
    "ConfusionDisplay",
    "Estimate",
    "Interval",
    "IntervalDisplay",
    "LeakageAudit",
    "PredictionDisplay",
    "SNRDisplay",
    "ScoreTable",
    "TrendDisplay",
    "bootstrap_scores",
    "bootstrap_weights",
    "boundary_crossings",
    "boundary_samples",
    "gate_confidence",
    "gate_entropy",
    "leakage_audit",
    "mean_weights",
    "percentile_interval",
    "permutation_contribution",
    "r2_by_bin",
    "regime_weights",
    "row_slices",
    "shapley_values",
    "snr_bins",
    "tower_correlation",
    "trend",
]
