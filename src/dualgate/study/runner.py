"""Train every method of the roster on every seed and keep what the analysis needs."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from sklearn.base import clone
from sklearn.metrics import r2_score

from dualgate._fitting import fit_reader
from dualgate.evaluation import gate_entropy, tower_correlation
from dualgate.study.roster import GLOBAL, ORACLES, gated_methods

TRAIN, VALIDATION = 0.8, 0.1  # shares of the rows; the rest is the test part
N_READING = 3  # stages of a seed before its methods: rows, survey, reading


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
        Duration of every stage: "rows" (their labels), "survey" (first pass, training rows: the projection), "reading"
        (second pass, all rows: features and projected columns), then "fit" and "predict" of every method.
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

    @property
    def n_rows(self) -> int:
        """Rows of this seed, all parts together."""
        return self.n_train + self.n_validation + len(self.y)


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
        Rows of one seed as an object with `X` (an array or a row source), `y`, `regimes`, `snr` if X has no errors, and
        whatever `make_model` reads. The first 80 % train, the next 10 % choose among models, the rest test; where its
        attribute `ordered` is true the rows are divided at random instead.
    seeds : iterable of int
        Seeds of rows and models.
    make_model : callable, (data, seed) -> estimator, default=None
        The default model, with 9x4 experts; the roster changes its parameters. None takes
        `DualTowerMoERegressor.for_spectra`.
    on_stage : callable, str -> None, default does nothing
        Told the name of every stage when it begins, `N_READING + len(gated_methods())` for every seed.

    Returns
    -------
    records : list of SeedRecord, one a seed
    """
    return [_run_seed(make_data, seed, make_model or spectral_model, on_stage) for seed in seeds]


def spectral_model(data, seed):
    """Build the default model for spectra `[flux | error]` on the pixels of `data.wave`."""
    from dualgate import DualTowerMoERegressor

    return DualTowerMoERegressor.for_spectra(data.wave, n_jobs=-1, random_state=seed)


def _run_seed(make_data, seed, make_model, on_stage):
    """Train every method on one seed's rows; rows and models are gone when it returns."""
    begin = _stage_clock(seed, on_stage)
    begin("rows")
    data = make_data(seed)
    y, regimes = np.asarray(data.y), np.asarray(data.regimes)
    train, held_out, n_validation = _split(data, seed)
    base = make_model(data, seed)
    begin("survey")
    reader = fit_reader(base, data.X[train])
    begin("reading")
    rows = reader.read(data.X)
    seen, unseen = rows[train], rows[held_out]
    snr = data.snr[held_out] if rows.snr is None else unseen.snr
    test = slice(n_validation, None)
    record = SeedRecord(
        seed, len(seen), n_validation, y[held_out][test], np.asarray(snr)[test], regimes[held_out][test]
    )
    for method in gated_methods():
        begin(f"fit {method.name}", method.label)
        model = clone(base).set_params(**method.parameters).fit(seen, y[train], regimes=regimes[train])
        begin(f"predict {method.name}", None)
        _judge(record, method, model, unseen, y[held_out], regimes[held_out])
    record.seconds = begin(None, None)
    return record


def _stage_clock(seed, on_stage):
    """Make the function that is told of every stage as it begins, and returns the seconds of those that ended."""
    seconds, running = {}, []

    def begin(stage, label=""):
        now = time.perf_counter()
        if running:
            name, since = running.pop()
            seconds[name] = now - since
        if stage is not None:
            running.append((stage, now))
        if label is not None:
            on_stage(f"seed {seed}: {label or stage}")
        return seconds

    return begin


def _split(data, seed):
    """Training rows, held-out rows, and how many of these are for validation; the rest is for the test."""
    n_rows = len(data.y)
    n_train, n_seen = (int(share * n_rows) for share in (TRAIN, TRAIN + VALIDATION))
    if not getattr(data, "ordered", False):
        return slice(0, n_train), slice(n_train, None), n_seen - n_train
    order = np.random.default_rng(seed).permutation(n_rows)  # files may be sorted by anything
    return np.sort(order[:n_train]), order[n_train:], n_seen - n_train


def _judge(record, method, model, rows, y, regimes):
    """Store what a fitted model says of the rows it did not see: validation first, then test."""
    trace = model.trace(rows)
    cut = record.n_validation
    _keep(record, method.name, y, trace.prediction)
    record.entropy[method.name] = gate_entropy(trace.weights)[cut:]
    record.n_experts[method.name] = trace.weights.shape[1]
    if trace.phys_logits is not None and trace.quality_logits is not None:
        record.towers[method.name] = tower_correlation(trace.phys_logits[cut:], trace.quality_logits[cut:])
    oracle = ORACLES[method.experts]
    if oracle.name not in record.predictions:  # the same experts serve every method of their kind
        own = model.experts_.cells_of(regimes, rows.snr, len(y))
        _keep(record, oracle.name, y, trace.expert_predictions[np.arange(len(y)), own])
    if GLOBAL.name not in record.predictions:
        _keep(record, GLOBAL.name, y, trace.root_prediction)


def _keep(record, name, y, prediction):
    """Split a prediction into the validation R^2 and the test predictions."""
    cut = record.n_validation
    record.validation_r2[name] = r2_score(y[:cut], prediction[:cut])
    record.predictions[name] = np.asarray(prediction[cut:], dtype=float)
