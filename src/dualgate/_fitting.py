"""What the mixture's fit is made of: parameter checks, a cache for its costly parts, regimes of its own."""

import numbers

import joblib
import numpy as np
import sklearn
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_memory

import dualgate
from dualgate._validation import check_choice, check_number, resolve_columns

MIN_ROWS_PER_REGIME = 20  # regimes that the mixture finds itself are no smaller on average
LOSSES = ("mse", "cross_entropy")


def check_parameters(model):
    """Check the constructor arguments of a `DualTowerMoERegressor` that are not components."""
    if model.phys_gate == "drop" and model.quality_gate == "drop":
        raise ValueError(
            "DualTowerMoERegressor.phys_gate='drop' and quality_gate='drop' leave no tower: keep at least one."
        )
    check_choice(model, "loss", model.loss, LOSSES)
    check_routing(model)
    for name, low in {"n_regimes": 1, "max_epochs": 1, "warmup_epochs": 0, "patience": 1}.items():
        check_number(model, name, getattr(model, name), kind=numbers.Integral, low=low)
    if model.batch_size is not None:
        check_number(model, "batch_size", model.batch_size, kind=numbers.Integral, low=1)
    check_number(model, "lr", model.lr, low=0, strict=True)
    check_number(model, "validation_fraction", model.validation_fraction, low=0, high=0.5)


def check_routing(model):
    """Check the arguments that act at prediction, and may have been set after `fit`."""
    if model.routing not in ("soft", "hard"):
        hint = "use 'soft', 'hard', or how many experts to keep."
        check_number(model, "routing", model.routing, kind=numbers.Integral, low=1, hint=hint)
    if model.fallback_confidence is not None:
        check_number(model, "fallback_confidence", model.fallback_confidence, low=0, high=1)


def find_regimes(features, n_regimes, seed):
    """Cluster a gate's features into at most `n_regimes` regimes, as many as rows and distinct features allow."""
    scaled = np.arcsinh(StandardScaler().fit_transform(features))
    n_found = min(n_regimes, max(1, len(scaled) // MIN_ROWS_PER_REGIME), len(np.unique(scaled, axis=0)))
    return KMeans(n_found, n_init=3, random_state=seed).fit_predict(scaled)


class Cache:
    """Call functions through joblib's Memory; the rows are hashed once, not once per call."""

    def __init__(self, memory, rows, y, regimes):
        self.memory = None if memory is None else check_memory(memory)
        self.key = None
        if self.memory is not None:
            names = [str(name) for name in getattr(rows, "columns", [])]
            versions = dualgate.__version__, sklearn.__version__
            self.key = joblib.hash((np.asarray(rows), names, y, regimes, versions), hash_name="sha1")  # outruns md5

    def __call__(self, function, component, rows, y, *extra):
        """Return ``function(component, rows, y, key, *extra)``, from the cache where it is known."""
        if self.memory is None:
            return function(component, rows, y, None, *extra)
        for name, spec in component.get_params(deep=False).items():
            if name.endswith("columns") and callable(spec):  # what it selects is known by its result, not its name
                component.set_params(**{name: resolve_columns(component, name, spec, rows, rows.shape[1]).tolist()})
        return self.memory.cache(function, ignore=["rows", "y"])(component, rows, y, self.key, *extra)


def fit_gate(gate, rows, y, key):
    """Fit a gate and compute its features; `key` stands for the rows in the cache."""
    return gate, gate.fit(rows, y).transform(rows)


def fit_experts(experts, rows, y, key, regimes, cross_fit):
    """Fit the experts and predict the training rows; `key` stands for the rows in the cache."""
    if cross_fit:
        return experts, experts.fit_predict_each(rows, y, regimes=regimes)
    return experts, experts.fit(rows, y, regimes=regimes).predict_each(rows)
