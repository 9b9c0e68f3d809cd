"""From the predictions of a study to its results: scores pooled over seeds, verdicts, and the model to recommend."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pandas as pd
from scipy.stats import sem, t
from sklearn.metrics import r2_score

from dualgate import evaluation
from dualgate.evaluation import Estimate, Interval, bootstrap_weights
from dualgate.snr import SNR_NAMES, quality_bins
from dualgate.study import results
from dualgate.study.config import Thresholds
from dualgate.study.methods import (
    BINNED,
    BLIND_EVIDENCE,
    BLIND_EXPERTS,
    BLIND_GATE,
    BOTH,
    DUAL,
    FACTOR,
    GLOBAL,
    LIKELIHOOD,
    MIXED,
    MIXTURE,
    ORACLE,
    ORACLES,
    PEER,
    PHYS,
    PLAIN,
    QUALITY,
    READERS,
    REFERENCE,
    SINGLE,
    SMALLEST,
    TABLE,
    TEMPERED,
    VARIANT,
    Method,
)
from dualgate.study.run import SeedRecord, gate_trace, temperature_of

PASS, MARGINAL, FAIL = LADDER = "pass", "marginal", "fail"  # from best to worst
METRICS = ("r2", "mae", "rmse", "bias")
LOW_BINS = SNR_NAMES[:2]  # where a quality tower must be worth the most
MIN_BIN_ROWS = 30  # of all seeds, for a verdict within an SNR bin
FUSION_SIZES = {"logit_add": 0, "temperature": 1, "poe": 2, "concat": 3}  # by what each adds to two towers
MIN_TREND_ROWS = 4
AXIS_RESAMPLES = 300
MAX_POINTS = 1500  # rows of the figures that show rows
PIXELS_SHOWN = 1024  # of the coefficients
DENSITIES, DENSITY_POINTS, PIT_BARS = (
    6,
    160,
    10,
)  # test rows whose density is shown, points of each; bars of a histogram

# ---- intervals over seeds, and verdicts ---------------------------------------------------------------------


def judge(found: Interval, bar: float, *, what: str = "", zero: bool = True) -> results.Part:
    """Verdict on a number that should reach a bar; the interval decides, never the estimate alone.

    Pass where the whole interval is at or above the bar. Fail where the whole interval is below it, and where the
    interval includes zero, if that is the number without any effect. Marginal in between.
    """
    asked = f"{bar:+g}" if zero else f"{bar:g}"
    if not all(map(math.isfinite, (found.value, found.low, found.high))):
        decided = FAIL, "it could not be measured"
    elif found.low >= bar:
        decided = PASS, f"the whole interval is at or above {asked}"
    elif found.high < bar:
        decided = FAIL, f"the whole interval is below {asked}"
    elif zero and not found.low > 0:
        decided = FAIL, "the interval includes zero"
    else:
        decided = MARGINAL, f"the interval {'excludes zero and ' * zero}includes {asked}"
    return results.Part(what, found, bar, *decided)


def seed_interval(found: Iterable[Estimate | Interval], *, confidence: float = 0.95) -> Interval:
    """Mean over seeds of a number, with an interval for test rows and seeds; seeds where it is NaN are left out.

    The values of several seeds are independent draws of one number, and the t-interval of their mean covers test rows,
    training rows and initial weights. With three seeds its width is itself uncertain, so the interval is never narrower
    than that of the test rows: the percentiles of the mean of the seeds' draws (`Estimate`), or the seeds' half widths,
    added as independent errors (`Interval`). That of one seed excludes variation between fits, and seeds that divide
    one table share its rows: with more than a handful of them the interval is too narrow. See Davison & Hinkley (1997),
    Bootstrap methods and their application, section 3.8 (hierarchical data).
    """
    known = [each for each in found if math.isfinite(each.value)]
    if not known:
        return Interval(math.nan, math.nan, math.nan, confidence)
    values, n_seeds = [each.value for each in known], len(known)
    value = np.mean(values)
    if isinstance(known[0], Estimate):
        rows = Estimate(value, np.mean([each.draws for each in known], axis=0)).interval(confidence)
        low, high = rows.low, rows.high
    else:
        low = value - math.hypot(*(each.value - each.low for each in known)) / n_seeds
        high = value + math.hypot(*(each.high - each.value for each in known)) / n_seeds
    if n_seeds > 1:
        half = t.ppf((1 + confidence) / 2, n_seeds - 1) * sem(values)
        low, high = min(low, value - half), max(high, value + half)
    return Interval(float(value), float(low), float(high), confidence)


# ---- scores ---------------------------------------------------------------------------------------------------


class StudyScores:
    """Paired scores of methods on the test rows of records, and on the validation rows that choose among them.

    Methods are all that the records hold unless given; `n_resamples` counts bootstrap resamples of each seed's rows.
    `tables` and `validation` hold a ScoreTable for each seed; `slices` are "all", the SNR bins, "regime 0", ...,
    "boundary" and "interior", as far as they are known, and `counts` the test rows in each, over all seeds;
    `boundaries` are the boundary samples of each seed, or None; `sizes` the regimes and quality bins of the experts.
    """

    def __init__(self, records: Iterable[SeedRecord], methods=None, n_resamples=1000, thresholds=None):
        self.records, self.n_resamples, self.bars = list(records), n_resamples, thresholds or Thresholds()
        held = self.records[0].predictions
        self.methods = [method for method in TABLE if method.name in held] if methods is None else list(methods)
        known = [record.regimes.max() for record in self.records if record.regimes is not None]
        n_regimes = 1 + int(max(known)) if known else None
        self.boundaries = [_boundary(record, self.bars) for record in self.records]
        self.tables, self.validation = [], []
        for record, edge in zip(self.records, self.boundaries, strict=True):
            near = None if edge is None else edge.near
            slices = evaluation.row_slices(
                len(record.y), snr=record.snr, regimes=record.regimes, n_regimes=n_regimes, near=near
            )
            self.tables.append(self._table(record, record.y, record.predictions, slices))
            self.validation.append(self._table(record, record.y_validation, record.validation))
        self.slices, self.sizes = self.tables[0].slices, _sizes(self.records[0], self.methods, n_regimes)
        self.counts = dict(zip(self.slices, sum(table.counts for table in self.tables).tolist(), strict=True))

    def _table(self, record, y, predictions, slices=None):
        chosen = {method.name: predictions[method.name] for method in self.methods}
        return evaluation.bootstrap_scores(y, chosen, slices, n_resamples=self.n_resamples, random_state=record.seed)

    def find(self, among: Iterable[Method] = (), **fields) -> Method | None:
        """Return the first method, of all or of some, with these fields; None where there is none."""
        methods = among or self.methods
        return next((m for m in methods if all(getattr(m, name) == value for name, value in fields.items())), None)

    def best_blind(self) -> Method | None:
        """Return the method whose weights are the best that do not know the errors, of those with the same experts."""
        found = [method for method in self.methods if method.name in (BLIND_EVIDENCE, BLIND_GATE)]
        return max(found, key=self.validation_r2, default=None)

    def best(self, kind: str, experts: Sequence[str] = (PLAIN, BINNED), towers: tuple | None = None) -> Method | None:
        """Return the method of a kind with the largest validation R^2; None where there is none."""
        found = [m for m in self.methods if m.kind == kind and m.experts in experts and towers in (None, m.towers)]
        return max(found, key=self.validation_r2, default=None)

    def interval(self, score, method, part="all", *, reference=None, confidence=0.95) -> Interval:
        """One score of a method in a slice, less that of a reference where one is given."""
        other = None if reference is None else reference.name
        found = [table.estimate(score, method.name, part, reference=other) for table in self.tables]
        return seed_interval(found, confidence=confidence)

    def gain(self, method: Method, reference: Method, part: str = "all", confidence: float = 0.95) -> Interval:
        """R^2 of a method minus that of another on the same rows."""
        return self.interval("r2", method, part, reference=reference, confidence=confidence)

    def recovery(self, method: Method) -> Interval | None:
        """Share that a method keeps of the gain of the true-regime experts over the global ridge.

        Of a factor mixture those experts are the ones by regime and quality bin. None without both, and where the
        interval of that gain includes zero.
        """
        oracle = ORACLES[BINNED if method.experts == FACTOR else method.experts]
        base, oracle = self.find(name=GLOBAL.name), self.find(name=oracle.name)
        if base is None or oracle is None or not self.gain(oracle, base).low > 0:
            return None
        found = [table.recovery(method.name, base.name, oracle.name) for table in self.tables]
        return None if any(math.isnan(each.value) for each in found) else seed_interval(found)

    def shapley(self, dual: Method) -> dict[str, Interval]:
        """Shapley value of each tower of a dual model; empty where one of the four methods is missing."""
        singles = (self.find(kind=SINGLE, towers=(tower,), experts=dual.experts) for tower in BOTH)
        four = [self.find(name=GLOBAL.name), *singles, dual]
        if dual.kind != DUAL or None in four:
            return {}
        estimates = ([table.estimate("r2", each.name) for each in four] for table in self.tables)
        return pool([evaluation.shapley_values(*each) for each in estimates])

    def validation_r2(self, method: Method) -> float:
        """R^2 on the validation rows, averaged over seeds."""
        return float(np.mean([record.validation_r2[method.name] for record in self.records]))

    def validation_behind(self, method: Method, best: Method) -> tuple[float, float]:
        """How much less R^2 a method has on the validation rows than another, and the standard error of that.

        The error is the larger of the scatter between seeds and that between resamples of the rows.
        """
        found = [table.estimate("r2", best.name, reference=method.name) for table in self.validation]
        values = [each.value for each in found]
        errors = [float(np.nanstd(np.mean([each.draws for each in found], axis=0)))]
        return float(np.mean(values)), max([*errors, *([float(sem(values))] if len(values) > 1 else [])])

    def by_seed(self, best_single: str | None) -> pd.DataFrame:
        """Score every method in every slice of each seed's test rows, one line each.

        Slices are "all", "snr X" to "snr H", "regime 0", ..., "boundary", "interior" and, for the R^2 that chose among
        models, "validation"; those without rows are left out. Metrics are r2, delta_r2 (over `best_single`) and the
        errors; r2 is NaN where the targets of a slice do not vary.
        """
        lines, metrics = [], {"r2": ("r2", None), "delta_r2": ("r2", best_single)}
        metrics |= {name: (name, None) for name in METRICS[1:]}
        if best_single is None:
            del metrics["delta_r2"]
        for (record, table), method in product(zip(self.records, self.tables, strict=True), self.methods):
            head = record.seed, method.name, method.group
            lines.append((*head, "validation", "r2", record.validation_r2[method.name], record.n_validation))
            parts = [(part, count) for part, count in zip(table.slices, table.counts.tolist(), strict=True) if count]
            for (part, count), (metric, (score, reference)) in product(parts, metrics.items()):
                value = table.estimate(score, method.name, part, reference=reference).value
                lines.append((*head, f"snr {part}" if part in SNR_NAMES else part, metric, value, count))
        return pd.DataFrame(lines, columns=["seed", "method", "group", "slice", "metric", "value", "rows"])


def _sizes(record, methods, n_known):
    """Regimes and quality bins of the experts: as the models of the first seed have them, else as the rows do."""
    width = {m.experts: record.n_experts[m.name] for m in methods if m.name in record.n_experts}
    on_grid = math.prod(len(each) + 1 for each in record.edges) if record.edges else None
    n_regimes = width.get(PLAIN) or on_grid or n_known or width.get(BINNED, 36) // 4
    return n_regimes, width[BINNED] // n_regimes if BINNED in width else 4


def _boundary(record, bars):
    """Boundary samples of the test rows; None where conditions or distances are not known."""
    if record.conditions is None or bars.boundary is None or not record.edges:
        return None
    return evaluation.boundary_samples(record.conditions, record.edges, bars.boundary)


# ---- questions, and what to recommend -------------------------------------------------------------------------


def answer_all(scores: StudyScores, gates: Mapping[str, results.GateReport]) -> list[results.Answer]:
    """Every question that the methods can answer, the main one first.

    Validation rows choose the dual model and the single tower of each comparison, the test rows judge these two alone:
    the largest of many gains on the test rows would be biased upwards.
    """
    best, find, bars = scores.best, scores.find, scores.bars
    both, plain = (best(DUAL), best(SINGLE)), best(SINGLE, (PLAIN,))
    added = [method for method in scores.methods if method.name in gates and gates[method.name].axes]
    learned, exact = ([method for method in added if method.kind == kind] for kind in (DUAL, LIKELIHOOD))
    mixed, blind, tempered, blind_experts, smallest = (
        find(name=name) for name in (MIXED.name, BLIND_EVIDENCE, TEMPERED, BLIND_EXPERTS, SMALLEST)
    )
    over, same = "ΔR² over the best single tower", "ΔR² over the best single tower with the same experts"

    def gain(bar, what):
        return lambda dual, single: [judge(scores.gain(dual, single), bar, what=what)]

    def low_snr(dual, single):
        """Gain within each bin of low SNR; as either bin may decide, their intervals are wider."""
        # the bootstrap of a handful of rows is too narrow, so that such bins decide nothing
        bins = [bin_ for bin_ in LOW_BINS if scores.counts.get(bin_, 0) >= MIN_BIN_ROWS]
        return [
            judge(scores.gain(dual, single, bin_, 1 - 0.05 / len(bins)), bars.low_snr, what=f"ΔR² in SNR bin {bin_}")
            for bin_ in bins
        ]

    def recovery(dual):
        kept, what = scores.recovery(dual), "share of the gain from the global ridge to the true-regime experts"
        return [] if kept is None else [judge(kept, bars.rho, what=what, zero=False)]

    def temperature(dual, single):
        """Whether the temperature falls with SNR, and whether that gains R^2 where SNR is low."""
        found, low = gates.get(dual.name, results.GateReport()).trends.get("temperature"), low_snr(dual, single)
        if found is None or not low:
            return []
        fall = Interval(-found.rho.value, -found.rho.high, -found.rho.low)
        return [judge(fall, 0.0, what="fall of the temperature with SNR (rank correlation)"), *low]

    def axes(dual):
        """Whether each tower of added logits follows its own axis."""
        return [
            judge(gates[dual.name].axes[tower], 0.0,
                  what=f"{tower} tower: share that the {own} explains less the share that the {other} explains")
            for tower, own, other in (("physics", "regime", "SNR bin"), ("quality", "SNR bin", "regime"))
        ]  # fmt: skip

    questions = (  # key, number in the proposal, words, the dual model and the single tower compared, what decides
        ("gain", "S1.2, S4.1", f"Is the gain over the best single tower {bars.continue_:+g} or more?",
         both, gain(bars.continue_, over)),
        ("low_snr", "S1.2", f"Is the gain {bars.low_snr:+g} or more at low SNR?", both, low_snr),
        ("physics", "Q6.1", "Are two towers better than the physics tower alone?",
         (best(DUAL), best(SINGLE, towers=(PHYS,))), gain(bars.continue_, "ΔR² over the physics tower")),
        ("gate", "", "Does quality help at the gate alone, one expert for each regime?",
         (best(DUAL, (PLAIN,)), plain), gain(bars.continue_, same)),
        ("experts", "", "Does quality help at the gate and in the experts together?",
         (best(DUAL, (BINNED,)), plain), gain(bars.continue_, f"{over} with one expert for each regime")),
        ("first", "S5.2", f"Does the smallest dual model gain {bars.first:+g} or more?",
         (find(kind=DUAL, fusion="concat", experts=PLAIN), plain), gain(bars.first, same)),
        ("recovery", "S4.1", f"Does the gate keep {bars.rho:g} of what knowing the true regime gains?",
         both[:1], recovery),
        ("temperature", "Q6.2", "Does quality work as the gate's temperature?",
         (find(kind=DUAL, fusion="temperature", experts=PLAIN), find(kind=SINGLE, towers=(PHYS,), experts=PLAIN)),
         temperature),
        ("axes", "Q6.3", "Can factorised gates be interpreted: does each tower follow its own axis?",
         learned[:1] or [None], axes),
        # the same of the dual tower whose weights are the likelihood
        ("exact_gain", "S1.2, S4.1", f"Is the gain over the best single tower {bars.continue_:+g} or more?",
         (mixed, best(SINGLE)), gain(bars.continue_, over)),
        ("exact_low_snr", "S1.2", f"Is the gain {bars.low_snr:+g} or more at low SNR?", (mixed, best(SINGLE)), low_snr),
        ("exact_physics", "Q6.1", "Is quality at the gate worth something when it enters as it should?",
         (mixed, scores.best_blind()), gain(bars.continue_, "ΔR² over the same experts with weights that are blind")),
        ("exact_experts", "", "Is quality in the experts worth something when it enters as it should?",
         (mixed, blind_experts), gain(bars.continue_, "ΔR² over the same weights with experts that are blind")),
        ("exact_first", "S5.2", f"Does the smallest mixture gain {bars.first:+g} or more?",
         (smallest, plain), gain(bars.first, f"{over} with an expert for each regime")),
        ("exact_recovery", "S4.1", f"Are {bars.rho:g} kept of what knowing the true regime gains?", (mixed,), recovery),
        ("exact_temperature", "Q6.2", "Does quality work as the temperature of weights that are blind otherwise?",
         (tempered, blind), temperature),
        ("exact_axes", "Q6.3", "Can the evidence be interpreted: do blind evidence and what errors change of it each "
         "follow an axis of their own?", exact[:1] or [None], axes),
    )  # fmt: skip
    answers, bins = [], [bin_ for bin_ in SNR_NAMES if bin_ in scores.slices]
    for key, code, words, models, measure in questions:
        parts = [] if None in models else measure(*models)
        if parts:
            form = results.EXACT if key.startswith(results.EXACT) else results.LEARNED
            decide = DECIDE.get(key.removeprefix(f"{form}_"))
            part = decide(parts) if decide else parts[0]
            reason = f"{part.what}: {part.reason}" if decide else part.reason
            by_snr = {bin_: scores.gain(*models, bin_) for bin_ in bins} if not decide and len(models) == 2 else {}
            found = results.Answer(key, words, code, part.verdict, reason, parts, *(model.name for model in models))
            answers.append(replace(found, gain_by_snr=by_snr, form=form))
    return answers


def best_of(parts: Sequence[results.Part]) -> results.Part:
    """Return the part with the best verdict, of equals that with the largest number."""
    return min(parts, key=lambda part: (LADDER.index(part.verdict), -part.found.value))


def weakest_of(parts: Sequence[results.Part]) -> results.Part:
    """Return the part with the weakest verdict, of equals that with the smallest number."""
    return max(parts, key=lambda part: (LADDER.index(part.verdict), -part.found.value))


DECIDE = {  # which of several parts decides
    "low_snr": best_of,
    "temperature": lambda parts: weakest_of([parts[0], best_of(parts[1:])]),
    "axes": weakest_of,
}


def recommend(scores: StudyScores, gain_verdict: str | None) -> results.Recommendation | None:
    """Recommend the simplest model that is within one standard error of the best; None with fewer than two candidates.

    Candidates are the global ridge, the single towers, the factor mixture and, unless the verdict on the gain of dual
    models over the best single tower is `FAIL`, these and the factor mixture with towers. The best has the largest
    validation R^2. Fewer towers are simpler than more, nine experts simpler than 9x4 and those simpler than a factor
    mixture, and fusions are ordered by what they add. :class:`~dualgate.selection.OneStandardError`
    takes its error from many splits; :meth:`StudyScores.validation_behind` adds the scatter of the rows to few.
    """
    duals = gain_verdict != FAIL
    kinds = (SINGLE, DUAL, LIKELIHOOD)
    fit = [m for m in scores.methods if m.kind in kinds and (duals or len(m.towers) < 2)]
    fit += [m for m in scores.methods if m.name == GLOBAL.name]
    if len(fit) < 2:
        return None
    sizes = "", PLAIN, BINNED, FACTOR
    fit.sort(
        key=lambda m: (len(m.towers), sizes.index(m.experts), m.towers == (QUALITY,), FUSION_SIZES.get(m.fusion, 4))
    )
    best, candidates = max(fit, key=scores.validation_r2), []
    for method in fit:
        behind, error = scores.validation_behind(method, best)
        within = method is best or behind <= error
        candidates.append(results.Candidate(method.name, scores.validation_r2(method), behind, error, within))
    chosen = next(each.name for each in candidates if each.within)
    peer = scores.best(PEER, ("",))
    more = {} if peer is None else {"peer": peer.name, "peer_gain": scores.gain(peer, scores.find(name=chosen))}
    return results.Recommendation(chosen, best.name, duals, candidates, **more)


# ---- gains of methods that differ in one thing ----------------------------------------------------------------


def places_of_quality(scores: StudyScores) -> list[results.PairedGain]:
    """Gains of R^2 from each place where quality enters, as far as methods are there."""
    plain = [m for m in scores.methods if m.experts != FACTOR and m.group not in ("sharing", "routing", "ablation")]
    n_regimes, n_bins = scores.sizes
    counted = {PLAIN: f"{n_regimes} experts", BINNED: f"{n_regimes}x{n_bins} experts"}
    words = {reader: READERS[reader].words for reader in dict.fromkeys(m.reader for m in plain)}
    both, phys, known = {"towers": BOTH, "fusion": "concat"}, {"towers": (PHYS,)}, {"view": ORACLE}
    pairs = [  # two methods each, given by fields, experts and reader
        *(("gate", f"{counted[size]}, {words[reader]}", (both, size, reader), (phys, size, reader))
          for size, reader in product(counted, words)),
        *(("experts", f"{kind}, {words[reader]}", (fields, BINNED, reader), (fields, PLAIN, reader))
          for (kind, fields), reader in product((("true regime known", known), ("both towers", both)), words)),
        *(("representation", f"{counted[size]}: {READERS[after].words} instead of {READERS[before].words}",
           (both, size, after), (both, size, before))
          for size, (before, after) in product(counted, pairwise(list(READERS)[1:]))),
    ]  # fmt: skip

    def find(fields, size, reader):
        return scores.find(plain, **fields, experts=size, reader=reader)

    mixed, unsure, blind = *(scores.find(name=name) for name in (MIXED.name, BLIND_EXPERTS)), scores.best_blind()
    dual = scores.find(plain, **both, experts=BINNED)
    found = [(place, what, find(*better), find(*worse)) for place, what, better, worse in pairs]
    found += [("gate", "weights of the factor mixture", mixed, blind),
              ("experts", "experts of the factor mixture", mixed, unsure),
              ("likelihood", f"factor mixture instead of {counted[BINNED]}, both towers", mixed, dual)]  # fmt: skip
    return _paired_gains(scores, found)


def gains_of_changes(scores: StudyScores) -> list[results.PairedGain]:
    """Gains of R^2 of every variant of both towers, or of the factor mixture, over the method that it changes."""
    changed = [m for m in scores.methods if m.kind == VARIANT and m.view == MIXTURE]
    variants = (m for m in changed if m.towers == BOTH or m.experts == FACTOR)
    return _paired_gains(scores, ((m.group, m.words, m, scores.find(name=m.changes)) for m in variants))


def _paired_gains(scores, pairs):
    """Gains of those pairs whose methods are both there."""
    return [
        results.PairedGain(place, what, better.name, worse.name, scores.gain(better, worse))
        for place, what, better, worse in pairs
        if better is not None and worse is not None
    ]


# ---- gates ----------------------------------------------------------------------------------------------------


def describe_gates(scores: StudyScores, methods: Iterable[Method]) -> dict[str, results.GateReport]:
    """Describe the gates of the given methods by name, pooled over seeds, as far as rows and methods allow."""
    return {method.name: _describe_gate(scores, method) for method in methods}


def _describe_gate(scores, method):
    if any(method.name not in record.traces for record in scores.records):
        return results.GateReport()
    records = zip(scores.records, scores.boundaries, strict=True)
    seeds = [_gate_of_seed(record, edge, method, scores.sizes) for record, edge in records]
    found, trends = pool(seeds), {}
    for name, each in found.pop("trends", {}).items():
        rho = each["rho"]  # the interval of three seeds may be wider than any correlation
        rho = replace(rho, low=max(rho.low, -1.0), high=min(rho.high, 1.0))
        p_value = max(seed["trends"][name].p_value for seed in seeds)
        trends[name] = results.PooledTrend(rho, p_value, each["means"])
    return results.GateReport(trends, shapley=scores.shapley(method), **found)


def pool(found: Sequence):
    """Pool what every seed has, by name: intervals of estimates and intervals, means of numbers and of weights."""
    first = found[0]
    if isinstance(first, Mapping):
        return {name: pool([each[name] for each in found]) for name in first if all(name in each for each in found)}
    if isinstance(first, (Estimate, Interval)):
        return seed_interval(found)
    if isinstance(first, tuple):
        return [pool(each) for each in zip(*found, strict=True)]
    if np.ndim(first) == 0:
        return float(np.mean(found))
    return (
        np.ma.masked_invalid(np.stack(found)).mean(axis=0).filled(np.nan).round(4).tolist()
    )  # NaN where no seed has it


def _gate_of_seed(record, edge, method, sizes):
    """Fields of `GateReport` in one seed, as far as the rows allow."""
    found, arrays = {}, record.traces[method.name]
    trace = gate_trace(method, arrays, slice(record.n_validation, None))
    regimes, bins = record.regimes, None if record.snr is None else quality_bins(record.snr)
    if "permutation" in arrays:
        lines = zip((*BOTH, "both"), arrays["permutation"], strict=True)
        found["permutation"] = {part: Interval(*map(float, line)) for part, line in lines}
    if bins is not None and len(bins) >= MIN_TREND_ROWS:
        columns = {"entropy": record.entropy[method.name], "confidence": trace.weights.max(axis=1)}
        if method.fusion == "temperature":
            columns["temperature"] = 1 + np.logaddexp(0, trace.quality_logits[:, 0])
        elif method.by_bin:
            columns["temperature"] = temperature_of(method, arrays, slice(record.n_validation, None))
        found["trends"] = {name: evaluation.trend(record.snr, values) for name, values in columns.items()}
    parts = None
    if method.fusion == "logit_add":
        parts = trace.phys_logits, trace.quality_logits
    elif method.kind == LIKELIHOOD and "blind_evidence" in arrays:
        blind = arrays["blind_evidence"][record.n_validation :].astype(float)
        parts = blind, trace.log_weights - blind
    if parts is not None and bins is not None and regimes is not None:
        draws = bootstrap_weights(len(bins), n_resamples=AXIS_RESAMPLES, random_state=record.seed)
        towers = {"physics": (parts[0], regimes, bins), "quality": (parts[1], bins, regimes)}
        found["axes"] = {tower: _lead(*given, draws) for tower, given in towers.items()}
    n_regimes, n_bins = sizes[0], sizes[1] if method.experts == BINNED else 1
    by_regime = method.experts != FACTOR and trace.weights.shape[1] == n_regimes * n_bins
    if regimes is None or regimes.max() >= n_regimes or not by_regime:
        return found
    weights = trace.weights.astype(float).reshape(-1, n_regimes, n_bins).sum(axis=2)
    found["accuracy"] = np.mean(weights.argmax(axis=1) == regimes)
    found["confusion"] = mean_weights(weights, regimes, n_regimes=n_regimes)
    if bins is not None:
        found["weights"] = mean_weights(weights, regimes, bins, n_regimes=n_regimes)
    if edge is not None and math.prod(edge.shape) == n_regimes:
        crossings = evaluation.boundary_crossings(weights.argmax(axis=1), edge)
        found["boundary"] = {name: crossings[name] for name in ("crossing_rate", "missed_near", "missed_far")}
    return found


def mean_weights(weights, *codes, n_regimes):
    """Mean weights (n_regimes, ..., n_experts) of the rows of every regime, or regime and SNR bin; NaN without rows."""
    shape = (n_regimes, len(SNR_NAMES))[: len(codes)]
    means = pd.DataFrame(weights).groupby(np.ravel_multi_index(codes, shape)).mean()
    return means.reindex(range(math.prod(shape))).to_numpy().reshape(*shape, -1)


def _lead(logits, own, other, draws):
    """By how much a tower's own axis explains more of its outputs than the other axis does."""
    values = logits - logits.mean(axis=1, keepdims=True)  # a common offset changes no weight
    lead = float(lead_of(values, own, other, np.ones((1, len(values))))[0])
    resampled = lead_of(values, own, other, draws)  # rows drawn twice look like groups: a bias
    return Estimate(lead, resampled - resampled.mean() + lead)


