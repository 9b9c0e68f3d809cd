"""The figures of the study, from its results alone, for light pages and for dark ones."""

import io

import numpy as np

from dualgate.evaluation import (
    SNR_NAMES,
    BayesLimitDisplay,
    CoefficientDisplay,
    ConfusionDisplay,
    EntropyDisplay,
    GainDisplay,
    PredictionDisplay,
    R2ByMethodDisplay,
    SNRBarsDisplay,
)
from dualgate.features.lines import WINDOWS
from dualgate.study.methods import DUAL
from dualgate.study.roster import GLOBAL, ORACLES
from dualgate.study.summary import number

MARGIN = 0.15  # of R^2, above and below the bars of the SNR figure
ROOM = 2.0  # how far the ablation figure reaches, in units of a large change
WIDTH = 5.2  # inches: at a phone's width the letters are still as large as the text around
MAX_PANELS = 3  # of the entropy figure
ELEMENTS = {"ca": "Ca II", "na": "Na I"}
DARK = {
    "figure.facecolor": "#16191d", "axes.facecolor": "#16191d", "savefig.facecolor": "#16191d", "text.color": "#d8dbe0",
    "axes.labelcolor": "#d8dbe0", "axes.edgecolor": "#9aa0a8", "xtick.color": "#d8dbe0", "ytick.color": "#d8dbe0",
    "grid.color": "#5a6068", "patch.edgecolor": "#d8dbe0", "lines.color": "#d8dbe0",
}  # fmt: skip


def draw_figures(results: dict, *, dark: bool = False) -> dict:
    """Draw every figure of the report.

    Parameters
    ----------
    results : dict
        Results of the study, as in `results.json`.
    dark : bool, default=False
        Whether the page around is dark.

    Returns
    -------
    figures : dict of str to bytes
        PNG images by file stem, those of :func:`drawable`.
    """
    from matplotlib import rc_context

    with rc_context(DARK if dark else {}):
        drawn = {}
        for name in drawable(results):
            figure = _FIGURES[name](results)
            if dark:
                _lighten(figure)
            drawn[name] = _png(figure)
        return drawn


def drawable(results: dict) -> list[str]:
    """File stems of the figures that the results have numbers for."""
    by_snr = any(
        np.isfinite(_numbers([m["r2_by_snr"][n] for n in SNR_NAMES], "value")).any() for m in results["methods"]
    )
    told = {
        "r2_by_method": True,
        "r2_by_snr": by_snr,
        "r2_against_limit": results["limit"] is not None and by_snr,
        "places": bool(results["places"]),
        "ablation": np.isfinite(_numbers(results["changes"], "gain", "value")).any(),
        "predictions": results["predictions"] is not None,
        "entropy_by_snr": bool(results["entropy"]),
        "confusion": _confused(results) is not None,
        "coefficients": results["coefficients"] is not None,
    }
    return [name for name, known in told.items() if known]


def _methods(results):
    methods = results["methods"]
    figure = _figure(1.6 + 0.26 * len(methods))
    r2, low, high = _bars(_numbers(methods, "r2", end) for end in ("value", "low", "high"))
    groups = [f"{m['kind']}, {m['experts']} experts" if m["kind"] == DUAL else m["kind"] for m in methods]
    display = R2ByMethodDisplay([m["label"] for m in methods], r2, low, high, groups=groups)
    display.plot(figure.add_subplot())
    display.ax_.margins(y=0.7 / len(methods))
    for best in (m for m in methods if m["name"] == results["best_single"] and m["r2"]["value"] is not None):
        display.ax_.axvline(best["r2"]["value"], color="0.5", linestyle=":", linewidth=1)
    if results["limit"] is not None:
        display.ax_.axvline(results["limit"]["r2"]["value"], color="0.3", linestyle="--", linewidth=1)
    _legend(figure)
    return figure


