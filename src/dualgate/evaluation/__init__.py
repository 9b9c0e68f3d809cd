"""Judge predictions and gates: scores, slices and Displays of arrays and traces.

Importing this package loads neither torch nor matplotlib.
"""

from dualgate.evaluation.audit import LeakageAudit, leakage_audit
from dualgate.evaluation.boundary import BoundaryCrossings, BoundarySamples, boundary_crossings, boundary_samples
from dualgate.evaluation.comparison_plots import BayesLimitDisplay, GainDisplay, PredictionDisplay, SNRBarsDisplay
from dualgate.evaluation.contribution import (
    PermutationContribution,
    TowerShares,
    permutation_contribution,
    shapley_samples,
    shapley_towers,
    shapley_values,
)
from dualgate.evaluation.diagnostics import SNR_EDGES, SNR_NAMES, SNR_RANGES, snr_bins, tower_correlation
from dualgate.evaluation.interpretation import (
    RegimeConfusion,
    Trend,
    mean_weights,
    regime_confusion,
    regime_weights,
    trend,
)
from dualgate.evaluation.interpretation_plots import CoefficientDisplay, ConfusionDisplay, TrendDisplay
from dualgate.evaluation.metrics import (
    bin_members,
    gate_confidence,
    gate_entropy,
    r2_by_bin,
    recovery_ratio,
)
from dualgate.evaluation.plots import EntropyDisplay, R2ByMethodDisplay, R2BySNRDisplay
from dualgate.evaluation.resampling import Interval, bootstrap_r2, bootstrap_weights, delta_r2, percentile_interval
from dualgate.evaluation.scores import ScoreTable, bootstrap_scores, row_slices

__all__ = [
    "SNR_EDGES",
    "SNR_NAMES",
    "SNR_RANGES",
    "BayesLimitDisplay",
    "BoundaryCrossings",
    "BoundarySamples",
    "CoefficientDisplay",
    "ConfusionDisplay",
    "EntropyDisplay",
    "GainDisplay",
    "Interval",
    "LeakageAudit",
    "PermutationContribution",
    "PredictionDisplay",
    "R2ByMethodDisplay",
    "R2BySNRDisplay",
    "RegimeConfusion",
    "SNRBarsDisplay",
    "ScoreTable",
    "TowerShares",
    "Trend",
    "TrendDisplay",
    "bin_members",
    "bootstrap_r2",
    "bootstrap_scores",
    "bootstrap_weights",
    "boundary_crossings",
    "boundary_samples",
    "delta_r2",
    "gate_confidence",
    "gate_entropy",
    "leakage_audit",
    "mean_weights",
    "percentile_interval",
    "permutation_contribution",
    "r2_by_bin",
    "recovery_ratio",
    "regime_confusion",
    "regime_weights",
    "row_slices",
    "shapley_samples",
    "shapley_towers",
    "shapley_values",
    "snr_bins",
    "tower_correlation",
    "trend",
]
