"""The files of a study: the page, the same as Markdown, the figures, and the numbers."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from dualgate.study import page
from dualgate.study.figures import draw_figures, drawable
from dualgate.study.report_tables import tables
from dualgate.study.summary import summary
from dualgate.study.tidy import tidy_text

TITLE = "Two towers or one?"
CAPTIONS = {
    "r2_by_method": "R² on the test rows by method, with 95 % intervals. Dotted: the best single tower; dashed: the "
    "Bayes limit, where it is known.",
    "r2_by_snr": "R² within the four SNR bins, each against the bin's own mean, with 95 % intervals; those of "
    "bins with few rows leave the frame.",
    "r2_against_limit": "The same against what any method could reach, the Bayes limit, with its interval as a band.",
    "places": "What quality brings at the gate, in the experts and in the representation.",
    "ablation": "One thing changed or taken away: gain of each variant over the concat model with as many experts. "
    "What leaves the frame is in the table.",
    "predictions": "Predicted against true for the recommended model: density of test rows, and the median "
    "and 16 to 84 % of the predictions in groups of equally many rows.",
    "entropy_by_snr": "Gate entropy against SNR. Points are test rows, the line joins medians "
    "of ten equal groups, the dotted line is the entropy of equal weights.",
    "confusion": "Mean weight of every regime's experts for the rows of every true regime, in percent.",
    "coefficients": "Coefficients of the nine experts and of the ridge for all rows on the pixels, first seed, with "
    "the lines of calcium and sodium.",
}
PLACED = {  # figures that stand with a table
    "Methods": ("r2_by_method", "predictions"),
    "Where quality enters": ("places",),
    "One thing changed": ("ablation",),
    "Gain by SNR bin": ("r2_by_snr",),
    "Bayes limit": ("r2_against_limit",),
    "Trends with SNR": ("entropy_by_snr",),
    "Regimes and edges": ("confusion", "coefficients"),
}


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
    directory, results = Path(directory), _plain(results)
    texts = {"results.json": json.dumps(results, indent=1, allow_nan=False) + "\n", "report.md": markdown(results)}
    if lines is not None:
        texts["results.csv"] = tidy_text(lines, results["hash"])
    paths = [_write(directory / name, text.encode()) for name, text in texts.items()]  # whatever the figures do
    for name in CAPTIONS:  # those of an earlier run with more methods
        (directory / f"{name}.png").unlink(missing_ok=True)
    figures = draw_figures(results)
    paths.append(_write(directory / "report.html", html(results, figures, draw_figures(results, dark=True)).encode()))
    return [*paths, *(_write(directory / f"{name}.png", image) for name, image in figures.items())]


def _write(path, content):
    path.write_bytes(content)
    return path


def markdown(results: dict) -> str:
    """Write the report as Markdown, beside its figures."""
    parts, left = [f"# {TITLE}", summary(results)], drawable(results)
    for heading, note, rows in tables(results):
        parts += [f"## {heading}", note, _markdown_table(rows)]
        parts += [f"![{CAPTIONS[name]}]({name}.png)\n\n{CAPTIONS[name]}" for name in _take(left, heading)]
    parts += [f"![{CAPTIONS[name]}]({name}.png)\n\n{CAPTIONS[name]}" for name in left]
    return "\n\n".join(parts) + "\n"


def html(results: dict, light: dict, dark: dict) -> str:
    """Write the report as one self-contained page: the figures, light and dark, are inside."""
    blocks, left = [], drawable(results)

    def shown(names):
        found = "\n".join(page.figure(light[name], dark[name], CAPTIONS[name]) for name in names)
        return f'<div class="figures">\n{found}\n</div>' if found else ""

    for heading, note, rows in tables(results):
        content = page.answer_list(rows) if heading == "Answers" else page.table(rows)
        blocks += [page.section(heading, note, content), shown(_take(left, heading))]
    return page.page(TITLE, summary(results), [*blocks, shown(left)])


def _take(left, heading):
    """Take the figures of a heading out of those that are left."""
    names = [name for name in PLACED.get(heading, ()) if name in left]
    for name in names:
        left.remove(name)
    return names


def _markdown_table(rows):
    head, *body = rows
    columns = list(zip(*body, strict=True))
    rule = ["---:" if place and not page.column_kind(place, cells) else "---" for place, cells in enumerate(columns)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *body])


def _plain(value):
    """Results as JSON knows them: NaN becomes null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
