"""Projections: they reduce the pixels of a row to a few columns, and learn from passes over the rows."""

from abc import ABC, abstractmethod

import joblib
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dualgate._validation import (
    allows_nan,
    find_error_columns,
    owner_name,
    require_positive_errors,
    resolve_columns,
    take_columns,
)
from dualgate.features.factors import STEP, information, weigh
from dualgate.features.nuisances import Kept, Nuisances, Reader
from dualgate.rows import FitStages, Pass, map_blocks, open_rows, spread_rows

LEAST_ERROR = 1e-12  # of the smallest typical error; below, the weight of a pixel exceeds the range of numbers
OFF = 3.0  # times the usual size of flux or errors that lets one think of another unit
WHOLE_CELLS = 1 << 28  # values up to which a transformer is fitted to all rows at once


class Projection(ABC):
    """Base class of projections, which reduce the pixels of a row to a few columns.

    A projection learns in passes over the rows: `begin` receives a sample, then `next_pass` returns a
    :class:`~dualgate.rows.Pass` (with its `update` and `merge`) as long as there is something to sum, and `end_pass`
    receives the pass with its sums. `learn` runs them. A custom projection implements these three and `project`; any
    scikit-learn transformer is wrapped by :class:`TransformerProjection`.

    Attributes
    ----------
    reads_errors : bool, default=False
        Whether its input is [flux | error], and not flux alone.
    rows_read_ : None or ndarray of int
        Numbers of the rows that its passes read; None is all.
    informs : bool, default=False
        Whether `information` is defined and each row has its own.
    refinable : bool, default=False
        Whether `refining_pass` returns a pass.
    common_unit : bool, default=True
        Whether its columns share a unit, so that their variances are comparable.
    transformer : transformer or None
        The user's transformer, fitted.
    """

    reads_errors = False
    rows_read_ = None
    informs = False
    refinable = False
    common_unit = True

    @property
    def transformer(self):  # noqa: D102
        return self

    def begin(self, X, sample, n_rows, y=None, codes=None):  # noqa: B027
        """Start a fit.

        Parameters
        ----------
        X : array-like or RowSource
            For the names of its columns.
        sample : ndarray of shape (n_sampled, n_features)
            Rows spread over all.
        n_rows : int
            Number of training rows.
        y : None or ndarray of shape (n_rows,), default=None
            Targets.
        codes : None or ndarray of int of shape (n_rows,), default=None
            Regimes.
        """

    def next_pass(self):
        """Return the next pass over the rows, None where the fit is complete."""
        return None

    def end_pass(self, step):  # noqa: B027
        """Receive a pass after it has read the rows `rows_read_`."""

    @abstractmethod
    def project(self, block, rows=None):
        """Reduce a block of rows.

        Parameters
        ----------
        block : ndarray of shape (n_rows, n_features)
        rows : None or ndarray of int of shape (n_rows,), default=None
            Numbers of these rows among the training rows, for projections that cross-fit; None for other rows.

        Returns
        -------
        columns : dict of str to ndarray
            ``projected`` (n_rows, n_projected) and, where they are known, their posterior ``variances``, of the same
            shape.
        """

    def information(self, block, rows=None):
        """Return the information of each row on its factors.

        With loadings V, the row's squared errors E and the identity I, the posterior of the factors has the mean
        ``solve(A + I, b)`` and the covariance ``inv(A + I)``.

        Parameters
        ----------
        block : ndarray of shape (n_rows, n_features)
        rows : None or ndarray of int of shape (n_rows,), default=None
            As in `project`.

        Returns
        -------
        information : ndarray of shape (n_rows, n_factors * (n_factors + 3) / 2)
            The lower triangle of ``A = V' E^-1 V``, row by row, then ``b = V' E^-1 (x - mean)``.

        Raises
        ------
        TypeError
            If the projection has no loadings.
        """
        raise TypeError(f"{owner_name(self)} has no loadings: the information of a row is not defined.")

    def inform(self, block, rows=None, *, at_rest=False):
        """Return what factor experts need of each row.

        Parameters
        ----------
        block, rows
            As in `information`.
        at_rest : bool, default=False
            Whether the velocity of these rows is known to be zero, as it is for training rows.

        Returns
        -------
        columns : dict of str to ndarray
            ``information``, and what :meth:`~dualgate.features.nuisances.Reader.read` finds beside it.

        Raises
        ------
        TypeError
            As `information`.
        """
        raise TypeError(f"{owner_name(self)} has no loadings: the information of a row is not defined.")

    def typical_information(self):
        """Return the lower triangle of A of a row with typical errors; raises a TypeError as `information`."""
        return self.information(np.zeros((0, 0)))

    def residual_power(self, block):
        """Compare what the factors leave of rows with their errors.

        Parameters
        ----------
        block : ndarray of shape (n_rows, n_features)

        Returns
        -------
        squares, freedom : ndarray of shape (n_pixels,)
            Squared residuals in units of the errors, summed over the rows, and what this is expected to be.
        by_row : ndarray of shape (n_rows,)
            Square root of the same ratio for every row.

        Raises
        ------
        TypeError
            If the projection reads no errors.
        """
        raise TypeError(f"{owner_name(self)} reads no errors: residuals in units of the errors are not defined.")

    def refining_pass(self, prior, information, y):
        """Return a pass over the rows `rows_read_` that learns the loadings again, under another prior of the factors.

        Parameters
        ----------
        prior : object
            ``prior.factors_of(information, y)`` returns <z> (n_rows, n_factors) and the lower triangle of <z z'>.
        information : ndarray of shape (n_read, n_factors * (n_factors + 3) / 2)
            Of those rows, by loadings that did not see them.
        y : ndarray of shape (n_read, n_targets)

        Returns
        -------
        step : Pass
            For `end_refining`, which returns ``shift`` (n_factors,) and ``turn`` (n_kept, n_factors): the factors are
            then ``turn @ (z - shift)``, without those that do not vary under the prior.

        Raises
        ------
        TypeError
            If the projection is not `refinable`.
        """
        raise TypeError(f"{owner_name(self)} has no loadings that could be learned again.")

    def describe_units(self, block):
        """Say in what unit flux or errors of odd rows seem to be, as a sentence and a space, or nothing."""
        return ""

    def noise_power(self, block):
        """Return the mean squared error of each row in units of the typical one.

        Parameters
        ----------
        block : ndarray of shape (n_rows, n_features)

        Returns
        -------
        power : ndarray of shape (n_rows,), [dimensionless]

        Raises
        ------
        TypeError
            If the projection reads no errors.
        """
        raise TypeError(f"{owner_name(self)} reads no errors: the noise power of a row is not defined.")

    def to_pixels(self, coef):
        """Return coefficients on pixels that predict what `coef` predicts from the projected columns.

        Parameters
        ----------
        coef : ndarray of shape (n_models, n_projected)

        Returns
        -------
        coefficients : None or ndarray of shape (n_models, n_pixels), [unit of y per unit of flux]
            None for a projection that is not linear.
        """
        return None

    def learn(self, X, source, y=None, codes=None, *, stages=None, depends=()):
        """Fit to all rows.

        Parameters
        ----------
        X : array-like or RowSource
            As the user gave it.
        source : RowSource
            Its rows.
        y, codes
            As in `begin`.
        stages : None or FitStages, default=None
            Runs the passes and stores their results; None stores nothing.
        depends : object, default=()
            What the result depends on in addition to rows, targets and regimes.

        Returns
        -------
        projection : Projection
            The fitted one: this object, or its copy from an earlier run.
        """
        stages = FitStages() if stages is None else stages
        projection, n_jobs, n_passes = self, getattr(self, "n_jobs", None), 0
        projection.begin(X, spread_rows(source, n_jobs=n_jobs, finite=False), len(source), y, codes)
        while (step := projection.next_pass()) is not None:
            name, n_passes = f"projection, pass {n_passes}", n_passes + 1

            def advance(projection=projection, step=step, name=name):
                rows = source if projection.rows_read_ is None else source[projection.rows_read_]
                projection.end_pass(*stages.run(name, projection, [step], rows, n_jobs=n_jobs))
                return projection

            projection = stages.stage(name, depends, advance)
        return projection


