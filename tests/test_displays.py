import subprocess
import sys
from itertools import combinations, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.testing import assert_allclose
from sklearn.metrics import r2_score, root_mean_squared_error

from dualgate.evaluation import (
    CoefficientDisplay,
    ConfusionDisplay,
    IntervalDisplay,
    PredictionDisplay,
    SNRDisplay,
    TrendDisplay,
    bootstrap_scores,
    row_slices,
    snr_bins,
)
from dualgate.evaluation.displays import spread_out


@pytest.fixture
def ax():
    return Figure(layout="constrained").add_subplot()


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    y, snr = rng.normal(3, 1, size=400), rng.uniform(0.5, 12, size=400)
    return y, snr, {"good": y + 0.3 * rng.normal(size=400), "poor": y + rng.normal(size=400) / snr}


def test_importing_the_evaluation_loads_neither_torch_nor_matplotlib():
    code = "import sys, dualgate.evaluation; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_axes_a_new_figure_is_made():
    import matplotlib.pyplot as plt

    display = CoefficientDisplay(np.arange(5.0), np.ones((10, 5))).plot()
    assert display.figure_.number in plt.get_fignums()
    assert display.figure_.get_size_inches() == pytest.approx([8, 7.1])
    plt.close(display.figure_)


def test_methods_are_scored_and_drawn_from_top_to_bottom(ax, problem):
    y, _, predictions = problem
    display = IntervalDisplay.from_scores(bootstrap_scores(y, predictions, random_state=0), ax=ax)
    assert display.ax_ is ax
    assert_allclose(display.values, [r2_score(y, guess) for guess in predictions.values()])
    assert (np.less(display.low, display.values) & np.less(display.values, display.high)).all()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["good", "poor"]
    assert ax.yaxis_inverted()


def test_groups_become_one_set_of_dots_each(ax):
    display = IntervalDisplay(list("abc"), [0.1, 0.2, 0.3], [0, 0, 0], [1, 1, 1], groups=["one", "two", "one"])
    first, second = display.plot(ax).errorbars_
    assert first.lines[0].get_xdata().tolist() == [0.1, 0.3]
    assert second.lines[0].get_xdata().tolist() == [0.2]
    assert ax.get_legend_handles_labels()[1] == ["one", "two"]


@pytest.mark.parametrize("groups", [None, ["one"] * 3])
def test_dots_are_filled_where_the_interval_excludes_the_line(ax, groups):
    display = IntervalDisplay(
        list("abc"), [0.1, 0.0, -0.1], [0.05, -0.1, -0.2], [0.2, 0.1, -0.05],
        against=0.0, lines={"Bayes limit": 0.3}, groups=groups,
    )  # fmt: skip
    shown, unsure = display.plot(ax).errorbars_
    assert shown.lines[0].get_xdata().tolist() == [0.1, -0.1]
    assert unsure.lines[0].get_xdata().tolist() == [0.0]
    assert unsure.lines[0].get_markerfacecolor() == ax.get_facecolor()
    own = ["one"] if groups else ["interval excludes 0", "interval includes 0"]
    assert ax.get_legend_handles_labels()[1] == ["Bayes limit", *own]
    assert {0.0, 0.3} <= {line.get_xdata()[0] for line in ax.lines}


def test_an_interval_that_excludes_its_value_is_drawn_to_it(ax):
    """Percentiles of a few rows may lie on one side of the estimate."""
    (bars,) = IntervalDisplay(["a"], [0.5], [0.6], [0.7]).plot(ax).errorbars_
    assert_allclose(bars.lines[2][0].get_segments()[0][:, 0], [0.5, 0.7])


def test_gains_over_a_prediction_are_paired(ax, problem):
    y, _, predictions = problem
    table = bootstrap_scores(y, predictions, n_resamples=100, random_state=0)
    display = IntervalDisplay.from_scores(table, reference="poor", ax=ax)
    expected = table.estimate("r2", "good", reference="poor").interval()
    assert display.names == ["good"]
    assert_allclose([display.values[0], display.low[0], display.high[0]], [expected.value, expected.low, expected.high])
    assert (display.against, ax.get_xlabel()) == (0.0, "ΔR² over poor")


def test_bars_are_as_high_as_the_score_of_the_bin(ax, problem):
    y, snr, predictions = problem
    table = bootstrap_scores(y, predictions, row_slices(len(y), snr=snr), n_resamples=50, random_state=0)
    display = SNRDisplay.from_scores(table, score="rmse", unit="dex", ax=ax)
    for bars, guess in zip(display.bars_, predictions.values(), strict=True):
        for bin_, bar in enumerate(bars):
            inside = snr_bins(snr) == bin_
            assert bar.get_height() == pytest.approx(root_mean_squared_error(y[inside], guess[inside]))
    assert ax.get_ylabel() == "RMSE within the bin [dex]"
    assert [label.get_text()[0] for label in ax.get_xticklabels()] == list("XLMH")


def test_bars_of_one_bin_do_not_overlap_and_an_empty_bin_has_none(ax):
    values = np.ones((5, 4))
    values[2, 1] = np.nan
    display = SNRDisplay(list("abcde"), values).plot(ax)
    ends = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bars in display.bars_ for bar in bars)
    assert all(left[1] <= right[0] + 1e-9 for left, right in pairwise(ends))
    assert [np.isnan(bar.get_height()) for bar in display.bars_[2]] == [False, True, False, False]


