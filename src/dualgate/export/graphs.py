"""Fitted mixtures as torch modules and ONNX graphs, from rows of X to mean and standard deviation."""

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from dualgate._validation import find_error_columns
from dualgate.experts import FactorExperts
from dualgate.features import LineWindows, NoiseWhitenedPCA, QualityStatistics, SignalPCA, WienerScores
from dualgate.mixture import DualTowerMoERegressor

NAMES = ("X", "mean", "std")  # of the input and the outputs of a graph


def to_torch(model):
    """Make a torch module that predicts what a fitted mixture predicts.

    Parameters
    ----------
    model : DualTowerMoERegressor or FactorExperts
        Fitted to one target. Experts are a factor mixture on Wiener scores, or ridges on Wiener scores, on whitened
        or other principal components or on the columns themselves; gates have ``"passthrough"`` features,
        :class:`~dualgate.features.QualityStatistics` or :class:`~dualgate.features.LineWindows`, and any network and
        fusion. Not supported are nuisances (`velocity`, `robust` and `continuum` of `for_spectra`: set ``robust=False``
        for a factor mixture), estimated noise, hard or top-k `routing`, and `fallback_confidence`.

    Returns
    -------
    module : torch.nn.Module
        From X (n_samples, n_features), float32 or float64, to mean and standard deviation (n_samples,), float64, in
        evaluation mode. They agree with ``predict(X, return_std=True)`` to 1e-5 of the scatter of y. A factor mixture
        without towers takes pixels that are NaN, other mixtures do not. Nothing is checked or warned of: errors must be
        above zero and in the unit of the training rows.

    Raises
    ------
    ValueError
        If the model has a part that is not supported; the message names it.
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    TypeError
        If it is something else.
    """
    if not isinstance(model, (DualTowerMoERegressor, FactorExperts)):
        raise TypeError(
            f"to_torch: {type(model).__name__} must be a DualTowerMoERegressor or FactorExperts, whose prediction has "
            "a standard deviation."
        )
    check_is_fitted(model)
    from dualgate.export.modules import MixtureModule

    return MixtureModule(_parts(model)).eval()


def export_onnx(model, path):
    """Write a fitted mixture as an ONNX graph, which other languages and devices run without dualgate.

    The input ``X`` (n_samples, n_features) and the outputs ``mean`` and ``std`` (n_samples,) are float64; n_samples is
    free. Needs the package onnx (extra ``onnx``). Networks ``"cnn"`` can be written only where the number of features
    is one that ONNX can average over equal stretches; torch says so where it is not.

    Parameters
    ----------
    model : DualTowerMoERegressor or FactorExperts
        As in :func:`to_torch`.
    path : str or Path

    Raises
    ------
    ValueError, TypeError, sklearn.exceptions.NotFittedError
        As :func:`to_torch`.
    """
    module = to_torch(model)
    from dualgate.export.modules import write_onnx

    write_onnx(module, model.n_features_in_, path, NAMES)


def _parts(model):
    """Parts of a mixture that a module computes with, as plain arrays; raises where one is not supported."""
    mixture = model if isinstance(model, DualTowerMoERegressor) else None
    experts, reduction = getattr(model, "experts_", model), model.reduction_
    if mixture is not None and (mixture.routing != "soft" or mixture.fallback_confidence is not None):
        raise _refusal(
            f"DualTowerMoERegressor.routing={mixture.routing!r}, fallback_confidence={mixture.fallback_confidence!r}",
            "only soft routing without fall-back is supported; set_params changes both without another fit",
        )
    factor = isinstance(experts, FactorExperts)
    parts = {"factor": factor, "net": None, "gates": {}, "discriminants": None, "columns": reduction.columns_}
    parts |= _projection(experts, reduction, factor)
    if factor:
        parts |= {"mixture": experts.mixture_, "target": experts.target_}
        if experts.mixture_.shape[3] > 1:
            raise _refusal(f"{experts.mixture_.shape[3]} targets", "only one is supported")
    else:
        parts |= {"coef": experts.coef_, "intercept": experts.intercept_, "range": experts.y_range_}
        parts |= {"residual": model.expert_variances_}
    if mixture is not None and mixture.net_ is not None:
        parts |= {"net": mixture.net_, "discriminants": mixture.discriminants_}
        parts["gates"] = {name: _gate(name, gate) for name, gate in reduction.gates.items()}
    return parts


def _projection(experts, reduction, factor):
    """Places of flux and errors in X, and what projects them."""
    projection = experts.projection_
    projection = projection.estimator if isinstance(projection, FrozenEstimator) else projection
    if projection is None and not factor:
        return {"kind": "plain"}
    if getattr(projection, "nuisances", None) is not None:
        raise _refusal(
            f"WienerScores.nuisances={projection.nuisances!r:.60}",
            "velocity, continuum and pixels that are left out are searched row by row; fit with nuisances=None, "
            "for_spectra(wave, robust=False)",
        )
    paired = isinstance(projection, WienerScores) and projection.reads_errors
    if not (paired or (not factor and isinstance(projection, (NoiseWhitenedPCA, SignalPCA, WienerScores)))):
        raise _refusal(
            f"{type(experts).__name__}.projection={projection!r:.60}",
            "a factor mixture needs WienerScores with error_columns, ridges a projection of dualgate",
        )
    inputs = reduction.columns_
    if reduction.error_columns_ is not None and projection.reads_errors:
        inputs = np.r_[inputs, reduction.error_columns_]
    found = {"flux": inputs[projection.columns_], "mean": projection.mean_}
    if paired:
        rows = np.empty((0, len(inputs)))
        errors = find_error_columns(projection, projection.error_columns, rows, projection.columns_)
        found |= {"kind": "wiener", "error": inputs[errors], "noise": projection.noise_}
        return found | {"loadings": projection.loadings_ / projection.noise_[:, None]}
    return found | {"kind": "linear", "linear": projection.to_pixels(np.eye(experts.n_projected))}


def _gate(name, gate):
    """Return what computes the features of a gate."""
    features = gate.features_
    plain = isinstance(features, FunctionTransformer) and features.func is None
    if not plain and not isinstance(features, (QualityStatistics, LineWindows)):
        raise _refusal(
            f"DualTowerMoERegressor.{name}_gate.features={features!r:.60}",
            "only 'passthrough', QualityStatistics and LineWindows are supported",
        )
    reads = "discriminants" if getattr(gate, "discriminants", False) else None
    reads = "variances" if getattr(gate, "score_variances", False) else reads
    return {"columns": gate.columns_, "features": None if plain else features, "reads": reads}


def _refusal(what, why):
    return ValueError(f"to_torch: {what} cannot be part of a graph: {why}.")
