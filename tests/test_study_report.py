"""The page, its tables, figures and numbers, from results whose truth is known."""

import io
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import r2_score

from dualgate.evaluation import Interval
from dualgate.study import cli
from dualgate.study.analysis import StudyScores
from dualgate.study.config import Thresholds
from dualgate.study.figures import FIGURES, draw_figures
from dualgate.study.methods import METHODS, TABLE
from dualgate.study.report import PAGES, method_table, page, sections, summary, words_of, write_report
from dualgate.study.results import StudyResults, between, measured, regime_names
from planted_study import GOOD, analyse, planted_record, planted_results


@pytest.fixture(scope="module")
def results():
    return planted_results()


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    return directory, write_report(results, directory)


def of(*records, methods=None, **facts):
    """Results of planted records."""
    return replace(planted_results(**facts), analysis=analyse(records, methods=methods, n_resamples=50))


def frames(results):
    return {each.heading: each.frame for each in sections(results)}


# ---- files ---------------------------------------------------------------------------------------------------


def test_results_file_carries_everything_the_report_shows(results, written, tmp_path):
    directory, paths = written
    again = StudyResults.from_json((directory / "results.json").read_text())
    assert len(paths) > 6
    for path in write_report(again, tmp_path):
        assert path.read_bytes() == (directory / path.name).read_bytes()
    with pytest.raises(ValueError, match=r"StudyResults\.from_json: schema_version is 2"):
        StudyResults.from_json('{"schema_version": 2}')


def test_pages_show_every_figure_and_the_answer_first(results, written):
    directory, words = written[0], words_of(results)
    text, page = ((directory / name).read_text() for name in PAGES)
    figures = list(directory.glob("*.png"))
    assert {path.stem for path in figures} <= FIGURES.keys()
    assert all(f"({path.name})" in text and path.read_bytes().startswith(b"\x89PNG") for path in figures)
    assert text.count("![") == page.count("<img") == len(figures)
    assert "http" not in page
    shown = [words["answer"][:30], words["use"][:30], "for_spectra", "<img", "Contents", "<table>"]
    assert [page.index(each) for each in shown] == sorted(page.index(each) for each in shown)
    assert words["use"].endswith(", the best on the validation rows:")
    assert words["code"].startswith("DualTowerMoERegressor.for_spectra(wave, experts='hierarchical')")
    for each in sections(results):
        assert page.count(f'href="#{each.anchor}"') == page.count(f'id="{each.anchor}"') == 1
    assert page.count("<details>") == sum(each.folded for each in sections(results))


def test_names_cannot_break_the_page():
    results = of(planted_record(0, GOOD), environment={"cpu": "<b>&|"}, target="<i>")
    shown = page(results, {})
    assert "&lt;b&gt;&amp;|" in shown
    assert "&lt;i&gt;" in shown
    assert {"<b>", "<i>"}.isdisjoint(re.findall("<.>", shown))
    text = page(results, {}, "report.md")
    assert "&lt;b>&\\|" in text
    assert not re.search("<[a-z]", text)


@pytest.mark.parametrize("name", PAGES)
def test_code_in_names_stays_text(name):
    """Columns, methods and files come from data: none of them is markup."""
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>[x](javascript:alert(1))"
    results = of(planted_record(0, GOOD), source=evil, target=evil, unit=evil, config={"data": {"flux": [evil]}})
    labels = {key: f"{evil} {label}" for key, label in results.analysis.labels.items()}
    methods = [replace(each, label=labels[each.name]) for each in results.analysis.methods]
    results = replace(results, analysis=replace(results.analysis, methods=methods))
    shown = page(results, {"r2_by_method": (evil, b"")}, name)
    assert "alert(1)" in shown
    assert not re.search("<(script|img src=x)", shown)
    assert "](javascript" not in shown or name.endswith("html")


def test_dollars_in_names_are_no_mathematics(results, monkeypatch):
    monkeypatch.setattr("dualgate.study.figures.FIGURES", {"predictions": FIGURES["predictions"]})
    marked, plain = (
        draw_figures(replace(results, run=replace(results.run, target=name, unit=None)))["predictions"][1]
        for name in (r"$\frac$", "no mathematics")
    )
    assert marked != plain


def test_numbers_are_written_though_a_figure_fails_and_earlier_figures_do_not_stay(results, tmp_path, monkeypatch):
    (tmp_path / "places.png").write_bytes(b"old")
    (tmp_path / "b").mkdir()
    write_report(replace(results, analysis=replace(results.analysis, places=[])), tmp_path)
    assert not (tmp_path / "places.png").exists()
    assert (tmp_path / "ablation.png").exists()

    def fail(results):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("dualgate.study.report.draw_figures", fail)
    with pytest.raises(RuntimeError, match="no fonts"):
        write_report(results, tmp_path / "b", pd.DataFrame())
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"results.json", "results.csv"}


