"""What fitted experts answer: every expert for every row, the root, an oracle's choice, and the quality bin."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dualgate.rows import check_rows_or_source, map_blocks


class Predicts:
    """The predicting part of `HierarchicalExperts`."""

    def predict_each(self, X, *, with_root=False):
        """Prediction of every expert for every row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        with_root : bool
            Return the prediction of the root ridge too.

        Returns
        -------
        expert_predictions : ndarray of shape (n_samples, n_experts), [unit of y]
        root_prediction : ndarray of shape (n_samples,), [unit of y]
            Only if `with_root`.
        """
        check_is_fitted(self, "coef_")
        rows = check_rows_or_source(self, X, reset=False)

        each = map_blocks(self, self._predict_block, rows, n_jobs=self.n_jobs)
        return (each[:, :-1], each[:, -1]) if with_root else each[:, :-1]

    def _reduce_block(self, first_row, block):
        self._split(block, first_row)
        return self._reduce(block)

    def _predict_block(self, first_row, block):
        return self._predict_projected(self._reduce_block(first_row, block)["projected"])

    def _predict_projected(self, projected):
        """Prediction of every expert and, last, of the root, from projected columns."""
        coef = np.vstack([self.coef_, self.root_coef_])
        unit = np.abs(coef).max() or 1.0  # keeps coefficients of any unit within single precision
        product = projected @ (coef / unit).T.astype(projected.dtype)
        return self._bounded(product.astype(np.float64) * unit + np.r_[self.intercept_, self.root_intercept_])

    def _bounded(self, predictions):
        return np.clip(predictions, *self.y_range_)

    def predict(self, X, *, regimes=None):
        """Prediction by each row's own expert where its regime is known, by the root ridge where not.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        regimes : None or array-like, as in `fit`
            True regimes make this the oracle that a gate is measured against.

        Returns
        -------
        prediction : ndarray of shape (n_samples,), [unit of y]
        """
        each, root = self.predict_each(X, with_root=True)
        if regimes is None:
            return root
        rows = check_rows_or_source(self, X, reset=False)
        return each[np.arange(len(each)), self.cells_of(regimes, self._ratios(rows), len(each))]

    def quality_bins(self, X):
        """Quality bin of every row of `X`, 0 for the lowest signal-to-noise ratio.

        Returns
        -------
        bins : ndarray of int of shape (n_samples,)
        """
        check_is_fitted(self, "coef_")
        rows = check_rows_or_source(self, X, reset=False)
        return self._bins(self._ratios(rows), len(rows))
