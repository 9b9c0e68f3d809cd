"""What is read from a measurement: quality statistics, line windows, noise-whitened components."""

from dualgate.features.lines import LineWindows
from dualgate.features.quality import QualityStatistics, signal_to_noise
from dualgate.features.whitened import NoiseWhitenedPCA

__all__ = ["LineWindows", "NoiseWhitenedPCA", "QualityStatistics", "signal_to_noise"]
