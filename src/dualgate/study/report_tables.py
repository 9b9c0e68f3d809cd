"""Tables of the report: heading, a line of explanation, and rows of cells with the header first."""

import json

from dualgate.evaluation import SNR_NAMES, SNR_RANGES
from dualgate.study import glossary
from dualgate.study.summary import between, measured, number

BINS = ", ".join(f"{name} {limits}" for name, limits in zip(SNR_NAMES, SNR_RANGES, strict=True))

ENDS, METRICS = ("value", "low", "high"), ("mae", "rmse", "bias")


def tables(results: dict) -> list[tuple[str, str, list[list[str]]]]:
    """Every table of the report; what the methods or the rows do not tell has none."""
    labels = {method["name"]: method["label"] for method in results["methods"]}
    bars = results["thresholds"]
    found = [
        ("Answers", _ANSWERS, _answer_rows(results, labels)),
        ("Recommendation", _SHIPPING, _shipping_rows(results, labels)),
        ("Methods", _METHODS, method_rows(results)),
        ("Where quality enters", _PLACES, _place_rows(results, labels)),
        ("One thing changed", _CHANGES, _change_rows(results, labels)),
        ("Gain by SNR bin", _SNR.format(gain=bars["low_snr"]), _snr_rows(results, labels)),
        ("Errors and slices", _SLICES, _slice_rows(results, labels)),
        ("By regime", _REGIMES.format(**_pair(results, labels)), _regime_rows(results)),
        ("Bayes limit", _LIMIT, _limit_rows(results)),
        ("Gates", _GATES, _gate_rows(results)),
        ("Trends with SNR", _TRENDS, _trend_rows(results, labels)),
        ("Contribution of the towers", _TOWERS, _tower_rows(results, labels)),
        ("Regimes and edges", _EDGES, _edge_rows(results, labels)),
        ("Mean weight of the true regime", _WEIGHTS.format(**_pair(results, labels)), _weight_rows(results, labels)),
        ("Leakage audit", _audit_note(results), _audit_rows(results)),
        ("Words", glossary.NOTE, glossary.glossary_rows(results)),
        ("Run", "What it took, and on what.", _run_rows(results)),
    ]
    return [table for table in found if len(table[2]) > 1]


def method_rows(results: dict) -> list[list[str]]:
    """Rows of the main table, header first, as the command prints it."""
    head = ["method", "R²", "ΔR² to best single", "ρ", *(f"R² {name}" for name in SNR_NAMES)]
    body = [
        [
            method["label"],
            between(method["r2"]),
            "best single" if method["name"] == results["best_single"] else between(method["delta"], sign="+"),
            "" if method["rho"] is None else number(method["rho"]["value"], 2),
            *(number(method["r2_by_snr"][name]["value"]) for name in SNR_NAMES),
        ]
        for method in results["methods"]
    ]
    return [head, *body]


_ANSWERS = (
    "Pass: the whole interval is at or above what is asked for. Fail: it lies below, or it includes zero, so that a "
    "gain is not shown. Marginal: it lies above zero, but includes what is asked for. Validation rows chose the models "
    "compared, test rows judged them; an interval is the wider of a t-interval over seeds and a paired bootstrap over "
    "test rows."
)
_SHIPPING = (
    "The simplest model whose lag behind the best on the validation rows is at most one standard error of that lag. "
    "Dual models are candidates unless their gain over the best single tower fails above."
)
_METHODS = (
    "ρ is the share of the gain from the global ridge to the oracle with the same experts; the oracle knows "
    f"the true regime. SNR bins: {BINS}. Intervals of single lines are not corrected for there being many lines."
)
_PLACES = "Gain of R² on the same test rows; what is compared differs in one thing."
_CHANGES = "Gain of R² of every variant over the concat model that it is a change of, on the same test rows."
_SNR = "Gain of the dual models over their single towers within each bin, where {gain:+g} is asked for at low SNR."
_SLICES = (
    "Of the models compared, in the unit of the target; boundary samples lie near an edge of a regime, interior "
    "samples do not. Bias is predicted less true."
)
_REGIMES = "R² within each regime: {single} and {dual}, and the gain of the latter."
_LIMIT = (
    "No regressor can pass it: the simulator is known, and so is the posterior of every row. Found of some test rows, "
    "with intervals for their being few."
)
_GATES = (
    "Entropy is the mean over test rows. Likeness of the towers is the RV coefficient of their outputs: 0 "
    "when they share no linear direction, 1 when they say the same."
)
_TRENDS = (
    "Spearman's rank correlation with SNR; p is that of the seed which shows it least, and the means are those "
    "of the SNR bins."
)
_TOWERS = (
    "Shapley: what each tower adds to R² over the global ridge, averaged over the two orders in which towers may join. "
    "Permutation: R² lost when a tower reads the features of other rows."
)
_EDGES = (
    "Accuracy: rows whose largest weight is on the true regime. Crossed: near rows put on the wrong side of the edge. "
    "Missed: rows put in any wrong regime, near an edge and elsewhere."
)
_WEIGHTS = "Mean weight that rows of a regime give to that regime's experts, by SNR bin, in {dual}."