def _compared(results):
    """Methods of the figures by SNR: references, the best single tower, and the duals compared."""
    questions = results["questions"]
    duals = [questions[key]["dual"] for key in ("gate", "experts") if key in questions]
    names = [GLOBAL.name, results["best_single"], *duals, list(ORACLES.values())[-1].name]
    methods = {m["name"]: m for m in results["methods"]}
    shown = [methods[name] for name in names if name in methods] or results["methods"][:5]
    parts = (
        [_numbers([m["r2_by_snr"][bin_] for m in shown], end) for bin_ in SNR_NAMES] for end in ("value", "low", "high")
    )
    return [m["label"] for m in shown], *(np.transpose(part) for part in _bars(parts))


def _snr(results):
    labels, r2, low, high = _compared(results)
    figure = _figure(4.2)
    display = SNRBarsDisplay(labels, r2, low, high).plot(figure.add_subplot())
    # a bin of few rows has an interval many times as long as all differences between methods
    display.ax_.set_ylim(min(0.0, np.nanmin(r2)) - MARGIN / 3, np.nanmax(r2) + MARGIN)
    _legend(figure)
    return figure


def _limit(results):
    labels, r2, low, high = _compared(results)
    ends = [_numbers([results["limit"]["r2_by_snr"][n] for n in SNR_NAMES], e) for e in ("value", "low", "high")]
    figure = _figure(4.4)
    display = BayesLimitDisplay(
        labels, r2, low, high, limit=ends[0], limit_low=np.fmin(*ends[:2]), limit_high=np.fmax(ends[0], ends[2])
    )
    display.plot(figure.add_subplot())
    display.ax_.set_ylim(np.nanmin(r2) - MARGIN, max(np.nanmax(ends[0]), np.nanmax(r2)) + MARGIN)
    _legend(figure)
    return figure


def _places(results):
    lines = results["places"]
    figure = _figure(1.5 + 0.5 * len(lines))
    names = [f"{_wrapped(each['what'])}\n({each['place']})" for each in lines]
    _gains(figure, names, lines, "ΔR²", results["thresholds"]["continue"])
    return figure


def _ablation(results):
    labels = {m["name"]: m["label"] for m in results["methods"]}
    lines = results["changes"]
    figure = _figure(1.5 + 0.3 * len(lines))
    names = [labels[each["name"]].removeprefix("concat, ") for each in lines]
    axes = _gains(figure, names, lines, "ΔR² over concat with as many experts", None)
    gains = np.abs(_numbers(lines, "gain", "value"))
    reach = ROOM * np.quantile(gains[np.isfinite(gains)], 0.9)
    if reach > 0:  # one variant that fails must not hide what the others do
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -reach), min(high, reach))
    return figure


def _gains(figure, names, lines, label, wanted):
    gain, low, high = _bars(_numbers(lines, "gain", end) for end in ("value", "low", "high"))
    display = GainDisplay(names, gain, low, high, label=label, wanted=wanted).plot(figure.add_subplot())
    display.ax_.margins(y=0.7 / len(lines))
    _legend(figure)
    return display.ax_


def _predictions(results):
    found = results["predictions"]
    target = results.get("target")
    figure = _figure(4.4)
    display = PredictionDisplay(
        found["true"], found["predicted"], name=target or "log g", unit=None if target else "dex"
    ).plot(figure.add_subplot())
    display.ax_.set_title(
        {m["name"]: m["label"] for m in results["methods"]}[found["name"]], fontsize="medium", loc="left"
    )
    _legend(figure, 3)
    return figure


