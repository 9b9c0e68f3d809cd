"""Which models the study compares: a further one is a line of `TABLE`, a further way to read rows one of `READERS`."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import FunctionTransformer

from dualgate.datasets import stream_spectra
from dualgate.features import WienerScores
from dualgate.features.quality import STATISTICS
from dualgate.gating import FUSIONS
from dualgate.rows.store import digest
from dualgate.study.config import ConfigError, nearest
from dualgate.study.inputs import ERRORS, LINES, REGIMES, SIMULATOR, n_flux
from dualgate.study.run import EVIDENCE, EXPERTS, FACTOR, GATE, PHYS, gate_trace

REFERENCE, SINGLE, DUAL, VARIANT, PEER = "reference", "single tower", "dual tower", "variant", "peer"
LIKELIHOOD = "likelihood"
MIXTURE, ORACLE, ROOT = "mixture", "oracle", "root"  # whose prediction a method is
PLAIN, BINNED, BINS = "9", "9x4", "4"  # an expert for each regime, regime and quality bin, quality bin
QUALITY = "quality"
BOTH = PHYS, QUALITY
TOWERS = {PHYS: "physics tower", QUALITY: "quality tower"}
SHARING = {
    "offset": "one offset for each quality bin, instead of shrinkage",
    "independent": "nothing shared",
    "scale": "one factor for each quality bin, instead of shrinkage",
    "alpha": "one penalty for each quality bin, instead of shrinkage",
}
GROUPS = {
    "reference": "what a gate is measured against",
    "single": "one tower alone",
    "dual": "both towers, an expert for each regime",
    "binned": "both towers, an expert for each regime and quality bin",
    "likelihood": "weights from the likelihood, given the errors",
    "sharing": "what the experts of different quality bins share",
    "representation": "what the experts read",
    "routing": "how weights become a prediction, and what the gates are trained on",
    "ablation": "one thing taken away or changed",
    "peer": "other regressors on the same columns",
}


@dataclass(frozen=True)
class Reader:
    """One way to reduce the rows: what changes in the default model before features and projection are fitted."""

    words: str = "columns"
    parameters: Mapping = field(default_factory=dict)  # for `set_params` of the default model
    needs: frozenset = frozenset()  # what the rows must have, as in `StudyRows.offers`
    make: Callable | None = None  # (data, train, seed) -> further parameters, before the reduction is fitted to `train`
    experts: str = "hierarchical"  # of the default model that it changes, as in `DualTowerMoERegressor`
    blind: bool = False  # whether the rows are read as if each had the typical errors

    @property
    def key(self) -> str:
        """Name of the reduction: the same for readers that differ in nothing but their name."""
        return digest(self.parameters, self.make, self.experts, self.blind)[:12]


@dataclass(frozen=True)
class Method:
    """One model of the comparison. Methods whose fits are equal share one, and differ in view or routing alone."""

    name: str  # in `results.json` and on the command line
    kind: str  # `REFERENCE` (no gate), `SINGLE`, `DUAL`, `LIKELIHOOD`, `VARIANT` (never chosen to be best) or `PEER`
    group: str  # one of `GROUPS`
    description: str  # for `dualgate study --list`
    experts: str = ""  # `PLAIN`, `BINNED`, `BINS`, `FACTOR`, or empty where there are none
    towers: tuple = ()  # which of `PHYS` and `QUALITY` take part; empty where no gate does
    fusion: str = ""  # alias of the fusion of both towers
    head: str = ""  # how the title begins where it names no tower
    words: str = ""  # what distinguishes it, at the end of the title
    changes: str = ""  # name of the method that a variant is a change of
    main: bool = False  # whether it runs where no methods are chosen
    reader: str = "default"  # one of `READERS`; every reader reads the rows of a seed once
    view: str = MIXTURE  # or `ORACLE` (each row's own expert, its regime known), or `ROOT` (the ridge for all rows)
    routing: str | int = "soft"  # as in `DualTowerMoERegressor`, at prediction
    blind: tuple = ()  # which of `EVIDENCE`, `GATE` and `EXPERTS` take the typical errors for the row's own
    by_bin: bool = False  # whether blind evidence has a temperature in each SNR bin, not one for all rows
    settings: Mapping = field(default_factory=dict)  # further parameters of the default model
    peer: Callable | None = None  # makes a regressor for a random_state, on the columns [projected | quality features]
    kept: Mapping = field(default_factory=dict)  # numbers of the features that a gate still reads; all where not named
    needs: frozenset = frozenset()  # what the rows must have, besides what experts, view and reader ask for
    package: str = ""  # what must be importable, if anything; its version is part of the fit's name

    def title(self, n_regimes: int = 9, n_bins: int = 4) -> str:
        """Name in tables and figures, with as many experts as there are.

        >>> METHODS["concat_9x4"].title(), METHODS["phys_9"].title(n_regimes=3)
        ('both towers (concat), 9x4 experts', 'physics tower, 3 experts')
        """
        towers = f"both towers ({self.fusion})" if self.fusion else " ".join(map(TOWERS.get, self.towers))
        experts = {PLAIN: f"{n_regimes} experts", BINNED: f"{n_regimes}x{n_bins} experts", BINS: f"{n_bins} experts"}
        return ", ".join(filter(None, [self.head or towers, experts.get(self.experts), self.words]))

    @property
    def parameters(self) -> dict:
        """What makes the default model this one, for `set_params`."""
        alone = self.towers or self.experts == FACTOR
        found = {f"{tower}_gate": "drop" for tower in BOTH if alone and tower not in self.towers}
        found |= {"fusion": self.fusion} if self.fusion else {}
        unbinned = self.peer is None and self.experts not in (BINNED, BINS, FACTOR)
        return found | ({"experts__quality_edges": None} if unbinned else {}) | dict(self.settings)

    @property
    def gated(self) -> bool:
        """Whether trained gates or the likelihood weigh the experts."""
        return self.view == MIXTURE and self.peer is None

    @property
    def probed(self) -> bool:
        """Whether its fit finds what weights and experts are that are blind to the errors."""
        return bool(self.blind) or (self.kind == LIKELIHOOD and not self.towers)

    @property
    def representation(self) -> Reader:
        """How it reads the rows."""
        return READERS[self.reader]

    @property
    def one_regime(self) -> bool:
        """Whether its fit puts all rows in one regime."""
        return self.experts == BINS

    @property
    def fit_key(self) -> str:
        """Name of the fit: the same for methods that differ in their view alone."""
        package = version(self.package) if self.package else ""
        parts = self.representation.key, self.parameters, self.kept, self.one_regime, self.peer, package
        return digest(*parts)[:12]

    def predict(self, arrays: Mapping) -> np.ndarray:
        """Prediction for the held-out rows, from the arrays of the fit."""
        if self.peer is not None:
            return arrays["prediction"]
        if self.view == ROOT:
            return arrays["root_prediction"]
        if self.view == ORACLE:
            return arrays["expert_predictions"][np.arange(len(arrays["own"])), arrays["own"]]
        return gate_trace(self, arrays).prediction


# ---- how rows are read, and other regressors ---------------------------------------------------------------

CLEAN_FACTORS = 32
CLEAN_ROWS, CLEAN_SHARE = 8000, 8  # noise-free spectra that loadings are taken from: as many, or a part of all rows
REFINED = 36  # components under which loadings are refined
POOLED = 4  # neighbouring pixels averaged in the representation by pixels


def clean_projection(data, train, seed):
    """Wiener scores with loadings from noise-free spectra of the training rows."""
    rows = np.sort(np.random.default_rng(seed).permutation(train)[: max(CLEAN_ROWS, len(train) // CLEAN_SHARE)])
    clean = stream_spectra(len(data.y), random_state=seed, noise_level=0.0).X[rows]
    width = n_flux(data)
    scores = WienerScores(CLEAN_FACTORS, columns=slice(0, width), error_columns=slice(width, 2 * width), n_jobs=-1)
    return {"experts__projection": FrozenEstimator(scores.fit(data.X[rows], clean=clean))}


def few_components(data, train, seed):
    """Components under which loadings are refined; more take longer and refine them no better."""
    return {"experts__n_components": REFINED}


def pool_pixels(flux):
    """Average neighbouring pixels, (n_rows, n_pixels // 4)."""
    flux = np.asarray(flux)
    kept = flux.shape[1] // POOLED
    return flux[:, : kept * POOLED].reshape(len(flux), kept, POOLED).mean(axis=2)


def light_trees(random_state: int):
    """Make the gradient boosting of LightGBM, in one thread: several slow each other down on a busy machine."""
    from lightgbm import LGBMRegressor

    return LGBMRegressor(random_state=random_state, deterministic=True, force_row_wise=True, n_jobs=1, verbose=-1)


_LINES, _ERRORS = frozenset({LINES}), frozenset({ERRORS})
_UNSURE = {"phys_gate__discriminants": True, "quality_gate__score_variances": False}  # there are no variances to read
_WIENER = {"phys_gate__discriminants": True, "quality_gate__score_variances": True}  # the projection is the model's own

READERS = {  # from no use of the errors to most
    "default": Reader(),  # `wiener` where the rows are spectra
    "pixels": Reader("pixels", _UNSURE | {"experts__projection": FunctionTransformer(pool_pixels)}, _LINES),
    "whitened": Reader("whitened components", _UNSURE | {"experts__projection": "whitened"}, _ERRORS),
    "wiener": Reader("Wiener scores", _WIENER, _ERRORS),
    "wiener clean": Reader("Wiener scores, noise-free loadings", _WIENER, frozenset({SIMULATOR}), clean_projection),
    "likelihood": Reader("factors", {}, _ERRORS, few_components, FACTOR),
    "likelihood clean": Reader("factors, noise-free loadings", {}, frozenset({SIMULATOR}), clean_projection, FACTOR),
    "likelihood blind": Reader("factors, as if all errors were typical", {}, _ERRORS, few_components, FACTOR, True),
}

# ---- the table ---------------------------------------------------------------------------------------------

_FIVE = [STATISTICS.index(name) for name in ("mean", "std", "min", "max", "median")]


def _oracle(experts, dropped, head, known=""):
    return Method(f"oracle_{experts}", REFERENCE, "reference", f"each row's own expert: {known or head}", experts,
                  head=head, view=ORACLE, main=True, settings={f"{dropped}_gate": "drop"})  # fmt: skip


def _gated(experts, towers, fusion=""):
    """Make a method of one tower, or of both through a fusion."""
    group = "single" if not fusion else "dual" if experts == PLAIN else "binned"
    words = f"both towers through {fusion}" if fusion else f"{TOWERS[towers[0]]} alone"
    words += f", an expert for each regime{' and quality bin' if experts == BINNED else ''}"
    kind, name = (DUAL, fusion) if fusion else (SINGLE, *towers)
    return Method(f"{name}_{experts}", kind, group, words, experts, towers, fusion, main=True)


def _change(group, base, name, words, description, *, main=False, **more):
    """Make a variant of a method; `more` are the fields that differ."""
    return replace(
        base, name=f"{base.name}_{name}", kind=VARIANT, group=group, words=words, main=main, changes=base.name,
        description=f"{base.name}: {description}", **more,
    )  # fmt: skip


def _read(reader, name, words, *bases, main=()):
    """Make variants of methods that read the rows in another way; views on them share the fit of both towers."""
    for base in bases:
        more = {} if base.towers else {"settings": {"fusion": "concat"}}
        yield _change("representation", base, name, name, words, reader=reader, main=base in main, **more)


def _route(base, cell):
    change = partial(_change, "routing", base)
    yield change("hard", "hard routing", "the expert of the largest weight alone", routing="hard")
    yield change("top3", "top-3 routing", "the experts of the three largest weights", routing=3)
    words = f"gates trained to name the true {cell}"
    yield change("classes", "classification", words, settings={"loss": "cross_entropy"})


def _likelihood(base):
    change = partial(_change, "likelihood", base)
    for count in (9, 18, 36):
        words = f"{count} components"
        yield change(f"{count}", words, f"about {words}", settings={"experts__n_components": count})
    yield change("clean", "clean", "loadings from noise-free flux", reader="likelihood clean")
    told = "take typical errors for the row's own"
    yield change("blind_evidence", "blind weights", f"weights, at the best temperature, {told}", main=True,
                 blind=(EVIDENCE,))  # fmt: skip
    yield change(
        "blind_gate",
        "blind trained weights",
        "weights of a trained gate that reads scores with typical errors",
        main=True,
        blind=(GATE,),
    )
    yield change("tempered", "blind weights, a temperature by SNR bin",
                 f"weights, at the best temperature in each SNR bin, {told}", main=True, blind=(EVIDENCE,),
                 by_bin=True)  # fmt: skip
    yield change("blind_experts", "blind experts", f"experts {told}", main=True, blind=(EXPERTS,))
    yield change("blind", "blind weights and experts", f"both {told}, weights at the best temperature", main=True,
                 blind=(EVIDENCE, EXPERTS))  # fmt: skip
    yield change("blind_fit", "blind from the start", f"both {told}, while fitting too", reader="likelihood blind")


GLOBAL = Method("global", REFERENCE, "reference", "one ridge for all rows", head="global ridge", view=ROOT, main=True,
                settings={"quality_gate": "drop"})  # fmt: skip
ORACLES = {
    BINS: _oracle(BINS, PHYS, "quality bin known", "quality bin known, no regimes"),
    PLAIN: _oracle(PLAIN, QUALITY, "true regime known"),
    BINNED: _oracle(BINNED, QUALITY, "true regime known", "true regime and quality bin known"),
}
_SINGLE = [_gated(experts, (tower,)) for experts in (PLAIN, BINNED) for tower in BOTH]
_DUAL = [_gated(experts, BOTH, fusion) for experts in (PLAIN, BINNED) for fusion in sorted(FUSIONS)]
_PHYS, _PHYS_BINNED = (method for method in _SINGLE if method.towers == (PHYS,))
_CONCAT, _CONCAT_BINNED = (method for method in _DUAL if method.fusion == "concat")
_ablate = partial(_change, "ablation", _CONCAT_BINNED)
_FOUR = GLOBAL, ORACLES[PLAIN], _PHYS, _CONCAT
_SIX = *_FOUR, _PHYS_BINNED, _CONCAT_BINNED

MIXED = Method("factor", LIKELIHOOD, "likelihood", "factor mixture, its weights the likelihood alone", FACTOR,
               head="factor mixture", main=True, reader="likelihood")  # fmt: skip
BLIND_EVIDENCE, BLIND_GATE, TEMPERED, BLIND_EXPERTS, SMALLEST = (
    f"{MIXED.name}_{name}" for name in ("blind_evidence", "blind_gate", "tempered", "blind_experts", "9")
)

TABLE = (
    GLOBAL,
    *ORACLES.values(),
    *_SINGLE,
    *_DUAL,
    MIXED,
    replace(MIXED, name="factor_towers", towers=BOTH, fusion="concat", words="both towers on top", main=False,
            description="factor mixture, its weights corrected by both towers through concat"),
    *_likelihood(MIXED),
    # sharing is a variant: no single tower has experts that share so, and a gain over one that differs twice tells
    # nothing of quality at the gate
    *(_change("sharing", _CONCAT_BINNED, name, name, words, settings={"experts__sharing": name},
              main=name in ("offset", "independent")) for name, words in SHARING.items()),
    *_read("pixels", "pixels", "means of four pixels, as they are", *_FOUR),  # 36 ridges of 1,024 columns: no
    *_read("whitened", "whitened", "noise-whitened components", *_SIX, main=(_CONCAT, _CONCAT_BINNED)),
    *_read("wiener clean", "clean", "Wiener scores, loadings from noise-free flux", *_SIX, main=(_CONCAT_BINNED,)),
    *_route(_CONCAT, "regime"),
    *_route(_CONCAT_BINNED, "cell"),
    _ablate("in_sample", "in-sample gate", "gates trained on predictions of rows that the experts were fitted to",
            settings={"cross_fit": False}),
    _ablate("no_warmup", "no warm-up", "learning rate without warm-up", settings={"warmup_epochs": 0}),
    _ablate("high_lr", "high learning rate", "learning rate of 0.1 from the first step",
            settings={"warmup_epochs": 0, "lr": 0.1}),
    _ablate("no_scores", "no discriminants", "physics gate of line windows alone, without discriminants",
            settings={"phys_gate__discriminants": False}, needs=_LINES),
    _ablate("no_variances", "no score variances", "quality gate without score variances",
            settings={"quality_gate__score_variances": False}, needs=_LINES),
    _ablate("quality_5", "five quality statistics", "five quality statistics instead of ten", kept={QUALITY: _FIVE},
            needs=_ERRORS),
    _ablate("no_lines", "no line windows", "physics gate of discriminants alone, without line windows", kept={PHYS: []},
            needs=_LINES),
    Method("hist_gradient_boosting", PEER, "peer", "scikit-learn's boosted trees on projected columns and quality "
           "features", head="HistGradientBoosting", peer=HistGradientBoostingRegressor, main=True),
    Method("lightgbm", PEER, "peer", "LightGBM on projected columns and quality features, if it is installed",
           head="LightGBM", peer=light_trees, package="lightgbm"),
)  # fmt: skip
METHODS = {method.name: method for method in TABLE}


def choose_methods(names: Iterable[str], offers: Collection[str]) -> tuple[list[Method], dict[str, str]]:
    """Choose methods by name or group; also return those of a group that cannot run, with the reason."""
    groups = {"main": [method for method in TABLE if method.main], "all": TABLE}
    groups |= {group: [method for method in TABLE if method.group == group] for group in GROUPS}
    groups |= {name: [method] for name, method in METHODS.items()}
    for name in names:
        if name not in groups:
            raise ConfigError(f"methods: {name!r} is no method and no group; {nearest(name, list(groups))}")
        lack = lacking(METHODS[name], offers) if name in METHODS else ""
        if lack:
            raise ConfigError(f"methods: {name!r} cannot run: {lack}")
    asked = {method.name for name in names for method in groups[name]}
    lacks = {method.name: lacking(method, offers) for method in TABLE if method.name in asked}
    left_out = {name: lack for name, lack in lacks.items() if lack}
    if len(left_out) == len(asked):
        raise ConfigError(f"methods: none of {', '.join(names)} can run: {'; '.join(sorted(set(left_out.values())))}")
    default = "wiener" if LINES in offers else "default"
    chosen = [method for method in TABLE if method.name in asked - left_out.keys()]
    return [replace(method, reader=default) if method.reader == "default" else method for method in chosen], left_out


def lacking(method: Method, offers: Collection[str]) -> str:
    """Tell what a method needs and does not have, in words; empty where it can run."""
    needs = set(method.needs | READERS[method.reader].needs)
    needs |= {ERRORS} if method.experts in (BINNED, BINS) else set()
    needs |= {REGIMES} if method.view == ORACLE and not method.one_regime else set()
    missing = sorted(needs - set(offers))
    if missing:
        return f"the rows have no {' and no '.join(missing)}"
    if method.package and find_spec(method.package) is None:
        return f"it needs the package {method.package}; install it with: pip install {method.package}"
    return ""


def list_methods() -> str:
    """Every method by group, one line each, for `dualgate study --list`; a star marks those that run by default."""
    width, lines = max(map(len, METHODS)), []
    for group, words in GROUPS.items():
        members = [method for method in TABLE if method.group == group]
        lines += [f"{group}: {words}"]
        lines += [f"  {'*' if each.main else ' '} {each.name:{width}}  {each.description}" for each in members]
        lines += [""]
    return "\n".join([*lines, "* runs where no methods are named; --full runs all."])
