"""Run every stage of a study that is not finished, and gather what the analysis needs of every seed."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import astuple, dataclass, field, fields, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import entr, log_softmax, softmax
from sklearn.base import clone
from sklearn.metrics import r2_score

from dualgate.datasets import bayes_limit
from dualgate.evaluation import leakage_audit, permutation_contribution, tower_correlation
from dualgate.features.factors import posterior_mean
from dualgate.gating import PhysGate
from dualgate.reduction import ReducedRows
from dualgate.rows import FitStages, choose_spread, open_rows
from dualgate.rows.store import Store
from dualgate.snr import SNR_NAMES, quality_bins
from dualgate.study.inputs import TypicalErrors, n_flux, spectral_model
from dualgate.trace import MixtureTrace

ROWS, REDUCTION, REDUCED, FIT = "rows", "reduction", "reduced rows", "fit"  # kinds of stages
LIMIT, AUDIT = "limit", "audit"
TRAIN, VALIDATION = 0.8, 0.1  # shares of the rows; the rest is the test part
TRACED = ("log_weights", "expert_predictions", "expert_variances", "root_prediction", "phys_logits", "quality_logits")
SINGLE_PRECISION = {"log_weights", "expert_variances", "phys_logits", "quality_logits"}  # a target may need all digits
PHYS = "phys"  # the tower that reads the measurement
FACTOR = "factor"  # experts that have evidence
EVIDENCE, GATE, EXPERTS = "evidence", "gate", "experts"  # what may be blind to errors; a gate stands in for evidence
TEMPERATURES = 0.1, 1e4  # of blind evidence, at least and at most
MIN_TEMPER_ROWS = 30  # validation rows of an SNR bin with a temperature of its own
BLIND_HIDDEN, BLIND_BATCH, BLIND_ROWS = (64, 32), 512, 100_000  # of the blind gate: layers, rows of a step and of all
SHUFFLES, RESAMPLES = 5, 300  # of the permutation contributions
MIN_SIZE = 300  # effective draws a row: the sampling costs a third of a percent of the variance that is left


@dataclass
class SeedRecord:
    """One seed's test targets and predictions: everything that is kept of its rows; dictionaries are by method name."""

    seed: int
    n_train: int
    n_validation: int
    y: np.ndarray  # (n_test,)
    y_validation: np.ndarray  # (n_validation,)
    snr: np.ndarray | None  # (n_test,)
    regimes: np.ndarray | None  # (n_test,)
    conditions: np.ndarray | None = None  # (n_test, n_conditions) [unit of each]
    edges: list = field(default_factory=list)  # of the regimes along each condition
    predictions: dict = field(default_factory=dict)  # (n_test,) [unit of y]
    validation: dict = field(default_factory=dict)  # predictions (n_validation,) [unit of y]
    validation_r2: dict = field(default_factory=dict)
    entropy: dict = field(default_factory=dict)  # of the gate, (n_test,) [nats]
    n_experts: dict = field(default_factory=dict)
    towers: dict = field(default_factory=dict)  # likeness of the two towers' outputs, from `tower_correlation`
    seconds: dict = field(default_factory=dict)  # by stage: "rows", "reduction", "reduced rows", "fit phys_9", ...
    wave: np.ndarray | None = None  # (n_pixels,) [angstrom]
    limit: dict | None = None  # of the first `rows` test rows: `prediction`, `std` [unit of y], `prior_variance` of y
    audit: dict | None = None  # of the first `rows` test rows: the `audit`
    traces: dict = field(default_factory=dict)  # arrays of each fit on validation and test rows, read when asked for

    @property
    def n_rows(self) -> int:
        """Rows of this seed, all parts together."""
        return self.n_train + self.n_validation + len(self.y)


# ---- stages ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A piece of work of one seed that is done once, named by its key; stages of a kind take about as long."""

    seed: int | None
    key: str
    kind: str = field(compare=False)
    title: str = field(compare=False)
    reader: str = field(default="", compare=False)  # whose rows it makes or needs
    size: int = field(default=0, compare=False)  # how many test rows it is about
    method: object = field(default=None, compare=False)  # the first of those that share the fit

    @property
    def name(self) -> str:
        """Name in the store."""
        return f"seed_{self.seed}/{self.key}"

    @property
    def label(self) -> str:
        """What is shown while it runs."""
        return self.title if self.seed is None else f"seed {self.seed}: {self.title}"


