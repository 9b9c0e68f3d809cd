"""The questions of the study, each with a verdict, the interval that decides it, and one recommendation."""

from collections.abc import Sequence
from dataclasses import asdict

from dualgate.evaluation import SNR_NAMES, Interval
from dualgate.study.methods import DUAL, PEER, REFERENCE, SINGLE, Method
from dualgate.study.roster import BINNED, GLOBAL, ORACLES, PLAIN
from dualgate.study.scoring import LOW_BINS, StudyScores
from dualgate.study.verdict import FAIL, PASS, Decision, judge, strongest, weakest

COMPARISONS = {  # title, experts of the duals that may answer, experts of the single towers they must beat
    "overall": ("any dual model against any single tower", (PLAIN, BINNED), (PLAIN, BINNED)),
    "gate": ("quality at the gate: 9 experts against 9", (PLAIN,), (PLAIN,)),
    "experts": ("quality in the experts too: 9x4 against 9", (BINNED,), (PLAIN,)),
}
MIN_BIN_ROWS = 30  # of all seeds, for a verdict within an SNR bin
FUSIONS_BY_SIZE = ("logit_add", "temperature", "poe", "concat")  # what each adds to two towers, from nothing upward


class Candidates:
    """Which methods the validation rows choose.

    Parameters
    ----------
    methods : sequence of Method
    scores : StudyScores
    """

    def __init__(self, methods: Sequence[Method], scores: StudyScores):
        self.methods, self.scores = list(methods), scores

    def best(self, kind: str, experts: Sequence[str] = (PLAIN, BINNED), start: str = "") -> Method | None:
        """Return the method of a kind with the largest validation R^2; None where there is none.

        `start` is how its name begins.
        """
        found = [m for m in self.methods if m.kind == kind and m.experts in experts and m.name.startswith(start)]
        return max(found, key=lambda method: self.scores.validation_r2(method.name), default=None)

    def __getitem__(self, name: str) -> Method | None:
        return next((method for method in self.methods if method.name == name), None)


def comparisons(candidates: Candidates, bars) -> dict:
    """Compare duals with single towers, chosen by validation rows: overall, at the gate, in the experts."""
    found = {}
    for key, (title, kinds, rivals) in COMPARISONS.items():
        single, dual = candidates.best(SINGLE, rivals), candidates.best(DUAL, kinds)
        if single is None or dual is None:
            continue
        scores = candidates.scores
        gain = scores.gain(dual.name, single.name)
        by_snr = {bin_: scores.gain(dual.name, single.name, bin_) for bin_ in SNR_NAMES}
        found[key] = {
            "title": title,
            "dual": dual.name,
            "single": single.name,
            "gain": asdict(gain),
            **asdict(judge(gain, bars.continue_)),
            "gain_by_snr": {bin_: asdict(each) for bin_, each in by_snr.items()},
        }
    return found


def answer_all(candidates: Candidates, gates: dict, bars) -> list[dict]:
    """Every question that the methods can answer, in the order of the study.

    Parameters
    ----------
    candidates : Candidates
    gates : dict
        From :func:`~dualgate.study.gates.describe_gates`.
    bars : Thresholds

    Returns
    -------
    answers : list of dict
        `id`, `question`, `dual`, `single` (names or None), `verdict`, `reason` and `parts`: the numbers that decide,
        each with `what`, its interval, its `bar` and its own `verdict`.
    """
    makers = (_better_than_physics, _temperature_works, _speaks_of_its_axis, _gain, _low_snr, _recovery, _first)
    answers = (make(candidates, gates, bars) for make in makers)
    return [found for found in answers if found is not None]


def _better_than_physics(candidates, gates, bars):
    dual, single = candidates.best(DUAL), candidates.best(SINGLE, start="phys")
    if dual is None or single is None:
        return None
    gain = candidates.scores.gain(dual.name, single.name)
    return _answer("Q6.1", "Are two towers better than the physics tower alone?", dual, single,
                   [_part("ΔR² over the physics tower", gain, bars.continue_)])  # fmt: skip


def _temperature_works(candidates, gates, bars):
    dual, single = candidates["temperature_9"], candidates["phys_9"]
    trend = gates.get("temperature_9", {}).get("temperature")
    if dual is None or single is None or trend is None:
        return None
    rank = Interval(*(-trend["rho"][end] for end in ("value", "high", "low")))
    falls = _part("fall of the temperature with SNR (rank correlation)", rank, 0.0)
    parts = [falls, *_low_parts(candidates.scores, dual, single, bars)]
    if len(parts) == 1:
        return None
    verdict = weakest([falls["verdict"], strongest(part["verdict"] for part in parts[1:])])
    does = "falls with SNR as it should" if falls["verdict"] == PASS else "is not shown to fall with SNR"
    does = "rises with SNR" if rank.high < 0 else does
    pays = {PASS: "it pays", FAIL: "it brings no gain that is shown"}.get(
        strongest(part["verdict"] for part in parts[1:]), "a gain is shown, but not of the size asked for"
    )
    return _answer("Q6.2", "Does quality as the gate's temperature work?", dual, single, parts,
                   Decision(verdict, f"the temperature {does}; at low SNR {pays}"))  # fmt: skip


def _speaks_of_its_axis(candidates, gates, bars):
    name = next((each for each in ("logit_add_9", "logit_add_9x4") if gates.get(each, {}).get("axes")), None)
    if name is None:
        return None
    parts = []
    for tower, own in [("physics", "regime"), ("quality", "SNR")]:
        lead = Interval(**gates[name]["axes"][tower])
        what = f"{tower} tower: share explained by its own axis ({own}) less the other's"
        parts.append(_part(what, lead, 0.0))
    verdict = weakest(part["verdict"] for part in parts)
    off = [part["what"].split(":")[0] for part in parts if part["verdict"] != PASS]
    reason = f"that is not shown of the {' and the '.join(off)}" if off else "each tower speaks of its own axis"
    return _answer("Q6.3", "Can factorised gates be interpreted: does each tower speak of its own axis?",
                   candidates[name], None, parts, Decision(verdict, reason))  # fmt: skip