def _answer_rows(results, labels):
    head = ["question", "verdict", "what decides", "compared", "because"]
    body = []
    for each in results["answers"]:
        parts = "; ".join(
            f"{part['what']} {between(part, sign='' if part['bar'] > 0.5 else '+')}" for part in each["parts"]
        )
        names = [labels[each[role]] for role in ("dual", "single") if each[role] is not None]
        body.append([f"{each['id']}: {each['question']}", each["verdict"], parts, " / ".join(names), each["reason"]])
    return [head, *body]


def _shipping_rows(results, labels):
    head = ["candidate, from simple to complex", "validation R²", "lag", "standard error", "within"]
    found = results["recommendation"]
    if found is None:
        return [head]
    body = []
    for each in found["candidates"]:
        mark = " (recommended)" if each["name"] == found["name"] else ""
        within = "best" if each["name"] == found["best"] else "yes" if each["within"] else "no"
        body.append([labels[each["name"]] + mark, number(each["validation_r2"]), number(each["lag"], 4),
                     number(each["error"], 4), within])  # fmt: skip
    return [head, *body]


def _place_rows(results, labels):
    head = ["place", "what is compared", "ΔR²"]
    return [head] + [[each["place"], each["what"], between(each["gain"], sign="+")] for each in results["places"]]


def _change_rows(results, labels):
    head = ["variant", "of", "ΔR²"]
    return [head] + [
        [labels[each["name"]], labels[each["reference"]], between(each["gain"], sign="+")]
        for each in results["changes"]
    ]


def _snr_rows(results, labels):
    head = ["gain of", *(f"{name} ({limits})" for name, limits in zip(SNR_NAMES, SNR_RANGES, strict=True))]
    chosen = {(q["dual"], q["single"]): q["gain_by_snr"] for q in results["questions"].values()}
    body = [
        [
            f"{labels[dual]} over {labels[single]}",
            *(between(gain[n], sign="+") for n in SNR_NAMES),
        ]
        for (dual, single), gain in chosen.items()
    ]
    counts = results["rows"]["test_by_snr"]
    if not chosen or not any(counts.values()):
        return [head]
    return [head, *body, ["test rows, all seeds", *(f"{counts[name]:,}" for name in SNR_NAMES)]]


def _slice_rows(results, labels):
    head = ["model", "slice", "test rows", "R²", "MAE", "RMSE", "bias"]
    counts, body = results["rows"]["test_by_slice"], []
    names = [results["best_single"], *(q["dual"] for q in results["questions"].values())]
    if results["recommendation"] is not None:
        names.append(results["recommendation"]["name"])
    methods = {method["name"]: method for method in results["methods"]}
    for name in dict.fromkeys(each for each in names if each is not None):
        for part in ("all", *SNR_NAMES, "boundary", "interior"):
            found = methods[name]["slices"].get(part)
            if found is None or not counts[part]:
                continue
            cells = [between(dict(zip(ENDS, found["r2"], strict=True)))]
            cells += [measured(dict(zip(ENDS, found[metric], strict=True)), found["rmse"][0]) for metric in METRICS]
            where = f"bin {part}" if part in SNR_NAMES else part
            body.append([labels[name] if part == "all" else "", where, f"{counts[part]:,}", *cells])
    return [head, *body]


def _regime_rows(results):
    head = ["regime", "test rows", "single tower", "dual model", "gain"]
    return [head] + [
        [str(each["regime"]), f"{each['rows']:,}", between(each["single"]) or "n/a", between(each["dual"]) or "n/a",
         between(each["gain"], sign="+") or "n/a"]
        for each in results["regimes"]
    ]  # fmt: skip


def _limit_rows(results):
    limit = results["limit"]
    head = ["", "share of the limit", "R²", *(f"R² {name}" for name in SNR_NAMES)]
    if limit is None:
        return [head]
    first = [f"Bayes limit of {limit['rows']:,} rows", "1", between(limit["r2"], digits=2),
             *(between(limit["r2_by_snr"][name], digits=2) for name in SNR_NAMES)]  # fmt: skip
    methods = sorted(results["methods"], key=lambda method: -method["share_of_limit"]["value"])
    body = [
        [m["label"], between(m["share_of_limit"], digits=2), number(m["r2"]["value"]),
         *(number(m["r2_by_snr"][name]["value"]) for name in SNR_NAMES)]
        for m in methods
    ]  # fmt: skip
    return [head, first, *body]


def _gate_rows(results):
    head = ["method", "entropy [nats]", "likeness of towers"]
    gated = [method for method in results["methods"] if method["mean_entropy"] is not None]
    return [head] + [[m["label"], number(m["mean_entropy"], 2), number(m["tower_likeness"], 2)] for m in gated]


