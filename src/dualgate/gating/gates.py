"""Gates: the columns that a tower reads, the features it computes from them, the network that weighs these."""

import numbers
from abc import ABC, abstractmethod
from copy import copy
from functools import partial

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from dualgate._components import realise
from dualgate._validation import allows_nan, check_number, check_rows, resolve_columns, take_columns
from dualgate.features import QualityStatistics, SignalPCA
from dualgate.gating.networks import NETWORKS

MAX_PLAIN_FEATURES = 20  # a physics gate without features of its own reduces more columns than this
LEADING = 5  # components of such a gate beside discriminants


class _Gate(TransformerMixin, BaseEstimator, ABC):
    """Columns, features and the network of a tower; the mixture trains the network."""

    def __init__(self, columns=None, features=None, hidden=(32, 16), network="mlp"):
        self.columns = columns
        self.features = features
        self.hidden = hidden
        self.network = network

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = allows_nan(self.features)
        return tags

    @abstractmethod
    def _default_features(self, n_samples, n_columns):
        """Make the transformer for `features=None`."""

    @abstractmethod
    def tower_features(self, features, discriminants, variances):
        """Append estimates from the projected columns to the gate's features (n_samples, n_gate_features).

        ``discriminants()`` returns (n_samples, n_discriminants), `variances` is (n_samples, n_projected); each is None
        where there are none.
        """

    @abstractmethod
    def extra_feature_names(self, n_regimes, n_projected):
        """Names of what `tower_features` appends, in its order."""

    def fit(self, X, y=None):
        """Fit the features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : None, default=None
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
        return self.fit_rows(X, check_rows(self, X, reset=True))

    def fit_rows(self, X, rows):
        """Fit the features to rows that were validated; `X` is what the user gave, for the names of its columns."""
        self.check_tower()
        self.n_features_in_ = rows.shape[1]
        self.columns_ = resolve_columns(self, "columns", self.columns, X, rows.shape[1])
        selected = take_columns(rows, self.columns_)
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
        input_features : ignored, default=None

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self, "features_")
        names = getattr(self, "feature_names_in_", [f"x{column}" for column in range(self.n_features_in_)])
        return self.features_.get_feature_names_out([names[column] for column in self.columns_])

    def feature_settings(self):
        """Return what the features of a fitted gate depend on beside the rows."""
        return [type(self).__name__, self.columns_, self.features]

    def with_tower_of(self, gate):
        """Return a gate with the fitted features of this one and the tower parameters of another."""
        gate.check_tower()
        return copy(self).set_params(**{name: getattr(gate, name) for name in self.tower_parameters})

    def check_tower(self):
        """Check `network` and `hidden`, and return the latter as a tuple."""
        if not callable(self.network) and not (isinstance(self.network, str) and self.network in NETWORKS):
            raise ValueError(
                f"{type(self).__name__}.network={self.network!r} must be one of "
                f"{', '.join(map(repr, sorted(NETWORKS)))}, or a callable network(n_features, n_outputs) that returns "
                "a torch.nn.Module."
            )
        if isinstance(self.hidden, (str, numbers.Number)) or not hasattr(self.hidden, "__iter__"):
            raise ValueError(
                f"{type(self).__name__}.hidden={self.hidden!r} must be a sequence of layer widths, such as (32, 16)."
            )
        return tuple(check_number(self, "hidden", width, kind=numbers.Integral, low=1) for width in self.hidden)

    def build_network(self, n_features, n_outputs):
        """Make the module from standardised features (n_samples, n_features) to logits (n_samples, n_outputs)."""
        from dualgate.gating.nets import build_network

        hidden = self.check_tower()
        if not callable(self.network):
            return NETWORKS[self.network](n_features, n_outputs, hidden)
        return build_network(f"{type(self).__name__}.network", self.network, n_features, n_outputs)


class PhysGate(_Gate):
    """What kind of object is it? Physical features of the measurement, and the tower that reads them.

    Parameters
    ----------
    columns : column specification, default=None
        Columns the features are computed from, as in ColumnTransformer (slice, list, names, mask, callable); None is
        all columns.
    features : None, "passthrough" or transformer, default=None
        Makes the gate's features from those columns. None keeps up to twenty columns as they are and reduces more to
        principal components (:class:`~dualgate.features.SignalPCA`), five of them where there are discriminants too,
        else twenty. `DualTowerMoERegressor.for_spectra` takes :class:`~dualgate.features.LineWindows`. Pixels that were
        not measured, NaN, need a transformer that takes them, as that one does.
    hidden : sequence of int, default=(32, 16)
        Widths of the layers of a named network, of ``"cnn"`` their channels; empty is a linear gate.
    network : {"mlp", "cnn"} or callable, default="mlp"
        What weighs the features, standardised on the training rows, logarithmic beyond three standard deviations.
        ``"mlp"`` adds a linear map and a multilayer perceptron; ``"cnn"`` a linear map and one-dimensional
        convolutions over five neighbours, for features whose order means something, such as
        :class:`~dualgate.features.LinePixels`. A callable ``network(n_features, n_outputs)`` returns a new
        torch.nn.Module from features (n_samples, n_features), float32, to logits (n_samples, n_outputs); `hidden` does
        not reach it.
    discriminants : bool, default=True
        Whether the tower also reads discriminants of the columns that the experts work with, such as Wiener scores:
        ridge estimates of the target, of each regime's membership and of the target within each regime, and the
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

    tower_parameters = ("hidden", "network", "discriminants")  # what acts after the features

    def __init__(self, columns=None, features=None, hidden=(32, 16), network="mlp", discriminants=True):
        super().__init__(columns, features, hidden, network)
        self.discriminants = discriminants

    def tower_features(self, features, discriminants, variances):  # noqa: D102
        if not self.discriminants:
            return features
        if discriminants is None:
            raise ValueError(
                "PhysGate.discriminants=True, but the experts work with too many columns for them: give the experts a "
                "projection such as 'whitened' or 'wiener', or set discriminants to False."
            )
        return np.hstack([features, discriminants()])

    def extra_feature_names(self, n_regimes, n_projected):  # noqa: D102
        kinds = ("regime", "y_in_regime", "log_probability")
        return ["y", *(f"{kind}_{k}" for kind in kinds for k in range(n_regimes))] if self.discriminants else []

    def _default_features(self, n_samples, n_columns):
        if n_columns <= MAX_PLAIN_FEATURES:
            return FunctionTransformer(feature_names_out="one-to-one")
        return SignalPCA(LEADING if self.discriminants else MAX_PLAIN_FEATURES)


