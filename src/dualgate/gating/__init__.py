"""The two towers and how they are fused into expert weights."""

from dualgate.gating.fusion import (
    FUSIONS,
    ConcatFusion,
    Fusion,
    LogitAddFusion,
    ProductOfExpertsFusion,
    TemperatureFusion,
)
from dualgate.gating.gates import PhysGate, QualityGate

__all__ = [
    "FUSIONS",
    "ConcatFusion",
    "Fusion",
    "LogitAddFusion",
    "PhysGate",
    "ProductOfExpertsFusion",
    "QualityGate",
    "TemperatureFusion",
]
