"""Dual-tower mixtures of experts for regression on measurements that know their own quality.

A physics tower decides what kind of object a row is, a quality tower how far its measurement may be trusted,
a fusion turns both into weights of linear experts. Importing this package loads neither torch nor matplotlib.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "DualTowerMoERegressor": "dualgate.mixture",
    "MixtureTrace": "dualgate.trace",
    "PhysGate": "dualgate.gating",
    "QualityGate": "dualgate.gating",
    "Fusion": "dualgate.gating",
    "HierarchicalExperts": "dualgate.experts",
    "FactorExperts": "dualgate.experts",
    "MixtureDensity": "dualgate.density",
    "OneStandardError": "dualgate.selection",
    "TowerSelection": "dualgate.selection",
    "select_towers": "dualgate.selection",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dualgate' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}.")


def __dir__():
    return sorted(set(globals()) | set(__all__))
