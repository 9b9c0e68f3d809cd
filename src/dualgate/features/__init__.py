"""Features of a measurement: quality statistics, spectral lines, noise-whitened components, Wiener scores."""

from dualgate.features.lines import LinePixels, LineWindows
from dualgate.features.nuisances import Nuisances
from dualgate.features.projection import FrozenProjection, PlainColumns, Projection, TransformerProjection
from dualgate.features.quality import QualityStatistics
from dualgate.features.signal import SignalPCA
from dualgate.features.whitened import NoiseWhitenedPCA
from dualgate.features.wiener import WienerScores
from dualgate.snr import signal_to_noise

__all__ = [
    "FrozenProjection",
    "LinePixels",
    "LineWindows",
    "NoiseWhitenedPCA",
    "Nuisances",
    "PlainColumns",
    "Projection",
    "QualityStatistics",
    "SignalPCA",
    "TransformerProjection",
    "WienerScores",
    "signal_to_noise",
]
