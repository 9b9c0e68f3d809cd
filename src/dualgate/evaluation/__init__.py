"""Judge predictions and gates: scores, slices and Displays of arrays and traces.

Importing this package loads neither torch nor matplotlib.
"""

from dualgate.evaluation.diagnostics import SNR_EDGES, SNR_NAMES, SNR_RANGES, snr_bins, tower_correlation
from dualgate.evaluation.metrics import (
    bin_members,
    gate_confidence,
    gate_entropy,
    r2_by_bin,
    recovery_ratio,
)
from dualgate.evaluation.plots import EntropyDisplay, R2ByMethodDisplay, R2BySNRDisplay
from dualgate.evaluation.resampling import Interval, bootstrap_r2, bootstrap_weights, delta_r2

__all__ = [
    "SNR_EDGES",
    "SNR_NAMES",
    "SNR_RANGES",
    "EntropyDisplay",
    "Interval",
    "R2ByMethodDisplay",
    "R2BySNRDisplay",
    "bin_members",
    "bootstrap_r2",
    "bootstrap_weights",
    "delta_r2",
    "gate_confidence",
    "gate_entropy",
    "r2_by_bin",
    "recovery_ratio",
    "snr_bins",
    "tower_correlation",
]
