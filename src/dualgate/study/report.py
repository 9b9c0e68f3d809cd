"""Tables and words of the study, and the files that carry them."""

import base64
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from dualgate.evaluation import SNR_NAMES, SNR_RANGES
from dualgate.study.figures import draw_figures, drawable
from dualgate.study.tidy import tidy_text

CAPTIONS = {
    "r2_by_method": "R² on the test rows by method, with 95 % intervals. Dotted: the best single tower.",
    "r2_by_snr": "R² within the four SNR bins, each against the bin's own mean, with 95 % intervals; those of "
    "bins with few rows leave the frame.",
    "entropy_by_snr": "Gate entropy against SNR. Points are test rows, the line joins medians "
    "of ten equal groups, the dotted line is the entropy of equal weights.",
}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:68rem;margin:0 auto;padding:1rem;color:#1a1a1a;background:#fff}
p{max-width:46rem}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2rem}
.summary{background:#f0f4f8;border-left:4px solid #36648b;padding:.75rem 1rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.875rem;white-space:nowrap}
th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child,.words{text-align:left}td{vertical-align:top}.words+.words{white-space:normal;min-width:6rem}.words+.words:last-child{min-width:13rem}
@media(max-width:600px){th:first-child,td:first-child{white-space:normal;min-width:6.5rem;padding-left:0}}
figure{margin:1rem 0}img{width:100%;max-width:34rem;height:auto}figcaption{font-size:.875rem;color:#555}
"""


def write_report(results: dict, directory: Path, lines: Sequence[tuple] | None = None) -> list[Path]:
    """Write `results.json`, `report.md`, `report.html`, the figures and, where its lines are given, `results.csv`.

    Parameters
    ----------
    results : dict
        Results of the study.
    directory : Path
        Existing directory; files of these names in it are replaced.
    lines : sequence of tuple, default=None
        From :func:`~dualgate.study.tidy.tidy_rows`.

    Returns
    -------
    paths : list of Path
        The files written.
    """
    directory, figures = Path(directory), draw_figures(results)
    texts = {
        "results.json": json.dumps(_plain(results), indent=1, allow_nan=False) + "\n",
        "report.md": markdown(results),
        "report.html": html(results, figures),
    }
    if lines is not None:
        texts["results.csv"] = tidy_text(lines)
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
    for name, image in figures.items():
        (directory / f"{name}.png").write_bytes(image)
    return [directory / name for name in [*texts, *(f"{name}.png" for name in figures)]]


def summary(results: dict) -> str:
    """One paragraph in plain words: what was compared, what came out, how sure that is."""
    rows, seeds, questions = results["rows"], results["settings"]["seeds"], results["questions"]
    methods = {method["name"]: method for method in results["methods"]}
    many = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed (the scatter between seeds is unknown)"
    target = results.get("target")
    first = (
        f"On {many} of {results['settings']['rows']:,} {'rows' if target else 'spectra'} each "
        f"({rows['test']:,} of them for the test), "
    )
    if "overall" not in questions:
        best = max(results["methods"], key=lambda method: method["validation_r2"])
        return (
            f"{first}{best['label']} reaches R² = {_between(best['r2'])} in {target or 'log g'}, the most of all on "
            "the validation rows. A verdict needs a single tower and a dual model among the methods. Brackets hold "
            "95 % intervals."
        )
    overall = questions["overall"]
    single, dual = methods[overall["single"]], methods[overall["dual"]]
    return (
        f"{first}the best single tower ({single['label']}) reaches R² = {_between(single['r2'])} in "
        f"{target or 'log g'} and the best dual model ({dual['label']}) {_between(dual['r2'])}; validation rows chose "
        f"both. Two towers gain {_between(overall['gain'], sign='+')} over one. "
        f"The verdict is {overall['verdict']}: {overall['reason']}.{_by_place(questions)} Brackets hold 95 % intervals."
    )


def _by_place(questions):
    """Where quality enters, and what it gains there, as far as methods tell."""
    words = {"gate": "quality at the gate alone gains", "experts": "quality in the experts too"}
    gains = [
        f"{words[key]} {_between(questions[key]['gain'], sign='+')} ({questions[key]['verdict']})"
        for key in words
        if key in questions
    ]
    return f" Against a physics or quality tower over nine experts, {', '.join(gains)}." if gains else ""


def tables(results: dict) -> list[tuple[str, str, list[list[str]]]]:
    """Every table of the report: heading, a line of explanation, and rows of cells with the header first."""
    labels = {method["name"]: method["label"] for method in results["methods"]}
    bars = results["thresholds"]
    found = [
        ("Verdicts", _VERDICTS.format(**bars), _verdict_rows(results, labels)),
        ("Methods", _METHODS, method_rows(results)),
        ("Gain by SNR bin", _SNR.format(gain=bars["low_snr"]), _snr_rows(results, labels)),
        ("By regime", _REGIMES.format(**_pair(results, labels)), _regime_rows(results)),
        ("Gates", _GATES, _gate_rows(results)),
        ("Run", "What it took, and on what.", _run_rows(results)),
    ]
    return [table for table in found if len(table[2]) > 1]  # what the methods or the rows do not tell has no table


def method_rows(results: dict) -> list[list[str]]:
    """Rows of the main table, header first, as the command prints it."""
    head = ["method", "R²", "ΔR² to best single", "ρ", *(f"R² {name}" for name in SNR_NAMES)]
    body = [
        [
            method["label"],
            _between(method["r2"]),
            "best single" if method["name"] == results["best_single"] else _between(method["delta"], sign="+"),
            "" if method["rho"] is None else _number(method["rho"]["value"], 2),
            *(_number(method["r2_by_snr"][name]["value"]) for name in SNR_NAMES),
        ]
        for method in results["methods"]
    ]
    return [head, *body]


def markdown(results: dict) -> str:
    """Write the report as Markdown, beside its figures."""
    parts = ["# Two towers or one?", summary(results)]
    for heading, note, rows in tables(results):
        parts += [f"## {heading}", note, _markdown_table(rows)]
        if heading == "Methods":
            parts += [f"![{CAPTIONS[name]}]({name}.png)\n\n{CAPTIONS[name]}" for name in drawable(results)]
    return "\n\n".join(parts) + "\n"


def html(results: dict, figures: dict) -> str:
    """Write the report as one self-contained page: the figures are inside."""
    parts = ["<h1>Two towers or one?</h1>", f'<p class="summary">{escape(summary(results))}</p>']
    for heading, note, rows in tables(results):
        parts += [f"<h2>{escape(heading)}</h2>", f"<p>{escape(note)}</p>", _html_table(rows)]
        if heading == "Methods":
            parts += [_html_figure(figures[name], CAPTIONS[name]) for name in drawable(results)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Two towers or one?</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


_VERDICTS = (
    "Continue: the gain is at least {continue:+} and its interval lies above zero. Marginal: at least {marginal:+} and "
    "above zero. Otherwise fall back to one tower. Validation rows chose the two models compared, test rows "
    "judged them; the interval is the wider of a t-interval over seeds and a paired bootstrap over test rows."
)
_METHODS = (
    "ρ is the share of the gain from the global ridge to the oracle with the same experts; the oracle knows "
    "the true regime. SNR bins: "
    + ", ".join(f"{name} {limits}" for name, limits in zip(SNR_NAMES, SNR_RANGES, strict=True))
    + ". Intervals of single lines are not corrected for there being many lines."
)
_SNR = (
    "Gain of the dual models above over their single towers, within each bin. * marks a gain of at least "
    "{gain:+} with an interval above zero."
)
_REGIMES = "R² within each regime, averaged over seeds: {single} and {dual}."
_GATES = (
    "Entropy is the mean over test rows. Likeness of the towers is the RV coefficient of their outputs: 0 "
    "when they share no linear direction, 1 when they say the same."
)


def _verdict_rows(results, labels):
    head = ["question", "verdict", "ΔR²", "dual model", "single tower", "because"]
    return [head] + [
        [q["title"], q["verdict"], _between(q["gain"], sign="+"), labels[q["dual"]], labels[q["single"]], q["reason"]]
        for q in results["questions"].values()
    ]


def _snr_rows(results, labels):
    head = ["gain of", *(f"{name} ({limits})" for name, limits in zip(SNR_NAMES, SNR_RANGES, strict=True))]
    chosen = {(q["dual"], q["single"]): q["gain_by_snr"] for q in results["questions"].values()}
    body = [
        [
            f"{labels[dual]} over {labels[single]}",
            *(_between(gain[n], sign="+") + " *" * gain[n]["helps"] for n in SNR_NAMES),
        ]
        for (dual, single), gain in chosen.items()
    ]
    counts = results["rows"]["test_by_snr"]
    if not chosen or not any(counts.values()):
        return [head]
    return [head, *body, ["test rows, all seeds", *(f"{counts[name]:,}" for name in SNR_NAMES)]]


def _regime_rows(results):
    head = ["regime", "test rows", "single tower", "dual model"]
    return [head] + [
        [str(each["regime"]), f"{each['rows']:,}", _number(each["single"]), _number(each["dual"])]
        for each in results["regimes"]
    ]


def _gate_rows(results):
    head = ["method", "entropy [nats]", "likeness of towers"]
    gated = [method for method in results["methods"] if method["mean_entropy"] is not None]
    return [head] + [[m["label"], _number(m["mean_entropy"], 2), _number(m["tower_likeness"], 2)] for m in gated]


def _run_rows(results):
    settings, rows = results["settings"], results["rows"]
    facts = {
        "data": settings["data"],
        "rows per seed": f"{settings['rows']:,} ({rows['train']:,} train, {rows['validation']:,} validation, "
        f"{rows['test']:,} test)",
        "seeds": ", ".join(map(str, settings["seeds"])),
        **{name: str(value) for name, value in results["environment"].items()},
        "total time": f"{results['total_seconds']:.0f} s",
        "peak memory": f"{_number(results['peak_memory_gib'], 2)} GiB",
    }
    for seed, stages in results["seconds"].items():
        sums = {
            kind: sum(value for stage, value in stages.items() if stage.startswith(f"{kind} "))
            for kind in ("fit", "predict")
        }
        parts = {name: value for name, value in stages.items() if not name.startswith(tuple(sums))} | sums
        facts[f"seed {seed}"] = ", ".join(f"{name} {value:.1f} s" for name, value in parts.items())
    return [["", ""], *([key, value] for key, value in facts.items())]


def _pair(results, labels):
    overall = results["questions"].get("overall")
    if overall is None:
        return {"single": labels.get(results["best_single"], "no single tower"), "dual": "no dual model"}
    return {"single": labels[overall["single"]], "dual": labels[overall["dual"]]}


def _between(interval, sign=""):
    """0.548 [0.531, 0.565], with a sign where the number is a difference; empty where there is none."""
    if interval is None:
        return ""
    value, low, high = (_number(interval[end], sign=sign) for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _number(value, digits=3, sign=""):
    """Digits with a true minus sign; n/a where there is no number."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return f"{value:{sign}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _markdown_table(rows):
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *body])


def _html_table(rows):
    head, *body = ([escape(cell) for cell in row] for row in rows)
    kinds = [' class="words"' if cell[:1].isalpha() else "" for cell in body[0]]  # columns of text read from the left

    def line(tag, row):
        return "<tr>" + "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"

    lines = [line("th", head)] if any(head) else []
    lines += [line("td", row) for row in body]
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _html_figure(image, caption):
    data = base64.b64encode(image).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _plain(value):
    """Results as JSON knows them: NaN becomes null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
