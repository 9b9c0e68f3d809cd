"""Results of a study as typed records, to JSON and back."""

import json
import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from types import UnionType
from typing import get_args, get_origin, get_type_hints

from dualgate.evaluation import Interval
from dualgate.study.config import Thresholds

SCHEMA_VERSION = 3


@dataclass(frozen=True)
class Part:
    """One number that decides a question: what it is, its interval, the bar it is asked to reach, and the verdict."""

    what: str
    found: Interval
    bar: float
    verdict: str
    reason: str


@dataclass(frozen=True)
class Answer:
    """One question of the study and its verdict.

    Parameters
    ----------
    key : str
        "gain", "physics", "gate", "experts", "low_snr", "first", "recovery", "temperature" or "axes".
    question : str
        In plain words.
    code : str
        Number of the question in the proposal; empty where it has none.
    verdict, reason : str
        "pass", "marginal" or "fail", and the comparison that decided.
    parts : list of Part
        The numbers that decide.
    dual : str
        Name of the dual model.
    single : str or None
        Name of the single tower it is compared with.
    gain_by_snr : dict of str to Interval
        R^2 of the dual model minus that of the single tower within each SNR bin; empty where nothing is compared.
    """

    key: str
    question: str
    code: str
    verdict: str
    reason: str
    parts: list[Part]
    dual: str
    single: str | None = None
    gain_by_snr: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class SliceScores:
    """Scores of a method in one slice: R^2, its gain over the best single tower, and errors [unit of y]."""

    r2: Interval
    mae: Interval
    rmse: Interval
    bias: Interval
    gain: Interval | None = None


@dataclass(frozen=True)
class MethodScores:
    """One method of the study and its scores on the test rows.

    Parameters
    ----------
    name, label, kind, group, experts, reader : str
        Of the `Method`; the label counts the regimes that there are.
    parameters : dict of str to str
        Python source of each parameter that the method sets on the default model.
    validation_r2 : float
        R^2 on the validation rows, averaged over seeds.
    r2_by_seed : dict of str to float
        R^2 on the test rows of each seed.
    slices : dict of str to SliceScores
        By slice, "all" first.
    recovery : Interval or None
        Share of the gain from the global ridge to the true-regime experts.
    share_of_limit : Interval or None
        R^2 over that of the Bayes limit.
    mean_entropy, tower_likeness : float or None
        Gate entropy [nats] and RV coefficient of the towers' outputs, averaged over rows and seeds.
    """

    name: str
    label: str
    kind: str
    group: str
    experts: str
    reader: str
    parameters: dict[str, str]
    validation_r2: float
    r2_by_seed: dict[str, float]
    slices: dict[str, SliceScores]
    recovery: Interval | None = None
    share_of_limit: Interval | None = None
    mean_entropy: float | None = None
    tower_likeness: float | None = None

    @property
    def r2(self) -> Interval:
        """R^2 on all test rows."""
        return self.slices["all"].r2

    @property
    def gain(self) -> Interval | None:
        """R^2 minus that of the best single tower; None for that tower itself."""
        return self.slices["all"].gain


@dataclass(frozen=True)
class Candidate:
    """A model that may be recommended: how far its validation R^2 is behind the best, and the error of that."""

    name: str
    validation_r2: float
    behind: float
    error: float
    within: bool


@dataclass(frozen=True)
class Recommendation:
    """The model to use: the simplest that is within one standard error of the best.

    Parameters
    ----------
    name, best : str
        The model, and the one with the largest validation R^2.
    duals : bool
        Whether dual models were candidates.
    candidates : list of Candidate
        From simple to complex.
    peer : str or None
        Name of the best other regressor.
    peer_gain : Interval or None
        Its R^2 minus that of the recommended model.
    """

    name: str
    best: str
    duals: bool
    candidates: list[Candidate]
    peer: str | None = None
    peer_gain: Interval | None = None


@dataclass(frozen=True)
class PairedGain:
    """R^2 of a method minus that of a reference that differs in one thing; `place` groups what differs."""

    place: str
    what: str
    name: str
    reference: str
    gain: Interval


@dataclass(frozen=True)
class PooledTrend:
    """Trend of a gate's quantity with SNR: rank correlation, the largest p-value of the seeds, means by SNR bin."""

    rho: Interval
    p_value: float
    means: list[Interval]


@dataclass(frozen=True)
class GateReport:
    """What one gate does on the test rows, pooled over seeds; what is not known is None or empty.

    Parameters
    ----------
    trends : dict of str to PooledTrend
        "entropy", "confidence" and "temperature".
    axes : dict of str to Interval
        By tower, "physics" and "quality": share of its outputs' variance that its own axis explains less the other's.
    shapley : dict of str to Interval
        "phys", "quality", "interaction" and "total": what each tower adds to R^2 over the global ridge.
    permutation : dict of str to Interval
        "phys", "quality" and "both": R^2 lost when features come from other rows.
    accuracy : float or None
        Share of rows whose largest weight is on the true regime.
    confusion : list of shape (n_regimes, n_regimes) or None
        Mean weight of each regime's experts, by true regime.
    weights : list of shape (n_regimes, n_bins, n_regimes) or None
        The same by SNR bin.
    boundary : dict of str to Interval
        "crossing_rate", "missed_near" and "missed_far".
    """

    trends: dict[str, PooledTrend] = field(default_factory=dict)
    axes: dict[str, Interval] = field(default_factory=dict)
    shapley: dict[str, Interval] = field(default_factory=dict)
    permutation: dict[str, Interval] = field(default_factory=dict)
    accuracy: float | None = None
    confusion: list[list[float]] | None = None
    weights: list[list[list[float]]] | None = None
    boundary: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class RegimeScores:
    """R^2 within one regime of the single tower and the dual model compared, and the gain of the latter."""

    regime: int
    rows: int
    single: Interval | None
    dual: Interval | None
    gain: Interval | None