def test_the_lines_of_seeds_hold_the_numbers_of_every_slice(results, tmp_path, monkeypatch):
    record = planted_record(3, GOOD)
    record.conditions, record.edges = np.column_stack([record.snr * 0, record.snr]), [[9.0], [4.0]]
    methods = [METHODS[name] for name in ("phys_9", "poe_9x4")]
    lines = StudyScores([record], methods, 1, Thresholds(boundary=(0.5, 0.25))).by_seed("phys_9")
    table = lines.set_index(["method", "slice", "metric"])[["value", "rows"]].sort_index()
    assert table.index.is_unique
    near = np.abs(record.snr - 4) <= 0.25
    for name, members in [("all", record.snr >= 0), ("snr M", (record.snr > 4) & (record.snr <= 7)),
                          ("regime 5", record.regimes == 5), ("boundary", near)]:  # fmt: skip
        y, guess = record.y[members], record.predictions["poe_9x4"][members]
        r2, single = r2_score(y, guess), r2_score(y, record.predictions["phys_9"][members])
        expected = {"r2": r2, "delta_r2": r2 - single, "rmse": np.sqrt(np.mean((guess - y) ** 2)),
                    "mae": np.mean(np.abs(guess - y)), "bias": np.mean(guess - y)}  # fmt: skip
        found = table.loc["poe_9x4", name]
        assert found["value"].to_dict() == pytest.approx(expected)
        assert set(found["rows"]) == {members.sum()}
    monkeypatch.setattr("dualgate.study.report.draw_figures", lambda results: {})
    write_report(results, tmp_path, lines)
    again = pd.read_csv(tmp_path / "results.csv", dtype={"run": str})
    assert set(again.pop("run")) == {results.run.hash}
    pd.testing.assert_frame_equal(again, lines)


# ---- words and tables ----------------------------------------------------------------------------------------


@given(
    ends=st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=3).map(sorted), mark=st.sampled_from([0.01, 0.005, 0.02])
)
def test_a_written_interval_compares_as_it_did_before_rounding(ends, mark):
    low, value, high = (round(end, 6) for end in ends)
    text = between(Interval(value, low, high), gain=True, marks=(mark,)).replace("\N{MINUS SIGN}", "-")
    shown = map(float, text.replace("[", "").replace("]", "").replace(",", "").split())
    for before, after in zip((value, low, high), shown, strict=True):
        assert [np.sign(after - each) for each in (0, mark)] == [np.sign(before - each) for each in (0, mark)]


def test_errors_have_the_digits_that_tell_them_apart():
    assert measured(Interval(2.13e-6, 2e-6, 2.3e-6), 3e-6) == "2.13e-06 [2.00e-06, 2.30e-06]"
    assert measured(Interval(213.4, 200, 230), 300) == "213 [200, 230]"


def test_the_table_has_one_line_for_every_method_grouped_and_sorted(results):
    table = method_table(results)
    assert sorted(table["method"].str.removesuffix(" (recommended)")) == sorted(method.title() for method in TABLE)
    assert list(table["ΔR² to best single"]).count("best single") == 1
    by_label = {method.label: method for method in results.analysis.methods}
    for group, rows in table.groupby(level=0, sort=False):
        values = [by_label[label.removesuffix(" (recommended)")].r2.value for label in rows["method"]]
        assert values == sorted(values, reverse=True), group
    assert table.index.nunique() == (table.index[1:] != table.index[:-1]).sum() + 1


def with_r2(results, r2):
    """Results whose methods have this R^2 in every slice."""
    methods = [
        replace(method, slices={name: scores | {"r2": r2} for name, scores in method.slices.items()})
        for method in results.analysis.methods
    ]
    return replace(results, analysis=replace(results.analysis, methods=methods))


def test_an_r2_is_not_written_above_one(results):
    assert set(method_table(with_r2(results, Interval(0.9, 0.7, 1.2)))["R²"]) == {"0.900 [0.700, 1.000]"}


def test_the_proposal_is_audited_for_spectra_alone(results):
    table = planted_results(kind="table", target="protein", unit=None)
    assert {"Q6.1", "S5.2", "MVP-4.0"} <= set(frames(results)["Audit of the proposal"]["number"])
    for text in (*(page(table, {}, name) for name in PAGES), summary(table)):
        assert not any(code in text for code in ("Q6.", "S1.2", "MVP", "proposal"))
    others = "".join(frame.to_csv() for heading, frame in frames(results).items() if heading != "Audit of the proposal")
    assert not any(code in others for code in ("Q6.", "S1.2", "MVP"))