def lead_of(outputs, own, other, weights) -> np.ndarray:
    r"""Share of the outputs' variance that the groups of `own` explain, less what the groups of `other` explain.

    With k groups among n rows, the sum of squares between groups holds k - 1 times the variance within groups by
    chance alone, which is subtracted (:math:`\epsilon^2`; Kelley 1935, PNAS 21, 554). One value for each row of
    `weights` (n_weightings, n_rows), NaN where the outputs (n_rows, n_outputs) do not vary.
    """
    outputs = outputs - outputs.mean(axis=0)
    total = weights.sum(axis=1)
    offset = total * np.square(weights @ outputs / total[:, None]).sum(axis=1)
    whole = weights @ np.square(outputs).sum(axis=1) - offset

    def between(groups):
        found, n_groups = -offset, np.zeros(len(weights))
        for code in np.unique(groups):
            rows = groups == code
            size = weights[:, rows].sum(axis=1)
            sums = np.square(weights[:, rows] @ outputs[rows]).sum(axis=1)
            found, n_groups = found + sums / np.maximum(size, 1), n_groups + (size > 0)
        return found - (n_groups - 1) * (whole - found) / np.maximum(total - n_groups, 1)

    lead = between(own) - between(other)
    return np.divide(lead, whole, where=whole > 1e-12, out=np.full_like(lead, np.nan))


