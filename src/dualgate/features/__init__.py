"""What is read from a measurement: quality statistics, lines, noise-whitened components, Wiener scores."""

from dualgate.features.lines import LinePixels, LineWindows
from dualgate.features.quality import QualityStatistics, signal_to_noise
from dualgate.features.whitened import NoiseWhitenedPCA
from dualgate.features.wiener import WienerScores

__all__ = ["LinePixels", "LineWindows", "NoiseWhitenedPCA", "QualityStatistics", "WienerScores", "signal_to_noise"]