def fit_stage(method, seed: int) -> Stage:
    """Return the stage that fits a method; methods that share a fit have equal ones."""
    kind = f"{FIT} {method.experts or method.name}"
    return Stage(seed, f"fit-{method.fit_key}", kind, method.name, method.reader, method=method)


def _rows_stage(seed):
    return Stage(seed, "rows", ROWS, "rows")


def _reader_stage(kind, method, seed):
    """Return the stage that fits (`REDUCTION`) or applies (`REDUCED`) the reduction of a method's reader."""
    key = f"{kind.replace(' ', '-')}-{method.representation.key}"
    title = kind if method.reader == "default" else f"{kind} {method.reader}"
    return Stage(seed, key, kind, title, method.reader, method=method)


def plan_stages(methods: Sequence, seeds: Iterable[int], *, limit_rows: int = 0, audit_rows: int = 0) -> list[Stage]:
    """Every stage of every seed in order, each fit with the first method that asks for it."""
    plan, readers, seeds = {}, {}, list(seeds)  # a dictionary keeps the first of equal stages
    for method in methods:
        readers.setdefault(method.reader, []).append(method)
    for seed in seeds:
        plan[_rows_stage(seed)] = None
        for reader, members in readers.items():
            plan |= {_reader_stage(kind, members[0], seed): None for kind in (REDUCTION, REDUCED)}
            plan |= {fit_stage(method, seed): None for method in members}
            if audit_rows and seed == seeds[0] and reader == methods[0].reader:
                plan[Stage(seed, f"audit-{audit_rows}", AUDIT, "leakage audit", reader, audit_rows, members[0])] = None
        if limit_rows:
            plan[Stage(seed, f"limit-{limit_rows}", LIMIT, f"Bayes limit of {limit_rows} rows", "", limit_rows)] = None
    return list(plan)


def pending_stages(plan: Sequence[Stage], store: Store) -> list[Stage]:
    """Stages of a plan that are still to run: a reduction only where what it reduces is needed."""
    missing = [stage for stage in plan if stage.name not in store]
    needed = {(stage.seed, stage.reader) for stage in missing if stage.kind not in (REDUCTION, REDUCED)}
    return [stage for stage in missing if (stage.seed, stage.reader) in needed]


def run_study(
    make_data: Callable,
    seeds: Iterable[int],
    methods: Sequence,
    *,
    make_model: Callable = spectral_model,
    store: Store | None = None,
    watch: Callable = nullcontext,
    limit_rows: int = 0,
    audit_rows: int = 0,
) -> list[SeedRecord]:
    """Train and test every method on every seed's own rows; what is finished in the store is not run again.

    Rows have `X` (an array or a row source), `y`, `regimes`, `snr` if X has no errors, and what `make_model` reads;
    where their attribute `ordered` is true they are divided at random. The audit needs errors, the limit the simulator.
    ``watch(stage)`` is a context that every stage runs in.
    """
    store, seeds, records = store or Store(), list(seeds), []
    plan = plan_stages(methods, seeds, limit_rows=limit_rows, audit_rows=audit_rows)
    pending = pending_stages(plan, store)
    for seed in seeds:
        work = SeedWork(make_data, make_model, seed, store)
        for stage in (stage for stage in pending if stage.seed == seed):
            with watch(stage):
                store.save(stage.name, work.run(stage))
        records.append(_gather(store, methods, [stage for stage in plan if stage.seed == seed]))
    return records


# ---- the work of one seed ----------------------------------------------------------------------------------


