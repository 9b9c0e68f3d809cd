"""The figures of the study, from its results alone."""

import io
from textwrap import fill

import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay

from dualgate import evaluation
from dualgate.features.lines import WINDOWS
from dualgate.snr import SNR_NAMES, SNR_RANGES
from dualgate.study.methods import BINNED, GLOBAL, GROUPS, MIXED, ORACLES, VARIANT
from dualgate.study.results import MethodScores, StudyResults, number, regime_names, templates

WIDTH = 5.2  # inches: at a phone's width the letters are still as large as the text around
TITLE_LETTERS = 62  # in a line of a title
MARGIN = 0.15  # of R^2, above and below the bars of the SNR figure
REACH = 2.0  # how far the figure of changes reaches, in units of a large change
MAX_PANELS = 3  # of the entropy figure
MIN_TREND = 0.1  # rank correlation; weaker ones explain less than a hundredth of the variance of ranks
BINS = {name: f"{name} ({limits})" for name, limits in zip(SNR_NAMES, SNR_RANGES, strict=True)}
LINE_REACH = 10.0  # [A] around a line's core
ELEMENTS = {"ca": "Ca II", "na": "Na I"}
PLACES = {
    "gate": "at the gate",
    "experts": "in the experts",
    "representation": "in what the experts read",
    "likelihood": "in the likelihood",
}


def draw_figures(results: StudyResults) -> dict[str, tuple[str, bytes]]:
    """Draw every figure that the results have numbers for and that shows something: title and PNG by file stem."""
    from matplotlib.figure import Figure  # no pyplot: the study leaves the session's figures alone

    drawn, titles = {}, templates().get_template("titles.jinja")
    for name, draw in FIGURES.items():
        figure, target = Figure(figsize=(WIDTH, 4.2), layout="constrained"), io.BytesIO()
        shown = draw(results, figure)
        if shown is not None:
            title = titles.render(figure=name, found=results.analysis, run=results.run, places=PLACES, **shown)
            title = " ".join(title.split())
            figure.suptitle(without_math(fill(title, TITLE_LETTERS)), x=0.02, ha="left", fontsize="medium")
            figure.savefig(target, format="png", dpi=160, metadata={"Software": None})
            drawn[name] = title, target.getvalue()
    return drawn


# ---- one function a figure: draws, and returns what its title needs; None where there is nothing to show ----


def _methods(results, figure):
    """R^2 of all methods but variants, sorted within their groups."""
    found, shown = results.analysis, grouped(results.analysis.methods)
    if not shown:
        return None
    figure.set_figheight(2.4 + 0.26 * len(shown))
    limit = {} if found.limit is None else {"Bayes limit": found.limit.r2.value}
    evaluation.IntervalDisplay(
        [method.label for _, method in shown], [method.r2 for _, method in shown],
        groups=[name for name, _ in shown], lines=limit,
    ).plot(figure.add_subplot())  # fmt: skip
    _legend(figure, ncols=1)
    return {}


def _by_snr(results, figure):
    """R^2 by SNR bin of the methods compared, under the Bayes limit where it is known."""
    found = results.analysis
    duals = [answer.dual for answer in map(found.answer, ("gate", "experts")) if answer is not None]
    names = [GLOBAL.name, found.best_single, *duals, MIXED.name, ORACLES[BINNED].name]
    if SNR_NAMES[0] not in found.rows.by_slice:
        return None
    shown = [m for m in found.methods if m.name in names] or found.methods[:5]
    bars = [[method.slices[name]["r2"] for name in SNR_NAMES] for method in shown]
    r2 = np.array([[each.value for each in row] for row in bars])
    if not np.isfinite(r2).any():
        return None
    limit = None if found.limit is None else [found.limit.r2_by_snr[name] for name in SNR_NAMES]
    axes = evaluation.SNRDisplay([m.label for m in shown], bars, limit=limit).plot(figure.add_subplot()).ax_
    # a bin of few rows has an interval many times as long as all differences between methods
    top = np.nanmax([*r2.ravel(), *(each.value for each in limit or ())])
    axes.set_ylim(min(0.0, np.nanmin(r2)) - MARGIN / 3, min(top + MARGIN, 1.05))
    _legend(figure)
    return {}


def _places(results, figure):
    lines = results.analysis.places
    if not lines:
        return None
    figure.set_figheight(1.8 + 0.45 * len(lines))
    names = [each.what.replace(" instead of ", "\ninstead of ") for each in lines]
    _gains(figure, names, lines, [PLACES[each.place] for each in lines])
    shown = [each for each in lines if each.gain.low > 0]
    return {"best": max(shown, key=lambda each: each.gain.value, default=None)}


