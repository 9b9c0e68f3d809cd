"""Train every method of the roster on every seed and keep what the analysis needs."""

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics import r2_score

from dualgate.evaluation import gate_entropy, tower_correlation
from dualgate.study.roster import GLOBAL, ORACLES, gated_methods

TRAIN, VALIDATION = 0.8, 0.1  # shares of the rows; the rest is the test part


@dataclass
class SeedRecord:
    """One seed's test targets and predictions: everything that outlives its spectra.

    Parameters
    ----------
    seed : int
        Seed of the rows, the split and the models.
    n_train, n_validation : int
        Rows the models saw, and rows that chose among them.
    y : ndarray of shape (n_test,), [unit of y]
        Test targets.
    snr : ndarray of shape (n_test,), [dimensionless]
        Signal-to-noise ratio of the test rows.
    regimes : ndarray of int, shape (n_test,)
        Regime of the test rows.
    predictions : dict of str to ndarray of shape (n_test,), [unit of y]
        By method name.
    validation_r2 : dict of str to float
        R^2 on the validation rows by method name.
    entropy : dict of str to ndarray of shape (n_test,), [nats]
        Gate entropy by method name.
    n_experts : dict of str to int
        Number of experts by method name.
    towers : dict of str to float
        Likeness of the two towers' outputs by method name, from
        :func:`~dualgate.evaluation.tower_correlation`.
    seconds : dict of str to float, [s]
        Duration of every stage.
    """

    seed: int
    n_train: int
    n_validation: int
    y: np.ndarray
    snr: np.ndarray
    regimes: np.ndarray
    predictions: dict = field(default_factory=dict)
    validation_r2: dict = field(default_factory=dict)
    entropy: dict = field(default_factory=dict)
    n_experts: dict = field(default_factory=dict)
    towers: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)


def run_study(
    make_data: Callable,
    seeds: Iterable[int],
    *,
    make_model: Callable | None = None,
    on_stage: Callable[[str], None] = lambda label: None,
) -> list[SeedRecord]:
    """Train and test every method on every seed's own rows.

    Parameters
    ----------
    make_data : callable, seed -> data
        Rows of one seed, in random order, as an object with `X`, `y`, `regimes`, `snr` and whatever
        `make_model` reads. The first 80 % train, the next 10 % choose among models, the rest test.
    seeds : iterable of int
        Seeds of rows and models.
    make_model : callable, (data, seed) -> estimator, default=None
        The default model, with 9x4 experts; the roster changes its parameters. None takes
        `DualTowerMoERegressor.for_spectra`.
    on_stage : callable, str -> None, default does nothing
        Told the name of every stage when it begins, `1 + len(gated_methods())` for every seed.

    Returns
    -------
    records : list of SeedRecord, one a seed
    """
    return [_run_seed(make_data, seed, make_model or spectral_model, on_stage) for seed in seeds]


def spectral_model(data, seed):
    """Build the default model for spectra `[flux | error]` on the pixels of `data.wave`."""
    from dualgate import DualTowerMoERegressor

    return DualTowerMoERegressor.for_spectra(data.wave, random_state=seed)


def _run_seed(make_data, seed, make_model, on_stage):
    """Train every method on one seed's rows; spectra and models are gone when it returns."""
    on_stage(f"seed {seed}: rows")
    start = time.perf_counter()
    data = make_data(seed)
    n_train, n_seen = (int(share * len(data.y)) for share in (TRAIN, TRAIN + VALIDATION))
    record = SeedRecord(
        seed,
        n_train,
        n_seen - n_train,
        *(np.asarray(values)[n_seen:] for values in (data.y, data.snr, data.regimes)),
    )
    record.seconds["rows"] = time.perf_counter() - start
    with tempfile.TemporaryDirectory(prefix="dualgate-study-") as memory:
        for method in gated_methods():
            on_stage(f"seed {seed}: {method.label}")
            start = time.perf_counter()
            model = make_model(data, seed).set_params(memory=memory, **method.parameters)
            model.fit(data.X[:n_train], data.y[:n_train], regimes=data.regimes[:n_train])
            record.seconds[f"fit {method.name}"] = time.perf_counter() - start
            start = time.perf_counter()
            _judge(record, method, model, data, n_train)
            record.seconds[f"predict {method.name}"] = time.perf_counter() - start
    return record


def _judge(record, method, model, data, n_train):
    """Store what a fitted model says of the rows it did not see: validation first, then test."""
    X, y = data.X[n_train:], np.asarray(data.y)[n_train:]
    trace = model.trace(X)
    cut = record.n_validation
    _keep(record, method.name, y, trace.prediction)
    record.entropy[method.name] = gate_entropy(trace.weights)[cut:]
    record.n_experts[method.name] = trace.weights.shape[1]
    if trace.phys_logits is not None and trace.quality_logits is not None:
        record.towers[method.name] = tower_correlation(trace.phys_logits[cut:], trace.quality_logits[cut:])
    oracle = ORACLES[method.experts]
    if oracle.name not in record.predictions:  # the same experts serve every method of their kind
        _keep(record, oracle.name, y, model.experts_.predict(X, regimes=data.regimes[n_train:]))
    if GLOBAL.name not in record.predictions:
        _keep(record, GLOBAL.name, y, model.experts_.predict(X))


def _keep(record, name, y, prediction):
    """Split a prediction into the validation R^2 and the test predictions."""
    cut = record.n_validation
    record.validation_r2[name] = r2_score(y[:cut], prediction[:cut])
    record.predictions[name] = np.asarray(prediction[cut:], dtype=float)
