"""Which models the study compares. A further one is a line here, and a reader if it reads the rows its own way."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from importlib.util import find_spec

from dualgate.features.quality import STATISTICS
from dualgate.gating import FUSIONS
from dualgate.study.config import ConfigError, nearest
from dualgate.study.data import ERRORS, LINES, REGIMES
from dualgate.study.methods import DUAL, ORACLE, PEER, REFERENCE, ROOT, SINGLE, VARIANT, Method
from dualgate.study.peers import boosted_trees, light_trees
from dualgate.study.readers import READERS

PLAIN, BINNED, BINS = "9", "9x4", "4"  # experts by regime, by regime and quality bin, by quality bin
GROUPS = {
    "reference": "what a gate is measured against",
    "single": "one tower alone",
    "MVP-4.0": "nine experts, both towers concatenated",
    "MVP-4.1": "nine experts, factorised gates",
    "MVP-4.2": "nine experts, quality sets the temperature",
    "MVP-4.3": "experts for every regime and quality bin",
    "representation": "what the experts read",
    "routing": "how weights become a prediction, and what the gate is trained on",
    "ablation": "one thing taken away or changed",
    "peer": "other regressors on the same columns",
}
_UNBINNED = {"experts__quality_edges": None}
_FIVE = [STATISTICS.index(name) for name in ("mean", "std", "min", "max", "median")]
_STAGES = {"concat": "MVP-4.0", "logit_add": "MVP-4.1", "poe": "MVP-4.1", "temperature": "MVP-4.2"}


def _references():
    phys, bins = {"quality_gate": "drop"}, {"phys_gate": "drop"}
    yield Method("global", "global ridge", REFERENCE, "", {**phys, **_UNBINNED}, view=ROOT, main=True,
                 description="one ridge for all rows")  # fmt: skip
    for kind, changes, words in [
        (BINS, bins, "quality bin known, no regimes"),
        (PLAIN, {**phys, **_UNBINNED}, "true regime known"),
        (BINNED, phys, "true regime and quality bin known"),
    ]:
        yield Method(
            f"oracle_{kind}", f"oracle, {kind} experts", REFERENCE, kind, changes, view=ORACLE, main=True,
            one_regime=kind == BINS, description=f"each row's own expert: {words}",
        )  # fmt: skip


def _singles():
    for kind, changes in [(PLAIN, _UNBINNED), (BINNED, {})]:
        for tower, other in [("phys", "quality"), ("quality", "phys")]:
            yield Method(
                f"{tower}_{kind}", f"{tower} tower alone, {kind} experts", SINGLE, kind,
                {f"{other}_gate": "drop", **changes}, "single", f"{tower} tower over {kind} experts", main=True,
            )  # fmt: skip


def _duals():
    for kind, changes in [(PLAIN, _UNBINNED), (BINNED, {})]:
        for fusion in sorted(FUSIONS):
            yield Method(
                f"{fusion}_{kind}", f"{fusion}, {kind} experts", DUAL, kind, {"fusion": fusion, **changes},
                _STAGES[fusion] if kind == PLAIN else "MVP-4.3", f"fusion {fusion} over {kind} experts", main=True,
            )  # fmt: skip
    # variants: no single tower has experts that share so, and a gain over one that differs twice would answer nothing
    for sharing, words, main in [
        ("offset", "one offset per quality bin", True),
        ("independent", "nothing shared", True),
        ("scale", "one factor per quality bin", False),
        ("alpha", "one penalty per quality bin", False),
    ]:
        yield Method(
            f"concat_9x4_{sharing}", f"concat, 9x4 experts, {sharing}", VARIANT, BINNED, {"experts__sharing": sharing},
            "MVP-4.3", f"concat over 9x4 experts with {words}, instead of shrinkage", main=main,
        )  # fmt: skip
    yield Method(
        "concat_9x4_noise", "concat, 9x4 experts, noise, whitened", VARIANT, BINNED, {"experts__sharing": "noise"},
        "MVP-4.3", "concat over 9x4 experts that know the noise, on whitened components", reader="whitened",
    )  # fmt: skip


def _representations():
    plain, alone = {"fusion": "concat", **_UNBINNED}, {"quality_gate": "drop"}
    for name, reader, words in [
        ("pixels", "pixels", "means of four pixels, as they are"),
        ("whitened", "whitened", "noise-whitened components"),
        ("clean", "wiener clean", "Wiener scores, loadings from noise-free flux"),
    ]:
        common = {"group": "representation", "reader": reader}
        yield Method(f"global_{name}", f"global ridge, {name}", VARIANT, "", plain, view=ROOT,
                     description=f"one ridge for all rows on {words}", **common)  # fmt: skip
        yield Method(f"oracle_9_{name}", f"oracle, 9 experts, {name}", VARIANT, PLAIN, plain, view=ORACLE,
                     description=f"each row's own expert on {words}", **common)  # fmt: skip
        yield Method(f"phys_9_{name}", f"phys tower alone, 9 experts, {name}", VARIANT, PLAIN, {**alone, **_UNBINNED},
                     description=f"phys tower over 9 experts on {words}", **common)  # fmt: skip
        yield Method(f"concat_9_{name}", f"concat, 9 experts, {name}", VARIANT, PLAIN, plain, main=name == "whitened",
                     description=f"concat over 9 experts on {words}", **common)  # fmt: skip
        if name == "pixels":  # 36 ridges on a thousand columns each
            continue
        yield Method(f"phys_9x4_{name}", f"phys tower alone, 9x4 experts, {name}", VARIANT, BINNED, alone,
                     description=f"phys tower over 9x4 experts on {words}", **common)  # fmt: skip
        yield Method(f"concat_9x4_{name}", f"concat, 9x4 experts, {name}", VARIANT, BINNED, {"fusion": "concat"},
                     description=f"concat over 9x4 experts on {words}", main=True, **common)  # fmt: skip


def _variants():
    plain, whole = {"fusion": "concat", **_UNBINNED}, {"fusion": "concat"}
    for kind, changes in [(PLAIN, plain), (BINNED, whole)]:
        for routing, name, words in [
            ("hard", "hard", "the first alone answers"),
            (3, "top3", "the first three answer"),
        ]:
            yield Method(
                f"concat_{kind}_{name}", f"concat, {kind} experts, {name} routing", VARIANT, kind, changes, "routing",
                f"concat over {kind} experts, of which {words}", routing=routing,
            )  # fmt: skip
        yield Method(
            f"concat_{kind}_classes", f"concat, {kind} experts, classification", VARIANT, kind,
            {**changes, "loss": "cross_entropy"}, "routing",
            f"concat over {kind} experts, gate trained to name the true cell",
        )  # fmt: skip
    blind, unsure = {"phys_gate__scores": False}, {"quality_gate__variances": False}
    for name, words, changes, kept, needs in [
        ("in_sample", "gate trained on predictions of rows the experts saw", {"cross_fit": False}, {}, ()),
        ("no_warmup", "learning rate without warm-up", {"warmup_epochs": 0}, {}, ()),
        ("high_lr", "learning rate of 0.1 from the first step", {"warmup_epochs": 0, "lr": 0.1}, {}, ()),
        ("no_scores", "physics gate of line windows alone, without the experts' scores", blind, {}, (LINES,)),
        ("no_variances", "quality gate without the scores' variances", unsure, {}, (LINES,)),
        ("quality_5", "five quality statistics instead of ten", {}, {"quality": _FIVE}, (ERRORS,)),
        ("no_lines", "physics gate of the experts' scores alone, without line windows", {}, {"phys": []}, (LINES,)),
    ]:
        yield Method(
            f"concat_9x4_{name}", f"concat, 9x4 experts, {name.replace('_', ' ')}", VARIANT, BINNED,
            {**whole, **changes}, "ablation", f"concat over 9x4 experts: {words}", kept=kept, needs=frozenset(needs),
        )  # fmt: skip


def _peers():
    yield Method("hist_gradient_boosting", "HistGradientBoosting", PEER, group="peer", peer=boosted_trees, main=True,
                 description="scikit-learn's boosted trees on projected columns and quality features")  # fmt: skip
    yield Method("lightgbm", "LightGBM", PEER, group="peer", peer=light_trees, package="lightgbm",
                 description="LightGBM on projected columns and quality features, if it is installed")  # fmt: skip


_PARTS = (_references, _singles, _duals, _representations, _variants, _peers)
ROSTER = {method.name: method for part in _PARTS for method in part()}
GLOBAL = ROSTER["global"]
ORACLES = {kind: ROSTER[f"oracle_{kind}"] for kind in (BINS, PLAIN, BINNED)}


def all_methods() -> list[Method]:
    """Return every method there is, in the order of the tables."""
    return list(ROSTER.values())


def main_methods() -> list[Method]:
    """Return the methods of a run that names none.

    Examples
    --------
    >>> [method.name for method in main_methods() if method.kind == SINGLE]
    ['phys_9', 'quality_9', 'phys_9x4', 'quality_9x4']
    """
    return [method for method in all_methods() if method.main]


def gated_methods() -> list[Method]:
    """Methods in which a trained gate speaks."""
    return [method for method in all_methods() if method.gated]


def choose_methods(names: Iterable[str], offers: Collection[str]) -> tuple[list[Method], dict[str, str]]:
    """Choose methods by name or group, as far as rows and packages allow.

    Parameters
    ----------
    names : iterable of str
        Names of methods or groups, "main" or "all".
    offers : collection of str
        What the rows have.

    Returns
    -------
    methods : list of Method
        In the order of the roster.
    left_out : dict of str to str
        Methods that a group named but that cannot run, and why.

    Raises
    ------
    ConfigError
        If a name is unknown, a method was named that cannot run, or nothing is left.
    """
    chosen, left_out = set(), {}
    for name in names:
        members = _members(name)
        for method in members:
            lack = lacking(method, offers)
            if lack and name == method.name:
                raise ConfigError(f"methods: {name!r} cannot run: {lack}")
            if lack:
                left_out[method.name] = lack
            else:
                chosen.add(method.name)
    if not chosen:
        raise ConfigError(f"methods: none of {', '.join(names)} can run: {'; '.join(sorted(set(left_out.values())))}")
    return [_read_as(method, offers) for method in all_methods() if method.name in chosen], left_out


def _read_as(method, offers):
    """Name the reader that the default is for these rows: Wiener scores of spectra."""
    return replace(method, reader="wiener") if method.reader == "default" and LINES in offers else method


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


def _members(name):
    if name == "all":
        return all_methods()
    if name == "main":
        return main_methods()
    if name in ROSTER:
        return [ROSTER[name]]
    if name in GROUPS:
        return [method for method in all_methods() if method.group == name]
    raise ConfigError(
        f"methods: {name!r} is no method and no group; {nearest(name, ['main', 'all', *GROUPS, *ROSTER])}"
    )
