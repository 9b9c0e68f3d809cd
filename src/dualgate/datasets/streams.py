"""Simulated spectra as a source of rows: a training set of any length that takes neither memory nor disk."""

import numbers

import numpy as np
from sklearn.utils import Bunch

from dualgate._validation import check_number
from dualgate.datasets.emulator import LABELS
from dualgate.datasets.spectra import REGIME_EDGES, SpectraSimulator, regimes_of
from dualgate.datasets.synthesis import WAVE
from dualgate.rows import RowSource

_DESCRIPTION = """\
Simulated stellar spectra, made when they are read
--------------------------------------------------

Rows        {n_samples:,} from row {start:,} of the table that the seed {seed} names, the bits that make_spectra gives.
X           ({n_samples:,}, 8192), float32: flux of 4,096 pixels, then its standard deviation at noise level 1.
            The unit is the star's own mean noise-free flux, known from its magnitude.
y           log10 of the surface gravity [cm/s2], 1 to 5.
wave        pixel centres, air wavelength [angstrom], 7100.2 to 8849.8; resolution R = 5,000.
labels      T_eff, log_g, M_H, a_M, C_M, mag, independent and uniform.
Noise       {noise!r} at level {noise_level:g}.

What is simulated, and what is left out, is in the description of make_spectra.
"""


class SimulatedSpectra(RowSource):
    """Simulated spectra, [flux | error], that are made when they are read.

    :func:`stream_spectra` makes it. It pickles as the seed and the noise; each process loads the emulator by itself.

    Parameters
    ----------
    simulator : SpectraSimulator
        The table.
    start, stop : int
        The rows of the table that are the rows of this source.

    Attributes
    ----------
    shape : tuple of int
        (stop - start, 8192).
    dtype : numpy.dtype
        float32.
    seed : int
        The integer that names the table.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, simulator, start, stop):
        self.simulator, self.start, self.stop = simulator, start, stop
        self.shape = (stop - start, 2 * len(WAVE))

    @property
    def seed(self):  # noqa: D102
        return self.simulator.seed

    def read(self, start, stop):  # noqa: D102
        return self.simulator.rows(self.start + start, self.start + stop).X

    def read_into(self, start, stop, out):  # noqa: D102
        self.simulator.rows(self.start + start, self.start + stop, out=out)


def stream_spectra(n_samples, *, random_state=None, noise_level=1.0, noise="sky", start=0):
    """Simulate stellar spectra when they are read, for training sets that fit neither in memory nor on disk.

    The rows are those of :func:`make_spectra`, bit for bit. A row takes 32 kB there and nothing here, but is simulated
    each time it is read.

    Parameters
    ----------
    n_samples : int
        Number of rows, at least 1.
    random_state, noise_level, noise
        As in :func:`make_spectra`. The seed that None draws is ``X.seed``.
    start : int, default=0
        First row of the table, for a further set from the same one.

    Returns
    -------
    data : Bunch
        X : SimulatedSpectra of shape (n_samples, 8192), float32
            [flux | error], in units of the star's mean noise-free flux.
        y : ndarray of shape (n_samples,)
            log10 of the surface gravity [cm/s2].
        wave : ndarray of shape (4096,)
            Pixel centres [air Å].
        labels : DataFrame
            T_eff [K], log_g [of cm/s2], M_H, a_M, C_M [dex], mag. There is no snr: it needs the spectra.
        conditions : ndarray of shape (n_samples, 2)
            T_eff [K] and [M/H] [dex].
        regimes : ndarray of shape (n_samples,), int
            0 to 8, as in :func:`make_spectra`.
        regime_edges : tuple
            Edges of the bins, of T_eff and of [M/H].
        description : str
            What the set is.

    Raises
    ------
    ValueError
        If an argument is out of range; the message names it.

    See Also
    --------
    make_spectra : The same rows in memory.
    iter_spectra : The same rows in blocks, once.

    Examples
    --------
    >>> from dualgate.datasets import make_spectra, stream_spectra
    >>> data = stream_spectra(1000, random_state=0)
    >>> data.X
    SimulatedSpectra(1,000 rows x 8,192 columns, float32)
    >>> bool((data.X.read(998, 1000) == make_spectra(2, random_state=0, start=998).X).all())
    True
    """
    import pandas as pd

    check_number("stream_spectra", "n_samples", n_samples, kind=numbers.Integral, low=1, hint="try 1000.")
    check_number("stream_spectra", "start", start, kind=numbers.Integral, low=0, hint="try 0.")
    simulator = SpectraSimulator(random_state, noise_level=noise_level, noise=noise)
    start, stop = int(start), int(start) + int(n_samples)
    labels = pd.DataFrame(simulator.labels(start, stop), columns=[*LABELS, "mag"])
    conditions = labels[["T_eff", "M_H"]].to_numpy()
    return Bunch(
        X=SimulatedSpectra(simulator, start, stop),
        y=labels["log_g"].to_numpy(copy=True),
        wave=WAVE.copy(),
        labels=labels,
        conditions=conditions,
        regimes=regimes_of(conditions),
        regime_edges=REGIME_EDGES,
        description=_DESCRIPTION.format(
            n_samples=n_samples, start=start, seed=simulator.seed, noise=noise, noise_level=noise_level
        ),
    )
