"""The result of a study in a paragraph of plain words, and how numbers are written."""

import math

WORDS = {
    "pass": "Two towers pay",
    "marginal": "Two towers pay, but how much is open",
    "fail": "A second tower does not pay",
}
NOT_SHOWN = "A second tower is not shown to pay"  # nor is it excluded


def summary(results: dict) -> str:
    """One paragraph in plain words: what was compared, what came out, how sure that is, what to ship."""
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
            f"{first}{best['label']} reaches R² = {between(best['r2'])} in {target or 'log g'}, the most of all on "
            "the validation rows. A verdict needs a single tower and a dual model among the methods. Brackets hold "
            "95 % intervals."
        )
    overall = questions["overall"]
    single, dual = methods[overall["single"]], methods[overall["dual"]]
    return (
        f"{_headline(overall, results['thresholds'])}. {first}the best single tower ({single['label']}) reaches R² = "
        f"{between(single['r2'])} in {target or 'log g'} and the best dual model ({dual['label']}) "
        f"{between(dual['r2'])}; validation rows chose both. Two towers gain {between(overall['gain'], sign='+')} over "
        f"one; {results['thresholds']['continue']:+g} was asked for, and the verdict is {overall['verdict']}, as "
        f"{overall['reason']}."
        f"{_by_place(results)}{_limit(results, methods)}{_shipped(results, methods)} Brackets hold 95 % intervals."
    )


def _headline(overall, bars):
    high = overall["gain"]["high"]
    undecided = overall["verdict"] == "fail" and high is not None and high >= bars["continue"]
    return NOT_SHOWN if undecided else WORDS[overall["verdict"]]


def _by_place(results):
    """Where quality enters, and what it gains there, as far as methods tell."""
    words = {
        ("concat_9", "phys_9"): "at the gate of nine experts quality brings",
        ("concat_9x4", "concat_9"): "in the experts (9x4 against 9)",
        ("concat_9x4", "concat_9x4_whitened"): "in the representation (Wiener scores against whitened components)",
    }
    found = {(each["better"], each["worse"]): each["gain"] for each in results["places"]}
    gains = [f"{text} {between(found[pair], sign='+')}" for pair, text in words.items() if pair in found]
    return f" By place, {', '.join(gains)}." if gains else ""


def _limit(results, methods):
    limit = results["limit"]
    if limit is None or results["recommendation"] is None:
        return ""
    share = methods[results["recommendation"]["name"]]["share_of_limit"]
    return (
        f" The Bayes limit, which no method is expected to pass on these data, is R² = {between(limit['r2'])}; the "
        "recommended one reaches "
        f"{number(share['value'], 2)} [{number(share['low'], 2)}, {number(share['high'], 2)}] of it."
    )


def _shipped(results, methods):
    found = results["recommendation"]
    if found is None:
        return ""
    label, best = methods[found["name"]]["label"], methods[found["best"]]["label"]
    kind = "" if found["duals"] else " model that is not dual"
    why = f"which is the best{kind} on the validation rows" if found["name"] == found["best"] else (
        f"the simplest within one standard error of the best{kind} on the validation rows ({best})"
    )  # fmt: skip
    return f" Recommended: {label}, {why}.{_unsure(methods[found['name']])}{_peer(found, methods)}"


def _unsure(method):
    """Say so where even the recommended model is not shown to predict anything."""
    low = method["r2"]["low"]
    return "" if low is not None and low > 0 else " It is not shown to predict anything: its R² may be zero."


def _peer(found, methods):
    """Say so where another regressor does better than what is recommended."""
    peer = found["peer"]
    if peer is None or not methods[peer["name"]]["validation_r2"] > methods[found["name"]]["validation_r2"]:
        return ""
    label = methods[peer["name"]]["label"]
    return f" On the same columns {label} does better: {between(peer['gain'], sign='+')} over the recommended one."


def between(interval, sign="", digits=3) -> str:
    """0.548 [0.531, 0.565], with a sign where the number is a difference; empty where there is none.

    Examples
    --------
    >>> between({"value": 0.548, "low": 0.531, "high": 0.565})
    '0.548 [0.531, 0.565]'
    """
    if interval is None:
        return ""
    value, low, high = (number(interval[end], digits, sign) for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def measured(interval, scale) -> str:
    """As `between`, in the unit of a target whose errors are about `scale`: as many digits as tell them apart.

    Examples
    --------
    >>> measured({"value": 2.13e-6, "low": 2e-6, "high": 2.3e-6}, 3e-6)
    '2.13e-06 [2.00e-06, 2.30e-06]'
    >>> measured({"value": 213.4, "low": 200, "high": 230}, 300)
    '213 [200, 230]'
    """
    if scale is None or not math.isfinite(scale) or scale <= 0:
        return between(interval)
    place = math.floor(math.log10(scale))
    if -3 < place < 5:
        return between(interval, digits=max(0, 2 - place))
    value, low, high = (
        "n/a" if (each := interval[end]) is None else f"{each:.2e}".replace("-", "\N{MINUS SIGN}", each < 0)
        for end in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def number(value, digits=3, sign="") -> str:
    """Digits with a true minus sign; n/a where there is no number."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return f"{value:{sign}.{digits}f}".replace("-", "\N{MINUS SIGN}")
