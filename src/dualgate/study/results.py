"""Results of a study as typed records, to JSON and back, and how their numbers are written."""

import json
import math
from base64 import b64encode
from dataclasses import asdict, dataclass, field, fields
from functools import cache, partial
from itertools import pairwise, product

from dualgate._markdown import as_text
from dualgate.evaluation import Interval
from dualgate.study.config import Thresholds, read_typed

SCHEMA_VERSION = 3
MAX_DIGITS = 6
STELLAR = ("T_eff [K]", "[M/H]")  # conditions of spectra
LEARNED, EXACT = "learned", "exact"  # dual tower that an answer is about: trained gates, or the likelihood
COVERAGES = 0.68, 0.9, 0.95  # of central intervals


@dataclass(frozen=True)
class Part:
    """One number that decides a question."""

    what: str
    found: Interval
    bar: float  # what it is asked to reach
    verdict: str
    reason: str


@dataclass(frozen=True)
class Answer:
    """One question of the study with its verdict, "pass", "marginal" or "fail", and the numbers that decide."""

    # "gain", "low_snr", "physics", "gate", "experts", "first", "recovery", "temperature" or "axes"; of the exact dual
    # tower "exact_gain" and so on
    key: str
    question: str
    code: str  # its number in the proposal, if it has one
    verdict: str
    reason: str
    parts: list[Part]
    dual: str
    single: str | None = None
    gain_by_snr: dict[str, Interval] = field(default_factory=dict)
    form: str = LEARNED  # or `EXACT`


@dataclass(frozen=True)
class MethodScores:
    """One method of the study and its scores on the test rows."""

    name: str
    label: str  # its title, with the regimes and quality bins that there are
    kind: str
    group: str
    experts: str
    fusion: str
    reader: str
    parameters: dict[str, str]  # Python source of what it sets on the default model
    validation_r2: float
    r2_by_seed: dict[str, float]
    # R^2, errors [unit of y] and the gain of R^2 over the best single tower, None for that tower, by slice, "all" first
    slices: dict[str, dict[str, Interval | None]]
    recovery: Interval | None = None  # share of the gain from the global ridge to the experts of the true regime
    share_of_limit: Interval | None = None  # R^2 over the Bayes limit
    mean_entropy: float | None = None  # [nats]
    tower_likeness: float | None = None  # RV coefficient of the towers' outputs

    @property
    def r2(self) -> Interval:
        """R^2 on all test rows."""
        return self.slices["all"]["r2"]


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
    """The model to use, the best one, the candidates from simple to complex, and the best other regressor."""

    name: str
    best: str
    duals: bool  # whether dual models were candidates
    candidates: list[Candidate]
    peer: str | None = None
    peer_gain: Interval | None = None  # R^2 of the peer minus that of the recommended model


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
    """What one gate does on the test rows, pooled over seeds; what is not known is None or empty."""

    trends: dict[str, PooledTrend] = field(default_factory=dict)  # of entropy, confidence, temperature
    axes: dict[str, Interval] = field(default_factory=dict)  # by tower: share its own axis explains less the other's
    shapley: dict[str, Interval] = field(default_factory=dict)  # phys, quality, interaction, total
    permutation: dict[str, Interval] = field(default_factory=dict)  # R^2 lost by shuffling phys, quality, both
    accuracy: float | None = None  # share of rows whose largest weight is on the true regime
    confusion: list[list[float]] | None = None  # mean weight by true regime and regime
    weights: list[list[list[float]]] | None = None  # the same by true regime, SNR bin and regime
    boundary: dict[str, Interval] = field(default_factory=dict)  # crossing_rate, missed_near, missed_far


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
class Points:
    """Two columns of some test rows of a method, for a figure: SNR and entropy, or true and predicted targets."""

    name: str
    x: list[float]
    y: list[float]
    n_experts: int | None = None


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of each regime's expert, and of the ridge for all rows last, at wavelengths `wave` [angstrom]."""

    name: str
    wave: list[float]
    experts: list[list[float]]


@dataclass(frozen=True)
class Densities:
    """Predictive densities of some test rows of the first seed, and calibration of all by SNR bin, or "all"."""

    name: str
    y: list[float]  # where the densities are [unit of y]
    densities: list[list[float]]  # of each row [1 / unit of y]
    truths: list[float]  # target of each row [unit of y]
    snr: list[float]  # of each row, empty where it is not known
    pit: dict[str, list[int]]  # histogram of the predictive probability of a smaller target than the true one
    coverage: dict[str, list[float]]  # share of targets within central intervals of `COVERAGES`


@dataclass(frozen=True)
class RowCounts:
    """Rows of the first seed that train, choose and test, and test rows of all seeds by slice."""

    train: int
    validation: int
    test: int
    by_slice: dict[str, int]


