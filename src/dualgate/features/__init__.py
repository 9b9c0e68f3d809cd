"""What is read from a measurement: quality statistics, lines, noise-whitened components."""

from dualgate.features.lines import LinePixels, LineWindows
from dualgate.features.quality import QualityStatistics, signal_to_noise
from dualgate.features.whitened import NoiseWhitenedPCA

__all__ = ["LinePixels", "LineWindows", "NoiseWhitenedPCA", "QualityStatistics", "signal_to_noise"]