def _changes(results, figure):
    """Gains of variants over what they change, sorted; those in what the experts read are among the places."""
    lines = [each for each in results.analysis.changes if each.place != "representation"]
    gains = np.array([each.gain.value for each in lines])
    if not np.isfinite(gains).any():
        return None
    lines = [lines[place] for place in np.argsort(-gains)]
    figure.set_figheight(1.8 + 0.3 * len(lines))
    labels = results.analysis.labels
    names = [labels[each.name].split("), ")[-1].removeprefix(f"{labels.get(MIXED.name)}, ") for each in lines]
    axes = _gains(figure, names, lines, [each.place for each in lines])
    reach = REACH * np.nanquantile(np.abs([[each.gain.low, each.gain.high] for each in lines]), 0.9)
    if reach > 0:  # one variant that fails must not hide what the others do
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -reach), min(high, reach))
    return {"loss": next((each for each in reversed(lines) if each.gain.high < 0), None)}


def _predictions(results, figure):
    found, run = results.analysis.predictions, results.run
    if found is None:
        return None
    true, guess, axes = np.array(found.x), np.array(found.y), figure.add_subplot()
    axes.scatter(true, guess, s=4, alpha=0.3, linewidths=0)
    axes.axline((true.mean(), true.mean()), slope=1, color="0.5", linestyle="--", linewidth=1, label="equal")
    groups = np.array_split(np.argsort(true), 15)
    medians = ([np.median(column[group]) for group in groups if len(group)] for column in (true, guess))
    axes.plot(*medians, "o-", color="C1", markersize=4, label="median")
    name = _target(run)
    axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
    _legend(figure)
    return {}


def _entropy(results, figure):
    """Gate entropy against SNR, of gates with a trend that is shown."""
    found = results.analysis
    shown = [(name, found.gates[name].trends["entropy"].rho) for name in found.entropy if shows_trend(found, name)]
    shown = sorted(shown, key=lambda each: -abs(each[1].value))[:MAX_PANELS]
    if not shown:
        return None
    figure.set_figheight(0.7 + 2.1 * len(shown))
    panels = np.atleast_1d(figure.subplots(len(shown), sharex=True))
    for panel, (name, rho) in zip(panels, shown, strict=True):
        cloud = found.entropy[name]
        evaluation.TrendDisplay(cloud.x, cloud.y, n_experts=cloud.n_experts).plot(panel)
        label = found.method(name).label
        panel.set_title(f"{label}: rank correlation {number(rho.value, 2, '+')}", fontsize="small", loc="left")
        panel.set_ylim(bottom=0, top=1.15 * np.log(cloud.n_experts))
        panel.set_ylabel("entropy [nats]")
        panel.label_outer()
    return {"rhos": [rho.value for _, rho in shown]}


def _confusion(results, figure):
    name = confused_gate(results)
    if name is None:
        return None
    percent = 100 * np.array(results.analysis.gates[name].confusion, dtype=float)
    display = ConfusionMatrixDisplay(np.nan_to_num(percent))
    display.plot(ax=figure.add_subplot(), cmap="Blues", values_format=".0f")
    for text in display.text_[np.isnan(percent)]:  # regimes without rows
        text.set_text("")
    display.ax_.set(xlabel="regime of the gate", ylabel="true regime")
    display.im_.colorbar.set_label("mean weight [%]")
    return {"gate": name}


