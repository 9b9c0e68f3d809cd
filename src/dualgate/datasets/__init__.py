"""Data sets: simulated stellar spectra with their errors.

Importing this package is cheap: the simulator, numpy and scipy load on first use of a name.
"""

from importlib import import_module

_HOMES = {
    "SpectraSimulator": "dualgate.datasets.spectra",
    "iter_spectra": "dualgate.datasets.spectra",
    "make_spectra": "dualgate.datasets.spectra",
    "synthesize": "dualgate.datasets.synthesis",
}

__all__ = ["SpectraSimulator", "iter_spectra", "make_spectra", "synthesize"]


def __getattr__(name):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dualgate.datasets' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}.")


def __dir__():
    return sorted(set(globals()) | set(__all__))