def is_off(ratio):
    """Whether a ratio is so far from one that units are the likely cause."""
    return not 1 / OFF < ratio < OFF


class PixelProjection(Projection, TransformerMixin, BaseEstimator):
    """Base class of linear projections of flux columns, with or without the error of each.

    A subclass has the parameters `columns` and `error_columns`. Its fit calls `_find_columns` and sets `mean_`,
    `noise_`, `_bases` (a list of `Factors`, the last from all rows) and finally `signal_variance_`, one per factor.
    """

    _outputs = {}  # noqa: RUF012  what `transform` returns: key of what `project` returns, and prefix of the names
    nuisances = None

    @property
    def reads_errors(self):
        """Whether `error_columns` are given."""
        return self.error_columns is not None

    informs = reads_errors

    def _find_columns(self, X, n_features):
        vars(self).pop("noise_", None)  # rows of a new fit may have another unit
        self.n_features_in_ = n_features
        self.columns_ = resolve_columns(self, "columns", self.columns, X, n_features)
        self._error_columns = None
        if self.reads_errors:
            self._error_columns = find_error_columns(self, self.error_columns, X, self.columns_)

    def _split(self, rows, first_row=0):
        """Flux, and errors or None."""
        if self._error_columns is None:
            return take_columns(rows, self.columns_), None
        error = needed = take_columns(rows, self._error_columns)
        if error.size and not error.min() > 0:
            if allows_nan(self):
                flux = take_columns(rows, self.columns_)
                needed = np.where(np.isfinite(flux) & ~np.isnan(error), error, np.inf)
            require_positive_errors(self, needed, self._error_columns, first_row=first_row)
        if error.size and hasattr(self, "noise_") and needed.min() < LEAST_ERROR * self.noise_.min():
            row = int(np.flatnonzero((needed < LEAST_ERROR * self.noise_.min()).any(axis=1))[0])
            raise ValueError(
                f"{owner_name(self)}: row {first_row + row} of X has an error of {needed[row].min():.3g}, those of "
                f"the training rows are about {np.median(self.noise_):.3g}: give flux and errors in their unit."
            )
        return take_columns(rows, self.columns_), error

    def read(self, block, first_row=0, out=None):
        """Weights and weighted deviations of a block of rows; see :func:`~dualgate.features.factors.weigh`."""
        return weigh(*self._split(block, first_row), self.mean_, self.noise_, out)

    def information(self, block, rows=None):  # noqa: D102
        def found(weights, weighted, factors):
            folded, moment = information(weights, weighted, factors)
            if self.nuisances is not None and self.nuisances.robust:
                kept = Kept(weights, weighted, factors, folded, moment)
                folded, moment = kept.folded, kept.moment
            return [np.hstack([folded, moment])]

        return self._by_basis(block, rows, found, dtype=block.dtype)[0]

    def inform(self, block, rows=None, *, at_rest=False, first_row=0):  # noqa: D102
        nuisances = Nuisances() if self.nuisances is None else self.nuisances
        names, at_rest, settings = [], at_rest or rows is not None, joblib.hash(nuisances)

        def found(weights, weighted, factors):
            columns = self._reader(nuisances, factors, settings).read(weights, weighted, at_rest=at_rest)
            names[:] = columns
            return list(columns.values())

        joined = self._by_basis(block, rows, found, first_row)
        return dict(zip(names, joined, strict=True))

    def _reader(self, nuisances, factors, settings):
        """Return what reads rows with these factors; it is made once for its `settings`, a key of the nuisances."""
        return factors.made(settings, lambda: Reader(nuisances, factors, self.mean_, self.noise_))

    def typical_information(self):  # noqa: D102
        loadings = self._bases[-1].free
        return (loadings.T @ loadings)[np.tril_indices(loadings.shape[1])]

    def _by_basis(self, block, rows, function, first_row=0, *, dtype=None):
        """Join ``function(weights, weighted, factors)``, a list of arrays, with the loadings that did not see a row."""
        folds = np.full(len(block), -1) if rows is None else self._folds_of(rows)
        n_pixels, joined = len(self.columns_), None
        scratch = np.empty((2, min(STEP, len(block)), n_pixels), block.dtype)  # new memory for each step costs much
        for start in range(0, max(len(block), 1), STEP):
            some = block[start : start + STEP]
            weights, weighted = self.read(some, first_row + start, scratch[:, : len(some)])
            present = folds[start : start + STEP]
            for fold in np.unique(present) if len(block) else [-1]:
                here = present == fold
                own = (weights, weighted) if here.all() else (weights[here], weighted[here])
                found = function(*own, self._bases[fold])
                if joined is None:
                    joined = [np.empty((len(block), *values.shape[1:]), dtype or values.dtype) for values in found]
                for values, part in zip(joined, found, strict=True):
                    values[start + np.flatnonzero(here)] = part
        return joined

    def _folds_of(self, rows):
        """Return the number of the basis of training rows by their numbers; -1 is that of all rows."""
        return np.full(len(rows), -1)

    def residual_power(self, block):  # noqa: D102
        factors = self._bases[-1]
        reader = self._reader(Nuisances(robust=True), factors, "robust")
        squares, freedom, by_row = np.zeros(len(factors.shift)), np.zeros(len(factors.shift)), []
        for start in range(0, len(block), STEP):
            found = reader.residual_power(*self.read(block[start : start + STEP], start))
            squares += found[0]
            freedom += found[1]
            by_row.append(found[2])
        return squares, freedom, np.concatenate(by_row)

    def describe_units(self, block):  # noqa: D102
        flux, error = self._split(block)
        with np.errstate(all="ignore"):
            level = np.nanmedian(np.abs(flux)) / np.median(np.abs(self.mean_))
            if error is None:
                return f"Their flux is about {level:.2g} times that of the training rows. " if is_off(level) else ""
            known = np.isfinite(error)
            size = {"errors": error, "inverse": 1 / np.sqrt(error), "variances": np.sqrt(error)}
            size = {kind: np.median((values / self.noise_)[known]) for kind, values in size.items()}
        if is_off(level) and not is_off(size["errors"] / level):
            return f"Flux and errors are about {level:.2g} times those of the training rows: give them in one unit. "
        if not is_off(level) and is_off(size["errors"]):
            for kind, name, cure in (("inverse", "inverse variances", "1 / sqrt(ivar)"),
                                     ("variances", "variances", "sqrt(variance)")):  # fmt: skip
                if not is_off(size[kind]):
                    return f"Their error columns look like {name}: give the errors, {cure}. "
            return f"Their errors are about {size['errors']:.2g} times those of the training rows. "
        return f"Their flux is about {level:.2g} times that of the training rows. " if is_off(level) else ""

    def noise_power(self, block):  # noqa: D102
        error = self._split(block)[1]
        if error is None:
            return super().noise_power(block)
        ratio = error / self.noise_.astype(error.dtype)
        return np.einsum("ij,ij->i", ratio, ratio, dtype=np.float64) / ratio.shape[1]

    def transform(self, X):
        """Find the scores of rows.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)

        Returns
        -------
        scores : ndarray of shape (n_samples, n_out), of the precision of `X`
            One column for each of `get_feature_names_out`.
        """
        return self._project_all(X)

    def _project_all(self, X, *, training=False):
        check_is_fitted(self, "signal_variance_")

        def run(first, block):
            columns = self._outputs_of(block, first + np.arange(len(block)) if training else None, first)
            return np.hstack([columns[name] for name in self._outputs])

        return map_blocks(self, run, open_rows(self, X, reset=False), n_jobs=getattr(self, "n_jobs", None))

    def _outputs_of(self, block, rows, first_row):
        """Return what `project` returns, as far as `transform` needs it."""
        return self.project(block, rows, first_row)

    def get_feature_names_out(self, input_features=None):
        """Names of the columns that `transform` returns.

        Parameters
        ----------
        input_features : ignored, default=None

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self, "signal_variance_")
        n_factors = len(self.signal_variance_)
        return np.array([f"{name}_{i}" for name in self._outputs.values() for i in range(n_factors)], dtype=object)


class PlainColumns(Projection):
    """No projection: the columns as they are."""

    common_unit = False
    transformer = None

    def project(self, block, rows=None):  # noqa: D102
        return {"projected": block}

    def to_pixels(self, coef):  # noqa: D102
        return np.asarray(coef)


class TransformerProjection(Projection):
    """Any scikit-learn transformer.

    It is fitted to all rows at once if these hold at most `WHOLE_CELLS` values, else block by block if it has
    `partial_fit`, else to a sample.

    Parameters
    ----------
    transformer : transformer
        It receives flux columns alone, and never y.
    """

    transformer = None

    def __init__(self, transformer):
        self.transformer = transformer

    def learn(self, X, source, y=None, codes=None, *, stages=None, depends=()):  # noqa: D102
        stages = FitStages() if stages is None else stages
        return stages.stage("projection", depends, lambda: self._fitted(source, stages))

    def _fitted(self, source, stages):
        if source.shape[0] * source.shape[1] <= WHOLE_CELLS:
            self.transformer.fit(source.read(0, len(source)), None)
        elif hasattr(self.transformer, "partial_fit"):
            (step,) = stages.run("projection", self, [PartialFit(self.transformer)], source)
            self.transformer = step.found
        else:
            self.transformer.fit(spread_rows(source), None)
        return self

    def project(self, block, rows=None):  # noqa: D102
        projected = np.asarray(self.transformer.transform(block))
        if projected.ndim != 2 or projected.dtype.kind != "f" or len(projected) != len(block):
            raise ValueError(
                f"projection={self.transformer!r} returned an array of shape {projected.shape} and dtype "
                f"{projected.dtype} for {len(block):,} rows: it must return floats of shape (n_samples, n_projected)."
            )
        return {"projected": projected}


class PartialFit(Pass):
    """Fit a transformer block by block."""

    def __init__(self, transformer):
        self.found = transformer

    def begin(self):  # noqa: D102
        raise ValueError(
            f"projection={self.found!r} learns block by block with partial_fit, which a cluster cannot run: fit it "
            "first and wrap it in sklearn.frozen.FrozenEstimator, or use 'whitened'."
        )

    def update(self, start, block):  # noqa: D102
        self.found.partial_fit(block)


class FrozenProjection(Projection):
    """A projection that was fitted before and stays as it is, from a :class:`sklearn.frozen.FrozenEstimator`."""

    transformer = None

    def __init__(self, transformer):
        self.transformer = transformer
        self._inner = transformer.estimator
        check_is_fitted(self._inner)
        self.reads_errors, self.informs = self._inner.reads_errors, self._inner.informs

    def learn(self, X, source, y=None, codes=None, *, stages=None, depends=()):  # noqa: D102
        if source.shape[1] != self._inner.n_features_in_:
            raise ValueError(
                f"projection was fitted to {self._inner.n_features_in_:,} columns and is given {source.shape[1]:,}: it "
                "reads the columns named by columns, followed by those named by error_columns if it reads errors. Fit "
                "it to these columns alone, [flux | error] in this order."
            )
        return self

    def project(self, block, rows=None):  # noqa: D102
        return self._inner.project(block)

    def information(self, block, rows=None):  # noqa: D102
        return self._inner.information(block)

    def inform(self, block, rows=None, *, at_rest=False):  # noqa: D102
        return self._inner.inform(block, at_rest=at_rest or rows is not None)

    def typical_information(self):  # noqa: D102
        return self._inner.typical_information()

    def residual_power(self, block):  # noqa: D102
        return self._inner.residual_power(block)

    def describe_units(self, block):  # noqa: D102
        return self._inner.describe_units(block)

    def noise_power(self, block):  # noqa: D102
        return self._inner.noise_power(block)

    def to_pixels(self, coef):  # noqa: D102
        return self._inner.to_pixels(coef)
