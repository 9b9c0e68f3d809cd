"""Features that are computed from a row alone."""

from abc import ABC, abstractmethod

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dualgate._validation import check_rows


class FixedFeatures(TransformerMixin, BaseEstimator, ABC):
    """Base class of transformers with features that are computed from a row alone, named by `names_`.

    What was not measured is NaN or infinite in a row.
    """

    _prefix = ""  # of the names in `get_feature_names_out`

    @abstractmethod
    def _prepare(self, X):
        """Check the parameters for rows like these, which were validated, and return the names of the features."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @abstractmethod
    def _compute(self, X):
        """Compute the features (n_samples, n_out) of rows that were validated."""

    def fit(self, X, y=None):
        """Check the parameters against the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
        y : None, default=None
            Ignored.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If a parameter is out of range or does not suit the rows.
        """
        self.names_ = self._prepare(check_rows(self, X, reset=True))
        return self

    def transform(self, X):
        """Compute the features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)

        Returns
        -------
        features : ndarray of shape (n_samples, n_out), float64
            In the order of `names_`.
        """
        check_is_fitted(self, "names_")
        return self._compute(check_rows(self, X, reset=False))

    def get_feature_names_out(self, input_features=None):
        """Names of the features.

        Parameters
        ----------
        input_features : ignored, default=None

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self, "names_")
        return np.array([self._prefix + name for name in self.names_], dtype=object)
