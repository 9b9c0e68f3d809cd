import csv
import io
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import r2_score

from dualgate.study import analyse, command, write_report
from dualgate.study.config import Thresholds
from dualgate.study.figures import drawable
from dualgate.study.report import html, markdown
from dualgate.study.report_tables import method_rows, tables
from dualgate.study.roster import ROSTER, all_methods
from dualgate.study.summary import between, summary
from dualgate.study.tidy import COLUMNS, tidy_rows
from planted_study import GOOD, planted_record, planted_results


@pytest.fixture(scope="module")
def results():
    return planted_results()


def test_results_file_carries_everything_the_report_shows(results, tmp_path):
    paths = write_report(results, tmp_path)
    assert all(path.stat().st_size > 0 for path in paths)
    again = json.loads((tmp_path / "results.json").read_text())
    assert markdown(again) == (tmp_path / "report.md").read_text()
    other = tmp_path / "again"
    other.mkdir()
    write_report(again, other)
    assert all((other / path.name).read_bytes() == path.read_bytes() for path in paths)


def test_markdown_names_figures_that_exist(results, tmp_path):
    write_report(results, tmp_path)
    text = (tmp_path / "report.md").read_text()
    for path in tmp_path.glob("*.png"):
        assert f"({path.name})" in text
        assert path.read_bytes().startswith(b"\x89PNG")
    assert text.count("![") == len(drawable(results)) == len(list(tmp_path.glob("*.png")))


def test_page_stands_alone_and_says_the_verdict_first(results):
    images = dict.fromkeys(drawable(results), b"png")
    page = html(results, images, images)
    assert page.count(' src="data:image/png;base64,') == page.count(' srcset="data:image/png;base64,') == len(images)
    assert "http" not in page
    assert 'name="viewport"' in page
    assert page.index(results["questions"]["overall"]["verdict"]) < page.index("<table>")


def test_names_cannot_break_the_page(results):
    images = dict.fromkeys(drawable(results), b"")
    page = html(results | {"environment": {"cpu": "<b>&"}}, images, images)
    assert "&lt;b&gt;&amp;" in page


def test_every_table_is_rectangular(results):
    for heading, _, rows in tables(results):
        assert len({len(row) for row in rows}) == 1, heading


def test_the_table_has_one_line_for_every_method(results):
    head, *body = method_rows(results)
    assert [row[0] for row in body] == [method.label for method in all_methods()]
    assert [row[2] for row in body].count("best single") == 1
    assert len(head) == 8


def test_an_empty_snr_bin_is_said_and_not_invented(tmp_path):
    record = planted_record(0, GOOD)
    record.snr = np.full_like(record.snr, 3.0)
    results = planted_results(**analyse([record], n_resamples=50), settings={"data": "p", "rows": 3000, "seeds": [0]})
    write_report(results, tmp_path)
    line = json.loads((tmp_path / "results.json").read_text())["methods"][0]
    assert line["r2_by_snr"]["H"]["value"] is None
    assert method_rows(results)[1][-1] == "n/a"
    assert "scatter between seeds is unknown" in summary(results)


def test_an_interval_beside_its_value_can_be_drawn(results, tmp_path):
    """The bootstrap of a bin with a handful of rows is skewed enough for that."""
    skewed = json.loads(json.dumps(results))
    for method in skewed["methods"]:
        method["r2_by_snr"]["H"] = {"value": -3.0, "low": -2.0, "high": -1.0}
        method["r2"] = {"value": -3.0, "low": -5.0, "high": -4.0}
    assert all(path.exists() for path in write_report(skewed, tmp_path))


def test_methods_without_a_single_tower_have_a_report_without_verdicts(tmp_path):
    methods = [ROSTER[name] for name in ("concat_9", "hist_gradient_boosting")]
    record = planted_record(0, {"hist_gradient_boosting": 0.2})
    results = planted_results(**analyse([record], methods=methods, n_resamples=50))
    write_report(results, tmp_path)
    assert results["best_single"] is None
    assert "HistGradientBoosting reaches" in summary(results)
    assert [heading for heading, _, _ in tables(results)] == ["Methods", "By regime", "Gates", "Words", "Run"]