@dataclass(frozen=True)
class BayesLimit:
    """Bayes limit of some test rows: expected R^2, the same by SNR bin, and the R^2 of the posterior means."""

    rows: int
    r2: Interval
    r2_by_snr: dict[str, Interval]
    observed: float


@dataclass(frozen=True)
class AuditNumbers:
    """Leakage audit of the first seed: R^2 out of fold by what is read from what, and the verdict."""

    rows: int
    verdict: str
    reason: str
    numbers: dict[str, Interval]


@dataclass(frozen=True)
class Cloud:
    """SNR and gate entropy [nats] of some test rows."""

    n_experts: int
    snr: list[float]
    entropy: list[float]


@dataclass(frozen=True)
class Predictions:
    """True and predicted targets [unit of y] of some test rows, by the method `name`."""

    name: str
    true: list[float]
    predicted: list[float]


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of each regime's expert, and of the ridge for all rows last, at wavelengths `wave` [angstrom]."""

    method: str
    wave: list[float]
    experts: list[list[float]]


@dataclass(frozen=True)
class RowCounts:
    """Rows of the first seed that train, choose and test, and test rows of all seeds by slice."""

    train: int
    validation: int
    test: int
    by_slice: dict[str, int]


@dataclass(frozen=True)
class Analysis:
    """Everything that is found from the records of a study.

    Methods are named by `MethodScores.name` throughout. `changes` are the gains of variants over the method that each
    changes, `edges` those of the regimes along each condition, `places` the gains of quality at the gate, in the experts and in the representation.
    """

    rows: RowCounts
    thresholds: Thresholds
    edges: list[list[float]]
    methods: list[MethodScores]
    best_single: str | None
    answers: list[Answer]
    recommendation: Recommendation | None
    places: list[PairedGain]
    changes: list[PairedGain]
    gates: dict[str, GateReport]
    limit: BayesLimit | None
    audit: AuditNumbers | None
    regimes: list[RegimeScores]
    entropy: dict[str, Cloud]
    predictions: Predictions | None
    coefficients: Coefficients | None
    seconds: dict[str, dict[str, float]]

    def method(self, name: str) -> MethodScores:
        """Return the scores of a method by its name."""
        return next(method for method in self.methods if method.name == name)

    def answer(self, key: str) -> Answer | None:
        """Return the answer with this key; None where the methods do not give one."""
        return next((answer for answer in self.answers if answer.key == key), None)


@dataclass(frozen=True)
class RunFacts:
    """What was run, on what, and what it took.

    Parameters
    ----------
    source, kind : str
        Where rows come from, and what that is: "embedded", "shards" or "table".
    rows : int
        Rows of each seed.
    seeds : tuple of int
    target, unit : str, str or None
        What is predicted, and its unit.
    model : str
        Python source of the default model.
    conditions, regime_names : tuple of str
        Names of the physical conditions with their units, or of the regimes; empty where there are none.
    config, environment : dict
        Effective configuration; versions, cores and memory.
    hash, stages_hash : str
        SHA-256 of configuration and environment, and of what the finished stages depend on.
    left_out : dict of str to str
        Methods that could not run, and why.
    created : str
        Date and time [UTC].
    total_seconds : float, [s]
    stages_kept : int
        Stages that were finished before this run.
    peak_memory_gib : float, [GiB]
    """

    source: str
    rows: int
    seeds: tuple[int, ...]
    kind: str = "embedded"
    target: str = "log g"
    unit: str | None = "dex"
    model: str = "DualTowerMoERegressor.for_spectra(wave)"
    conditions: tuple[str, ...] = ()
    regime_names: tuple[str, ...] = ()
    config: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    hash: str = ""
    stages_hash: str = ""
    left_out: dict = field(default_factory=dict)
    created: str = ""
    total_seconds: float = math.nan
    stages_kept: int = 0
    peak_memory_gib: float = math.nan


@dataclass(frozen=True)
class StudyResults:
    """A run of the study and what was found."""

    run: RunFacts
    analysis: Analysis

    def to_json(self, **more) -> str:
        """Write the results as JSON, NaN as null, with further plain values at its head."""
        content = {"schema_version": SCHEMA_VERSION, **more, **asdict(self)}
        return json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "StudyResults":
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            If the text has another schema version.
        """
        found = json.loads(text)
        if found.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(
                f"StudyResults.from_json: schema_version is {found.get('schema_version')!r} and must be "
                f"{SCHEMA_VERSION}. Run the study again: its finished stages are kept."
            )
        return _read(cls, found)


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(kind, value):
    """Make a value of a type from what JSON keeps of it."""
    if is_dataclass(kind):
        types = get_type_hints(kind)
        return kind(**{each.name: _read(types[each.name], value[each.name]) for each in fields(kind)})
    arguments = get_args(kind)
    if get_origin(kind) is UnionType:
        return None if value is None else _read(arguments[0], value)
    if get_origin(kind) is dict:
        return {key: _read(arguments[1], each) for key, each in value.items()}
    if get_origin(kind) in (list, tuple):
        return get_origin(kind)(_read(arguments[0], each) for each in value)
    if kind is tuple and value is not None:
        return tuple(value)
    return math.nan if kind is float and value is None else value
