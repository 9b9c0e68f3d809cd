"""Spectra in HDF5 files, the shards of one long table whose rows are read when they are needed.

Flux in a file is noise-free: noise with the standard deviation of the error is added when a row is read. The layout of
a file is in `dualgate.datasets.shard_files`.
"""

import glob
import numbers
import os

import numpy as np

from dualgate._validation import check_number, require_finite
from dualgate.datasets.shard_files import REQUIRED, read_head, read_rows
from dualgate.datasets.simulator import check_noise, generator_of_rows, labelled_spectra
from dualgate.rows import RowSource

_NOISE_STREAM = 1  # the noise is independent of what the simulator draws for the same seed and row

_DESCRIPTION = """\
Stellar spectra from HDF5 shards
--------------------------------

Rows        {shape[0]:,}: {start:,} to {stop:,} of the {total:,} rows in {n_shards:,} files, first {first!r}.
X           ({shape[0]:,}, {shape[1]:,}), float32, read when needed: flux of {n_pixels:,} pixels, then its standard
            deviation at noise level 1.
y           log10 of the surface gravity [cm/s2].
labels      {columns}.
wave        {low:.1f} to {high:.1f} [angstrom].
Noise       flux + error * N(0, 1) * {noise_level:g}, seed {seed}{clipped}. The noise of a row never changes.
"""


