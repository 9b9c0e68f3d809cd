"""What a study is asked to do: a TOML file and flags, checked key by key, as docs/study.md describes them.

It imports nothing heavy.
"""

import difflib
import json
import math
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Union, get_args, get_origin, get_type_hints

ROWS = 20_000
LIMIT_ROWS = {False: 150, True: 1000}  # whether every method runs
SCORES = {  # the same; the latter as in `for_spectra`
    False: {"max_iter": 8, "max_rows": 20_000, "smooth": False, "components": 36},
    True: {"max_iter": 10, "max_rows": 60_000, "smooth": True, "components": "auto"},
}
MIN_ROWS = 1000  # leaves a hundred test rows, and a score of training rows to a cell
TABLES = (".npz", ".npy", ".csv", ".parquet")
STELLAR_BOUNDARY = (100.0, 0.1)  # [K, dex] how near an edge a spectrum is called a boundary sample


class ConfigError(ValueError):
    """A key of the study's configuration is unknown, or its value is not what it must be; the message names it."""


# ---- types of values: what must hold of them in words, and a function that tells whether it does ---------------

Text = Annotated[str, "must not be empty", len]
Automatic = Annotated[str, "must be 'auto' or an integer", lambda value: value == "auto"]
Texts = Annotated[tuple[str, ...], "must be a text or a list that is not empty", len]
Count = Annotated[int, "must be at least 0", lambda value: value >= 0]
Positive = Annotated[int, "must be at least 1", lambda value: value >= 1]
Rows = Annotated[int, f"must be at least {MIN_ROWS:,}", lambda value: value >= MIN_ROWS]
Seed = Annotated[int, "must be at least 0 and at most 4,294,967,295", lambda value: 0 <= value < 2**32]
Seeds = Annotated[tuple[Seed, ...], "must name one value or more, and none twice", lambda v: 0 < len(v) == len(set(v))]
Share = Annotated[float, "must be at least 0 and at most 1", lambda value: 0 <= value <= 1]
Distance = Annotated[float, "must be at least 0", lambda value: value >= 0]
Increase = Annotated[tuple[float, ...], "must increase", lambda v: v and all(low < high for low, high in pairwise(v))]


NOUNS = {int: "an integer", float: "a number", str: "a text", bool: "true or false", dict: "a section of keys"}


# ---- the sections ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataConfig:
    """Section `[data]`: where rows come from and, for a table, what its columns are."""

    source: Text = "embedded"  # or a file that ends in one of `TABLES`, or a path or pattern of shards
    flux: Texts | None = None
    error: Texts | None = None  # in the order of flux [same unit]
    quality: Texts | None = None
    target: Text | None = None
    regimes: Text | None = None
    conditions: Texts | None = None
    regime_edges: tuple[Increase, ...] | None = None  # for each condition, in its unit
    snr: Text | None = None
    wave: str | Increase | None = None  # [angstrom], or where they are

    @property
    def kind(self) -> str:
        """`embedded`, `table` or `shards`."""
        if self.source == "embedded":
            return "embedded"
        return "table" if Path(self.source).suffix.lower() in TABLES else "shards"


@dataclass(frozen=True)
class Thresholds:
    """Section `[thresholds]`: what a gain, a Delta R^2, and other numbers must reach."""

    continue_: Share = 0.01  # the key is `continue`
    first: Share = 0.005  # of the smallest dual model over one tower
    low_snr: Share = 0.02  # within an SNR bin
    rho: Annotated[float, "must be at least 0 and at most 2", lambda value: 0 <= value <= 2] = 0.8  # as `recovery`
    boundary: tuple[Distance, ...] | None = None  # for each condition, distance from an edge in its unit
    leak_snr: Share = 0.5  # R^2 that quality features must reach on the SNR
    leak_target: Share = 0.05  # R^2 that they must not exceed on the target


@dataclass(frozen=True)
class Training:
    """Section `[training]`: parameters of every mixture's gates, as in `DualTowerMoERegressor`."""

    max_epochs: Positive = 30
    lr: Annotated[float, "must be above 0", lambda value: value > 0] = 0.01
    warmup_epochs: Count = 2
    patience: Positive = 8
    batch_size: Positive | None = None
    validation_fraction: Annotated[float, "must be at least 0 and at most 0.5", lambda value: 0 <= value <= 0.5] = 0.1


@dataclass(frozen=True)
class Scores:
    """Section `[scores]`: how loadings and factor mixture of spectra are found; None depends on `full`: `SCORES`."""

    max_iter: Positive | None = None
    max_rows: Rows | None = None
    smooth: bool | None = None
    components: Automatic | Positive | None = None  # of the factor mixture


@dataclass(frozen=True)
class Bootstrap:
    """Section `[bootstrap]`: resamples of every seed's test rows."""

    resamples: Annotated[int, "must be at least 20", lambda value: value >= 20] = 1000


@dataclass(frozen=True)
class Limit:
    """Section `[limit]`: test rows of every seed whose Bayes limit is computed; None is `LIMIT_ROWS`, or 0."""

    rows: Count | None = None


