"""Every torch module, and the skorch fit. The only folder that imports torch."""

from dualgate.gating._nets.fusions import SOFTPLUS_OF_ONE, Alone, Concat, Head, LogitAdd, ProductOfExperts, Temperature
from dualgate.gating._nets.towers import Convolutions, Perceptron, build_network
from dualgate.gating._nets.training import Batches, Rows, fit_gates, run_gates

__all__ = [
    "SOFTPLUS_OF_ONE",
    "Alone",
    "Batches",
    "Concat",
    "Convolutions",
    "Head",
    "LogitAdd",
    "Perceptron",
    "ProductOfExperts",
    "Rows",
    "Temperature",
    "build_network",
    "fit_gates",
    "run_gates",
]