class SpectraFiles(RowSource):
    """Spectra in HDF5 shards, [flux | error], as a row source that adds noise to a row when it is read.

    Returned by :func:`open_spectra`. The noise of a row is a function of the seed and of the row's number in all shards
    together, so that a row has the same bits in any block and in any order. A pickle holds the names of the files.
    Reading raises an OSError where a file is damaged or missing, and a ValueError where flux is not finite or a row has
    no error that is finite and above zero; both name the shard.

    Attributes
    ----------
    files : list of str
        The shards.
    start, stop : int
        First row of this source, counted over all shards, and the one after the last.
    seed : int
        Seed of the noise.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, files, counts, n_pixels, *, start, stop, noise_level, seed, clip):
        self.files, self.start, self.stop = files, start, stop
        self.noise_level, self.seed, self.clip = noise_level, seed, clip
        self.counts, self.ends = counts, np.cumsum(counts)  # rows of each shard, and the one after its last
        self.shape = (stop - start, 2 * n_pixels)

    def read(self, start, stop):  # noqa: D102
        block = np.empty((stop - start, self.shape[1]), self.dtype)
        at_row, draw = generator_of_rows(self.seed | _NOISE_STREAM << 64), np.empty(self.shape[1] // 2, np.float32)
        done = 0
        while done < len(block):
            row = self.start + int(start) + done
            shard = np.searchsorted(self.ends, row, side="right")
            path, first = self.files[shard], row - int(self.ends[shard] - self.counts[shard])
            part = block[done : done + self.counts[shard] - first]
            read_rows(path, first, first + len(part), part)
            flux, error = np.hsplit(part, 2)
            require_finite(f"shard {path!r}", "flux", flux, first_row=first)
            repair_errors(error, path, first)
            for i in range(len(part) if self.noise_level > 0 else 0):
                at_row(row + i).standard_normal(out=draw, dtype=np.float32)
                draw *= error[i]
                draw *= np.float32(self.noise_level)
                flux[i] += draw
            if self.clip:
                np.maximum(flux, 0, out=flux)
            done += len(part)
        return block


def repair_errors(error, path, first):
    """Replace errors that are not finite and above zero by that of the nearest good pixel, left on a tie, in place."""
    good = (error > 0) & (error < np.inf)
    for row in np.flatnonzero(~good.all(axis=1)):
        pixels, lacking = np.flatnonzero(good[row]), np.flatnonzero(~good[row])
        if not len(pixels):
            raise ValueError(
                f"shard {path!r} has no error that is finite and above zero in row {first + row}: bad errors cannot be "
                "replaced. Rewrite the shard without it, or choose rows by open_spectra.start and stop."
            )
        middles = (pixels[1:] + pixels[:-1]) / 2
        error[row, lacking] = error[row, pixels[np.searchsorted(middles, lacking)]]


def open_spectra(paths, *, start=0, stop=None, noise_level=1.0, random_state=None, clip=True):
    """Open spectra in HDF5 shards as a row source, whose rows are read when they are needed.

    The shards, which :func:`write_spectra` writes, are one long table, in the order in which they are given. A spectrum
    that is read is flux + error * N(0, 1) * noise_level, then clipped at zero from below. Errors that are NaN, infinite
    or not above zero are replaced by that of the nearest good pixel of the row, the left one on a tie.

    Parameters
    ----------
    paths : str, Path, or list of them
        Files, or patterns such as "spectra/shard_*.h5", whose matches are sorted alphabetically ("10" before "2").
        Open only files that you trust: pandas may unpickle the contents of the table of parameters.
    start : int, default=0
        First row of the long table.
    stop : int, default=None
        The row after the last; None is all. The noise of a row does not depend on the range.
    noise_level : float, default=1.0
        Factor on the noise, at least 0. 0 gives the flux in the file. The errors do not depend on it.
    random_state : int, RandomState, Generator or None, default=None
        An int is the seed of the noise. A generator gives the seed by one draw; None draws a new one. The seed is kept
        as ``X.seed``. Use different seeds for sets that are opened separately, such as training and test shards: with
        one seed, rows of the same number have the same draws of N(0, 1).
    clip : bool, default=True
        Whether flux below zero becomes zero, noise-free or not.

    Returns
    -------
    data : Bunch
        X : SpectraFiles of shape (n_samples, 2 * n_pixels), float32
            [flux | error], in the unit of the file.
        y, conditions, regimes, regime_edges, description
            As in :func:`make_spectra`.
        wave : ndarray of shape (n_pixels,)
            Pixel centres [angstrom].
        labels : DataFrame
            The parameters in the files; NaN in the rows of shards that lack the column.
        snr : ndarray of shape (n_samples,)
            As stored; absent if the files lack it.
        paths : list of str
            The shards.

    Raises
    ------
    ImportError
        If h5py or PyTables is not installed.
    FileNotFoundError
        If a path or pattern matches no file.
    OSError
        If a file is damaged or truncated; the message names the shard.
    ValueError
        If an argument is out of range or a file is given twice; if a shard lacks a dataset or a required parameter
        (T_eff, log_g, M_H), its shapes disagree, its wavelength grid differs, or a required parameter is not finite.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from dualgate.datasets import make_spectra, open_spectra, write_spectra
    >>> clean = make_spectra(4, random_state=0, noise_level=0)
    >>> with TemporaryDirectory() as folder:
    ...     write_spectra(f"{folder}/shard_0.h5", clean.flux, clean.error, clean.labels, clean.wave)
    ...     data = open_spectra(f"{folder}/shard_*.h5", random_state=0)
    >>> data.X
    SpectraFiles(4 rows x 8,192 columns, float32)
    >>> bool((data.y == clean.y).all())
    True
    """
    import pandas as pd

    noise_level, seed = check_noise("open_spectra", noise_level, random_state)
    paths = _find_shards(paths)
    waves, tables = zip(*map(read_head, paths), strict=True)
    wave = waves[0]
    for path, other in zip(paths, waves, strict=True):
        _require_same_grid(path, other, paths[0], wave)
    counts = [len(table) for table in tables]
    total, hint = sum(counts), f"{len(paths):,} shards hold {sum(counts):,} rows, counted from 0."
    stop = total if stop is None else stop
    check_number("open_spectra", "start", start, kind=numbers.Integral, low=0, high=total - 1, hint=hint)
    check_number("open_spectra", "stop", stop, kind=numbers.Integral, low=start + 1, high=total, hint=hint)
    noise = {"noise_level": noise_level, "seed": seed, "clip": bool(clip)}
    X = SpectraFiles(paths, counts, len(wave), start=int(start), stop=int(stop), **noise)
    labels = pd.concat(tables, ignore_index=True).iloc[X.start : X.stop].reset_index(drop=True)
    for path, table, end in zip(paths, tables, X.ends, strict=True):
        first, last = np.clip([X.start, X.stop], end - len(table), end) - (end - len(table))
        rows = table[list(REQUIRED)].to_numpy(np.float64)[first:last]
        require_finite(f"shard {path!r}", f"params {REQUIRED}", rows, first_row=first)
    description = _DESCRIPTION.format(
        total=total,
        n_shards=len(paths),
        n_pixels=len(wave),
        first=os.path.basename(paths[0]),
        columns=", ".join(map(str, labels.columns)),
        low=wave.min(),
        high=wave.max(),
        clipped=", clipped at zero" if clip else "",
        **vars(X),
    )
    data = labelled_spectra(X, labels, wave, description)
    data.paths = paths
    if "snr" in labels:
        data.snr = labels["snr"].to_numpy(copy=True)
    return data


def _find_shards(paths):
    """Absolute names (list of str) of the files that paths and patterns match, in their order."""
    found = []
    for each in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        pattern = os.fspath(each)
        matches = [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern)))
        if not matches:
            raise FileNotFoundError(
                f"open_spectra.paths={pattern!r} matches no file (in {os.getcwd()!r}): it must name HDF5 files or be a "
                "pattern of their names, such as 'spectra/*.h5'."
            )
        found += map(os.path.abspath, matches)
    if not found:
        raise ValueError(f"open_spectra.paths={paths!r} names no file: give at least one shard.")
    first = {os.path.realpath(path): path for path in reversed(found)}
    for path in found:
        if first[os.path.realpath(path)] is not path:
            raise ValueError(f"open_spectra.paths has the same file twice, {path!r}: give each shard once.")
    return found


def _require_same_grid(path, wave, first_path, first_wave):
    """Raise a ValueError if a shard has another wavelength grid than the first; rounding to float32 is allowed."""
    same = wave.shape == first_wave.shape and np.isclose(wave, first_wave, rtol=np.finfo(np.float32).eps, atol=0)
    if not np.all(same):
        pixel = np.argmin(same)
        raise ValueError(
            f"shard {path!r} has another wavelength grid, {len(wave):,} pixels and pixel {pixel} at {wave[pixel]:.4f}, "
            f"than {first_path!r}, {len(first_wave):,} pixels and pixel {pixel} at {first_wave[pixel]:.4f}: all shards "
            "must have the same pixels. Open it alone, or resample it to the same wave."
        )
