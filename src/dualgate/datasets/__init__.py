"""Data sets: simulated stellar spectra with errors and Bayes limit, spectra in HDF5 files, measured spectra of surveys.

h5py, PyTables, astropy and pyarrow are imported when a file is opened or written, not with this package.
"""

from dualgate.datasets.joining import join_spectra
from dualgate.datasets.posterior import BayesLimitWarning, bayes_limit
from dualgate.datasets.resampling import ResampledRows, resample
from dualgate.datasets.shards import SpectraFiles, open_spectra, write_spectra
from dualgate.datasets.simulator import SimulatedSpectra, make_spectra, stream_spectra
from dualgate.datasets.survey import SurveyFiles, read_spectra
from dualgate.datasets.wavelengths import to_air, to_vacuum

__all__ = [
    "BayesLimitWarning",
    "ResampledRows",
    "SimulatedSpectra",
    "SpectraFiles",
    "SurveyFiles",
    "bayes_limit",
    "join_spectra",
    "make_spectra",
    "open_spectra",
    "read_spectra",
    "resample",
    "stream_spectra",
    "to_air",
    "to_vacuum",
    "write_spectra",
]