@dataclass(frozen=True)
class Analysis:
    """Everything that is found from the records of a study; methods are named by `MethodScores.name` throughout."""

    rows: RowCounts
    thresholds: Thresholds
    edges: list[list[float]]  # of the regimes along each condition
    methods: list[MethodScores]
    best_single: str | None
    answers: list[Answer]
    recommendation: Recommendation | None
    places: list[PairedGain]  # of quality at the gate, in the experts and in the representation
    changes: list[PairedGain]  # of variants over the method that each changes
    gates: dict[str, GateReport]
    limit: BayesLimit | None
    audit: AuditNumbers | None
    entropy: dict[str, Points]
    predictions: Points | None
    coefficients: Coefficients | None
    seconds: dict[str, dict[str, float]]  # of each stage, by seed
    densities: Densities | None = None

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the methods by name."""
        return {method.name: method.label for method in self.methods}

    def method(self, name: str) -> MethodScores:
        """Return the scores of a method by its name."""
        return next(method for method in self.methods if method.name == name)

    def answer(self, key: str) -> Answer | None:
        """Return the answer with this key; None where the methods do not give one."""
        return next((answer for answer in self.answers if answer.key == key), None)


@dataclass(frozen=True)
class RunFacts:
    """What was run, on what, and what it took."""

    source: str
    rows: int  # of each seed
    seeds: tuple[int, ...]
    kind: str = "embedded"  # or "shards" or "table"
    target: str = "log g"
    unit: str | None = "dex"
    model: str = "DualTowerMoERegressor.for_spectra(wave, experts='hierarchical')"  # Python source of the default model
    factor_model: str = "DualTowerMoERegressor.for_spectra(wave)"  # of the factor mixture
    factor_towers: str = "DualTowerMoERegressor.for_spectra(wave, towers=True)"  # of the same with towers
    config: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    hash: str = ""  # SHA-256 of configuration and environment
    stages_hash: str = ""  # SHA-256 of what the finished stages depend on
    left_out: dict = field(default_factory=dict)  # methods that could not run, and why
    created: str = ""  # date and time [UTC]
    total_seconds: float = math.nan
    stages_kept: int = 0  # that were finished before this run
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
        """Read what `to_json` wrote; ValueError if it has another schema version."""
        found = json.loads(text)
        if found.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(
                f"StudyResults.from_json: schema_version is {found.get('schema_version')!r} and must be "
                f"{SCHEMA_VERSION}. Run the study again: its finished stages are kept."
            )
        return read_typed(cls, {part.name: found[part.name] for part in fields(cls)})


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    """Write a number with a true minus sign; n/a where there is none."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return f"{value:{sign}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def between(found: Interval | None, digits: int = 3, *, gain: bool = False, marks: tuple = (), most=math.inf) -> str:
    """Write an interval so that it still compares with zero and other `marks` as it does before rounding.

    A gain has signs, and zero among its marks; an end above `most` is written as that.
    """
    if found is None:
        return ""
    ends = found.value, found.low, min(found.high, most)
    marks = (0.0, *marks) if gain else marks
    side = [(end, mark) for end in ends for mark in marks if math.isfinite(end) and end != mark]
    while digits < MAX_DIGITS and any((round(end, digits) - mark) * (end - mark) <= 0 for end, mark in side):
        digits += 1
    value, low, high = (number(end, digits, "+" if gain else "") for end in ends)
    return f"{value} [{low}, {high}]"


r2_text, gain_text = partial(between, most=1), partial(between, gain=True)


@cache
def templates():
    """Return the templates of the report, with filters that write numbers."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    made = Environment(
        loader=PackageLoader("dualgate", "study"), autoescape=select_autoescape(["html"], default=False),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.filters |= {"r2": r2_text, "gain": gain_text, "between": between, "text": as_text}
    made.filters["base64"] = lambda image: b64encode(image).decode("ascii")
    return made


def measured(found: Interval, scale: float) -> str:
    """Write an interval in the unit of a target whose errors are about `scale`: as many digits as tell them apart."""
    place = math.floor(math.log10(scale)) if math.isfinite(scale) and scale > 0 else -1
    if -3 < place < 5:
        return between(found, max(0, 2 - place))
    ends = (f"{end:.2e}".replace("-", "\N{MINUS SIGN}", end < 0) for end in (found.value, found.low, found.high))
    return "{} [{}, {}]".format(*ends)


def regime_names(results: StudyResults) -> list[str]:
    """Names of the regimes: the ranges of their conditions, or else their numbers."""
    run, edges = results.run, results.analysis.edges
    conditions = STELLAR if run.kind != "table" else run.config.get("data", {}).get("conditions") or ()
    if not edges or len(conditions) != len(edges):
        return [part for part in results.analysis.rows.by_slice if part.startswith("regime ")]
    axes = []
    for condition, cuts in zip(conditions, edges, strict=True):
        name, _, unit = condition.partition(" [")
        shown = [number(cut, 0 if cut == round(cut) else 2) for cut in cuts]
        ranges = [f"< {shown[0]}", *(f"{low} to {high}" for low, high in pairwise(shown)), f"≥ {shown[-1]}"]
        axes.append([f"{name} {each} {unit.removesuffix(']')}".strip() for each in ranges])
    return [", ".join(parts) for parts in product(*axes)]


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