def _densities(results, figure):
    """Predictive densities of some test rows, from low to high SNR, with the truth marked."""
    found, run = results.analysis.densities, results.run
    if found is None:
        return None
    figure.set_figheight(5.0)
    panels = figure.subplots(3, len(found.densities) // 3, sharex=True, squeeze=False)
    name = _target(run)
    for place, (panel, curve, truth) in enumerate(zip(panels.flat, found.densities, found.truths, strict=True)):
        panel.fill_between(found.y, curve, color="C0", alpha=0.3, linewidth=0)
        panel.plot(found.y, curve, color="C0", linewidth=1, label="predictive density" if not place else None)
        panel.axvline(truth, color="C1", linewidth=2, label="truth" if not place else None)
        if found.snr:
            panel.set_title(f"SNR = {number(found.snr[place], 1)}", fontsize="small", loc="left")
        panel.set(ylim=(0, None), yticks=[])
    for panel in panels[-1]:
        panel.set_xlabel(name)
    _legend(figure)
    return {}


def _pit(results, figure):
    """Histograms of the predictive probability of a smaller target, flat where the densities are calibrated."""
    found = results.analysis.densities
    if found is None:
        return None
    shown = {name: np.array(counts) for name, counts in found.pit.items() if sum(counts)}
    figure.set_figheight(1.2 + 1.9 * ((len(shown) + 1) // 2))
    panels = figure.subplots((len(shown) + 1) // 2, min(2, len(shown)), sharex=True, sharey=True, squeeze=False)
    for panel, (name, counts) in zip(panels.flat, shown.items(), strict=False):
        n_bars, mean = len(counts), counts.sum() / len(counts)
        panel.bar((np.arange(n_bars) + 0.5) / n_bars, counts / mean, 0.92 / n_bars, color="C0")
        spread = 2 * np.sqrt((1 - 1 / n_bars) / mean)  # of a bar, two standard deviations
        panel.axhspan(1 - spread, 1 + spread, color="0.5", alpha=0.3, linewidth=0)
        panel.axhline(1, color="0.5", linewidth=1)
        panel.set_title(f"{BINS.get(name, name)}: {counts.sum():,} rows", fontsize="small", loc="left")
    for panel in panels.flat[len(shown) :]:
        panel.set_visible(False)
    figure.supxlabel("predictive probability of a smaller target", fontsize="medium")
    figure.supylabel("rows / rows of a flat histogram", fontsize="medium")
    return {"shown": shown}


def _coefficients(results, figure):
    found, run = results.analysis.coefficients, results.run
    if found is None:
        return None
    coefs, wave, names = np.array(found.experts), np.array(found.wave), regime_names(results)
    names = names if len(names) == len(coefs) - 1 else [f"regime {place}" for place in range(len(coefs) - 1)]
    lines = {f"{ELEMENTS[name[:2]]} {core:.0f}": core for name, (cores, *_) in WINDOWS.items() for core in cores}
    figure.set_figheight(2.0 + 0.5 * len(coefs))
    names = [without_math(each.replace(", ", ",\n")) for each in [*names, "all rows"]]
    unit = without_math(f"{run.unit or run.target} per unit of flux")
    axes = evaluation.CoefficientDisplay(wave, coefs, names, lines=lines, unit=unit).plot(figure.add_subplot()).ax_
    axes.set_ylabel("")
    near = np.any([np.abs(wave - core) < LINE_REACH for core in lines.values()], axis=0)
    known, size = near.any() and not near.all(), np.abs(coefs[:-1])
    return {"times": size[:, near].mean() / size[:, ~near].mean() if known else None}


FIGURES = {  # the order of the page
    "r2_by_method": _methods,
    "predictions": _predictions,
    "places": _places,
    "ablation": _changes,
    "r2_by_snr": _by_snr,
    "coefficients": _coefficients,
    "densities": _densities,
    "pit": _pit,
    "entropy_by_snr": _entropy,
    "confusion": _confusion,
}

# ---- what tables and figures share ----------------------------------------------------------------------------


def grouped(methods, *, variants: bool | None = False) -> list[tuple[str, MethodScores]]:
    """Pair methods (variants, others, or all) with the heading of their group; sorted by R^2 within groups."""
    order = list(dict.fromkeys([*GROUPS, *(method.group for method in methods)]))
    chosen = [method for method in methods if variants in (None, method.kind == VARIANT)]
    chosen.sort(key=lambda method: (order.index(method.group), -np.nan_to_num(method.r2.value, nan=-np.inf)))
    return [(GROUPS.get(method.group, method.group), method) for method in chosen]


def shows_trend(analysis, name: str, what: str = "entropy") -> bool:
    """Whether the rank correlation of a gate's quantity with SNR is noticeable and its interval excludes zero."""
    found = analysis.gates[name].trends.get(what) if name in analysis.gates else None
    return found is not None and abs(found.rho.value) >= MIN_TREND and (found.rho.low > 0 or found.rho.high < 0)


def confused_gate(results: StudyResults) -> str | None:
    """Name of the dual gate whose mixing of regimes is worth a picture; None without one.

    Where the mean weight of the true regime is near one, or near that of equal weights, there is nothing to see.
    """
    found = results.analysis
    for answer in filter(None, map(found.answer, ("gain", "gate"))):
        table = found.gates[answer.dual].confusion if answer.dual in found.gates else None
        if table is not None and 1.5 / len(table) < np.nanmean(np.diag(table)) < 0.95:
            return answer.dual
    return None


def _target(run):
    """Name and unit of the target, for the label of an axis."""
    return without_math(f"{run.target} [{run.unit}]" if run.unit else run.target)


def without_math(text: str) -> str:
    """Write a text from data so that matplotlib shows it as it is: between dollars it would read mathematics."""
    return text.replace("$", r"\$")


def _gains(figure, names, lines, groups):
    axes = evaluation.IntervalDisplay(
        names, [each.gain for each in lines], groups=groups, xlabel="ΔR²", against=0.0
    ).plot(figure.add_subplot()).ax_  # fmt: skip
    axes.locator_params(axis="x", nbins=5)
    _legend(figure)
    return axes


def _legend(figure, ncols=2):
    figure.legend(loc="outside lower center", ncols=ncols, fontsize="small", frameon=False)
