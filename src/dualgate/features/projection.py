"""Projections: what reduces the pixels of a row to a few columns, and how it learns to."""

from abc import ABC

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dualgate._validation import owner_name
from dualgate.rows import FitStages, Pass, spread_rows

WHOLE_CELLS = 1 << 28  # numbers up to which a transformer is given all rows at once


class Projection(ABC):
    """What reduces the pixels of a row to a few columns: the contract with :class:`~dualgate.reduction.Reduction`.

    A projection learns in passes over the rows: ``begin`` looks at a sample, then ``next_pass`` returns a
    :class:`~dualgate.rows.Pass` (with its `update` and `merge`) for as long as there is something to sum, and
    ``end_pass`` takes what it found. `learn` runs them. A projection of one's own implements these three and `project`;
    any scikit-learn transformer is wrapped by :class:`TransformerProjection`.

    Attributes
    ----------
    reads_errors : bool
        Whether its input is [flux | error], and not flux alone.
    rows_read_ : None or ndarray of int
        Numbers of the rows that its passes read; None is all.
    common_unit : bool
        Whether its columns share a unit, so that their variances tell which of them lead.
    transformer : transformer or None
        What the user gave, fitted.
    """

    reads_errors = False
    rows_read_ = None
    common_unit = True

    @property
    def transformer(self):  # noqa: D102
        return self

    def begin(self, X, sample, n_rows, y=None, codes=None):
        """Start a fit.

        Parameters
        ----------
        X : array-like or RowSource
            For the names of its columns.
        sample : ndarray of shape (n_sampled, n_features)
            Rows spread over all.
        n_rows : int
            Number of training rows.
        y : None or ndarray of shape (n_rows,)
            Targets.
        codes : None or ndarray of int of shape (n_rows,)
            Regimes.
        """

    def next_pass(self):
        """Return the next pass over the rows, None where the fit is complete."""

    def end_pass(self, step):
        """Take in what a pass found over the rows `rows_read_`."""

    def project(self, block, rows=None):
        """Reduce a block of rows.

        Parameters
        ----------
        block : ndarray of shape (n_rows, n_features)
        rows : None or ndarray of int of shape (n_rows,)
            Numbers of these rows among the training rows, for projections that treat rows they learned from in a way
            of their own; None for other rows.

        Returns
        -------
        columns : dict of str to ndarray
            ``projected`` (n_rows, n_projected) and, where they are known, their posterior ``variances``, of the same
            shape.
        """
        raise NotImplementedError

    def information(self, block):
        """Return the information of each row on its factors.

        Parameters
        ----------
        block : ndarray of shape (n_rows, n_features)

        Returns
        -------
        A : ndarray of shape (n_rows, n_factors, n_factors)
            V' E^-1 V with the loadings V and the squared errors E of the row.
        b : ndarray of shape (n_rows, n_factors)
            V' E^-1 (x - mean).
        """
        raise TypeError(f"{owner_name(self)} has no loadings: the information of a row is not defined.")

    def noise_power(self, block):
        """Return the mean squared error of each row in units of the typical one (n_rows,)."""
        raise TypeError(f"{owner_name(self)} has no typical noise: the noise power of a row is not defined.")

    def to_pixels(self, coef):
        """Return coefficients on pixels (n_models, n_pixels) that equal `coef` on the columns, None where none do."""

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
        stages : None or FitStages
            Runs the passes and keeps what they found; None keeps nothing.
        depends : object
            What the result depends on beside rows, targets and regimes.

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

    It is fitted to all rows at once where these hold no more than `WHOLE_CELLS` numbers, else block by block if it has
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
    """Fit a transformer to one block after another."""

    def __init__(self, transformer):
        self.found = transformer

    def begin(self):  # noqa: D102
        raise ValueError(
            f"projection={self.found!r} learns from one block after another, which a cluster cannot do: fit it first "
            "and wrap it in sklearn.frozen.FrozenEstimator, or use 'whitened'."
        )

    def update(self, start, block):  # noqa: D102
        self.found.partial_fit(block)


class FrozenProjection(Projection):
    """A projection that was fitted before and stays as it is, out of a :class:`sklearn.frozen.FrozenEstimator`."""

    transformer = None

    def __init__(self, transformer):
        self.transformer = transformer
        self._inner = transformer.estimator
        check_is_fitted(self._inner)
        self.reads_errors = self._inner.reads_errors

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

    def information(self, block):  # noqa: D102
        return self._inner.information(block)

    def noise_power(self, block):  # noqa: D102
        return self._inner.noise_power(block)

    def to_pixels(self, coef):  # noqa: D102
        return self._inner.to_pixels(coef)
