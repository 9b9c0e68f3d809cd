"""Data sets: simulated stellar spectra with their errors and their Bayes limit, and spectra in HDF5 files.

A name is imported on first use: importing the package loads neither h5py nor the simulator.
"""

from importlib import import_module

_HOMES = {
    "BayesLimit": "dualgate.datasets.posterior",
    "BayesLimitWarning": "dualgate.datasets.posterior",
    "SimulatedSpectra": "dualgate.datasets.simulator",
    "SpectraFiles": "dualgate.datasets.shards",
    "SpectraSimulator": "dualgate.datasets.simulator",
    "bayes_limit": "dualgate.datasets.posterior",
    "iter_spectra": "dualgate.datasets.simulator",
    "make_spectra": "dualgate.datasets.simulator",
    "open_spectra": "dualgate.datasets.shards",
    "stream_spectra": "dualgate.datasets.simulator",
    "write_spectra": "dualgate.datasets.shard_files",
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dualgate.datasets' has no attribute {name!r}; it has {', '.join(_HOMES)}.")


def __dir__():
    return sorted(set(globals()) | set(__all__))