class SeedWork:
    """Runs the stages of one seed; rows are asked for only when a stage needs them."""

    def __init__(self, make_data, make_model, seed, store):
        self.make_data, self.make_model, self.seed, self.store = make_data, make_model, seed, store
        self._reduced = None, None  # the reader's name and its rows: those of one reader at a time
        self._bases = {}

    @cached_property
    def data(self):
        """Rows of this seed."""
        return self.make_data(self.seed)

    def base(self, experts):
        """Return the default model with experts of a kind, made once."""
        if experts not in self._bases:
            more = {} if experts == "hierarchical" else {"experts": experts}
            self._bases[experts] = self.make_model(self.data, self.seed, **more)
        return self._bases[experts]

    def run(self, stage: Stage) -> dict:
        """Return what a stage finds, with its `seconds`."""
        start, fit = time.perf_counter(), self._fit_peer if stage.method and stage.method.peer else self._fit_mixture
        work = {ROWS: self._rows, REDUCTION: self._fit_reduction, REDUCED: self._reduce, LIMIT: self._limit,
                AUDIT: self._audit}.get(stage.kind, fit)  # fmt: skip
        return {**work(stage), "seconds": time.perf_counter() - start}

    def _rows(self, stage):
        """Divide the rows, and keep what is known of them without reading X, in the order of the parts."""
        data = self.data
        order, n_train, n_validation = split_rows(len(data.y), self.seed if data.get("ordered") else None)
        known = {name: data.get(name) for name in ("regimes", "conditions", "snr")}
        found = {name: np.asarray(values)[order] for name, values in known.items() if values is not None}
        found |= {} if data.get("wave") is None else {"wave": np.asarray(data.wave)}
        if data.get("regime_edges") and "conditions" in found:
            found["edges"] = pd.DataFrame(data.regime_edges).to_numpy(dtype=float)  # NaN after the last one of each
        y = np.asarray(data.y, dtype=np.float64)[order]
        return found | {"y": y, "order": order, "n_train": n_train, "n_validation": n_validation}

    @cached_property
    def labels(self) -> dict:
        """What the stage of the rows found."""
        return dict(self.store.load(_rows_stage(self.seed).name))

    @property
    def _n_train(self):
        return int(self.labels["n_train"])

    def _test(self, n_rows):
        """Places of the first test rows."""
        first = self._n_train + int(self.labels["n_validation"])
        return slice(first, first + n_rows)

    def _regimes(self, one_regime):
        """Regimes of all rows for the model, and their edges; None where they are not known.

        Codes are given as a condition too, so that a regime without a training row has an expert all the same.
        """
        codes, edges = self.labels.get("regimes"), edges_of(self.labels)
        if one_regime:
            return np.zeros(len(self.labels["y"]), dtype=np.intp), None
        if edges:
            return self.labels["conditions"], edges
        if codes is None or codes.max() == 0:
            return codes, None
        return codes[:, None].astype(float), [[code + 0.5 for code in range(codes.max())]]

    def _model(self, method, more):
        """Make the model of a method's reader, with further parameters."""
        reader = method.representation
        return clone(self.base(reader.experts)).set_params(**reader.parameters).set_params(**more)

    def _fit_reduction(self, stage):
        """Fit gates' features and projection to the training rows, with loadings as the experts refine them."""
        n_train, codes, make = self._n_train, self.labels.get("regimes"), stage.method.representation.make
        train = self.labels["order"][:n_train]
        model = self._model(stage.method, {} if make is None else make(self.data, train, self.seed))
        reduction, X, codes = model.make_reduction(), self.data.X[train], None if codes is None else codes[:n_train]
        rows, experts = open_rows(reduction, X, reset=True), model.make_experts().set_params(n_jobs=model.n_jobs)
        experts.learn_reduction(reduction.prepare(X, rows), X, rows, self.labels["y"][:n_train], codes, FitStages())
        return {"reduction": reduction}

    def _reduce(self, stage):
        """Read all rows once: the few numbers of each that gates and experts work with.

        Training rows are read as such: what was learned from a row would flatter it. For experts that have evidence all
        are read again with typical errors.
        """
        reduction, reader = self._reduction(stage.method), stage.method.representation
        train, held_out = (self.data.X[rows] for rows in np.split(self.labels["order"], [self._n_train]))
        seen, unseen = reduction.read(train, training=True).columns, reduction.read(held_out).columns
        found = {name: np.concatenate([seen.pop(name), unseen.pop(name)]) for name in list(seen)}
        if reader.experts == FACTOR:
            typical, n_products = reduction.without_gates(), len(reduction.projection_.typical_information())
            blind = [typical.read(TypicalErrors(train, reduction), training=True)]
            blind.append(typical.read(TypicalErrors(held_out, reduction)))
            found["typical_moments"] = np.concatenate([rows.information[:, n_products:] for rows in blind])
        return found

    def _reduction(self, method):
        return self.store.load(_reader_stage(REDUCTION, method, self.seed).name)["reduction"]

    def reduced(self, method) -> ReducedRows:
        """Rows as a method's reader reduces them, from its finished stages."""
        if self._reduced[0] != method.reader:
            found = self.store.load(_reader_stage(REDUCED, method, self.seed).name)
            columns = {name: found[name] for name in found if name not in ("seconds", "typical_moments")}
            rows = ReducedRows.of(self._reduction(method), columns)
            if method.representation.blind:
                rows = as_blind(rows, found["typical_moments"])
            self._reduced = method.reader, rows
        return self._reduced[1]

    def _fit_mixture(self, stage):
        """Fit a mixture to the training rows, and trace the others through it."""
        method, y, n_train = stage.method, self.labels["y"], self._n_train
        rows, (regimes, edges) = self.reduced(method), self._regimes(method.one_regime)
        features = {name: it[:, method.kept[name]] if name in method.kept else it for name, it in rows.features.items()}
        rows = replace(rows, features=features)
        model = self._model(method, {"experts__regime_edges": edges, **method.parameters})
        model.fit(rows[:n_train], y[:n_train], regimes=None if regimes is None else regimes[:n_train])
        blind = self._blinded(method, model, rows, y) if method.probed else {}
        start = time.perf_counter()
        unseen, experts = rows[n_train:], model.experts_
        trace = model.trace(unseen)
        found = {name: getattr(trace, name) for name in TRACED if getattr(trace, name) is not None}
        found = {name: it.astype(np.float32) if name in SINGLE_PRECISION else it for name, it in found.items()}
        if method.experts != FACTOR and regimes is not None:
            found["own"] = experts.cells_of(regimes[n_train:], unseen.snr, len(unseen))
        pixels = model.pixel_coefficients() if experts.n_quality_bins_ == 1 else None
        found |= {} if pixels is None else {"coef_pixels": pixels.astype(np.float32)}
        found |= self._permuted(model, trace, y[n_train:]) | _snr(unseen)
        return found | blind | {"seconds_predict": time.perf_counter() - start}

    def _blinded(self, method, model, rows, y):
        """Evidence and predictions of held-out rows that take typical errors for their own, and blind weights.

        The validation rows choose `temperatures` of the evidence: (2, 5), for experts that know the errors and for
        blind ones, of all rows and of each SNR bin. The gate is trained over experts that know the errors.
        """
        n_train, moments = self._n_train, self.store.load(_reader_stage(REDUCED, method, self.seed).name)
        moments, chosen = moments["typical_moments"], choose_spread(n_train, BLIND_ROWS)
        seen, unseen = as_blind(rows[chosen], moments[chosen]), as_blind(rows[n_train:], moments[n_train:])
        known, blind = model.trace(rows[n_train:]).expert_predictions, model.trace(unseen)
        cut, evidence = int(self.labels["n_validation"]), blind.log_evidence
        bins, y_seen = quality_bins(unseen.snr[:cut]), y[n_train : n_train + cut]
        temperatures = np.empty((2, 1 + len(SNR_NAMES)))
        for line, predictions in zip(temperatures, (known, blind.expert_predictions), strict=True):
            line[:] = fit_temperature(evidence[:cut], predictions[:cut], y_seen)
            for code in range(len(SNR_NAMES)):
                own = np.flatnonzero(bins == code)
                if len(own) >= MIN_TEMPER_ROWS:
                    line[1 + code] = fit_temperature(evidence[own], predictions[own], y_seen[own])
        gate = self._blind_gate(model, model.trace(rows[chosen]).expert_predictions, y[chosen], seen, unseen)
        return {"blind_evidence": evidence.astype(np.float32), "blind_predictions": blind.expert_predictions,
                "blind_gate": gate.astype(np.float32), "temperatures": temperatures}  # fmt: skip

    def _blind_gate(self, model, predictions, y, seen, unseen):
        """Log-weights of unseen rows by a network over the experts that reads the scores of rows with typical errors.

        It is trained as gates are, on the squared error of the prediction.
        """
        from dualgate.gating.training import GateSettings, GateTarget, fit_gates, run_gates

        values = (np.column_stack([predictions, y]) - y.mean()) / (y.std() or 1.0)
        held_out = np.random.default_rng(self.seed).uniform(size=len(y)) < model.validation_fraction
        settings = {part.name: getattr(model, part.name) for part in fields(GateSettings)} | {"batch_size": BLIND_BATCH}
        net, _ = fit_gates(
            {PHYS: posterior_mean(seen.information)}, {PHYS: PhysGate(hidden=BLIND_HIDDEN).build_network},
            model.fusion_, model.experts_.n_experts_, 1, GateTarget("mse", values, held_out), GateSettings(**settings),
            seed=self.seed,
        )  # fmt: skip
        return run_gates(net, {PHYS: posterior_mean(unseen.information)})[2]

    def _permuted(self, model, trace, y):
        """Permutation contribution of each tower on the test rows, for every fit with both towers."""
        test = slice(int(self.labels["n_validation"]), None)
        if trace.phys_features is None or trace.quality_features is None or np.ptp(y[test]) == 0:
            return {}
        each, evidence = trace.expert_predictions[test], trace.log_evidence
        evidence = None if evidence is None else evidence[test]
        found = permutation_contribution(
            lambda phys, quality: (np.exp(model.fuse({"phys": phys, "quality": quality}, evidence)) * each).sum(axis=1),
            trace.phys_features[test], trace.quality_features[test], y[test],
            n_repeats=SHUFFLES, n_resamples=RESAMPLES, random_state=self.seed,
        )  # fmt: skip
        return {"permutation": np.array([astuple(each)[:3] for each in map(found.get, ("phys", "quality", "both"))])}

    def _fit_peer(self, stage):
        """Fit another regressor to what experts and quality gate read."""
        rows, n_train = self.reduced(stage.method), self._n_train
        variances = None if rows.variances is None else np.log(rows.variances)
        parts = rows.projected, variances, rows.features.get("quality")
        columns = np.hstack([part for part in parts if part is not None])
        model = stage.method.peer(random_state=self.seed).fit(columns[:n_train], self.labels["y"][:n_train])
        start = time.perf_counter()
        found = {"prediction": model.predict(columns[n_train:])} | _snr(rows[n_train:])
        return found | {"seconds_predict": time.perf_counter() - start}

    def _limit(self, stage):
        """Compute the Bayes limit of some test rows: posterior mean and standard deviation of each."""
        rows = self.labels["order"][self._test(stage.size)]
        found = bayes_limit(self.data.X[rows], min_size=MIN_SIZE, random_state=self.seed)
        prior = np.mean(found.std**2) / (1 - found.r2)  # variance of the target before anything is seen
        return {"rows": len(rows), "prediction": found.prediction, "std": found.std, "prior_variance": prior}

    def _audit(self, stage):
        """Audit the quality features of some test rows."""
        rows = self._test(stage.size)
        reduced, y = self.reduced(stage.method)[rows], self.labels["y"][rows]
        errors = np.asarray(self.data.X[self.labels["order"][rows]])[:, n_flux(self.data) :]
        found = leakage_audit(
            reduced.features["quality"], y, reduced.snr, errors=errors, n_resamples=RESAMPLES, random_state=self.seed
        )
        return {"audit": found, "rows": len(y)}