class QualityGate(_Gate):
    """How well was it measured? Statistics of the errors, and the tower that reads them.

    Parameters
    ----------
    columns : column specification, default=None
        Columns that hold the errors, as in ColumnTransformer; None is all columns.
    features : None, "passthrough" or transformer, default=None
        Makes the gate's features from those columns. None is :class:`~dualgate.features.QualityStatistics`, of the
        errors that are finite;
        ``"passthrough"`` takes the columns as they are, for a noise level that is a column of its own.
    hidden : sequence of int, default=(32, 16)
        Widths of the layers of a named network, of ``"cnn"`` their channels; empty is a linear gate.
    network : {"mlp", "cnn"} or callable, default="mlp"
        What weighs the features, standardised on the training rows, logarithmic beyond three standard deviations.
        ``"mlp"`` adds a linear map and a multilayer perceptron; ``"cnn"`` a linear map and one-dimensional
        convolutions over five neighbours, for features whose order means something. A callable
        ``network(n_features, n_outputs)`` returns a new torch.nn.Module from features (n_samples, n_features),
        float32, to logits (n_samples, n_outputs); `hidden` does not reach it.
    score_variances : bool, default=False
        Whether the tower also reads how precisely the experts' columns are known: the logarithms of the posterior
        variances of Wiener scores.

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

    tower_parameters = ("hidden", "network", "score_variances")  # what acts after the features

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.features is None or allows_nan(self.features)
        return tags

    def __init__(self, columns=None, features=None, hidden=(32, 16), network="mlp", score_variances=False):
        super().__init__(columns, features, hidden, network)
        self.score_variances = score_variances

    def tower_features(self, features, discriminants, variances):  # noqa: D102
        if not self.score_variances:
            return features
        if variances is None:
            raise ValueError(
                "QualityGate.score_variances=True, but the projection of the experts has no posterior variances: set "
                "it to 'wiener' or to WienerScores, or score_variances to False."
            )
        return np.hstack([features, np.log(variances)])

    def extra_feature_names(self, n_regimes, n_projected):  # noqa: D102
        return [f"log_variance_{i}" for i in range(n_projected)] if self.score_variances else []

    def _default_features(self, n_samples, n_columns):
        return QualityStatistics()
