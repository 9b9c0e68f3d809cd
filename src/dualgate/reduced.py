"""Rows after reading: the few numbers of every row that gates and experts work with, and who reads them."""

from dataclasses import dataclass

import numpy as np

from dualgate.experts.noise import knows_noise, noise_power
from dualgate.experts.passes import survey
from dualgate.features import signal_to_noise
from dualgate.passes import Collect, run_passes
from dualgate.rows import check_rows_or_source, checked_once


class RowReader:
    """Fitted gates' features and the experts' projection: what turns rows of X into `ReducedRows`.

    Parameters
    ----------
    gates : dict of str to PhysGate or QualityGate
        Under "phys" and "quality"; a dropped tower is absent.
    experts : HierarchicalExperts
    n_jobs : None or int
        Threads that read and compute.
    """

    def __init__(self, gates, experts, n_jobs=None):
        self.gates, self.experts, self.n_jobs = gates, experts, n_jobs
        self.n_features_in_ = None

    def fit(self, X, rows, sample, checkpoint=None, along=()):
        """Fit the gates' features to a sample and the experts' projection to all rows, in one pass.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
            As the user gave it.
        rows : ndarray, DataFrame or RowSource
            The same, validated.
        sample : ndarray
            Some of its rows, from all over.
        checkpoint : None or Checkpoint
        along : sequence of Pass
            What else wants to see every row.

        Returns
        -------
        survey : tuple (ratios, origin, along)
            The signal-to-noise ratio of every row where bins are asked for, the mean of the sample's projected columns,
            and the passes as they are after all rows.
        """
        self.n_features_in_ = rows.shape[1]
        for gate in self.gates.values():
            if not hasattr(gate, "features_"):
                gate.fit(sample)
        self.experts._prepare(X, rows)
        ratios, self.experts.projection_, origin, along = survey(
            self.experts, rows, sample, checkpoint, self.n_jobs, along
        )
        return ratios, origin, along

    def read(self, X):
        """Read all rows of `X` once.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)

        Returns
        -------
        reduced : ReducedRows
            About half a kilobyte for a row of a spectrum; what takes it in the place of `X` reads nothing again.
        """
        rows = check_rows_or_source(self.experts, X, reset=False)
        rows = X if hasattr(X, "columns") else rows
        with checked_once(rows):
            (reading,) = run_passes(self, [Collect(self.reduce, n_jobs=self.n_jobs)], rows, n_jobs=self.n_jobs)
        columns = reading.pieces.joined()
        projected, snr, power = (columns.pop(name, None) for name in ("projected", "snr", "noise_power"))
        return ReducedRows(self, projected, snr, columns, power)

    def reduce(self, block):
        """Features of each gate, projected columns, signal-to-noise ratio and noise power of some rows."""
        columns = {name: gate.transform(block) for name, gate in self.gates.items()}
        flux, error = self.experts._split(block)
        columns["projected"] = np.array(self.experts._project(block))  # never a view: the block is overwritten
        if error is not None:
            columns["snr"] = signal_to_noise(flux, error)
        if knows_noise(self.experts):
            columns["noise_power"] = noise_power(self.experts, block)
        return columns


@dataclass(frozen=True, eq=False)
class ReducedRows:
    """Rows that were read once, for any number of fits and predictions by mixtures that read alike.

    `DualTowerMoERegressor.fit` and `trace` take them in place of X. The mixture may differ from the reader's in fusion,
    dropped towers, bins, sharing and everything about training.

    Parameters
    ----------
    reader : RowReader
    projected : ndarray of shape (n_samples, n_projected)
    snr : ndarray of shape (n_samples,) or None
        None without errors.
    features : dict of str to ndarray of shape (n_samples, n_gate_features)
        Under "phys" and "quality".
    noise_power : ndarray of shape (n_samples,) or None
        In units of the projection's typical noise; None without errors, or with a projection that does not know it.
    """

    reader: RowReader
    projected: np.ndarray
    snr: np.ndarray | None
    features: dict
    noise_power: np.ndarray | None = None

    def __len__(self):
        return len(self.projected)

    def __getitem__(self, rows):
        snr, power = (None if values is None else values[rows] for values in (self.snr, self.noise_power))
        features = {name: values[rows] for name, values in self.features.items()}
        return ReducedRows(self.reader, self.projected[rows], snr, features, power)