# ---- the Bayes limit ------------------------------------------------------------------------------------------


def bayes_limit_of(scores: StudyScores) -> results.BayesLimit | None:
    """Pool the Bayes limit over seeds; None where it is not known.

    Its expected R^2, 1 - mean posterior variance / prior variance, scatters less than the R^2 of the posterior means of
    as few rows. Nothing is trained for it, so that its interval is that of the rows.
    """
    records = scores.records
    if any(record.limit is None for record in records):
        return None
    limits = [(record, record.limit, int(record.limit["rows"])) for record in records]
    expected = np.concatenate([1 - np.square(each["std"]) / float(each["prior_variance"]) for _, each, _ in limits])
    known = all(record.snr is not None for record in records)
    snr = np.concatenate([record.snr[:n] for record, _, n in limits]) if known else None
    table = evaluation.bootstrap_scores(
        np.zeros(len(expected)), {"": expected}, evaluation.row_slices(len(expected), snr=snr),
        n_resamples=scores.n_resamples, random_state=[record.seed for record in records],
    )  # fmt: skip
    r2 = {part: table.estimate("bias", "", part).interval() for part in table.slices}  # the bias from zero is a mean
    by_snr = {name: r2.get(name, Interval(math.nan, math.nan, math.nan)) for name in SNR_NAMES}
    observed = [r2_score(record.y[:n], each["prediction"]) for record, each, n in limits]
    return results.BayesLimit(len(expected), r2["all"], by_snr, float(np.mean(observed)))


