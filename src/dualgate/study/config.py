"""What a study is asked to do: a TOML file and flags, checked key by key, as docs/study.md describes them.

It imports nothing heavy.
"""

import difflib
import json
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path

ROWS = 20_000
LIMIT_ROWS = {False: 150, True: 1000}  # whether every method runs
SCORES = {False: (8, 20_000, False), True: (10, 60_000, True)}  # the same; the latter as in `for_spectra`
MIN_ROWS = 1000  # leaves a hundred test rows, and a score of training rows to a cell
TABLES = (".npz", ".npy", ".csv", ".parquet")
STELLAR_BOUNDARY = (100.0, 0.1)  # [K, dex] how near an edge a spectrum is called a boundary sample


class ConfigError(ValueError):
    """A key of the study's configuration is unknown, or its value is not what it must be; the message names it."""


# ---- checks of values: each returns the value as it is kept ------------------------------------------------


def a_text(value):
    """Check a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text that is not empty")
    return value


def a_texts(value):
    """Check a text, or a list of them."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError('must be a text or a list of texts, such as ["flux_*"]')
    return tuple(map(a_text, values))


def a_flag(value):
    """Check a truth value."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def a_number(low=-math.inf, high=math.inf, *, above=False, integer=False) -> Callable:
    """Check a number within [low, high], above `low` where it is strict."""
    bounds = [f"above {low:g}" if above else f"at least {low:,g}"] if low > -math.inf else []
    bounds += [f"at most {high:,g}"] if high < math.inf else []
    words = f"must be {'an integer' if integer else 'a number'} {' and '.join(bounds)}".rstrip()

    def check(value):
        right = isinstance(value, int if integer else (int, float)) and not isinstance(value, bool)
        if not (right and math.isfinite(value) and low <= value <= high) or (above and value == low):
            raise ValueError(words)
        return value if integer else float(value)

    return check


def a_list(each: Callable, *, distinct=False) -> Callable:
    """Check every item of a list that is not empty."""

    def check(value):
        if not isinstance(value, (list, tuple)) or not value:
            raise ValueError("must be a list that is not empty")
        values = tuple(map(each, value))
        if distinct and len(set(values)) < len(values):
            raise ValueError("names a value twice")
        return values

    return check


def an_increase(value):
    """Check numbers that increase."""
    values = a_list(a_number())(value)
    if any(after <= before for before, after in pairwise(values)):
        raise ValueError("must increase")
    return values


def a_wave(value):
    """Check wavelengths, or where they are."""
    return a_text(value) if isinstance(value, str) else an_increase(value)


def key(default, check):
    """Make a field of a section, with the check of its value."""
    return field(default=default, metadata={"check": check})


# ---- the sections ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataConfig:
    """Section `[data]`: where rows come from and, for a table, what its columns are."""

    source: str = key("embedded", a_text)  # or a file that ends in one of `TABLES`, or a path or pattern of shards
    flux: tuple = key(None, a_texts)
    error: tuple = key(None, a_texts)  # in the order of flux [same unit]
    quality: tuple = key(None, a_texts)
    target: str = key(None, a_text)
    regimes: str = key(None, a_text)
    conditions: tuple = key(None, a_texts)
    regime_edges: tuple = key(None, a_list(an_increase))  # for each condition, in its unit
    snr: str = key(None, a_text)
    wave: str | tuple = key(None, a_wave)  # [angstrom]

    @property
    def kind(self) -> str:
        """`embedded`, `table` or `shards`."""
        if self.source == "embedded":
            return "embedded"
        return "table" if Path(self.source).suffix.lower() in TABLES else "shards"


@dataclass(frozen=True)
class Thresholds:
    """Section `[thresholds]`: what a gain, a Delta R^2, and other numbers must reach."""

    continue_: float = key(0.01, a_number(0, 1))  # the key is `continue`
    first: float = key(0.005, a_number(0, 1))  # of the smallest dual model over one tower
    low_snr: float = key(0.02, a_number(0, 1))  # within an SNR bin
    rho: float = key(0.8, a_number(0, 2))  # share of the gain of known regimes that a gate should keep
    boundary: tuple = key(None, a_list(a_number(0)))  # for each condition, distance from an edge in its unit
    leak_snr: float = key(0.5, a_number(0, 1))  # R^2 that quality features must reach on the SNR
    leak_target: float = key(0.05, a_number(0, 1))  # R^2 that they must not exceed on the target


@dataclass(frozen=True)
class Training:
    """Section `[training]`: parameters of every mixture's gates, as in `DualTowerMoERegressor`."""

    max_epochs: int = key(30, a_number(1, integer=True))
    lr: float = key(0.01, a_number(0, above=True))
    warmup_epochs: int = key(2, a_number(0, integer=True))
    patience: int = key(8, a_number(1, integer=True))
    batch_size: int = key(None, a_number(1, integer=True))
    validation_fraction: float = key(0.1, a_number(0, 0.5))


@dataclass(frozen=True)
class Scores:
    """Section `[scores]`: how Wiener scores of spectra are computed; None depends on `full`, as in `SCORES`."""

    max_iter: int = key(None, a_number(1, integer=True))
    max_rows: int = key(None, a_number(1000, integer=True))
    smooth: bool = key(None, a_flag)


@dataclass(frozen=True)
class Bootstrap:
    """Section `[bootstrap]`: resamples of every seed's test rows."""

    resamples: int = key(1000, a_number(20, integer=True))


@dataclass(frozen=True)
class Limit:
    """Section `[limit]`: test rows of every seed whose Bayes limit is computed; None is `LIMIT_ROWS`, or 0."""

    rows: int = key(None, a_number(0, integer=True))