def _entropy(results):
    labels = {m["name"]: m["label"] for m in results["methods"]}
    points = dict(list(results["entropy"].items())[:MAX_PANELS])
    figure = _figure(2.1 * len(points) + 0.3)
    panels = np.atleast_1d(figure.subplots(len(points), sharex=True))
    for panel, (name, cloud) in zip(panels, points.items(), strict=True):
        snr, entropy = np.array(cloud["snr"]), np.array(cloud["entropy"])
        EntropyDisplay(snr, entropy, n_experts=cloud["n_experts"]).plot(panel)
        trend = results["gates"][name].get("entropy")
        rank = "" if trend is None else f", rank correlation {number(trend['rho']['value'], 2, '+')}"
        panel.set_title(f"{labels[name]}{rank}", fontsize="medium", loc="left")
        panel.set_ylim(bottom=0, top=1.15 * np.log(cloud["n_experts"]))
        panel.set_ylabel("entropy [nats]")
        panel.label_outer()
    return figure


def _confused(results):
    """Name of the gate whose confusion is shown; None without one."""
    names = [results["questions"][key]["dual"] for key in ("overall", "gate") if key in results["questions"]]
    return next((name for name in names if results["gates"].get(name, {}).get("confusion")), None)


def _confusion(results):
    name = _confused(results)
    figure = _figure(4.4)
    display = ConfusionDisplay(_as_numbers(results["gates"][name]["confusion"])).plot(figure.add_subplot())
    label = {m["name"]: m["label"] for m in results["methods"]}[name]
    display.ax_.set_title(label, fontsize="medium", loc="left")
    return figure


def _coefficients(results):
    found = results["coefficients"]
    coefs = _as_numbers(found["experts"])
    names = [*(f"regime {place}" for place in range(len(coefs) - 1)), "all rows"]
    lines = {f"{ELEMENTS[name[:2]]} {place:.0f}": place for name, (cores, *_) in WINDOWS.items() for place in cores}
    figure = _figure(1.8 + 0.5 * len(coefs))
    target = results.get("target")
    unit = f"{target} per unit of flux" if target else "dex per unit of flux"
    display = CoefficientDisplay(found["wave"], coefs, names, lines=lines, unit=unit).plot(figure.add_subplot())
    display.ax_.set_ylabel("")
    return figure


_FIGURES = {
    "r2_by_method": _methods,
    "r2_by_snr": _snr,
    "r2_against_limit": _limit,
    "places": _places,
    "ablation": _ablation,
    "predictions": _predictions,
    "entropy_by_snr": _entropy,
    "confusion": _confusion,
    "coefficients": _coefficients,
}


def _wrapped(text):
    """Break before what follows a colon: a phone is narrow."""
    return text.replace(": ", ":\n", 1)


def _bars(parts):
    """Values and ends of their bars; a percentile interval of a few rows may lie beside its value, a bar may not."""
    value, low, high = map(np.asarray, parts)
    return value, np.fmin(low, value), np.fmax(high, value)


def _numbers(rows, *path):
    """Values along a path of keys, None as NaN."""
    values = []
    for row in rows:
        for key in path:
            row = row[key]
        values.append(np.nan if row is None else row)
    return np.array(values, dtype=float)


def _as_numbers(table):
    """Turn a nested list into an array, None into NaN."""
    return np.array([[np.nan if each is None else each for each in row] for row in table], dtype=float)


def _legend(figure, ncols=2):
    figure.legend(loc="outside lower center", ncols=ncols, fontsize="small", frameon=False)


def _lighten(figure):
    """Turn greys that Displays chose for white paper into as light ones on the dark page."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb
    from matplotlib.lines import Line2D

    def turned(colour):
        rgb = to_rgb(colour)
        return str(1 - 0.8 * rgb[0]) if max(rgb) - min(rgb) < 0.02 else colour

    for artist in figure.findobj(lambda each: isinstance(each, (Line2D, LineCollection))):
        colour = artist.get_color()
        artist.set_color(turned(colour) if isinstance(artist, Line2D) else [turned(each[:3]) for each in colour])


def _figure(height):
    from matplotlib.figure import Figure  # no pyplot: the study leaves the session's figures alone

    return Figure(figsize=(WIDTH, height), layout="constrained")


def _png(figure):
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=160, metadata={"Software": None})
    return target.getvalue()