@dataclass(frozen=True)
class StudyConfig:
    """Everything a study is asked to do."""

    rows: Rows | None = None  # per seed; None is `ROWS`, or all that files hold
    seeds: Seeds = (42, 123, 456)
    out: Text = "dualgate-study"
    methods: Texts = ("main",)
    full: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    thresholds: Thresholds = field(default_factory=Thresholds)
    training: Training = field(default_factory=Training)
    scores: Scores = field(default_factory=Scores)
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    limit: Limit = field(default_factory=Limit)

    @classmethod
    def of(cls, mapping: Mapping) -> "StudyConfig":
        """Check a nested mapping, as TOML gives it, and fill in what it leaves out; a ConfigError names the key."""
        config = read_typed(cls, mapping)
        for fault in _faults(config):
            raise ConfigError(fault)
        embedded, table = config.data.kind == "embedded", config.data.kind == "table"
        spectra = not table or config.data.wave is not None
        return _fill(
            config,
            rows=ROWS if embedded else None,
            thresholds=_fill(config.thresholds, boundary=None if table else STELLAR_BOUNDARY),
            limit=_fill(config.limit, rows=LIMIT_ROWS[config.full] if embedded else 0),
            scores=_fill(config.scores, **(SCORES[config.full] if spectra else {})),
        )

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


def read_typed(kind, value, where: str = ""):
    """Make a value of a type, annotated as above, from what TOML or JSON has for it, dataclasses from mappings.

    A ValueError tells what must hold; a ConfigError also names the key.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _read_section(kind, value, where)
    if origin is Annotated:
        plain, words, holds = inner
        found = read_typed(plain, value)
        if not holds(found):
            raise ValueError(words)
        return found
    if origin in (Union, UnionType):
        *others, last = (each for each in inner if each is not NoneType)
        for each in others:
            with suppress(ValueError):
                return read_typed(each, value)
        return None if value is None else read_typed(last, value, where)
    if origin in (list, tuple):
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)):
            raise ValueError("must be a list, or a text where it is one of texts")
        return origin(read_typed(inner[0], each) for each in values)
    if origin is dict:
        return {name: read_typed(inner[1], each) for name, each in value.items()}
    if kind is float and value is None:  # in JSON
        return math.nan
    if not isinstance(value, (int, float) if kind is float else kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"must be {NOUNS[kind]}")
    if kind is float and not math.isfinite(value):
        raise ValueError("must be finite")
    return kind(value)


def _read_section(cls, mapping, where):
    """Make a dataclass from a mapping whose keys are its fields."""
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where}must be a section of keys, not {mapping!r}")
    kinds, values = get_type_hints(cls, include_extras=True), {}
    names = {each.name.rstrip("_"): each.name for each in fields(cls)}
    for key, value in mapping.items():
        name = names.get(key.rstrip("_"))
        if name is None:
            raise ConfigError(f"{where}{key}: unknown key; {nearest(key, list(names))}")
        try:
            values[name] = read_typed(kinds[name], value, f"[{key}] ")
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{where}{key} = {value!r}: {error}") from None
    return cls(**values)


def _faults(config):
    """Yield what does not fit together, each as the words of an error."""
    data, bars = config.data, config.thresholds
    given = [name for name, value in vars(data).items() if name != "source" and value is not None]
    source, table = f"source = {data.source!r}", data.kind == "table"
    for name in () if table else given:
        words = f"{source} is none; tables end in {', '.join(TABLES)}"
        yield f"[data] {name}: names a column of a table, but {words}"
    for name in ("flux", "target"):
        if table and name not in given:
            yield f"[data] {name}: missing; {source} is a table: name its columns"
    if table and "error" not in given and "quality" not in given:
        yield "[data] error: missing, and quality too; one of both must name what the quality tower reads"
    for one, other in [("error", "quality"), ("error", "snr"), ("regimes", "conditions")]:
        if one in given and other in given:
            yield f"[data] {other}: cannot be given together with {one}; leave one of both out"
    n_edges, n_conditions = len(data.regime_edges or ()), len(data.conditions or ())
    if n_edges != n_conditions:
        yield f"[data] regime_edges: must hold edges for each of {n_conditions} conditions, not for {n_edges}"
    if bars.first > bars.continue_:
        words = f"must not be above continue = {bars.continue_}; the first step is to gain no more than the whole"
        yield f"[thresholds] first = {bars.first}: {words}"
    n_conditions = n_conditions if table else len(STELLAR_BOUNDARY)
    if bars.boundary is not None and len(bars.boundary) != n_conditions:
        words = f"holds {len(bars.boundary)} distances, the rows have {n_conditions} conditions; give one for each"
        yield f"[thresholds] boundary: {words}"
    if config.limit.rows and data.kind != "embedded":
        yield f"[limit] rows = {config.limit.rows}: must be 0 where {source}; it needs the simulator"
    for name, value in vars(config.scores).items():
        if value is not None and table and data.wave is None:
            words = "is for spectra; give their wavelengths as [data] wave, or leave it out"
            yield f"[scores] {name} = {value!r}: {words}"


def _fill(section, **defaults):
    """Fill in what a section leaves out, and sections themselves."""
    found = {name: value for name, value in defaults.items() if is_dataclass(value) or getattr(section, name) is None}
    return replace(section, **found)
