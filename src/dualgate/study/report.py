"""The files of a study: one page, the same as Markdown, the figures, and the numbers."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from dualgate.snr import SNR_NAMES, SNR_RANGES
from dualgate.study.figures import FIGURES, PLACES, confused_gate, draw_figures, grouped, shows_trend
from dualgate.study.methods import BINNED, DUAL, GLOBAL, PLAIN
from dualgate.study.results import StudyResults, between, measured, number, regime_names

TITLE = "Two towers or one?"
GROUP = "group"  # key of the rows of a table that has groups
NUMERIC = re.compile(r"[+\N{MINUS SIGN}<\d]|n/a|best")
BINS = {name: f"{name} ({limits})" for name, limits in zip(SNR_NAMES, SNR_RANGES, strict=True)}
PROPOSED = {  # the proposal's steps: fusions and experts
    "MVP-4.0": (("concat",), PLAIN),
    "MVP-4.1": (("logit_add", "poe"), PLAIN),
    "MVP-4.2": (("temperature",), PLAIN),
    "MVP-4.3": (("concat", "logit_add", "poe", "temperature"), BINNED),
}
AUDITED = {
    "target ridge": "target from quality features, ridge (allowed below {leak_target:g})",
    "target boosting": "target from quality features, boosted trees (allowed below {leak_target:g})",
    "snr ridge": "ln SNR from quality features, ridge (required above {leak_snr:g})",
    "snr boosting": "ln SNR from quality features, boosted trees (required above {leak_snr:g})",
    "errors": "target from the raw error vector, ridge (for comparison)",
}
WORDS = {
    "regime": "kind of row, given for training and never for predicting; of spectra, a range of effective temperature "
    "and metallicity",
    "n experts, nxm experts, m experts": "one linear model for each of n regimes; for each regime and each of m SNR "
    "bins; for each SNR bin",
    "physics tower, quality tower": "networks that weigh the experts of each row by features of the measurement, or of "
    "its errors",
    "concat, logit_add, poe, temperature": "how two towers become one set of weights: a layer over both, added logits, "
    "multiplied probabilities, quality as the temperature of the physics tower",
    "true regime known": "reference without gates: each row is predicted by the expert of its true regime and, with "
    "nxm experts, of its SNR bin. Soft weights of several experts may exceed it",
    "SNR": "||flux|| / ||error|| of a row; in simulated spectra the median S/N per pixel of bins X, L, M and H is 2.1, "
    "4.4, 8.7 and 12.6",
    "whitened, clean, pixels": "experts read principal components in units of the noise; Wiener scores with loadings "
    "from noise-free flux; means of four pixels. Otherwise they read the default, for spectra Wiener scores",
    "entropy, confidence": "of the weights of a row: how evenly they are spread; the largest of them",
}
r2_text, gain_text = partial(between, most=1), partial(between, gain=True)

# ---- the answer in words --------------------------------------------------------------------------------------


def headline(results: StudyResults) -> tuple[str, str, str]:
    """Return the answer in a sentence, the model to use in another, and the line of code that fits it.

    The last two are empty where nothing can be recommended.
    """
    found, run = results.analysis, results.run
    gain, recommended = found.answer("gain"), found.recommendation
    if gain is None:
        best = max(found.methods, key=lambda method: method.validation_r2)
        answer = (
            f"{best.label} reaches R² = {r2_text(best.r2)} in {run.target}, the most of all on the validation rows; a "
            "verdict needs a single tower and a dual model among the methods."
        )
    else:
        part, single = gain.parts[0], found.method(gain.single).label
        open_ = "A second tower does not pay" if part.found.high < part.bar else "Whether a second tower pays is open"
        pays = {"pass": "A second tower pays", "marginal": "A second tower pays, perhaps less than asked for"}
        answer = (
            f"{pays.get(gain.verdict, open_)}: its gain in R² of {run.target} over the best single tower ({single}) is "
            f"{gain_text(part.found, marks=(part.bar,))}, and {part.reason}."
        )
    if recommended is None:
        return answer, "", ""
    model, best = found.method(recommended.name), found.method(recommended.best)
    kind = "" if recommended.duals else " of those without a second tower"
    why = f"the simplest within one standard error of the best{kind} on the validation rows ({best.label})"
    why = f"the best{kind} on the validation rows" if model is best else why
    unsure = "" if model.r2.low > 0 else "; the interval of its R² includes zero, so it may predict nothing"
    use = f"Use {'' if model.kind == DUAL else 'the '}{model.label} (R² = {r2_text(model.r2)}), {why}{unsure}:"
    changes = ", ".join(f"{name}={value}" for name, value in model.parameters.items())
    known = ", regimes=regimes" * ("regime 0" in found.rows.by_slice)
    code = f"{run.model}{f'.set_params({changes})' * bool(changes)}.fit(X, y{known})"
    return answer, use, code + ".trace(X).root_prediction" * (model.name == GLOBAL.name)


def details(results: StudyResults) -> str:
    """Say on what rows the answer was found, and how far the Bayes limit and the best other regressor are."""
    found, run = results.analysis, results.run
    gain, recommended = found.answer("gain"), found.recommendation
    many = f"{len(run.seeds)} seeds" if len(run.seeds) > 1 else "one seed (the variation between seeds is unknown)"
    rows = "rows" if run.kind == "table" else "spectra"
    parts = [f"On {many} of {run.rows:,} {rows}{' each' * (len(run.seeds) > 1)}, {found.rows.test:,} for the test."]
    if gain is not None and (recommended is None or recommended.name != gain.dual):
        dual = found.method(gain.dual)
        parts.append(f"The best dual model ({dual.label}) reaches R² = {r2_text(dual.r2)}.")
    if found.limit is not None and recommended is not None:
        share = between(found.method(recommended.name).share_of_limit, 2)
        parts.append(f"The Bayes limit is R² = {r2_text(found.limit.r2)}; the recommended model reaches {share} of it.")
    if recommended is not None and recommended.peer is not None:
        peer = found.method(recommended.peer)
        if peer.validation_r2 > found.method(recommended.name).validation_r2:
            gained = gain_text(recommended.peer_gain)
            parts.append(f"On the same columns {peer.label} does better: {gained} over the recommended one.")
    return " ".join([*parts, "Brackets hold 95 % intervals."])


def summary(results: StudyResults) -> str:
    """Return the result of a study as one paragraph of plain words."""
    answer, use, code = headline(results)
    return " ".join(filter(None, [answer, f"{use} {code}." if use else "", details(results)]))


# ---- tables ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """One part of the report: a line of explanation, a table of texts, and figures; a page folds long tables."""

    heading: str
    note: str
    frame: pd.DataFrame  # its index is named `GROUP` where rows are grouped
    figures: tuple = ()
    folded: bool = False

    @property
    def anchor(self) -> str:
        """Name of the part in links."""
        return self.heading.lower().replace(" ", "-")

    @property
    def groups(self) -> list[tuple[str, list[list[str]]]]:
        """Rows of cells by their group; one without a name where there are none."""
        if self.frame.index.name != GROUP:
            return [("", self.frame.to_numpy().tolist())]
        return [(name, rows.to_numpy().tolist()) for name, rows in self.frame.groupby(level=0, sort=False)]

    @property
    def kinds(self) -> list[str]:
        """Class of each column: "number" where all its cells are numbers."""
        columns = (self.frame.iloc[:, place] for place in range(self.frame.shape[1]))
        return ["number" if all(NUMERIC.match(cell) for cell in each if cell) else "words" for each in columns]


def sections(results: StudyResults) -> list[Section]:
    """Return every part of the report that the results have numbers for, in its order."""
    made = [(heading, *make(results), *more) for heading, (make, *more) in SECTIONS.items()]
    return [Section(heading, note, _frame(rows), *more) for heading, note, rows, *more in made if rows]


def method_table(results: StudyResults) -> pd.DataFrame:
    """Return the scores of every method as text, grouped and sorted, as the command prints them."""
    frame = _frame([row for variants in (False, True) for row in _method_rows(results, variants)])
    return frame.drop(columns=["of the limit", "changes", "ΔR² to that"], errors="ignore")


def _frame(rows):
    """Frame of texts, indexed by their groups if they have any, without columns that are empty throughout."""
    frame = pd.DataFrame(rows).fillna("")
    frame = frame.set_index(GROUP) if GROUP in frame else frame
    return frame.loc[:, (frame != "").any()]


def _labels(results):
    return {method.name: method.label for method in results.analysis.methods}


def _known(value, digits=2):
    """Write a number, or the value of an interval; nothing where it is None."""
    return "" if value is None else number(getattr(value, "value", value), digits)


def _answers(results):
    note = (
        "Pass: the whole interval is at or above what is asked for. Fail: it is below, or it includes zero. Marginal: "
        "it is above zero, but includes what is asked for. Validation rows chose the models compared, test rows judged "
        "them; an interval is the wider of a t-interval over seeds and a paired bootstrap over test rows."
    )
    labels = _labels(results)
    return note, [
        {"question": each.question, "verdict": each.verdict, "because": each.reason, "numbers": _numbers(each),
         "compared": " against ".join(labels[name] for name in (each.dual, each.single) if name is not None)}
        for each in results.analysis.answers
    ]  # fmt: skip


def _numbers(answer):
    gain = answer.key != "recovery"
    return "; ".join(f"{part.what} {between(part.found, gain=gain, marks=(part.bar,))}" for part in answer.parts)


def _recommendation(results):
    found, labels = results.analysis.recommendation, _labels(results)
    note = (
        "The simplest model that is at most one standard error behind the best on the validation rows; the error is "
        "that of the difference. Dual models are candidates unless their gain over the best single tower fails."
    )
    return note, [] if found is None else [
        {"candidate, from simple to complex": labels[each.name] + " (recommended)" * (each.name == found.name),
         "validation R²": number(each.validation_r2), "behind the best": number(each.behind, 4),
         "standard error": number(each.error, 4),
         "within": "best" if each.name == found.best else "yes" if each.within else "no"}
        for each in found.candidates
    ]  # fmt: skip


_METHODS = (
    "ρ is the share of the gain from the global ridge to the experts of the true regime that a method keeps, above one "
    f"where soft weights beat them. SNR bins: {', '.join(BINS.values())}. Intervals are not corrected for multiple "
    "comparisons."
)


def _methods(results):
    rows, limit = _method_rows(results, False), results.analysis.limit
    if limit is not None and rows:
        line = {GROUP: "upper bound", "method": f"Bayes limit of {limit.rows:,} test rows", "R²": r2_text(limit.r2)}
        line |= {f"R² {name}": _known(each, 3) for name, each in limit.r2_by_snr.items()} | {"of the limit": "1"}
        rows = [{column: line.get(column, "") for column in rows[0]}, *rows]
    return _METHODS, rows


def _variants(results):
    note = "One thing changed; open dots: the interval includes zero; the table has what leaves the frame."
    return f"{note} {_METHODS}", _method_rows(results, True)


def _method_rows(results, variants):
    """Rows of the methods that are variants, or of those that are not."""
    found, labels, rows = results.analysis, _labels(results), []
    changes = {each.name: each for each in found.changes} if variants else {}
    mark = None if found.recommendation is None else found.recommendation.name
    for group, method in grouped(found.methods, variants=variants):
        name = method.label + " (recommended)" * (method.name == mark)
        row = {GROUP: group, "method": name, "R²": r2_text(method.r2)}
        if method.name in changes:
            change = changes[method.name]
            row |= {"changes": labels[change.reference], "ΔR² to that": gain_text(change.gain)}
        best = method.name == found.best_single
        row["ΔR² to best single"] = "best single" if best else gain_text(method.slices["all"]["gain"])
        row["ρ"] = _known(method.recovery)
        row |= {f"R² {name}": _known(method.slices[name]["r2"], 3) for name in SNR_NAMES if name in method.slices}
        rows.append(row | {"of the limit": _known(method.share_of_limit)})
    return rows


def _places(results):
    note = (
        "Gain of R² on the same test rows, both towers through concat; open dots: the interval includes zero. At the "
        "gate: both towers instead of the physics tower alone. In the experts: an expert for each regime and SNR bin "
        "instead of one for each regime."
    )
    places = results.analysis.places
    return note, [{GROUP: PLACES[each.place], "what": each.what, "ΔR²": gain_text(each.gain)} for each in places]


def _by_snr(results):
    found, labels, bars = results.analysis, _labels(results), results.analysis.thresholds
    counts, note = found.rows.by_slice, f"At low SNR {bars.low_snr:+g} is asked for."
    pairs = {(each.dual, each.single): each.gain_by_snr for each in _compared(found)}
    if SNR_NAMES[0] not in counts or not pairs:
        return note, []
    rows = [
        {"gain of": f"{labels[dual]} over {labels[single]}"}
        | {BINS[name]: gain_text(gain, marks=(bars.low_snr,)) for name, gain in by_snr.items()}
        for (dual, single), by_snr in pairs.items()
    ]
    return note, [*rows, {"gain of": "test rows, all seeds"} | {BINS[name]: f"{counts[name]:,}" for name in SNR_NAMES}]


def _compared(found):
    return [each for each in map(found.answer, ("gain", "gate", "experts")) if each is not None]


def _regimes(results):
    found, labels, names, rows = results.analysis, _labels(results), regime_names(results), []
    gain, gate = found.answer("gain"), confused_gate(results)
    weights = found.gates[gate].weights if gate else None
    dual = found.method(gain.dual) if gain else None
    compared = {"single tower": found.best_single, "dual model": gain and gain.dual}
    compared = {words: name for words, name in compared.items() if name}
    for code, name in enumerate(names):
        part = f"regime {code}"
        numbered = "" if name == part else f" ({code})"  # as in figures and results.csv
        row = {"regime": name + numbered, "test rows": f"{found.rows.by_slice.get(part, 0):,}"}
        if row["test rows"] != "0":
            row |= {f"R², {words}": r2_text(found.method(each).slices[part]["r2"]) for words, each in compared.items()}
            row["gain"] = gain_text(dual.slices[part]["gain"]) if dual else ""
        for bin_, line in zip(SNR_NAMES, weights[code] if weights else [], strict=bool(weights)):
            row[f"weight, {bin_}"] = number(line[code], 2)
        rows.append(row)
    note = "".join(f"{words.capitalize()}: {labels[name]}. " for words, name in compared.items())
    return note + "Weight: mean of the true regime's experts, by SNR bin." * bool(weights), rows


def _slices(results):
    found, rows = results.analysis, []
    names = [found.best_single, *(each.dual for each in _compared(found))]
    names += [] if found.recommendation is None else [found.recommendation.name]
    note = (
        "Errors in the unit of the target; boundary samples are near an edge of a regime, interior samples are not. "
        "Bias is predicted less true."
    )
    for method in (found.method(name) for name in dict.fromkeys(names) if name is not None):
        for part in filter(found.rows.by_slice.get, ("all", *SNR_NAMES, "boundary", "interior")):
            scores, name = method.slices[part], f"SNR bin {part}" if part in SNR_NAMES else part
            row = {GROUP: method.label, "slice": name, "test rows": f"{found.rows.by_slice[part]:,}"}
            row["R²"] = r2_text(scores["r2"])
            errors = {"MAE": "mae", "RMSE": "rmse", "bias": "bias"}
            row |= {words: measured(scores[error], scores["rmse"].value) for words, error in errors.items()}
            rows.append(row)
    return note, rows


def _gates(results):
    found, rows = results.analysis, []
    for name, gate in found.gates.items():
        method = found.method(name)
        row = {"entropy": _known(method.mean_entropy), "likeness of towers": _known(method.tower_likeness),
               "accuracy": _known(gate.accuracy), "crossed": between(gate.boundary.get("crossing_rate"), 2),
               "missed near an edge": between(gate.boundary.get("missed_near"), 2),
               "missed elsewhere": between(gate.boundary.get("missed_far"), 2)}  # fmt: skip
        shown = [what for what in gate.trends if shows_trend(found, name, what)]
        trends = [f"{what} {gain_text(gate.trends[what].rho, 2)}" for what in shown]
        row["rank correlation with SNR"] = ", ".join(trends) or "includes zero, or below 0.1" * bool(gate.trends)
        if "temperature" in shown:
            means = zip(SNR_NAMES, gate.trends["temperature"].means, strict=True)
            row |= {f"temperature {bin_}": _known(mean) for bin_, mean in means}
        rows += [{"gate": method.label} | row] if any(row.values()) else []
    note = (
        "Entropy [nats] is the mean over test rows. Likeness of the towers is the RV coefficient of their outputs: 0 "
        "when they share no linear direction, 1 when they are the same. Accuracy: rows whose largest weight is on the "
        "true regime. Crossed: rows near an edge put on its wrong side. Missed: rows put in any wrong regime."
    )
    return note, rows


def _contributions(results):
    found, labels = results.analysis, _labels(results)
    note = (
        "Shapley: what each tower adds to R² over the global ridge, averaged over the two orders of adding them. "
        "Permutation: R² lost when a tower reads the features of other rows."
    )
    return note, [
        {"model": labels[name],
         **{f"Shapley, {part.replace('phys', 'physics')}": gain_text(gate.shapley.get(part))
            for part in ("phys", "quality", "interaction")},
         **{f"permutation, {part.replace('phys', 'physics')}": gain_text(gate.permutation.get(part))
            for part in ("phys", "quality")}}
        for name, gate in found.gates.items() if gate.shapley or gate.permutation
    ]  # fmt: skip


def _audit(results):
    audit, bars = results.analysis.audit, vars(results.analysis.thresholds)
    if audit is None:
        return "", []
    verdict = f"{audit.verdict}; {audit.reason}" if audit.reason else audit.verdict
    note = f"Verdict: {verdict}. R² out of fold on {audit.rows:,} test rows of the first seed."
    return note, [{"read": AUDITED[name].format(**bars), "R²": r2_text(each)} for name, each in audit.numbers.items()]


def _proposal(results):
    """Verdicts by the numbers of the proposal, which is about spectra."""
    found, note = results.analysis, "Questions (Q), sections (S) and steps (MVP) of the proposal behind the study."
    if results.run.kind == "table":
        return note, []
    rows = [
        {"number": each.code, "question": each.question, "verdict": each.verdict, "numbers": _numbers(each)}
        for each in found.answers
        if each.code
    ]
    for step, (fusions, experts) in PROPOSED.items():
        duals = [m for m in found.methods if m.kind == DUAL and m.experts == experts and m.fusion in fusions]
        reached = "; ".join(f"{m.label}: R² = {r2_text(m.r2)}" for m in duals)
        rows += [{"number": step, "numbers": reached}] if duals else []
    return note, rows


def _words(results):
    rows = [{"word": word, "meaning": meaning} for word, meaning in WORDS.items()]
    return "dualgate study --list describes every method.", rows


def _run(results):
    found, run = results.analysis, results.run
    spent = sum(sum(stages.values()) for stages in found.seconds.values())
    parts = f"{found.rows.train:,} train, {found.rows.validation:,} validation, {found.rows.test:,} test"
    facts = {"data": run.source, "rows per seed": f"{run.rows:,} ({parts})", "seeds": ", ".join(map(str, run.seeds))}
    facts |= {name: str(value) for name, value in run.environment.items()} | {"hash": run.hash}
    for name, value in run.config.items():
        section = value if isinstance(value, Mapping) else {name: value}
        given = [f"{key} = {json.dumps(each, ensure_ascii=False)}" for key, each in section.items() if each is not None]
        facts[f"configuration, {name}"] = ", ".join(given)
    facts |= {f"left out: {name}": reason for name, reason in run.left_out.items()}
    facts["time of this run"] = f"{number(run.total_seconds, 0)} s"
    facts["time of all stages"] = f"{spent:,.0f} s, those of earlier runs included"
    facts["peak memory"] = f"{number(run.peak_memory_gib, 2)} GiB"
    for seed, stages in found.seconds.items():
        kinds = [name.split(" ")[0] if name.startswith(("fit ", "predict ")) else name for name in stages]
        sums = pd.Series(list(stages.values()), dtype=float).groupby(kinds, sort=False).sum()
        facts[f"seed {seed}"] = ", ".join(f"{name} {value:.1f} s" for name, value in sums.items())
    return "Data, configuration, duration and memory.", [{"what": k, "value": v} for k, v in facts.items() if v]


SECTIONS = {  # the order of the page: what makes the table, its figures, whether a page folds it
    "Answers": (_answers, (), False),
    "Recommendation": (_recommendation, ("predictions",), False),
    "Methods": (_methods, (), False),
    "Variants": (_variants, ("ablation",), True),
    "Where quality enters": (_places, ("places",), False),
    "Gain by SNR bin": (_by_snr, ("r2_by_snr",), False),
    "By regime": (_regimes, ("coefficients", "confusion"), False),
    "Errors and slices": (_slices, (), True),
    "Gates": (_gates, ("entropy_by_snr",), False),
    "Contribution of the towers": (_contributions, (), False),
    "Leakage audit": (_audit, (), False),
    "Audit of the proposal": (_proposal, (), True),
    "Words": (_words, (), True),
    "Run": (_run, (), True),
}

# ---- files ----------------------------------------------------------------------------------------------------


def write_report(results: StudyResults, directory: Path, scores: pd.DataFrame | None = None) -> list[Path]:
    """Write `results.json`, `report.md`, `report.html`, the figures and, of `seed_scores`, `results.csv`.

    Files of these names in the existing `directory` are replaced; returns the paths of those written.
    """
    directory, written = Path(directory), []

    def write(name, content):
        (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        written.append(directory / name)

    write("results.json", results.to_json(summary=summary(results)))  # the numbers first, should a figure fail
    if scores is not None:
        write("results.csv", scores.assign(run=results.run.hash).to_csv(index=False, lineterminator="\n"))
    for name in FIGURES:  # those of an earlier run with more methods
        (directory / f"{name}.png").unlink(missing_ok=True)
    figures = draw_figures(results)
    write("report.md", markdown(results, figures))
    write("report.html", html(results, figures))
    for name, (_, image) in figures.items():
        write(f"{name}.png", image)
    return written


def markdown(results: StudyResults, figures: Mapping[str, tuple]) -> str:
    """Write the report as Markdown, next to its figures."""
    answer, use, code = headline(results)
    parts = [f"# {TITLE}", f"{answer} {use}".strip(), f"```python\n{code}\n```" if code else "", details(results),
             *_images(("r2_by_method",), figures)]  # fmt: skip
    for each in sections(results):
        parts += [f"## {each.heading}", each.note, *_images(each.figures, figures), _markdown_table(each)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _images(names, figures):
    return [f"![{figures[name][0]}]({name}.png)" for name in names if name in figures]


def _markdown_table(section):
    rows = [list(section.frame.columns), ["---:" if kind == "number" else "---" for kind in section.kinds]]
    for name, members in section.groups:
        rows += ([[f"**{name}**", *[""] * (len(rows[0]) - 1)]] if name else []) + members
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def html(results: StudyResults, figures: Mapping[str, tuple]) -> str:
    """Write the report as one self-contained page, with its figures inside."""
    from jinja2 import Environment, PackageLoader

    images = {name: (title, base64.b64encode(image).decode("ascii")) for name, (title, image) in figures.items()}
    loader = PackageLoader("dualgate", "study")
    page = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template("page.html")
    return page.render(
        title=TITLE, headline=headline(results), details=details(results), sections=sections(results), images=images,
        verdicts=("pass", "marginal", "fail"),
    )  # fmt: skip