def split_rows(n_rows: int, seed: int | None):
    """Divide rows: their order, training rows first and in ascending order, and how many train and validate.

    A seed divides at random, as files may be sorted by anything; None leaves the order.
    """
    n_train, n_seen = (int(share * n_rows) for share in (TRAIN, TRAIN + VALIDATION))
    order = np.arange(n_rows) if seed is None else np.random.default_rng(seed).permutation(n_rows)
    return np.concatenate([np.sort(order[:n_train]), order[n_train:]]), n_train, n_seen - n_train


def as_blind(rows, moments) -> ReducedRows:
    """Reduced rows with the information that they have with typical errors, whose moments are given."""
    products = rows.reduction.projection_.typical_information()
    products = np.broadcast_to(products.astype(moments.dtype), (len(moments), len(products)))
    return replace(rows, information=np.hstack([products, moments]))


def edges_of(labels) -> list[list[float]]:
    """Edges of the regimes along each condition, as the stage of the rows keeps them."""
    return [line[np.isfinite(line)].tolist() for line in labels.get("edges", ())]


def _snr(rows):
    return {} if rows.snr is None else {"snr": rows.snr}


# ---- from fits to records ----------------------------------------------------------------------------------


def gate_trace(method, arrays, rows=slice(None)) -> MixtureTrace:
    """Every stage of a fitted mixture's prediction for some of the held-out rows, as the method routes and sees them.

    In double precision weights sum to one closely enough for a target whose spread is small against its mean.
    """
    stages = {name: np.asarray(arrays[name][rows], dtype=np.float64) for name in TRACED if name in arrays}
    if EVIDENCE in method.blind:
        evidence = np.asarray(arrays["blind_evidence"][rows], dtype=np.float64)
        stages["log_weights"] = log_softmax(evidence / temperature_of(method, arrays, rows)[:, None], axis=1)
    if GATE in method.blind:
        stages["log_weights"] = np.asarray(arrays["blind_gate"][rows], dtype=np.float64)
    if EXPERTS in method.blind:
        stages["expert_predictions"] = arrays["blind_predictions"][rows]
    return MixtureTrace(**stages, routing=method.routing)


