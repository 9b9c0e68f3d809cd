"""The towers' eyes: which columns a gate reads, what features it makes of them, which network weighs them."""

import numbers
from abc import ABC, abstractmethod
from functools import partial

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.validation import check_is_fitted

from dualgate._components import realise
from dualgate._validation import check_number, check_rows, resolve_columns, take_columns
from dualgate.features import QualityStatistics
from dualgate.gating.networks import NETWORKS

MAX_PLAIN_FEATURES = 20  # a physics gate without features of its own reduces more columns than this


class _Gate(TransformerMixin, BaseEstimator, ABC):
    """Columns, features and the network of a tower; what a gate learns from the target lives in the mixture."""

    def __init__(self, columns=None, features=None, hidden=(32, 16), network="mlp"):
        self.columns = columns
        self.features = features
        self.hidden = hidden
        self.network = network

    @abstractmethod
    def _default_features(self, n_samples, n_columns):
        """Make the transformer for `features=None`."""

    @abstractmethod
    def reading(self, features, discriminants, variances):
        """Return what the tower reads: the gate's features, and beside them what the experts say of the rows.

        Parameters
        ----------
        features : ndarray of shape (n_samples, n_gate_features)
            From `transform`.
        discriminants : ndarray of shape (n_samples, n_discriminants) or None
            Of the experts' columns; None where there are too many columns.
        variances : ndarray of shape (n_samples, n_projected) or None
            Posterior variances of the projected columns; None where the projection knows none.

        Returns
        -------
        reading : ndarray of shape (n_samples, n_read)
        """

    @abstractmethod
    def reading_names(self, n_regimes, n_projected):
        """Names of what `reading` puts beside the features, in its order.

        Parameters
        ----------
        n_regimes, n_projected : int

        Returns
        -------
        names : list of str
        """

    def fit(self, X, y=None):
        """Fit the features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : None
            Ignored.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If `columns` selects nothing, `hidden` is not a sequence of widths, `features` is no transformer, or
            `network` is neither a name nor a callable.
        """
        array = check_rows(self, X, reset=True)
        self._check_tower()
        self.columns_ = resolve_columns(self, "columns", self.columns, X, array.shape[1])
        selected = take_columns(array, self.columns_)
        self.features_ = realise(
            self,
            "features",
            self.features,
            default=lambda: self._default_features(*selected.shape),
            base=TransformerMixin,
            aliases={"passthrough": partial(FunctionTransformer, feature_names_out="one-to-one")},
        ).fit(selected)  # without y, which the rows held out for early stopping must not give away
        return self

    def transform(self, X):
        """Compute the features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        features : ndarray of shape (n_samples, n_gate_features), float64
            In the features' own units; the tower standardises them.

        Raises
        ------
        ValueError
            If the features are not finite numbers, one row for each of `X`.
        """
        check_is_fitted(self, "features_")
        selected = take_columns(check_rows(self, X, reset=False), self.columns_)
        features = np.array(self.features_.transform(selected), dtype=np.float64)  # never a view of the caller's X
        if features.ndim != 2 or len(features) != len(selected) or not np.isfinite(features).all():
            raise ValueError(
                f"{type(self).__name__}.features={self.features!r} gave an array of shape {features.shape} for "
                f"{len(selected):,} rows, or values that are not finite: features must be finite numbers of shape "
                "(n_samples, n_gate_features)."
            )
        return features

    def get_feature_names_out(self, input_features=None):
        """Names of the features, as far as their transformer knows them.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self, "features_")
        names = getattr(self, "feature_names_in_", [f"x{column}" for column in range(self.n_features_in_)])
        return self.features_.get_feature_names_out([names[column] for column in self.columns_])

    def _check_tower(self):
        """Check `network` and `hidden`, and return the latter as a tuple."""
        if not callable(self.network) and not (isinstance(self.network, str) and self.network in NETWORKS):
            raise ValueError(
                f"{type(self).__name__}.network={self.network!r} must be one of "
                f"{', '.join(map(repr, sorted(NETWORKS)))}, or a callable network(n_features, n_outputs) that returns "
                "a torch.nn.Module."
            )
        return _check_hidden(self, self.hidden)

    def _build_network(self, n_features, n_outputs):
        """Make the module from standardised features (n_samples, n_features) to logits (n_samples, n_outputs)."""
        from dualgate.gating._nets import build_network

        hidden = self._check_tower()
        if not callable(self.network):
            return NETWORKS[self.network](n_features, n_outputs, hidden)
        return build_network(f"{type(self).__name__}.network", self.network, n_features, n_outputs)


class PhysGate(_Gate):
    """What kind of object is it? Physical features of the measurement, and the tower that reads them.

    Parameters
    ----------
    columns : column specification
        Columns the features are computed from, as in ColumnTransformer (slice, list, names, mask, callable); None is
        all columns.
    features : None, "passthrough" or transformer
        Makes the gate's features from those columns. None keeps up to twenty columns as they are and reduces more to
        twenty standardised principal components. For spectra, :class:`~dualgate.features.LineWindows` beside a few
        components serves well; `DualTowerMoERegressor.for_spectra` sets this up.
    hidden : sequence of int
        Widths of the layers of a named network, of ``"cnn"`` their channels; empty is a linear gate.
    network : {"mlp", "cnn"} or callable
        What weighs the features, standardised on the training rows, logarithmic beyond three standard deviations.
        ``"mlp"`` adds a linear map and a multilayer perceptron; ``"cnn"`` a linear map and one-dimensional
        convolutions over five neighbours, for features whose order means something, such as
        :class:`~dualgate.features.LinePixels`. A callable ``network(n_features, n_outputs)`` returns a new
        torch.nn.Module from features (n_samples, n_features), float32, to logits (n_samples, n_outputs); `hidden` does
        not reach it.
    scores : bool
        Whether the tower reads discriminants of what the experts read, too: ridges on their projected columns, such as
        Wiener scores, of the target, of each regime's membership and of the target within each regime, and the
        logarithm of each regime's probability if regimes are Gaussians in these memberships.

    Attributes
    ----------
    features_ : transformer
    columns_ : ndarray of int
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> PhysGate(columns=[0, 2]).fit_transform(np.arange(6.0).reshape(2, 3))
    array([[0., 2.],
           [3., 5.]])
    """

    tower_parameters = ("hidden", "network", "scores")  # what acts after the features

    def __init__(self, columns=None, features=None, hidden=(32, 16), network="mlp", scores=False):
        super().__init__(columns, features, hidden, network)
        self.scores = scores

    def reading(self, features, discriminants, variances):  # noqa: D102
        if not self.scores:
            return features
        if discriminants is None:
            raise ValueError(
                "PhysGate.scores=True, but the experts read too many columns for discriminants: give them a "
                "projection such as 'whitened' or 'wiener', or set scores to False."
            )
        return np.hstack([features, discriminants])

    def reading_names(self, n_regimes, n_projected):  # noqa: D102
        kinds = ("regime", "y_in_regime", "log_probability")
        return ["y", *(f"{kind}_{k}" for kind in kinds for k in range(n_regimes))] if self.scores else []

    def _default_features(self, n_samples, n_columns):
        if n_columns <= MAX_PLAIN_FEATURES:
            return FunctionTransformer(feature_names_out="one-to-one")
        kept = min(MAX_PLAIN_FEATURES, n_samples)
        return make_pipeline(StandardScaler(), PCA(kept, random_state=0))


class QualityGate(_Gate):
    """How well was it measured? Statistics of the errors, and the tower that reads them.

    Parameters
    ----------
    columns : column specification
        Columns that hold the errors, as in ColumnTransformer; None is all columns.
    features : None, "passthrough" or transformer
        Makes the gate's features from those columns. None is :class:`~dualgate.features.QualityStatistics`;
        ``"passthrough"`` takes the columns as they are, for a noise level that is a column of its own.
    hidden : sequence of int
        Widths of the layers of a named network, of ``"cnn"`` their channels; empty is a linear gate.
    network : {"mlp", "cnn"} or callable
        What weighs the features, standardised on the training rows, logarithmic beyond three standard deviations.
        ``"mlp"`` adds a linear map and a multilayer perceptron; ``"cnn"`` a linear map and one-dimensional
        convolutions over five neighbours, for features whose order means something. A callable
        ``network(n_features, n_outputs)`` returns a new torch.nn.Module from features (n_samples, n_features),
        float32, to logits (n_samples, n_outputs); `hidden` does not reach it.
    variances : bool
        Whether the tower reads how well the experts' columns are known, too: the logarithms of the posterior variances
        of Wiener scores.

    Attributes
    ----------
    features_ : transformer
    columns_ : ndarray of int
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> gate = QualityGate(columns=slice(2, None)).fit(np.ones((3, 6)))
    >>> gate.transform(np.ones((3, 6))).shape
    (3, 10)
    """

    tower_parameters = ("hidden", "network", "variances")  # what acts after the features

    def __init__(self, columns=None, features=None, hidden=(32, 16), network="mlp", variances=False):
        super().__init__(columns, features, hidden, network)
        self.variances = variances

    def reading(self, features, discriminants, variances):  # noqa: D102
        if not self.variances:
            return features
        if variances is None:
            raise ValueError(
                "QualityGate.variances=True, but the projection of the experts knows no posterior variances: set it to "
                "'wiener' or to WienerScores, or variances to False."
            )
        return np.hstack([features, np.log(variances)])

    def reading_names(self, n_regimes, n_projected):  # noqa: D102
        return [f"log_variance_{i}" for i in range(n_projected)] if self.variances else []

    def _default_features(self, n_samples, n_columns):
        return QualityStatistics()


def _check_hidden(owner, hidden):
    """Return `hidden` as a tuple of widths, or say what it should be."""
    if isinstance(hidden, (str, numbers.Number)) or not hasattr(hidden, "__iter__"):
        raise ValueError(
            f"{type(owner).__name__}.hidden={hidden!r} must be a sequence of layer widths, such as (32, 16)."
        )
    return tuple(check_number(owner, "hidden", width, kind=numbers.Integral, low=1) for width in hidden)