def ratio(part: Interval, whole: Interval) -> Interval:
    """Ratio of two independent numbers above zero; their relative errors add up in squares."""
    value = part.value / whole.value
    below = math.hypot(part.value - part.low, value * (whole.high - whole.value)) / whole.value
    above = math.hypot(part.high - part.value, value * (whole.value - whole.low)) / whole.value
    return Interval(value, value - below, value + above, part.confidence)


# ---- all of it ------------------------------------------------------------------------------------------------


def analyse(scores: StudyScores) -> results.Analysis:
    """Find everything that the report shows."""
    records, methods, first = scores.records, scores.methods, scores.records[0]
    single, limit = scores.best(SINGLE), bayes_limit_of(scores)
    gates = describe_gates(scores, _gates_shown(scores, single))
    answers = answer_all(scores, gates)
    recommended = recommend(scores, next((answer.verdict for answer in answers if answer.key == "gain"), None))
    return results.Analysis(
        rows=results.RowCounts(first.n_train, first.n_validation, len(first.y), scores.counts),
        thresholds=scores.bars,
        edges=first.edges,
        methods=[_describe_method(method, scores, single, limit) for method in methods],
        best_single=None if single is None else single.name,
        answers=answers,
        recommendation=recommended,
        places=places_of_quality(scores),
        changes=gains_of_changes(scores),
        gates=gates,
        limit=limit,
        audit=_audit(records, scores.bars),
        entropy={
            name: _points(name, [r.snr for r in records], [r.entropy[name] for r in records], MAX_POINTS,
                          first.n_experts[name])
            for name in gates
            if name != TEMPERED and all(record.snr is not None and name in record.entropy for record in records)
        },
        predictions=None if recommended is None else _points(
            recommended.name, [r.y for r in records], [r.predictions[recommended.name] for r in records],
            2 * MAX_POINTS),
        coefficients=_coefficients(first, methods),
        densities=_densities(records) if MIXED.name in scores.tables[0].names else None,
        seconds={str(record.seed): record.seconds for record in records},
    )  # fmt: skip


