"""The two towers and the fusions of their logits into expert weights."""

from dualgate.gating.collapse import GateCollapseWarning
from dualgate.gating.fusion import (
    FUSIONS,
    ConcatFusion,
    Fusion,
    LogitAddFusion,
    ProductOfExpertsFusion,
    TemperatureFusion,
)
from dualgate.gating.gates import PhysGate, QualityGate
from dualgate.gating.networks import NETWORKS

__all__ = [
    "FUSIONS",
    "NETWORKS",
    "ConcatFusion",
    "Fusion",
    "GateCollapseWarning",
    "LogitAddFusion",
    "PhysGate",
    "ProductOfExpertsFusion",
    "QualityGate",
    "TemperatureFusion",
]
