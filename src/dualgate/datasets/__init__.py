"""Data sets: simulated stellar spectra with their errors and their Bayes limit, spectra in HDF5 files and in arrays.

h5py and PyTables are imported when a file is opened or written, not with this package.
"""

from dualgate.datasets.joining import join_spectra
from dualgate.datasets.posterior import BayesLimitWarning, bayes_limit
from dualgate.datasets.shards import SpectraFiles, open_spectra, write_spectra
from dualgate.datasets.simulator import SimulatedSpectra, make_spectra, stream_spectra

__all__ = [
    "BayesLimitWarning",
    "SimulatedSpectra",
    "SpectraFiles",
    "bayes_limit",
    "join_spectra",
    "make_spectra",
    "open_spectra",
    "stream_spectra",
    "write_spectra",
]