def test_the_bayes_limit_spans_every_bin(ax):
    limit = [[0.3, 0.5, 0.8, 0.9], [0.2] * 4, [0.95] * 4]
    display = SNRDisplay(["a"], [[0.1, 0.2, 0.3, 0.4]], limit=limit).plot(ax)
    segments = np.array(display.limit_.get_segments())  # (4, 2 ends, x and y)
    assert_allclose(segments[:, 0, 1], limit[0])
    assert_allclose(segments[:, :, 0].mean(axis=1), range(4))
    assert_allclose([[band.get_y(), band.get_height()] for band in ax.patches[4:]], [[0.2, 0.75]] * 4)


def test_the_density_counts_every_row_once(ax, problem):
    y, _, predictions = problem
    display = PredictionDisplay(y, predictions["good"], name="log g", unit="dex").plot(ax)
    assert display.hexagons_.get_array().sum() == len(y)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("true log g [dex]", "predicted log g [dex]")
    low, high = (line.get_ydata() for line in display.band_)
    assert (low <= display.median_.get_ydata()).all()
    assert (display.median_.get_ydata() <= high).all()


def test_a_trend_shows_all_rows_and_the_means_of_its_bins(ax, problem):
    _, snr, _ = problem
    display = TrendDisplay.from_values(snr, 1 / snr, ylabel="temperature", ax=ax)
    assert_allclose(display.means_.lines[0].get_ydata(), [mean.value for mean in display.trend_.means])
    assert display.trend_.rho.value == pytest.approx(-1)
    assert display.hexagons_.get_array().sum() == len(snr)
    assert (ax.get_xscale(), ax.get_ylabel(), ax.get_title(loc="left")) == ("log", "temperature", "")


def test_a_trend_survives_an_empty_bin(ax):
    snr = np.linspace(3, 9, 50)
    display = TrendDisplay.from_values(snr, snr, ax=ax)
    assert len(display.means_.lines[0].get_ydata()) == 3


def test_the_entropy_of_a_trace_is_drawn_with_that_of_equal_weights(ax):
    weights = np.vstack([np.full((20, 4), 0.25), np.eye(4)[np.arange(20) % 4]])
    display = TrendDisplay.from_trace(SimpleNamespace(weights=weights), np.repeat([1.0, 9.0], 20), ax=ax)
    assert_allclose(display.values, [np.log(4)] * 20 + [0.0] * 20)
    assert_allclose(display.means_.lines[0].get_ydata(), [np.log(4), 0])
    assert [text.get_text() for text in ax.texts] == ["equal weights, ln 4"]
    assert ax.texts[0].xy[1] == ax.lines[-1].get_ydata()[0] == np.log(4)
    assert "nats" in ax.get_ylabel()
    with pytest.raises(ValueError, match=r"values has shape \(40,\) and must be \(2,\) like snr"):
        TrendDisplay.from_trace(SimpleNamespace(weights=weights), [1.0, 2.0], ax=ax)


def test_confusion_writes_percents_and_leaves_unknown_cells_empty(ax):
    display = ConfusionDisplay([[0.9, 0.1], [np.nan, np.nan]], ["cool", "warm"]).plot(ax)
    assert [text.get_text() for text in display.texts_] == ["90", "10"]
    assert [text.get_color() for text in display.texts_] == ["white", "black"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["cool", "warm"]


def test_coefficients_keep_their_values_in_units_of_the_step(ax):
    wave, coefs = np.linspace(8400, 8800, 200), np.random.default_rng(0).normal(size=(3, 200))
    display = CoefficientDisplay(wave, coefs, list("abc"), unit="dex per mean flux").plot(ax)
    for place, (curve, row) in enumerate(zip(display.curves_, coefs, strict=True)):
        assert_allclose((curve.get_ydata() + place) * display.step_, row)
    assert any(text.get_text() == f"{display.step_:g} dex per mean flux" for text in ax.texts)


def test_line_names_do_not_touch_and_outsiders_are_left_out():
    lines = {"Na I 8183": 8183.3, "Na I 8195": 8194.8, "Ca II 8542": 8542.1, "H alpha": 6562.8, "last": 8849.0}
    figure = Figure(figsize=(8, 3), layout="constrained")
    display = CoefficientDisplay(np.linspace(7100, 8850, 500), np.ones((2, 500)), lines=lines)
    display.plot(figure.add_subplot())
    figure.draw_without_rendering()
    assert [mark.get_text() for mark in display.marks_] == ["Na I 8183", "Na I 8195", "Ca II 8542", "last"]
    boxes = [Text.get_window_extent(mark) for mark in display.marks_]  # of the names, without their leaders
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


@given(places=st.lists(st.floats(0, 100), min_size=1, max_size=12).map(sorted))
def test_spread_labels_keep_order_gap_and_bounds(places):
    moved = spread_out(places, 5.0, 0.0, 100.0)
    assert (np.diff(moved) >= 5.0 - 1e-9).all()
    assert moved.min() >= -1e-9
    assert moved.max() <= 100 + 1e-9
    if len(places) == 1 or np.diff(places).min() >= 5:
        assert_allclose(moved, places)


def test_coefficients_must_be_of_pixels(ax):
    with pytest.raises(ValueError, match=r"CoefficientDisplay.coefs has shape \(2, 3\)"):
        CoefficientDisplay(np.arange(5.0), np.ones((2, 3))).plot(ax)