def _trend_rows(results, labels):
    head = ["gate and quantity", "rank correlation", "p", *(f"mean {name}" for name in SNR_NAMES)]
    body = []
    for name, found in results["gates"].items():
        for what in ("entropy", "confidence", "temperature"):
            if what in found:
                p = found[what]["p_value"]
                odds = "< 0.001" if p is not None and p < 0.001 else number(p)
                means = (number(each["value"], 2) for each in found[what]["means"])
                body.append([f"{labels[name]}: {what}", between(found[what]["rho"], sign="+", digits=2), odds, *means])
    return [head, *body]


def _tower_rows(results, labels):
    head = [
        "model",
        "Shapley, physics",
        "Shapley, quality",
        "interaction",
        "permutation, physics",
        "permutation, quality",
    ]
    body = []
    for name, found in results["gates"].items():
        shares, losses = found.get("shapley"), found.get("permutation")
        if shares is None and losses is None:
            continue
        cells = [between((shares or {}).get(part), sign="+") or "n/a" for part in ("phys", "quality", "interaction")]
        cells += [between((losses or {}).get(part), sign="+") or "n/a" for part in ("phys", "quality")]
        body.append([labels[name], *cells])
    return [head, *body]


def _edge_rows(results, labels):
    head = ["gate", "accuracy", "crossed", "missed near an edge", "missed elsewhere"]
    body = []
    for name, found in results["gates"].items():
        if "accuracy" in found:
            rates = found.get("boundary", {})
            cells = (
                between(rates.get(each), digits=2) or "n/a" for each in ("crossing_rate", "missed_near", "missed_far")
            )
            body.append([labels[name], number(found["accuracy"], 2), *cells])
    return [head, *body]


def _weight_rows(results, labels):
    question = results["questions"].get("overall")
    found = results["gates"].get(question["dual"], {}).get("weights") if question else None
    head = ["regime", *(f"{name} ({limits})" for name, limits in zip(SNR_NAMES, SNR_RANGES, strict=True))]
    if found is None:
        return [head]
    return [head] + [[str(k), *(number(line[k], 2) for line in bins)] for k, bins in enumerate(found)]


def _audit_note(results):
    audit = results["audit"]
    if audit is None:
        return ""
    return (
        f"Verdict: {audit['verdict']}; {audit['reason']}. R² out of fold on {audit['rows']:,} test rows of the first "
        "seed. The raw errors say what the statistics protect from, and decide nothing."
    )


def _audit_rows(results):
    head = ["what is read, from what", "R²"]
    if results["audit"] is None:
        return [head]
    bars = results["thresholds"]
    words = {
        "target ridge": f"target from quality features, ridge (allowed below {bars['leak_target']:g})",
        "target boosting": f"target from quality features, boosted trees (allowed below {bars['leak_target']:g})",
        "snr ridge": f"ln SNR from quality features, ridge (wanted above {bars['leak_snr']:g})",
        "snr boosting": f"ln SNR from quality features, boosted trees (wanted above {bars['leak_snr']:g})",
        "errors": "target from the raw error vector, ridge",
    }
    return [head] + [[words[name], between(found)] for name, found in results["audit"]["numbers"].items()]


def _run_rows(results):
    settings, rows = results["settings"], results["rows"]
    spent = sum(sum(stages.values()) for stages in results["seconds"].values())
    facts = {
        "data": settings["data"],
        "rows per seed": f"{settings['rows']:,} ({rows['train']:,} train, {rows['validation']:,} validation, "
        f"{rows['test']:,} test)",
        "seeds": ", ".join(map(str, settings["seeds"])),
        **{name: str(value) for name, value in results["environment"].items()},
        "hash": results["hash"],
        "configuration": json.dumps(_given(results["config"]), ensure_ascii=False),
        "time of this run": f"{results['total_seconds']:,.0f} s",
        "time of all stages": f"{spent:,.0f} s, those of earlier runs included",
        "peak memory": f"{number(results['peak_memory_gib'], 2)} GiB",
    }
    for seed, stages in results["seconds"].items():
        sums = {
            kind: sum(value for stage, value in stages.items() if stage.startswith(f"{kind} "))
            for kind in ("fit", "predict")
        }
        parts = {name: value for name, value in stages.items() if not name.startswith(tuple(sums))} | sums
        facts[f"seed {seed}"] = ", ".join(f"{name} {value:.1f} s" for name, value in parts.items())
    return [["", ""], *([key, value] for key, value in facts.items())]


def _given(config):
    """Leave out the keys of a nested configuration that have no value."""
    return {
        name: _given(value) if isinstance(value, dict) else value for name, value in config.items() if value is not None
    }


def _pair(results, labels):
    overall = results["questions"].get("overall")
    if overall is None:
        return {"single": labels.get(results["best_single"], "no single tower"), "dual": "no dual model"}
    return {"single": labels[overall["single"]], "dual": labels[overall["dual"]]}
