"""Rows after reading: the few numbers of every row that gates and experts work with, and who reads them."""

from dataclasses import dataclass

import numpy as np

from dualgate.checkpoint import Checkpoint
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

    def fit(self, X, rows, sample, checkpoint=None, along=(), target=(None, None)):
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
        target : tuple (y, codes)
            Targets and regimes, or None, for a supervised projection.

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
            self.experts, rows, sample, checkpoint or Checkpoint(None), self.n_jobs, along, target
        )
        return ratios, origin, along

    def read(self, X, *, training=False):
        """Read all rows of `X` once.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
        training : bool
            Whether these are the rows of `fit`, in their order.

        Returns
        -------
        reduced : ReducedRows
            About half a kilobyte for a row of a spectrum; what takes it in the place of `X` reads nothing again.
        """
        rows = check_rows_or_source(self.experts, X, reset=False)
        rows = X if hasattr(X, "columns") else rows
        with checked_once(rows):
            reading = Collect(self.reduce, n_jobs=self.n_jobs, numbered=training)
            (reading,) = run_passes(self, [reading], rows, n_jobs=self.n_jobs)
        columns = reading.pieces.joined()
        beside = {name: columns.pop(name, None) for name in ("projected", "snr", "variances", "noise_power")}
        return ReducedRows(self, features=columns, **beside)

    def reduce(self, block, training_row=None):
        """Features of each gate, projected columns, and what is known of their quality, of some rows."""
        columns = {name: gate.transform(block) for name, gate in self.gates.items()}
        flux, error = self.experts._split(block)
        reduced = self.experts._reduce(block, training_row)
        columns |= {name: np.array(values) for name, values in reduced.items()}  # no view: the block is overwritten
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
        What each gate makes of its columns, under "phys" and "quality".
    variances : ndarray of shape (n_samples, n_projected) or None
        Posterior variances of the projected columns; None where the projection knows none.
    noise_power : ndarray of shape (n_samples,) or None
        In units of the projection's typical noise; None without errors, or with a projection that does not know it.
    """

    reader: RowReader
    projected: np.ndarray
    snr: np.ndarray | None
    features: dict
    variances: np.ndarray | None = None
    noise_power: np.ndarray | None = None

    def __len__(self):
        return len(self.projected)

    def __getitem__(self, rows):
        features = {name: values[rows] for name, values in self.features.items()}
        beside = (self.projected, self.snr, self.variances, self.noise_power)
        projected, snr, variances, power = (None if values is None else values[rows] for values in beside)
        return ReducedRows(self.reader, projected, snr, features, variances, power)
