"""Where quality enters: what it brings at the gate, in the experts and in the representation."""

from dataclasses import asdict

from dualgate.study.answers import Candidates
from dualgate.study.methods import MIXTURE, VARIANT

REPRESENTATION = "representation"  # compared where the better model says what it reads
PLACES = {  # what is changed: the model with it, the model without, in words
    "gate": [
        ("concat_9", "phys_9", "nine experts: both towers against physics alone"),
        ("concat_9_whitened", "phys_9_whitened", "nine experts on whitened components: the same"),
        ("concat_9_pixels", "phys_9_pixels", "nine experts on pixels: the same"),
        ("concat_9x4", "phys_9x4", "9x4 experts: both towers against physics alone"),
        ("concat_9x4_whitened", "phys_9x4_whitened", "9x4 experts on whitened components: the same"),
    ],
    "experts": [
        ("oracle_9x4", "oracle_9", "true regime known: 9x4 experts against 9"),
        ("concat_9x4", "concat_9", "both towers: 9x4 experts against 9"),
        ("concat_9x4_whitened", "concat_9_whitened", "both towers on whitened components: 9x4 experts against 9"),
    ],
    REPRESENTATION: [
        ("concat_9", "concat_9_whitened", "nine experts: Wiener scores against whitened components"),
        ("concat_9x4", "concat_9x4_whitened", "9x4 experts: Wiener scores against whitened components"),
        ("concat_9x4_clean", "concat_9x4", "9x4 experts: loadings from noise-free flux against noisy"),
        ("concat_9_whitened", "concat_9_pixels", "nine experts: whitened components against pixels"),
    ],
}


def places_of_quality(candidates: Candidates) -> list[dict]:
    """Gains of R^2 from quality at each place, as far as the methods tell.

    Parameters
    ----------
    candidates : Candidates

    Returns
    -------
    places : list of dict
        `place`, `what`, `better`, `worse` (names) and `gain`.
    """
    scores, readers = candidates.scores, {method.name: method.reader for method in candidates.methods}
    return [
        {"place": place, "what": what, "better": better, "worse": worse, "gain": asdict(scores.gain(better, worse))}
        for place, pairs in PLACES.items()
        for better, worse, what in pairs
        if better in scores.names
        and worse in scores.names
        and (place != REPRESENTATION or readers[better] != "default")
    ]


def changes(candidates: Candidates) -> list[dict]:
    """Gains of R^2 of every variant over the concat model that it is a change of.

    Parameters
    ----------
    candidates : Candidates

    Returns
    -------
    changes : list of dict
        `name`, `group`, `reference` (name) and `gain`.
    """
    scores, found = candidates.scores, []
    for method in candidates.methods:
        if method.kind != VARIANT or method.view != MIXTURE or "drop" in method.parameters.values():
            continue
        reference = f"concat_{method.experts}" + ("_whitened" if method.name == "concat_9x4_noise" else "")
        if reference in scores.names:
            gain = asdict(scores.gain(method.name, reference))
            found.append({"name": method.name, "group": method.group, "reference": reference, "gain": gain})
    return found