def _gain(candidates, gates, bars):
    dual, single = candidates.best(DUAL), candidates.best(SINGLE)
    if dual is None or single is None:
        return None
    gain = candidates.scores.gain(dual.name, single.name)
    return _answer("S1.2, S4.1", f"Is the gain over the best single tower {bars.continue_:+g} or more?", dual, single,
                   [_part("ΔR² over the best single tower", gain, bars.continue_)])  # fmt: skip


def _low_snr(candidates, gates, bars):
    dual, single = candidates.best(DUAL), candidates.best(SINGLE)
    if dual is None or single is None:
        return None
    parts = _low_parts(candidates.scores, dual, single, bars)
    if not parts:
        return None
    first = max(parts, key=lambda part: (part["verdict"] == PASS, part["verdict"] != FAIL, part["value"]))
    return _answer("S1.2", f"Is the gain {bars.low_snr:+g} or more at low SNR?", dual, single, parts,
                   Decision(first["verdict"], f"{first['what']}: {first['reason']}"))  # fmt: skip


def _recovery(candidates, gates, bars):
    dual = candidates.best(DUAL)
    oracle = None if dual is None else ORACLES[dual.experts].name
    found = None if dual is None else candidates.scores.recovery(dual.name, GLOBAL.name, oracle)
    if found is None:
        return None
    part = _part("ρ, share of the oracle's gain over the global ridge", found, bars.rho, zero=None)
    return _answer("S4.1", f"Does the gate keep {bars.rho:g} of the oracle's gain?", dual, None, [part])


def _first(candidates, gates, bars):
    dual, single = candidates["concat_9"], candidates.best(SINGLE, (PLAIN,))
    if dual is None or single is None:
        return None
    gain = candidates.scores.gain(dual.name, single.name)
    return _answer("S5.2", f"Does the smallest dual model, MVP-4.0, gain {bars.first:+g} or more?",
                   dual, single, [_part("ΔR² over one tower of nine experts", gain, bars.first)])  # fmt: skip


def _low_parts(scores, dual, single, bars):
    """Gain within each bin of low SNR that has rows enough; as any of them may speak for quality, intervals are wider.

    A gain within a handful of rows says nothing, and its bootstrap does not know that.
    """
    counts = scores.counts()
    bins = [bin_ for bin_ in LOW_BINS if counts[bin_] >= MIN_BIN_ROWS]
    return [
        _part(f"ΔR² in bin {bin_}", scores.gain(dual.name, single.name, bin_, 1 - 0.05 / len(bins)), bars.low_snr)
        for bin_ in bins
    ]


def _part(what, found, bar, zero=0.0):
    return {"what": what, **asdict(found), "bar": bar, **asdict(judge(found, bar, zero=zero))}


def _answer(key, question, dual, single, parts, decision=None):
    decision = decision or Decision(parts[0]["verdict"], parts[0]["reason"])
    names = {"dual": dual.name, "single": None if single is None else single.name}
    return {"id": key, "question": question, **names, **asdict(decision), "parts": parts}


def recommend(candidates: Candidates, gain_verdict: str | None) -> dict | None:
    """Which model to ship: the simplest that is within one standard error of the best.

    Candidates are the global ridge, the single towers, and the dual models unless their gain over the best single tower
    has failed. The best is that of the largest validation R^2; the error is that of the paired difference to it.
    Fewer towers are simpler than more, nine experts simpler than 9x4, and fusions are ordered by what they add.

    Parameters
    ----------
    candidates : Candidates
    gain_verdict : str or None
        Of the gain of the best dual over the best single tower; None where there is nothing to compare.

    Returns
    -------
    found : dict or None
        `name`, `best`, `duals` (whether these were candidates), `candidates` in order of simplicity (`name`,
        `validation_r2`, `lag`, `error`, `within`) and `peer`, the best other regressor: its `name` and its `gain` over
        what is recommended, None without one. None with fewer than two candidates.
    """
    duals = gain_verdict != FAIL
    fit = sorted((m for m in candidates.methods if _rank(m) is not None and (duals or m.kind != DUAL)), key=_rank)
    if len(fit) < 2:
        return None
    scores = candidates.scores
    best = max(fit, key=lambda method: scores.validation_r2(method.name))
    lines = []
    for method in fit:
        lag, error = scores.validation_lag(method.name, best.name)
        lines.append({
            "name": method.name, "validation_r2": scores.validation_r2(method.name), "lag": lag, "error": error,
            "within": method == best or lag <= error,
        })  # fmt: skip
    chosen = next(line["name"] for line in lines if line["within"])
    rival = candidates.best(PEER, ("",))
    peer = None if rival is None else {"name": rival.name, "gain": asdict(scores.gain(rival.name, chosen))}
    return {"name": chosen, "best": best.name, "duals": duals, "candidates": lines, "peer": peer}


def _rank(method):
    """Place in the order of simplicity; None for what is not for shipping."""
    size = (PLAIN, BINNED).index(method.experts) if method.experts in (PLAIN, BINNED) else 0
    if method.kind == REFERENCE and method.name == GLOBAL.name:
        return 0, 0, 0
    if method.kind == SINGLE:
        return 1, size, int(method.name.startswith("quality"))
    if method.kind == DUAL:
        fusion = next(place for place, name in enumerate(FUSIONS_BY_SIZE) if method.name.startswith(name))
        return 2, size, fusion
    return None
