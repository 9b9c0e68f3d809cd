"""The three figures of the study, from its results alone."""

import io

import numpy as np

from dualgate.evaluation import SNR_NAMES, EntropyDisplay, R2ByMethodDisplay, R2BySNRDisplay
from dualgate.study.methods import DUAL
from dualgate.study.roster import GLOBAL, ORACLES

MARGIN = 0.15  # of R^2, above and below the dots of the SNR figure
WIDTH = 5.2  # inches: at a phone's width the letters are still as large as the text around


def draw_figures(results: dict) -> dict:
    """Draw every figure of the report.

    Parameters
    ----------
    results : dict
        Results of the study, as in `results.json`.

    Returns
    -------
    figures : dict of str to bytes
        PNG images by file stem, those of :func:`drawable`.
    """
    draw = {"r2_by_method": _methods, "r2_by_snr": _snr, "entropy_by_snr": _entropy}
    return {name: draw[name](results) for name in drawable(results)}


def drawable(results: dict) -> list[str]:
    """File stems of the figures that the results have numbers for."""
    told = {
        "r2_by_method": True,
        "r2_by_snr": any(results["rows"]["test_by_snr"].values()),
        "entropy_by_snr": bool(results["entropy"]),
    }
    return [name for name, known in told.items() if known]


def _methods(results):
    methods = results["methods"]
    figure = _figure(1.6 + 0.26 * len(methods))
    r2, low, high = _bars(_numbers(methods, "r2", end) for end in ("value", "low", "high"))
    groups = [f"{m['kind']}, {m['experts']} experts" if m["kind"] == DUAL else m["kind"] for m in methods]
    display = R2ByMethodDisplay([m["label"] for m in methods], r2, low, high, groups=groups)
    display.plot(figure.add_subplot())
    for best in (m for m in methods if m["name"] == results["best_single"]):
        display.ax_.axvline(best["r2"]["value"], color="0.5", linestyle=":", linewidth=1)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    return _png(figure)


def _snr(results):
    questions = results["questions"]
    duals = [questions[key]["dual"] for key in ("gate", "experts") if key in questions]
    names = [GLOBAL.name, results["best_single"], *duals, list(ORACLES.values())[-1].name]
    methods = {m["name"]: m for m in results["methods"]}
    shown = [methods[name] for name in names if name in methods] or results["methods"][:5]
    r2, low, high = _bars(
        [_numbers([m["r2_by_snr"][bin_] for m in shown], end) for bin_ in SNR_NAMES] for end in ("value", "low", "high")
    )
    figure = _figure(4.4)
    display = R2BySNRDisplay([m["label"] for m in shown], *(np.transpose(part) for part in (r2, low, high)))
    display.plot(figure.add_subplot())
    # a bin of few rows has an interval many times as long as all differences between methods
    display.ax_.set_ylim(np.nanmin(r2) - MARGIN, np.nanmax(r2) + MARGIN)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    return _png(figure)


def _entropy(results):
    labels = {m["name"]: m["label"] for m in results["methods"]}
    points = results["entropy"]
    figure = _figure(2.1 * len(points) + 0.3)
    panels = np.atleast_1d(figure.subplots(len(points), sharex=True))
    for panel, (name, cloud) in zip(panels, points.items(), strict=True):
        snr, entropy = np.array(cloud["snr"]), np.array(cloud["entropy"])
        EntropyDisplay(snr, entropy, n_experts=cloud["n_experts"]).plot(panel)
        panel.set_title(labels[name], fontsize="medium", loc="left")
        panel.set_ylim(bottom=0, top=1.15 * np.log(cloud["n_experts"]))
        panel.set_ylabel("entropy [nats]")
        panel.label_outer()
    return _png(figure)


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


def _figure(height):
    from matplotlib.figure import Figure  # no pyplot: the study leaves the session's figures alone

    return Figure(figsize=(WIDTH, height), layout="constrained")


def _png(figure):
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=160, metadata={"Software": None})
    return target.getvalue()
