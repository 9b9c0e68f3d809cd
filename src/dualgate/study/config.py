"""What a study is asked to do: a TOML file and flags, checked key by key. It imports nothing heavy."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path

from dualgate.study.keys import a_flag, a_list, a_number, a_text, a_texts, a_wave, key

ROWS = 20_000
LIMIT_ROWS = {False: 150, True: 1000}  # whether every method runs
SCORES = {False: (8, 20_000, False), True: (10, 60_000, True)}  # the same; the latter as in `for_spectra`
MIN_ROWS = 1000  # leaves a hundred test rows, and a score of training rows to a cell
TABLES = (".npz", ".npy", ".csv", ".parquet")
STELLAR_BOUNDARY = (100.0, 0.1)  # [K, dex] how near an edge a spectrum is called a boundary sample


class ConfigError(ValueError):
    """A key of the study's configuration is unknown, or its value is not what it must be; the message names it."""


@dataclass(frozen=True)
class DataConfig:
    """Section `[data]`: where rows come from and, for a table, what its columns are.

    A column is named by its name, by a pattern ("flux_*"), by positions ("0:12"), or, in a `.npz` file, by the array.

    Parameters
    ----------
    source : str
        "embedded" for simulated spectra; a `.npz`, `.npy`, `.csv` or `.parquet` table; else a path or pattern of HDF5
        shards.
    flux, error : tuple of str
        Columns of the measurement and, in the same order, of their standard deviations [same unit].
    quality : tuple of str
        Columns that the quality tower reads where there are no errors.
    target : str
        Column to predict.
    regimes : str
        Column of regimes, whole numbers or texts, numbered 0, 1, ... in the order of their values; without it and
        without `conditions` the model finds regimes of its own.
    conditions : tuple of str
        Columns of physical conditions, cut at `regime_edges` into regimes.
    regime_edges : tuple of tuples of float
        Increasing edges for each condition, in its unit.
    snr : str
        Column of the signal-to-noise ratio, for slices, where there are no errors.
    wave : str or tuple of float, [angstrom]
        Wavelengths of the flux columns: numbers, an array of the `.npz` file, or a file of numbers. Where they cover
        the lines of :class:`~dualgate.features.LineWindows` and there are errors, the model is that for spectra.
    """

    source: str = key("embedded", a_text)
    flux: tuple = key(None, a_texts)
    error: tuple = key(None, a_texts)
    quality: tuple = key(None, a_texts)
    target: str = key(None, a_text)
    regimes: str = key(None, a_text)
    conditions: tuple = key(None, a_texts)
    regime_edges: tuple = key(None, a_list(a_list(a_number(), increasing=True)))
    snr: str = key(None, a_text)
    wave: str | tuple = key(None, a_wave)

    @property
    def kind(self) -> str:
        """`embedded`, `table` or `shards`."""
        if self.source == "embedded":
            return "embedded"
        return "table" if Path(self.source).suffix.lower() in TABLES else "shards"


@dataclass(frozen=True)
class Thresholds:
    """Section `[thresholds]`: what a gain must reach.

    Parameters
    ----------
    continue_ : float, [dimensionless]
        Delta R^2 that asks for further development; the key is `continue`.
    first : float, [dimensionless]
        Delta R^2 that the smallest dual model, MVP-4.0, must gain over nine experts.
    low_snr : float, [dimensionless]
        Delta R^2 within an SNR bin that says quality helps there.
    rho : float, [dimensionless]
        Share of the oracle's gain that a gate should keep.
    boundary : tuple of float
        For each condition, how near one of its edges a row is a boundary sample, in the condition's unit. For stellar
        spectra 100 K and 0.1 dex where none are given.
    leak_snr, leak_target : float, [dimensionless]
        R^2 that quality features must reach on the SNR, and must not exceed on the target.
    """

    continue_: float = key(0.01, a_number(0, 1))
    first: float = key(0.005, a_number(0, 1))
    low_snr: float = key(0.02, a_number(0, 1))
    rho: float = key(0.8, a_number(0, 2))
    boundary: tuple = key(None, a_list(a_number(0)))
    leak_snr: float = key(0.5, a_number(0, 1))
    leak_target: float = key(0.05, a_number(0, 1))


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
    """Section `[scores]`: how Wiener scores of spectra are found, as in `WienerScores`.

    Parameters
    ----------
    n_iter, max_rows : int
        Steps of expectation-maximisation, and how many training rows they read.
    smooth : bool
        Whether loadings are smooth along the wavelength.

    None is 8, 20,000 and false; where every method runs 10, 60,000 and true, as in `for_spectra`, five times the work.
    """

    n_iter: int = key(None, a_number(1, integer=True))
    max_rows: int = key(None, a_number(1000, integer=True))
    smooth: bool = key(None, a_flag)


@dataclass(frozen=True)
class Bootstrap:
    """Section `[bootstrap]`: resamples of every seed's test rows."""

    resamples: int = key(1000, a_number(20, integer=True))


@dataclass(frozen=True)
class Limit:
    """Section `[limit]`: test rows of every seed that the Bayes limit is found of, each about a fifth of a second.

    Parameters
    ----------
    rows : int
        0 leaves the limit out. None is 150, and 1,000 where every method runs; 0 where the simulator is not known.
    """

    rows: int = key(None, a_number(0, integer=True))