def test_experts_are_counted_and_regimes_named_as_they_are():
    record = planted_record(0, GOOD)
    record.regimes, record.edges = record.regimes % 3, [[12.0, 15.5]]
    record.n_experts = {name: 12 if METHODS[name].experts == "9x4" else 3 for name in record.n_experts}
    found = of(record, kind="table", config={"data": {"conditions": ["moisture [%]"]}})
    assert found.analysis.method("concat_9x4").label == "both towers (concat), 3x4 experts"
    assert regime_names(found) == ["moisture < 12 %", "moisture 12 to 15.50 %", "moisture ≥ 15.50 %"]
    assert list(frames(found)["By regime"]["regime"]) == [f"{name} ({k})" for k, name in enumerate(regime_names(found))]


def test_methods_without_a_single_tower_have_a_report_without_verdicts(tmp_path):
    methods = [METHODS[name] for name in ("concat_9", "hist_gradient_boosting")]
    found = of(planted_record(0, {"hist_gradient_boosting": 0.2}), methods=methods)
    write_report(found, tmp_path)
    assert found.analysis.best_single is None
    assert "HistGradientBoosting reaches" in summary(found)
    assert {"Answers", "Recommendation", "Gain by SNR bin"}.isdisjoint(frames(found))
    assert {"Methods", "By regime", "Gates", "Run"} <= frames(found).keys()


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (GOOD | {"lightgbm": 0.1}, "On the same columns LightGBM does better: +0."),
        ({method.name: 1.2 for method in TABLE}, "it may predict nothing"),
    ],
)
def test_the_summary_warns_where_it_must(errors, words, results):
    assert words in summary(of(planted_record(0, errors)))
    assert words not in summary(results)


def test_scores_named_after_wiener_are_of_wiener_scores():
    """Rows of a table are read as they are, and the report does not call that scores."""
    record = planted_record(0, GOOD)
    for reader, places in [("default", {"gate"}), ("wiener", {"gate", "representation"})]:
        methods = [METHODS["concat_9_whitened"]]
        methods += [replace(METHODS[name], reader=reader) for name in ("concat_9", "phys_9")]
        assert {each.place for each in of(record, methods=methods).analysis.places} == places


def test_a_narrow_terminal_shows_numbers_whole(results, monkeypatch):
    for width, shown in [(80, False), (140, True)]:
        text = io.StringIO()
        made = partial(Console, width=width, force_terminal=True, color_system=None, file=text)
        monkeypatch.setattr("rich.console.Console", made)
        cli._print(results, [])
        assert "\N{HORIZONTAL ELLIPSIS}" not in text.getvalue()
        assert all(between(method.r2, most=1) in text.getvalue() for method in results.analysis.methods)
        assert ("R² X" in text.getvalue()) == shown


# ---- what cannot be measured ---------------------------------------------------------------------------------


def test_what_cannot_be_measured_is_said_and_not_invented(tmp_path):
    """An empty SNR bin, and targets and qualities that do not vary: no R^2 and no rank correlation."""
    record = planted_record(0, GOOD)
    record.snr = np.full_like(record.snr, 3.0)
    found = of(record, seeds=(0,))
    write_report(found, tmp_path)
    assert set(method_table(found)["R² H"]) == {"n/a"}
    assert "variation between seeds is unknown" in summary(found)
    again = StudyResults.from_json((tmp_path / "results.json").read_text())
    assert np.isnan(again.analysis.methods[0].slices["H"]["r2"].value)
    record.y = np.zeros_like(record.y)
    record.entropy = {name: np.ones_like(values) for name, values in record.entropy.items()}
    assert all(path.exists() for path in write_report(of(record), tmp_path))
    assert "n/a" in (tmp_path / "report.md").read_text()


def test_an_interval_beside_its_value_can_be_drawn(results):
    """The bootstrap of a bin with a handful of rows is skewed enough for that."""
    assert {"r2_by_method", "r2_by_snr"} <= draw_figures(with_r2(results, Interval(-3.0, -2.0, -1.0))).keys()


def test_a_trend_is_drawn_where_it_says_something(results):
    record = planted_record(0, GOOD)
    record.entropy = dict.fromkeys(record.entropy, 1 / (1 + record.snr))
    zeros = np.zeros((2 * len(record.y), 9))
    outputs = dict.fromkeys(("phys_logits", "quality_logits", "log_weights", "expert_predictions"), zeros)
    record.traces = dict.fromkeys(("concat_9", "phys_9"), outputs | {"root_prediction": zeros[:, 0]})
    title, _ = draw_figures(of(record))["entropy_by_snr"]
    assert title == "Entropy falls with SNR: weights of noisy rows are less certain"
    assert "entropy_by_snr" not in draw_figures(results)
