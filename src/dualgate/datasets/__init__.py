"""Data sets: simulated stellar spectra with their errors and the best that can be done on them, and HDF5 files.

Importing this package is cheap: the simulator, numpy, scipy and h5py load on first use of a name.
"""

from importlib import import_module

_HOMES = {
    "BayesLimit": "dualgate.datasets.bayes",
    "BayesLimitWarning": "dualgate.datasets.bayes",
    "SimulatedSpectra": "dualgate.datasets.streams",
    "SpectraFiles": "dualgate.datasets.shards",
    "SpectraSimulator": "dualgate.datasets.spectra",
    "bayes_limit": "dualgate.datasets.bayes",
    "iter_spectra": "dualgate.datasets.spectra",
    "make_spectra": "dualgate.datasets.spectra",
    "open_spectra": "dualgate.datasets.shards",
    "stream_spectra": "dualgate.datasets.streams",
    "synthesize": "dualgate.datasets.synthesis",
    "write_spectra": "dualgate.datasets.shards_writing",
}

__all__ = [
    "BayesLimit",
    "BayesLimitWarning",
    "SimulatedSpectra",
    "SpectraFiles",
    "SpectraSimulator",
    "bayes_limit",
    "iter_spectra",
    "make_spectra",
    "open_spectra",
    "stream_spectra",
    "synthesize",
    "write_spectra",
]


def __getattr__(name):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dualgate.datasets' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}.")


def __dir__():
    return sorted(set(globals()) | set(__all__))