def _gates_shown(scores, single):
    """Methods whose gates are described: those compared, and both towers of each kind of fusion."""
    duals = [scores.best(DUAL, (experts,)) for experts in (PLAIN, BINNED)]
    more = [m for m in scores.methods if m.kind == DUAL and m.fusion in ("concat", "temperature")]
    more += [m for m in scores.methods if m.kind == LIKELIHOOD or m.by_bin]
    added = scores.find(kind=DUAL, fusion="logit_add", experts=PLAIN)
    return list({m.name: m for m in (single, *duals, *more, added) if m is not None}.values())


def _describe_method(method, scores, single, limit):
    records, reference = scores.records, None if single is None or method.name == single.name else single
    known = *ORACLES, FACTOR
    gauged = method.kind != REFERENCE and method.experts in known and method.group != "representation"
    towers = [record.towers[method.name] for record in records if method.name in record.towers]
    entropies = [record.entropy[method.name].mean() for record in records if method.name in record.entropy]
    slices = {
        part: {metric: scores.interval(metric, method, part) for metric in METRICS}
        | {"gain": None if reference is None else scores.gain(method, reference, part)}
        for part in scores.slices
    }
    return results.MethodScores(
        **{name: getattr(method, name) for name in ("name", "kind", "group", "experts", "fusion", "reader")},
        label=method.title(*scores.sizes),
        parameters={name: repr(value) for name, value in method.parameters.items()},
        validation_r2=scores.validation_r2(method),
        r2_by_seed={
            str(record.seed): table.estimate("r2", method.name).value
            for record, table in zip(records, scores.tables, strict=True)
        },
        slices=slices,
        recovery=scores.recovery(method) if gauged else None,
        share_of_limit=None if limit is None else ratio(slices["all"]["r2"], limit.r2),
        mean_entropy=float(np.mean(entropies)) if entropies else None,
        tower_likeness=float(np.mean(towers)) if towers else None,
    )


