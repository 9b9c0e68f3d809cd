"""Run every stage of a study that is not finished, and gather what the analysis needs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sklearn.metrics import r2_score

from dualgate.evaluation import gate_entropy, tower_correlation
from dualgate.study.data import spectral_model
from dualgate.study.fits import SeedWork, answer, gate_trace
from dualgate.study.methods import Method
from dualgate.study.readers import READERS
from dualgate.study.roster import main_methods
from dualgate.study.stages import AUDIT, FIT, LIMIT, READING, ROWS, SURVEY, Stage, Stages


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
    y_validation : ndarray of shape (n_validation,), [unit of y]
        Targets of the rows that choose among models.
    snr : ndarray of shape (n_test,) or None, [dimensionless]
        Signal-to-noise ratio of the test rows; None where the rows have none.
    regimes : ndarray of int, shape (n_test,), or None
        Regime of the test rows, where it is known.
    conditions : ndarray of shape (n_test, n_conditions) or None, [unit of each]
        Physical conditions of the test rows, where they are known.
    edges : tuple of ndarray
        Edges of the regimes along each condition.
    predictions : dict of str to ndarray of shape (n_test,), [unit of y]
        By method name.
    validation : dict of str to ndarray of shape (n_validation,), [unit of y]
        Predictions of the validation rows by method name.
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
        (second pass, all rows: features and projected columns), each with the reader's name where it is not the
        default, then "fit" and "predict" of every fit, named after its first method.
    wave : ndarray of shape (n_pixels,) or None, [angstrom]
        Wavelengths of the flux columns.
    limit : dict or None
        Bayes limit of the first `rows` test rows: `prediction` and `std` of each [unit of y].
    audit : dict or None
        Leakage audit of the first `rows` test rows; see :func:`~dualgate.study.extras.audit_rows`.
    traces : dict of str to mapping
        Arrays of each method's fit on validation and test rows, by stage of the prediction, read when they are asked
        for: `log_weights`, `expert_predictions`, `phys_logits`, ... and `coef`.
    """

    seed: int
    n_train: int
    n_validation: int
    y: np.ndarray
    y_validation: np.ndarray
    snr: np.ndarray | None
    regimes: np.ndarray | None
    conditions: np.ndarray | None = None
    edges: tuple = ()
    predictions: dict = field(default_factory=dict)
    validation: dict = field(default_factory=dict)
    validation_r2: dict = field(default_factory=dict)
    entropy: dict = field(default_factory=dict)
    n_experts: dict = field(default_factory=dict)
    towers: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)
    wave: np.ndarray | None = None
    limit: dict | None = None
    audit: dict | None = None
    traces: dict = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Rows of this seed, all parts together."""
        return self.n_train + self.n_validation + len(self.y)


class Observer:
    """Is told of every stage; this one does nothing."""

    def begin(self, stage: Stage):
        """Learn that a stage begins."""

    def end(self, stage: Stage, seconds: float | None):
        """Learn that a stage has ended, now or in an earlier run, after so many seconds, or was not needed (None)."""


@dataclass(frozen=True)
class Extras:
    """What is asked of test rows beside the fits.

    Parameters
    ----------
    limit_rows : int, default=0
        Test rows of every seed that the Bayes limit is found of; it needs the simulator's own spectra.
    audit_rows : int, default=0
        Test rows of the first seed that are audited for leakage; they need errors.
    """

    limit_rows: int = 0
    audit_rows: int = 0


def plan_stages(
    methods: Sequence[Method], seed: int, extras: Extras | None = None
) -> list[tuple[Stage, Method | None]]:
    """Every stage of one seed in order, each fit with the first method that asks for it.

    Parameters
    ----------
    methods : sequence of Method
    seed : int
    extras : Extras, default=None
        None asks for nothing beside the fits.

    Returns
    -------
    plan : list of (Stage, Method or None)

    Examples
    --------
    >>> from dualgate.study.roster import ROSTER
    >>> [stage.label for stage, _ in plan_stages([ROSTER["oracle_9"], ROSTER["phys_9"]], 42)]
    ['seed 42: rows', 'seed 42: survey', 'seed 42: reading', 'seed 42: oracle, 9 experts']
    """
    plan = {Stage(seed, ROWS, ROWS, f"seed {seed}: rows"): None}
    for reader in dict.fromkeys(method.reader for method in methods):
        suffix = "" if reader == "default" else f" {reader}"
        for kind in (SURVEY, READING):
            plan[Stage(seed, f"{kind}-{READERS[reader].key}", kind, f"seed {seed}: {kind}{suffix}", reader)] = None
        for method in methods:
            if method.reader == reader:
                plan.setdefault(fit_stage(method, seed), method)
        if extras is not None and extras.audit_rows and reader == methods[0].reader:
            rows = extras.audit_rows
            plan[Stage(seed, f"{AUDIT}-{rows}", AUDIT, f"seed {seed}: leakage audit", reader, rows)] = None
    if extras is not None and extras.limit_rows:
        rows = extras.limit_rows
        plan[Stage(seed, f"{LIMIT}-{rows}", LIMIT, f"seed {seed}: Bayes limit of {rows} rows", size=rows)] = None
    return list(plan.items())


def fit_stage(method: Method, seed: int) -> Stage:
    """Return the stage that fits a method; methods that share a fit have equal ones."""
    kind = f"{FIT} {method.experts or method.name}"
    key = f"{FIT}-{method.fit_key(READERS[method.reader])}"
    return Stage(seed, key, kind, f"seed {seed}: {method.label}", method.reader)


def run_study(
    make_data: Callable,
    seeds: Iterable[int],
    *,
    methods: Sequence[Method] | None = None,
    make_model: Callable | None = None,
    stages: Stages | None = None,
    observer: Observer | None = None,
    extras: Extras | None = None,
) -> list[SeedRecord]:
    """Train and test every method on every seed's own rows; what is finished already is not run again.

    Parameters
    ----------
    make_data : callable, seed -> data
        Rows of one seed as an object with `X` (an array or a row source), `y`, `regimes` (None where they are not
        known), `snr` if X has no errors, and whatever `make_model` reads. The first 80 % train, the next 10 % choose
        among models, the rest test; where its attribute `ordered` is true the rows are divided at random instead.
    seeds : iterable of int
        Seeds of rows and models.
    methods : sequence of Method, default=None
        None is :func:`~dualgate.study.roster.main_methods`.
    make_model : callable, (data, seed) -> estimator, default=None
        The default model, with 9x4 experts; the roster changes its parameters. None takes
        `DualTowerMoERegressor.for_spectra`.
    stages : Stages, default=None
        Where finished stages are; None keeps them in memory.
    observer : Observer, default=None
        Told of every stage of :func:`plan_stages`.
    extras : Extras, default=None
        What is asked of test rows beside the fits; None is nothing.

    Returns
    -------
    records : list of SeedRecord, one a seed
    """
    methods = main_methods() if methods is None else methods
    make_model, observer = make_model or spectral_model, observer or Observer()
    stages = Stages() if stages is None else stages
    seeds = list(seeds)
    return [
        _run_seed(SeedWork(make_data, make_model, seed, stages), methods, observer, extras_of(extras, seed, seeds))
        for seed in seeds
    ]


def extras_of(extras: Extras | None, seed: int, seeds: Sequence[int]) -> Extras | None:
    """Return what is asked of one seed: the audit is for the first.

    Examples
    --------
    >>> [extras_of(Extras(limit_rows=9, audit_rows=5), seed, [42, 123]).audit_rows for seed in (42, 123)]
    [5, 0]
    """
    return replace(extras, audit_rows=0) if extras is not None and seed != seeds[0] else extras


def _run_seed(work, methods, observer, extras):
    """Run what is missing of one seed; its rows are gone when it returns."""
    stages, plan = work.stages, plan_stages(methods, work.seed, extras)
    wanted = {stage.reader for stage, _ in plan if stage.kind not in (SURVEY, READING) and stage not in stages}
    for stage, method in plan:
        if stage.kind in (SURVEY, READING) and stage not in stages and stage.reader not in wanted:
            observer.end(stage, None)
            continue
        if stage not in stages:
            observer.begin(stage)
            stages.save(stage, work.run(stage, method))
        observer.end(stage, float(stages.load(stage)["seconds"]))
    return _gather(work, methods, plan)


def _gather(work, methods, plan):
    """Make the record of a seed from its finished stages."""
    stages, seed = work.stages, work.seed
    rows = stages.load(plan[0][0])
    cut = int(rows["n_validation"])
    held_out = rows["held_out"]
    test, y = held_out[cut:], rows["y"]
    known = {
        name: values[test] if (values := rows.get(name)) is not None else None
        for name in ("snr", "regimes", "conditions")
    }
    edges = tuple(rows[f"edges_{place}"] for place in range(int(rows["n_edges"])))
    record = SeedRecord(
        seed, len(rows["train"]), cut, y[test], y[held_out[:cut]], edges=edges, wave=rows.get("wave"), **known
    )
    for stage, _ in plan:
        if stage.kind in (LIMIT, AUDIT):
            setattr(record, stage.kind, dict(stages.load(stage)))
    for method in methods:
        arrays = stages.load(fit_stage(method, seed))
        prediction = answer(method, arrays)
        record.validation_r2[method.name] = r2_score(record.y_validation, prediction[:cut])
        record.validation[method.name] = np.asarray(prediction[:cut], dtype=float)
        record.predictions[method.name] = np.asarray(prediction[cut:], dtype=float)
        record.traces[method.name] = arrays
        if "snr" in arrays:
            record.snr = arrays["snr"][cut:]
        if method.gated:
            _judge_gate(record, method, gate_trace(method, arrays))
    record.seconds = _durations(stages, plan)
    return record


def _judge_gate(record, method, trace):
    cut = record.n_validation
    record.entropy[method.name] = gate_entropy(trace.weights)[cut:]
    record.n_experts[method.name] = trace.log_weights.shape[1]
    if trace.phys_logits is not None and trace.quality_logits is not None:
        record.towers[method.name] = tower_correlation(trace.phys_logits[cut:], trace.quality_logits[cut:])


def _durations(stages, plan):
    """Seconds of every finished stage, as in `SeedRecord.seconds`."""
    seconds = {}
    for stage, method in plan:
        if stage not in stages:
            continue
        found, prefix = stages.load(stage), f"seed {stage.seed}: "
        if not stage.key.startswith(FIT):
            seconds[stage.label.removeprefix(prefix)] = float(found["seconds"])
        else:
            predicting = float(found["seconds_predict"])
            seconds[f"fit {method.name}"] = float(found["seconds"]) - predicting
            seconds[f"predict {method.name}"] = predicting
    return seconds