def test_tidy_lines_hold_the_numbers_of_every_slice(tmp_path):
    record = planted_record(3, GOOD)
    record.conditions, record.edges = np.column_stack([record.snr * 0, record.snr]), ([9.0], [4.0])
    methods = [ROSTER[name] for name in ("phys_9", "poe_9x4")]
    lines = tidy_rows([record], methods, "phys_9", Thresholds(boundary=(0.5, 0.25)))
    table = {line[1:2] + line[3:5]: line[5:] for line in lines}
    assert len(table) == len(lines)
    near = np.abs(record.snr - 4) <= 0.25
    for name, members in [("all", record.snr >= 0), ("snr M", (record.snr > 4) & (record.snr <= 7)),
                          ("regime 5", record.regimes == 5), ("boundary", near)]:  # fmt: skip
        y, guess = record.y[members], record.predictions["poe_9x4"][members]
        assert table["poe_9x4", name, "r2"] == (pytest.approx(r2_score(y, guess)), members.sum())
        assert table["poe_9x4", name, "rmse"][0] == pytest.approx(np.sqrt(np.mean((guess - y) ** 2)))
        assert table["poe_9x4", name, "mae"][0] == pytest.approx(np.mean(np.abs(guess - y)))
        assert table["poe_9x4", name, "bias"][0] == pytest.approx(np.mean(guess - y))
        single = r2_score(y, record.predictions["phys_9"][members])
        assert table["poe_9x4", name, "delta_r2"][0] == pytest.approx(r2_score(y, guess) - single)
    write_report(planted_results(), tmp_path, lines)
    with open(tmp_path / "results.csv", newline="") as file:
        again = list(csv.reader(file))
    assert again[0] == [*COLUMNS, "run"]
    assert {line[-1] for line in again[1:]} == {planted_results()["hash"]}
    assert [float(line[5]) for line in again[1:]] == [line[5] for line in lines]


def test_a_peer_that_does_better_is_named():
    peer, other = (
        summary(planted_results(**analyse([planted_record(0, GOOD | {"lightgbm": miss})], n_resamples=50)))
        for miss in (0.1, 0.9)
    )
    assert "On the same columns LightGBM does better: +0." in peer
    assert "LightGBM" not in other


def test_a_recommended_model_that_predicts_nothing_is_called_so():
    nothing = {method.name: 1.2 for method in all_methods()}
    poor = planted_results(**analyse([planted_record(0, nothing)], n_resamples=50))
    assert "is not shown to predict anything" in summary(poor)
    assert "is not shown to predict anything" not in summary(planted_results())


def test_a_figure_of_an_earlier_run_does_not_stay(results, tmp_path):
    (tmp_path / "places.png").write_bytes(b"old")
    write_report({**results, "places": []}, tmp_path)
    assert not (tmp_path / "places.png").exists()
    assert (tmp_path / "ablation.png").exists()


def test_numbers_are_written_though_a_figure_fails(results, tmp_path, monkeypatch):
    def fail(results, dark=False):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("dualgate.study.report.draw_figures", fail)
    with pytest.raises(RuntimeError, match="no fonts"):
        write_report(results, tmp_path, [])
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "report.md", "results.csv"}


def test_what_cannot_be_measured_is_drawn_as_absent(tmp_path):
    """Targets and qualities that do not vary: no R2, no rank correlation."""
    record = planted_record(0, GOOD)
    record.y = np.zeros_like(record.y)
    record.entropy = {name: np.ones_like(values) for name, values in record.entropy.items()}
    results = planted_results(**analyse([record], n_resamples=50))
    assert all(path.exists() for path in write_report(results, tmp_path))
    assert "n/a" in (tmp_path / "report.md").read_text()


def test_scores_named_after_wiener_are_of_wiener_scores():
    """Rows of a table are read as they are, and the report does not call that scores."""
    names = ("concat_9", "concat_9_whitened", "phys_9")
    record = planted_record(0, GOOD)
    for reader, n_places in [("default", 1), ("wiener", 2)]:
        methods = [replace(ROSTER[name], reader=reader) for name in names]
        assert len(analyse([record], methods=methods, n_resamples=20)["places"]) == n_places


def test_a_narrow_terminal_shows_numbers_whole(results, monkeypatch):
    for width, shown in [(80, False), (140, True)]:
        text = io.StringIO()
        made = partial(Console, width=width, force_terminal=True, color_system=None, file=text)
        monkeypatch.setattr(command, "Console", made)
        command._print({**results, "left_out": {}}, [])
        assert "\N{HORIZONTAL ELLIPSIS}" not in text.getvalue()
        assert all(between(method["r2"]) in text.getvalue() for method in results["methods"])
        assert ("R² X" in text.getvalue()) == shown