def temperature_of(method, arrays, rows=slice(None)) -> np.ndarray:
    """Temperature that divides the blind evidence of some of the held-out rows (n_rows,)."""
    column = 1 + quality_bins(arrays["snr"][rows]) if method.by_bin else np.zeros(len(arrays["snr"][rows]), dtype=int)
    return arrays["temperatures"][int(EXPERTS in method.blind)][column]


def fit_temperature(evidence, predictions, y) -> float:
    """Temperature whose weights, softmax(evidence / temperature), give the smallest squared error of the prediction."""

    def loss(log_temperature):
        weights = softmax(evidence / np.exp(log_temperature), axis=1)
        return np.square((weights * predictions).sum(axis=1) - y).mean()

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def _gather(store, methods, stages):
    """Make the record of a seed from its finished stages."""
    seed, rows = stages[0].seed, store.load(stages[0].name)
    n_train, cut = int(rows["n_train"]), int(rows["n_validation"])
    y, test = rows["y"][n_train:], slice(n_train + cut, None)
    known = {name: rows[name][test] if name in rows else None for name in ("snr", "regimes", "conditions")}
    record = SeedRecord(seed, n_train, cut, y[cut:], y[:cut], edges=edges_of(rows), wave=rows.get("wave"), **known)
    for method in methods:
        name, arrays = method.name, store.load(fit_stage(method, seed).name)
        prediction = np.asarray(method.predict(arrays), dtype=float)
        record.validation[name], record.predictions[name] = prediction[:cut], prediction[cut:]
        record.validation_r2[name] = r2_score(record.y_validation, prediction[:cut])
        record.traces[name] = arrays
        record.snr = arrays["snr"][cut:] if "snr" in arrays else record.snr
        if method.gated:
            trace = gate_trace(method, arrays, slice(cut, None))
            record.entropy[name] = entr(trace.weights.astype(float)).sum(axis=1)
            record.n_experts[name] = trace.log_weights.shape[1]
            if trace.phys_logits is not None and trace.quality_logits is not None:
                record.towers[name] = tower_correlation(trace.phys_logits, trace.quality_logits)
    for stage in stages:
        if stage.name not in store:
            continue
        found = store.load(stage.name)
        seconds = float(found["seconds"])
        if stage.kind in (LIMIT, AUDIT):
            setattr(record, stage.kind, dict(found))
        if stage.kind.startswith(FIT):
            predicting = float(found["seconds_predict"])
            record.seconds |= {f"fit {stage.title}": seconds - predicting, f"predict {stage.title}": predicting}
        else:
            record.seconds[stage.title] = seconds
    return record