def _audit(records, bars):
    """Leakage audit of the seed that has one; None without."""
    found = next((record.audit for record in records if record.audit is not None), None)
    if found is None:
        return None
    audit = replace(found["audit"], target_limit=bars.leak_target, snr_floor=bars.leak_snr)
    read = {"target": audit.target, "snr": audit.snr}
    numbers = {f"{what} {name}": each for what, by_name in read.items() for name, each in by_name.items()}
    numbers["errors"] = audit.errors
    return results.AuditNumbers(int(found["rows"]), audit.verdict, "; ".join(audit.reasons), numbers)


def _points(name, x, y, n_points, n_experts=None):
    """Two columns of each seed for about so many rows of all of them."""
    step = max(1, sum(map(len, x)) // n_points)
    shown = ([_rounded(value) for column in columns for value in column[::step]] for columns in (x, y))
    return results.Points(name, *shown, n_experts)


def _densities(records):
    """Predictive densities of some test rows of the first seed, of all SNR, and how often truths are below quantiles.

    None where the factor mixture left no variances.
    """
    traces = [record.traces.get(MIXED.name, {}) for record in records]
    if not all("expert_variances" in arrays for arrays in traces):
        return None
    tests = [slice(record.n_validation, None) for record in records]
    densities = [gate_trace(MIXED, *each).density for each in zip(traces, tests, strict=True)]
    pit = np.concatenate([density.cdf(record.y) for density, record in zip(densities, records, strict=True)])
    first, density, known = records[0], densities[0], records[0].snr is not None
    order = np.argsort(first.snr) if known else np.arange(len(first.y))
    rows = order[(np.arange(DENSITIES) * 2 + 1) * len(order) // (2 * DENSITIES)]  # medians of as many equal parts
    density = density[rows]
    grid = np.linspace(density.quantile(0.001).min(), density.quantile(0.999).max(), DENSITY_POINTS)
    curves = np.exp([density.log_density(value) for value in grid]).T
    codes = np.concatenate([quality_bins(record.snr) for record in records]) if known else np.zeros(len(pit), dtype=int)
    groups = {name: pit[codes == code] for code, name in enumerate(SNR_NAMES if known else ("all",))}
    return results.Densities(
        MIXED.name, grid.tolist(), [[_rounded(each) for each in line] for line in curves], first.y[rows].tolist(),
        first.snr[rows].tolist() if known else [],
        {name: np.histogram(each, PIT_BARS, (0, 1))[0].tolist() for name, each in groups.items()},
        {name: [float(np.mean(np.abs(each - 0.5) <= level / 2)) for level in results.COVERAGES]
         for name, each in groups.items() if len(each)},
    )  # fmt: skip


def _coefficients(record, methods):
    """Coefficients of each regime's expert on pixels, neighbours averaged, in the first seed; None where unknown."""
    kinds = (REFERENCE, SINGLE, DUAL)
    plain = [method.name for method in methods if method.experts == PLAIN and method.kind in kinds]
    name = next((name for name in plain if "coef_pixels" in record.traces.get(name, {})), None)
    if record.wave is None or name is None:
        return None
    step = max(1, len(record.wave) // PIXELS_SHOWN)
    kept = len(record.wave) // step * step
    wave, *experts = (
        np.asarray(line[:kept], dtype=float).reshape(-1, step).mean(axis=1)
        for line in (record.wave, *record.traces[name]["coef_pixels"])
    )
    return results.Coefficients(name, wave.round(2).tolist(), [[_rounded(each) for each in line] for line in experts])


def _rounded(value):
    """Round to significant digits that a figure may show: targets have any unit."""
    return float(f"{value:.5g}")