@dataclass(frozen=True)
class StudyConfig:
    """Everything a study is asked to do.

    Parameters
    ----------
    rows : int or None
        Rows per seed, at least 1,000; None is 20,000 simulated ones, or all there are in files.
    seeds : tuple of int
        Each a full run.
    out : str
        Directory of the report and of the stages.
    methods : tuple of str
        Names of methods or of groups, "main" or "all".
    full : bool
        Every method, whatever `methods` says.
    data, thresholds, training, scores, bootstrap, limit
        The sections.

    Examples
    --------
    >>> StudyConfig.of({"rows": 5000, "training": {"max_epochs": 5}}).training.max_epochs
    5
    >>> StudyConfig.of({"data": {"sourc": "embedded"}})
    Traceback (most recent call last):
        ...
    dualgate.study.config.ConfigError: [data] sourc: unknown key; did you mean "source"?
    """

    rows: int | None = key(None, a_number(MIN_ROWS, integer=True))
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
        """Check a nested mapping, as TOML gives it, and fill in what it leaves out.

        Raises
        ------
        ConfigError
            If a key is unknown or a value is not what it must be; the message names the key.
        """
        config = _build(cls, mapping, "")
        _check_data(config.data)
        _check_thresholds(config)
        fills = {"rows": ROWS} if config.rows is None and config.data.kind == "embedded" else {}
        if config.thresholds.boundary is None and config.data.kind != "table":
            values = _flat(config.thresholds) | {"boundary": STELLAR_BOUNDARY}
            fills["thresholds"] = Thresholds(**values)
        fills["scores"] = _fill_scores(config)
        if config.limit.rows is None:
            fills["limit"] = Limit(LIMIT_ROWS[config.full] if config.data.kind == "embedded" else 0)
        elif config.limit.rows and config.data.kind != "embedded":
            raise ConfigError(
                f"[limit] rows = {config.limit.rows}: must be 0 where source = {config.data.source!r}; the limit is "
                "known of simulated spectra alone"
            )
        return cls(**_flat(config) | fills)

    def as_dict(self) -> dict:
        """Return the effective configuration as plain numbers, texts, lists and mappings, ready for JSON."""
        return _plain(self)


def load_config(path: str | None, flags: Mapping) -> StudyConfig:
    """Read a TOML file, if there is one, let flags override it, and check both.

    Parameters
    ----------
    path : str or None
    flags : mapping
        Nested as the file; only what was given.

    Raises
    ------
    ConfigError
        As :meth:`StudyConfig.of`, and where the file cannot be read.
    """
    given = {} if path is None else _read(path)
    if "methods" in flags and not flags.get("full"):
        given.pop("full", None)
    for name, value in flags.items():
        inner = given.get(name)
        given[name] = {**inner, **value} if isinstance(value, dict) and isinstance(inner, dict) else value
    return StudyConfig.of(given)


def nearest(word: str, known, *, quote='"') -> str:
    """Return the end of a message on an unknown word: what it may have meant, or what there is."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {quote}{close[0]}{quote}?"
    return f"there are {', '.join(known)}."


def _read(path):
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no TOML file: {error}") from None


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
    named = [part.name for part in fields(data) if part.name != "source" and getattr(data, part.name) is not None]
    if data.kind != "table":
        if named:
            raise ConfigError(
                f"[data] {named[0]}: names a column of a table, but source = {data.source!r} is none; tables end in "
                f"{', '.join(TABLES)}"
            )
        return
    for name in ("flux", "target"):
        if name not in named:
            raise ConfigError(f"[data] {name}: missing; source = {data.source!r} is a table, say what its columns are")
    if data.error is None and data.quality is None:
        raise ConfigError("[data] error: missing, and quality too; one of both must name what the quality tower reads")
    for one, other in [("error", "quality"), ("error", "snr"), ("regimes", "conditions")]:
        if one in named and other in named:
            raise ConfigError(f"[data] {other}: cannot be given beside {one}; leave one of both out")
    if ("conditions" in named) != ("regime_edges" in named):
        raise ConfigError("[data] regime_edges: must be given where conditions are, and only there")
    if data.conditions is not None and len(data.conditions) != len(data.regime_edges):
        raise ConfigError(
            f"[data] regime_edges: holds edges for {len(data.regime_edges)} conditions, conditions names "
            f"{len(data.conditions)}; there must be edges for each"
        )


def _check_thresholds(config):
    bars, data = config.thresholds, config.data
    if bars.first > bars.continue_:
        raise ConfigError(
            f"[thresholds] first = {bars.first}: must not be above continue = {bars.continue_}; the first step is to "
            "gain no more than the whole"
        )
    if bars.boundary is not None:
        n_conditions = 2 if data.kind != "table" else len(data.conditions or ())
        if len(bars.boundary) != n_conditions:
            raise ConfigError(
                f"[thresholds] boundary: holds {len(bars.boundary)} distances, the rows have {n_conditions} conditions;"
                " there must be one for each"
            )


def _fill_scores(config):
    """Fill in what `[scores]` leaves out; a table without wavelengths has no spectra to find scores of."""
    given = {name: value for name, value in _flat(config.scores).items() if value is not None}
    if config.data.kind == "table" and config.data.wave is None:
        for name, value in given.items():
            raise ConfigError(
                f"[scores] {name} = {value!r}: is for spectra; give their wavelengths as [data] wave, or leave it out"
            )
        return config.scores
    return Scores(**dict(zip(_flat(Scores()), SCORES[config.full], strict=True)) | given)


def _flat(section):
    return {part.name: getattr(section, part.name) for part in fields(section)}


def _plain(value):
    if is_dataclass(value):
        return {name.rstrip("_"): _plain(each) for name, each in _flat(value).items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
