"""Where a study's rows come from, and the default model for them."""

from functools import cached_property
from pathlib import Path

from sklearn.utils import Bunch

from dualgate import DualTowerMoERegressor, HierarchicalExperts, PhysGate, QualityGate
from dualgate.datasets import open_spectra, stream_spectra
from dualgate.evaluation import SNR_EDGES
from dualgate.features.lines import check_wave
from dualgate.study.config import MIN_ROWS, ConfigError, StudyConfig
from dualgate.study.tables import Table, file_hash, read_rows

ERRORS, REGIMES, LINES = "errors", "regimes", "spectral lines"  # what methods may need of the rows
SIMULATOR = "known simulator"
PROJECT_FROM = 100  # flux columns of a table from which experts work on principal components


class StudyRows:
    """Rows of a study by seed; nothing is read before it is asked for.

    Parameters
    ----------
    config : StudyConfig

    Attributes
    ----------
    offers : frozenset of str
        What the rows have that a method may need: `ERRORS`, `REGIMES`, `LINES`, `SIMULATOR`.
    """

    def __init__(self, config: StudyConfig):
        self.config, self.data = config, config.data

    @cached_property
    def table(self):
        """Rows of the table, read once."""
        return read_rows(Table(self.data.source), self.data, self.config.rows)

    @cached_property
    def offers(self) -> frozenset:  # noqa: D102
        if self.data.kind != "table":
            return frozenset({ERRORS, REGIMES, LINES} | ({SIMULATOR} if self.data.kind == "embedded" else set()))
        offers = {ERRORS: self.data.error, REGIMES: self.data.regimes or self.data.conditions}
        found = {name for name, given in offers.items() if given}
        return frozenset(found | {LINES} if _shows_lines(self.table) and ERRORS in found else found)

    def check(self):
        """Open what there is once, so that what is wrong with it is said before the work.

        Raises
        ------
        ConfigError
            If rows cannot be read, or are fewer than a study needs.
        """
        if self.data.kind == "embedded":
            return
        try:
            n_rows = len((self.table if self.data.kind == "table" else self.make(0)).y)
        except ConfigError:
            raise
        except (OSError, ValueError, ImportError) as error:
            raise ConfigError(f"[data] source: {error}") from None
        if n_rows < MIN_ROWS:
            raise ConfigError(
                f"[data] source: {self.data.source!r} holds {n_rows} rows, the study needs {MIN_ROWS} or more"
            )

    def make(self, seed: int) -> Bunch:
        """Rows of one seed: simulated ones, those of shards with noise of this seed, or those of the table."""
        if self.data.kind == "embedded":
            return stream_spectra(self.config.rows, random_state=seed)
        if self.data.kind == "table":
            return self.table
        spectra = open_spectra(self.data.source, stop=self.config.rows, random_state=seed)
        spectra.ordered = True
        return spectra

    def make_model(self, data: Bunch, seed: int) -> DualTowerMoERegressor:
        """Build the default model for the rows, with the scores and the training of the configuration."""
        if LINES in self.offers:
            scores = vars(self.config.scores).items()
            model = spectral_model(data, seed).set_params(**{f"experts__projection__{key}": it for key, it in scores})
        else:
            model = table_model(data, seed)
        section = self.config.training
        return model.set_params(**{name: getattr(section, name) for name in section.__dataclass_fields__})

    def fingerprint(self) -> list:
        """Return what tells these rows from others: the bytes of a table; names, sizes and times of shards."""
        if self.data.kind == "embedded":
            return ["embedded"]
        if self.data.kind == "table":
            wave = self.data.wave
            beside = isinstance(wave, str) and Path(wave).is_file()
            return [file_hash(self.data.source), *([file_hash(wave)] if beside else [])]
        paths = map(Path, open_spectra(self.data.source, stop=self.config.rows).paths)
        return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]


def spectral_model(data: Bunch, seed: int) -> DualTowerMoERegressor:
    """Build the default model for spectra `[flux | error]` on the pixels of `data.wave`."""
    return DualTowerMoERegressor.for_spectra(data.wave, n_jobs=-1, random_state=seed)


def table_model(data: Bunch, seed: int) -> DualTowerMoERegressor:
    """Build the default model for other rows: the physics gate reads the flux, the quality gate what is beside it.

    With errors the experts have the quality bins of the SNR; without, one for each regime.
    """
    flux, beside = slice(0, data.n_flux), slice(data.n_flux, None)
    experts = HierarchicalExperts(
        flux,
        beside if data.paired else None,
        quality_edges=SNR_EDGES if data.paired else None,
        projection="whitened" if data.n_flux >= PROJECT_FROM else None,
        clip=True,
    )
    quality = QualityGate(beside, features=None if data.paired else "passthrough")
    return DualTowerMoERegressor(PhysGate(flux), quality, experts=experts, n_jobs=-1, random_state=seed)


def _shows_lines(data):
    """Whether wavelengths cover the windows of the lines; a grid for something else is no mistake."""
    if data.wave is None:
        return False
    try:
        check_wave("[data]", data.wave)
    except ValueError:
        return False
    return True
