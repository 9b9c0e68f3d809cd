"""The files of a study: one page, the same as Markdown, the figures, and the numbers."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from dualgate.rows import whole_file
from dualgate.snr import SNR_NAMES
from dualgate.study.figures import BINS, FIGURES, PLACES, confused_gate, draw_figures, grouped, shows_trend
from dualgate.study.methods import BINNED, DUAL, PLAIN
from dualgate.study.results import (
    COVERAGES,
    EXACT,
    LEARNED,
    StudyResults,
    between,
    gain_text,
    measured,
    number,
    r2_text,
    regime_names,
    templates,
)

TITLE = "Two towers or one?"
PAGES = {"report.md": "markdown.jinja", "report.html": "page.html"}  # and their templates
GROUP = "group"  # key of the rows of a table that has groups
FORMS = {LEARNED: "the learned dual tower: two trained gates", EXACT: "the exact dual tower: the likelihood"}
NUMERIC = re.compile(r"[+\N{MINUS SIGN}<\d]|n/a|best")
PROPOSED = {  # the proposal's steps: fusions and experts
    "MVP-4.0": (("concat",), PLAIN),
    "MVP-4.1": (("logit_add", "poe"), PLAIN),
    "MVP-4.2": (("temperature",), PLAIN),
    "MVP-4.3": (("concat", "logit_add", "poe", "temperature"), BINNED),
}

# ---- words ----------------------------------------------------------------------------------------------------


def words_of(results: StudyResults) -> dict:
    """Everything that the report has in sentences, from `words.jinja`.

    By name: the `answer`, the `exact` one, what to `use` and the line of `code` for it (empty where nothing can be
    recommended), the `details`, and the note of every section.
    """
    found = results.analysis
    context = {"found": found, "run": results.run, "labels": results.analysis.labels, "bins": BINS}
    template = templates().get_template("words.jinja")
    said = vars(template.make_module(context | {"weighed": confused_gate(results) is not None}))
    return {name: " ".join(text.split()) if isinstance(text, str) else text for name, text in said.items()}


def summary(results: StudyResults) -> str:
    """Return the result of a study as one paragraph of plain words."""
    words = words_of(results)
    use = f"{words['use']} {words['code']}." if words["use"] else ""
    return " ".join(filter(None, [words["answer"], words["exact"], use, words["details"]]))


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
    words, found = words_of(results), []
    for heading, (make, *more) in SECTIONS.items():
        rows, note = make(results), words[f"note_{heading.lower().replace(' ', '_')}"]
        found += [Section(heading, note, _frame(rows), *more)] if rows else []
    return found


def method_table(results: StudyResults) -> pd.DataFrame:
    """Return the scores of every method as text, grouped and sorted, as the command prints them."""
    frame = _frame(_method_rows(results, None))
    return frame.drop(columns=["of the limit", "changes", "ΔR² to that"], errors="ignore")


def _frame(rows):
    """Frame of texts, indexed by their groups if they have any, without columns that are empty throughout."""
    frame = pd.DataFrame(rows).fillna("")
    frame = frame.set_index(GROUP) if GROUP in frame else frame
    return frame.loc[:, (frame != "").any()]


def _known(value, digits=2):
    """Write a number, or the value of an interval; nothing where it is None."""
    return "" if value is None else number(getattr(value, "value", value), digits)


def _answers(results):
    labels = results.analysis.labels
    return [
        {GROUP: FORMS[each.form], "question": each.question, "verdict": each.verdict, "because": each.reason,
         "numbers": _numbers(each),
         "compared": " against ".join(labels[name] for name in (each.dual, each.single) if name is not None)}
        for each in results.analysis.answers
    ]  # fmt: skip


def _numbers(answer):
    gain = not answer.key.endswith("recovery")
    return "; ".join(f"{part.what} {between(part.found, gain=gain, marks=(part.bar,))}" for part in answer.parts)


def _recommendation(results):
    found, labels = results.analysis.recommendation, results.analysis.labels
    return [] if found is None else [
        {"candidate, from simple to complex": labels[each.name] + " (recommended)" * (each.name == found.name),
         "validation R²": number(each.validation_r2), "behind the best": number(each.behind, 4),
         "standard error": number(each.error, 4),
         "within": "best" if each.name == found.best else "yes" if each.within else "no"}
        for each in found.candidates
    ]  # fmt: skip


def _methods(results):
    rows, limit = _method_rows(results, False), results.analysis.limit
    if limit is not None and rows:
        line = {GROUP: "upper bound", "method": f"Bayes limit of {limit.rows:,} test rows", "R²": r2_text(limit.r2)}
        line |= {f"R² {name}": _known(each, 3) for name, each in limit.r2_by_snr.items()} | {"of the limit": "1"}
        rows = [{column: line.get(column, "") for column in rows[0]}, *rows]
    return rows


def _method_rows(results, variants):
    """Rows of the methods that are variants, of those that are not, or of all."""
    found, labels, rows = results.analysis, results.analysis.labels, []
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
    places = results.analysis.places
    return [{GROUP: PLACES[each.place], "what": each.what, "ΔR²": gain_text(each.gain)} for each in places]


def _by_snr(results):
    found, labels, counts = results.analysis, results.analysis.labels, results.analysis.rows.by_slice
    pairs = {(each.dual, each.single): each.gain_by_snr for each in _compared(found)}
    if SNR_NAMES[0] not in counts or not pairs:
        return []
    rows = [
        {"gain of": f"{labels[dual]} over {labels[single]}"}
        | {BINS[name]: gain_text(gain, marks=(found.thresholds.low_snr,)) for name, gain in by_snr.items()}
        for (dual, single), by_snr in pairs.items()
    ]
    return [*rows, {"gain of": "test rows, all seeds"} | {BINS[name]: f"{counts[name]:,}" for name in SNR_NAMES}]


def _compared(found):
    keys = "gain", "gate", "experts", "exact_gain", "exact_physics", "exact_experts"
    return [each for each in map(found.answer, keys) if each is not None]


def _regimes(results):
    found, rows = results.analysis, []
    gain, gate = found.answer("gain"), confused_gate(results)
    weights = found.gates[gate].weights if gate else None
    dual = found.method(gain.dual) if gain else None
    compared = {"single tower": found.best_single, "dual model": gain and gain.dual}
    compared = {words: name for words, name in compared.items() if name}
    for code, name in enumerate(regime_names(results)):
        part = f"regime {code}"
        numbered = "" if name == part else f" ({code})"  # as in figures and results.csv
        row = {"regime": name + numbered, "test rows": f"{found.rows.by_slice.get(part, 0):,}"}
        if row["test rows"] != "0":
            row |= {f"R², {words}": r2_text(found.method(each).slices[part]["r2"]) for words, each in compared.items()}
            row["gain"] = gain_text(dual.slices[part]["gain"]) if dual else ""
        for bin_, line in zip(SNR_NAMES, weights[code] if weights else [], strict=bool(weights)):
            row[f"weight, {bin_}"] = number(line[code], 2)
        rows.append(row)
    return rows


def _slices(results):
    found, rows = results.analysis, []
    names = [found.best_single, *(each.dual for each in _compared(found))]
    names += [] if found.recommendation is None else [found.recommendation.name]
    for method in (found.method(name) for name in dict.fromkeys(names) if name is not None):
        for part in filter(found.rows.by_slice.get, ("all", *SNR_NAMES, "boundary", "interior")):
            scores, name = method.slices[part], f"SNR bin {part}" if part in SNR_NAMES else part
            row = {GROUP: method.label, "slice": name, "test rows": f"{found.rows.by_slice[part]:,}"}
            row["R²"] = r2_text(scores["r2"])
            errors = {"MAE": "mae", "RMSE": "rmse", "bias": "bias"}
            row |= {words: measured(scores[error], scores["rmse"].value) for words, error in errors.items()}
            rows.append(row)
    return rows


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
    return rows


def _calibration(results):
    found, counts = results.analysis.densities, results.analysis.rows.by_slice
    return [] if found is None else [
        {"test rows": BINS.get(name, name), "number": f"{counts[name]:,}"}
        | {f"within {100 * level:.0f} %": number(share, 3) for level, share in zip(COVERAGES, shares, strict=True)}
        for name, shares in found.coverage.items()
    ]  # fmt: skip


def _contributions(results):
    found, labels = results.analysis, results.analysis.labels
    return [
        {"model": labels[name],
         **{f"Shapley, {part.replace('phys', 'physics')}": gain_text(gate.shapley.get(part))
            for part in ("phys", "quality", "interaction")},
         **{f"permutation, {part.replace('phys', 'physics')}": gain_text(gate.permutation.get(part))
            for part in ("phys", "quality")}}
        for name, gate in found.gates.items() if gate.shapley or gate.permutation
    ]  # fmt: skip


def _audit(results):
    audit, read = results.analysis.audit, words_of(results)["audited"]
    return [] if audit is None else [{"read": read[name], "R²": r2_text(each)} for name, each in audit.numbers.items()]


def _proposal(results):
    """Verdicts by the numbers of the proposal, which is about spectra."""
    found = results.analysis
    if results.run.kind == "table":
        return []
    rows = [
        {"number": each.code, "dual tower": each.form, "question": each.question, "verdict": each.verdict,
         "numbers": _numbers(each)}
        for each in found.answers
        if each.code
    ]  # fmt: skip
    for step, (fusions, experts) in PROPOSED.items():
        duals = [m for m in found.methods if m.kind == DUAL and m.experts == experts and m.fusion in fusions]
        reached = "; ".join(f"{m.label}: R² = {r2_text(m.r2)}" for m in duals)
        rows += [{"number": step, "numbers": reached}] if duals else []
    return rows


def _words(results):
    return [{"word": word, "meaning": meaning} for word, meaning in words_of(results)["meanings"].items()]


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
    return [{"what": k, "value": v} for k, v in facts.items() if v]


SECTIONS = {  # the order of the page: what makes the table, its figures, whether a page folds it
    "Answers": (_answers, (), False),
    "Recommendation": (_recommendation, ("predictions",), False),
    "Methods": (_methods, (), False),
    "Variants": (partial(_method_rows, variants=True), ("ablation",), True),
    "Where quality enters": (_places, ("places",), False),
    "Gain by SNR bin": (_by_snr, ("r2_by_snr",), False),
    "By regime": (_regimes, ("coefficients", "confusion"), False),
    "Predictive densities": (_calibration, ("densities", "pit"), False),
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
    """Write `results.json`, `report.md`, `report.html`, the figures and, of `StudyScores.by_seed`, `results.csv`.

    Files of these names in the existing `directory` are replaced; returns the paths of those written.
    """
    directory, written = Path(directory), []

    def write(name, content):
        with whole_file(directory / name) as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        written.append(directory / name)

    write("results.json", results.to_json(summary=summary(results)))  # the numbers first, should a figure fail
    if scores is not None:
        write("results.csv", scores.assign(run=results.run.hash).to_csv(index=False, lineterminator="\n"))
    for name in FIGURES:  # those of an earlier run with more methods
        (directory / f"{name}.png").unlink(missing_ok=True)
    figures = draw_figures(results)
    for name in PAGES:
        write(name, page(results, figures, name))
    for name, (_, image) in figures.items():
        write(f"{name}.png", image)
    return written


def page(results: StudyResults, figures: Mapping[str, tuple], name: str = "report.html") -> str:
    """Write one of `PAGES`: self-contained, with its figures inside, or as Markdown, next to its figures.

    `figures` are titles and images by file stem, as `draw_figures` gives them.
    """
    return templates().get_template(PAGES[name]).render(
        title=TITLE, words=words_of(results), sections=sections(results), figures=figures,
        verdicts=("pass", "marginal", "fail"),
    )  # fmt: skip
