"""What the experts read of a row: the columns, their errors, the projection, the signal-to-noise ratio."""

import numbers
from functools import partial

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.frozen import FrozenEstimator

from dualgate._components import realise
from dualgate._validation import (
    check_choice,
    check_number,
    owner_name,
    require_positive_errors,
    resolve_columns,
    take_columns,
)
from dualgate.experts.noise import require_known_noise
from dualgate.experts.regimes import check_edges, count_cells, draw_folds, equal_edges, regime_codes
from dualgate.experts.sharing import SHARING
from dualgate.features import NoiseWhitenedPCA, WienerScores, signal_to_noise
from dualgate.features.whitened import find_error_columns
from dualgate.rows import map_blocks

PROJECTIONS = {"whitened": NoiseWhitenedPCA, "wiener": partial(WienerScores, supervised=True)}
AUTO_BINS = 4  # quality bins of ``quality_edges="auto"``


class ReadsRows:
    """The reading half of `HierarchicalExperts`; the other half fits and predicts."""

    def _prepare(self, X, rows):
        """Check the parameters and find the columns."""
        check_choice(self, "sharing", self.sharing, SHARING)
        self.n_features_in_ = rows.shape[1]
        self.columns_ = resolve_columns(self, "columns", self.columns, X, rows.shape[1])
        self._error_columns = None
        if self.error_columns is not None:
            self._error_columns = find_error_columns(self, X, self.columns_)
        self.projection_ = self._make_projection()
        self._check_bins()

    def _read_like(self, other):
        """Take columns and projection of other experts; bins are this one's own."""
        check_choice(self, "sharing", self.sharing, SHARING)
        for name in ("columns_", "_error_columns", "projection_", "_noise", "n_features_in_"):
            setattr(self, name, getattr(other, name))
        self._check_bins()

    def _check_bins(self):
        require_known_noise(self)
        self._finds_edges = isinstance(self.quality_edges, str)
        if self._finds_edges:
            check_choice(self, "quality_edges", self.quality_edges, ["auto"])
        if self.quality_edges is None or self._finds_edges:
            self.quality_edges_ = np.empty(0)
        else:
            self.quality_edges_ = check_edges(self, "quality_edges", self.quality_edges)
        if self.quality_edges is not None and self.error_columns is None:
            raise ValueError(
                f"HierarchicalExperts.quality_edges={self.quality_edges!r} needs error_columns, which is None: "
                "name the columns of X that hold the errors, or set quality_edges=None."
            )
        self.n_quality_bins_ = AUTO_BINS if self._finds_edges else len(self.quality_edges_) + 1
        self._regime_edges = self.regime_edges

    def _find_edges(self, ratios):
        """Find the edges of the bins from the rows, where that is asked for."""
        if self._finds_edges:
            self.quality_edges_ = equal_edges(ratios, AUTO_BINS)
            self.n_quality_bins_ = len(self.quality_edges_) + 1

    def _sort(self, codes, n_regimes, ratios):
        """Put every row into its cell, and draw its fold."""
        self._find_edges(ratios)
        self.n_regimes_, self.n_experts_ = n_regimes, n_regimes * self.n_quality_bins_
        cells = self._cells(codes, ratios)
        self.cell_counts_ = count_cells(self, cells, n_regimes, self.n_quality_bins_)
        folds = draw_folds(self, cells)
        self.n_folds_ = int(folds.max()) + 1
        return cells, folds

    def _cells(self, codes, ratios):
        """Cell of every row, by its regime and its signal-to-noise ratio."""
        return codes * self.n_quality_bins_ + self._bins(ratios, len(codes))

    def cells_of(self, regimes, ratios, n_rows):
        """Cell of rows whose `regimes` are known, as codes or conditions, at these signal-to-noise ratios."""
        codes, n_regimes = regime_codes(self, regimes, self._regime_edges, n_rows, n_known=self.n_regimes_)
        if n_regimes > self.n_regimes_:
            raise ValueError(
                f"{owner_name(self)}.predict: regimes holds the code {codes.max()}, the experts know regimes 0 to "
                f"{self.n_regimes_ - 1}: fit with rows of that regime, or leave regimes=None."
            )
        return self._cells(codes, ratios)

    def _split(self, block, first_row=0):
        """Flux and checked errors (None where there are none) of a block of rows."""
        block = _as_floats(block)
        if self._error_columns is None:
            return take_columns(block, self.columns_), None
        error = take_columns(block, self._error_columns)
        require_positive_errors(self, error, self._error_columns, first_row=first_row)
        return take_columns(block, self.columns_), error

    def _ratio(self, flux, error):
        return None if error is None or self.n_quality_bins_ == 1 else signal_to_noise(flux, error)

    def _ratios(self, rows):
        """Signal-to-noise ratio of every row, block by block."""
        if self.n_quality_bins_ == 1:
            return None
        return map_blocks(self, lambda first, block: self._ratio(*self._split(block, first)), rows)

    def _bins(self, ratios, n_rows):
        if self.n_quality_bins_ == 1:
            return np.zeros(n_rows, dtype=np.intp)
        return np.digitize(ratios, self.quality_edges_, right=True)

    def _make_projection(self):
        check_number(self, "n_components", self.n_components, kind=numbers.Integral, low=1)
        if self.projection is None:
            return None
        if isinstance(self.projection, str):
            check_choice(self, "projection", self.projection, PROJECTIONS)
            width, paired = len(self.columns_), self._error_columns is not None
            error_columns = slice(width, 2 * width) if paired else None
            projection = PROJECTIONS[self.projection](self.n_components)
            return projection.set_params(columns=slice(0, width), error_columns=error_columns)
        made = realise(self, "projection", self.projection, default=None, base=(TransformerMixin, FrozenEstimator))
        self._check_pairing(made)
        if isinstance(made, WienerScores) and made.n_jobs is None:
            made.set_params(n_jobs=self.n_jobs)
        return made

    def _check_pairing(self, projection):
        """Raise a ValueError where a projection that reads errors would not get them where it looks."""
        inner = projection.estimator if isinstance(projection, FrozenEstimator) else projection
        if not isinstance(inner, (NoiseWhitenedPCA, WienerScores)) or inner.error_columns is None:
            return
        if self._error_columns is None:
            raise ValueError(
                f"{owner_name(self)}.projection={inner!r} needs error_columns, which is None: name the columns of X "
                "that hold the errors."
            )
        width, fitted = len(self.columns_), vars(inner)
        if "columns_" in fitted:
            found = np.r_[fitted["columns_"], fitted["_error_columns"]]
            if fitted["n_features_in_"] != 2 * width or np.any(found != np.arange(2 * width)):
                raise ValueError(
                    f"{owner_name(self)}.projection was fitted to {fitted['n_features_in_']:,} columns: it is given "
                    f"[flux | error], {width:,} + {width:,} columns in the order of columns and error_columns. Fit it "
                    f"to these columns alone, with columns=slice(0, {width}), error_columns=slice({width}, None)."
                )

    def _projection_input(self, rows):
        """Select the columns; for the whitened projection, their errors beside them."""
        columns = self.columns_
        inner = self._unfrozen()
        if isinstance(inner, (NoiseWhitenedPCA, WienerScores)) and inner.error_columns is not None:
            columns = np.r_[self.columns_, self._error_columns]
        return take_columns(_as_floats(rows), columns)

    def _unfrozen(self):
        """Return the projection itself, out of the wrapper that keeps it as it is."""
        return self.projection_.estimator if isinstance(self.projection_, FrozenEstimator) else self.projection_

    def _weigh(self, block):
        """Weights and weighted deviations of pixels, for the fit of Wiener scores; see `WienerScores.read`."""
        return self.projection_.read(self._projection_input(block))

    def _reduce(self, block, training_row=None):
        """Projected columns of some rows, and posterior variances where the projection knows them, by name.

        Parameters
        ----------
        block : ndarray or DataFrame
        training_row : None or int
            Number of the first row among those of the fit, for projections that have a way of their own for rows they
            learned from.
        """
        inner = self._unfrozen()
        if not isinstance(inner, WienerScores):
            return {"projected": self._project(block)}
        rows = self._projection_input(block)
        own = training_row is not None and inner is self.projection_
        projected, variances = inner.project_training(rows, training_row) if own else inner.project(rows)
        return {"projected": projected, "variances": variances}

    def _project(self, block):
        if self.projection_ is None:
            return take_columns(_as_floats(block), self.columns_)
        if isinstance(self._unfrozen(), WienerScores):
            return self._reduce(block)["projected"]
        projected = np.asarray(self.projection_.transform(self._projection_input(block)))
        if projected.ndim != 2 or projected.dtype.kind != "f":
            raise ValueError(
                f"HierarchicalExperts.projection={self.projection!r} returned an array of shape {projected.shape} and "
                f"dtype {projected.dtype}: it must return floats of shape (n_samples, n_projected)."
            )
        return projected


def _as_floats(rows):
    """Rows as an array of float32 or float64; a frame may hold integers, or halves."""
    array = np.asarray(rows)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