@dataclass(frozen=True)
class StudyConfig:
    """Everything a study is asked to do."""

    rows: int | None = key(None, a_number(MIN_ROWS, integer=True))  # per seed; None is `ROWS`, or all that files hold
    seeds: tuple = key((42, 123, 456), a_list(a_number(0, 2**32 - 1, integer=True), distinct=True))
    out: str = key("dualgate-study", a_text)
    methods: tuple = key(("main",), a_texts)
    full: bool = key(False, a_flag)
    data: DataConfig = field(default_factory=DataConfig)
    thresholds: Thresholds = field(default_factory=Thresholds)
    training: Training = field(default_factory=Training)
    scores: Scores = field(default_factory=Scores)
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    limit: Limit = field(default_factory=Limit)

    @classmethod
    def of(cls, mapping: Mapping) -> "StudyConfig":
        """Check a nested mapping, as TOML gives it, and fill in what it leaves out; a ConfigError names the key."""
        config = _build(cls, mapping, "")
        _check_data(config.data)
        _check_thresholds(config.thresholds, config.data)
        embedded, bars, limit = config.data.kind == "embedded", config.thresholds, config.limit
        if bars.boundary is None and config.data.kind != "table":
            bars = replace(bars, boundary=STELLAR_BOUNDARY)
        if limit.rows is None:
            limit = Limit(LIMIT_ROWS[config.full] if embedded else 0)
        elif limit.rows and not embedded:
            words = f"must be 0 where source = {config.data.source!r}; it needs the simulator"
            raise ConfigError(f"[limit] rows = {limit.rows}: {words}")
        rows = ROWS if config.rows is None and embedded else config.rows
        return replace(config, rows=rows, thresholds=bars, limit=limit, scores=_fill_scores(config))

    def as_dict(self) -> dict:
        """Return the effective configuration as plain numbers, texts, lists and mappings, ready for JSON."""
        found = asdict(self, dict_factory=lambda items: {name.rstrip("_"): value for name, value in items})
        return json.loads(json.dumps(found))


def load_config(path: str | None, flags: Mapping) -> StudyConfig:
    """Read a TOML file, if there is one, let flags, nested as the file, override it, and check both."""
    given = {}
    if path is not None:
        try:
            given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: is no TOML file: {error}") from None
    if "methods" in flags and not flags.get("full"):
        given.pop("full", None)
    for name, value in flags.items():
        inner = given.get(name)
        given[name] = {**inner, **value} if isinstance(value, dict) and isinstance(inner, dict) else value
    return StudyConfig.of(given)


def nearest(word: str, known) -> str:
    """Return the end of a message on an unknown word: what it may have meant, or what there is."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"there are {', '.join(known)}."


def _build(cls, mapping, where):
    """Make a dataclass from a mapping whose keys are its fields."""
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where.strip()}: must be a section of keys, not {mapping!r}")
    parts = {each.name.rstrip("_"): each for each in fields(cls)}
    values = {}
    for name, value in mapping.items():
        if name not in parts:
            raise ConfigError(f"{where}{name}: unknown key; {nearest(name, list(parts))}")
        part = parts[name]
        if "check" not in part.metadata:
            values[part.name] = _build(part.default_factory, value, f"[{name}] ")
            continue
        try:
            values[part.name] = part.metadata["check"](value)
        except ValueError as error:
            raise ConfigError(f"{where}{name} = {value!r}: {error}") from None
    return cls(**values)


def _check_data(data):
    """Check that columns are named where there is a table, and fit together."""
    named = [name for name, value in vars(data).items() if name != "source" and value is not None]
    if data.kind != "table":
        for name in named:
            words = f"source = {data.source!r} is none; tables end in {', '.join(TABLES)}"
            raise ConfigError(f"[data] {name}: names a column of a table, but {words}")
        return
    for name in ("flux", "target"):
        if name not in named:
            raise ConfigError(f"[data] {name}: missing; source = {data.source!r} is a table: name its columns")
    if "error" not in named and "quality" not in named:
        raise ConfigError("[data] error: missing, and quality too; one of both must name what the quality tower reads")
    for one, other in [("error", "quality"), ("error", "snr"), ("regimes", "conditions")]:
        if one in named and other in named:
            raise ConfigError(f"[data] {other}: cannot be given together with {one}; leave one of both out")
    if ("conditions" in named) != ("regime_edges" in named):
        raise ConfigError("[data] regime_edges: must be given where conditions are, and only there")
    n_edges, n_conditions = len(data.regime_edges or ()), len(data.conditions or ())
    if n_edges != n_conditions:
        words = f"holds edges for {n_edges} conditions, conditions names {n_conditions}; there must be edges for each"
        raise ConfigError(f"[data] regime_edges: {words}")


def _check_thresholds(bars, data):
    if bars.first > bars.continue_:
        words = "the first step is to gain no more than the whole"
        raise ConfigError(f"[thresholds] first = {bars.first}: must not be above continue = {bars.continue_}; {words}")
    n_conditions = 2 if data.kind != "table" else len(data.conditions or ())
    if bars.boundary is not None and len(bars.boundary) != n_conditions:
        words = f"holds {len(bars.boundary)} distances, the rows have {n_conditions} conditions; give one for each"
        raise ConfigError(f"[thresholds] boundary: {words}")


def _fill_scores(config):
    """Fill in what `[scores]` leaves out; a table without wavelengths has no spectra to compute scores of."""
    given = {name: value for name, value in vars(config.scores).items() if value is not None}
    if config.data.kind != "table" or config.data.wave is not None:
        return Scores(**dict(zip(vars(config.scores), SCORES[config.full], strict=True)) | given)
    for name, value in given.items():
        raise ConfigError(
            f"[scores] {name} = {value!r}: is for spectra; give their wavelengths as [data] wave, or leave it out"
        )
    return config.scores
