"""Which models the study compares."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dualgate.gating import FUSIONS

REFERENCE, SINGLE, DUAL = "reference", "single tower", "dual tower"
PLAIN, BINNED = "9", "9x4"  # experts by regime alone, and by regime and quality bin


@dataclass(frozen=True)
class Method:
    """One model of the comparison.

    Parameters
    ----------
    name : str
        Key in `results.json`.
    label : str
        Name in tables and figures.
    kind : str
        `REFERENCE` (no gate), `SINGLE` or `DUAL`.
    experts : str
        `PLAIN`, `BINNED`, or empty for the global ridge.
    parameters : mapping, default={}
        What makes the default model this one, for `set_params`.
    """

    name: str
    label: str
    kind: str
    experts: str = ""
    parameters: Mapping = field(default_factory=dict)


GLOBAL = Method("global", "global ridge", REFERENCE)
ORACLES = {kind: Method(f"oracle_{kind}", f"oracle, {kind} experts", REFERENCE, kind) for kind in (PLAIN, BINNED)}


def gated_methods() -> list[Method]:
    """Models with a trained gate: towers alone, then every fusion, over nine and over 9x4 experts.

    A tower alone over 9x4 experts tells what the experts bring without a second tower.

    Examples
    --------
    >>> [method.name for method in gated_methods() if method.kind == SINGLE]
    ['phys_9', 'quality_9', 'phys_9x4', 'quality_9x4']
    """
    kinds = {PLAIN: {"experts__quality_edges": None}, BINNED: {}}
    singles = [
        Method(
            f"{tower}_{kind}",
            f"{tower} tower alone, {kind} experts",
            SINGLE,
            kind,
            {f"{other}_gate": "drop", **changes},
        )
        for kind, changes in kinds.items()
        for tower, other in [("phys", "quality"), ("quality", "phys")]
    ]
    duals = [
        Method(f"{fusion}_{kind}", f"{fusion}, {kind} experts", DUAL, kind, {"fusion": fusion, **changes})
        for kind, changes in kinds.items()
        for fusion in sorted(FUSIONS)
    ]
    return singles + duals


def all_methods() -> list[Method]:
    """Every line of the table: references first, then :func:`gated_methods`."""
    return [GLOBAL, *ORACLES.values(), *gated_methods()]
