from itertools import combinations, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.testing import assert_allclose

from dualgate.evaluation import (
    CoefficientDisplay,
    Interval,
    IntervalDisplay,
    SNRDisplay,
    TrendDisplay,
    bootstrap_scores,
    row_slices,
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


def test_without_axes_a_new_figure_is_made():
    import matplotlib.pyplot as plt

    display = CoefficientDisplay(np.arange(5.0), np.ones((10, 5))).plot()
    assert display.figure_.number in plt.get_fignums()
    assert display.figure_.get_size_inches() == pytest.approx([8, 7.1])
    plt.close(display.figure_)


def test_methods_are_drawn_from_top_to_bottom_one_set_of_dots_for_each_group(ax):
    intervals = [Interval(0.1, 0.0, 1.0), Interval(0.2, 0.25, 0.3), Interval(0.3, 0.0, 1.0)]
    display = IntervalDisplay(list("abc"), intervals, groups=["one", "two", "one"]).plot(ax)
    assert display.ax_ is ax
    assert ax.yaxis_inverted()
    assert [label.get_text() for label in ax.get_yticklabels()] == list("abc")
    first, second = display.errorbars_
    assert first.lines[0].get_xydata().tolist() == [[0.1, 0], [0.3, 2]]
    assert second.lines[0].get_xydata().tolist() == [[0.2, 1]]
    # percentiles of a few rows may lie on one side of the estimate: the bar reaches it
    assert_allclose(second.lines[2][0].get_segments()[0][:, 0], [0.2, 0.3])
    assert ax.get_legend_handles_labels()[1] == ["one", "two"]


@pytest.mark.parametrize("groups", [None, ["one"] * 3])
def test_dots_are_filled_where_the_interval_excludes_the_line(ax, groups):
    intervals = [Interval(0.1, 0.05, 0.2), Interval(0.0, -0.1, 0.1), Interval(-0.1, -0.2, -0.05)]
    display = IntervalDisplay(list("abc"), intervals, against=0.0, lines={"Bayes limit": 0.3}, groups=groups)
    shown, unsure = display.plot(ax).errorbars_
    assert shown.lines[0].get_xdata().tolist() == [0.1, -0.1]
    assert unsure.lines[0].get_xdata().tolist() == [0.0]
    assert unsure.lines[0].get_markerfacecolor() == ax.get_facecolor()
    own = ["one"] if groups else ["interval excludes 0", "interval includes 0"]
    assert ax.get_legend_handles_labels()[1] == ["Bayes limit", *own]
    assert {0.0, 0.3} <= {line.get_xdata()[0] for line in ax.lines}


def test_bars_have_the_intervals_of_their_bins(ax, problem):
    y, snr, predictions = problem
    table = bootstrap_scores(y, predictions, row_slices(len(y), snr=snr), n_resamples=50, random_state=0)
    found = [[table.estimate("rmse", name, bin_).interval() for bin_ in table.slices[1:]] for name in predictions]
    display = SNRDisplay(table.names, found, ylabel="RMSE [dex]").plot(ax)
    for bars, intervals in zip(display.bars_, found, strict=True):
        assert [bar.get_height() for bar in bars] == [each.value for each in intervals]
        ends = [segment[:, 1] for segment in bars.errorbar.lines[2][0].get_segments()]
        assert_allclose(ends, [[each.low, each.high] for each in intervals])
    assert ax.get_ylabel() == "RMSE [dex]"
    assert [label.get_text()[0] for label in ax.get_xticklabels()] == list("XLMH")


def test_bars_of_one_bin_do_not_overlap_and_the_bayes_limit_spans_every_bin(ax):
    values = np.ones((5, 4))
    values[2, 1] = np.nan
    limit = [Interval(value, 0.2, 0.95) for value in (0.3, 0.5, 0.8, 0.9)]
    bars = [[Interval(value, np.nan, np.nan) for value in row] for row in values]
    display = SNRDisplay(list("abcde"), bars, limit=limit).plot(ax)
    ends = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bars in display.bars_ for bar in bars)
    assert all(left[1] <= right[0] + 1e-9 for left, right in pairwise(ends))
    assert [np.isnan(bar.get_height()) for bar in display.bars_[2]] == [False, True, False, False]
    segments = np.array(display.limit_.get_segments())  # (4, 2 ends, x and y)
    assert_allclose(segments[:, 0, 1], [each.value for each in limit])
    assert_allclose(segments[:, :, 0].mean(axis=1), range(4))
    assert_allclose([[band.get_y(), band.get_height()] for band in ax.patches[20:]], [[0.2, 0.75]] * 4)


def test_a_trend_shows_all_rows_and_the_means_of_its_bins(ax, problem):
    _, snr, _ = problem
    snr = snr[snr > 2]  # bin X is empty
    display = TrendDisplay(snr, 1 / snr, ylabel="temperature").plot(ax)
    assert_allclose(display.means_.lines[0].get_ydata(), [mean.value for mean in display.trend_.means[1:]])
    assert display.trend_.rho.value == pytest.approx(-1)
    assert display.hexagons_.get_array().sum() == len(snr)
    assert (ax.get_xscale(), ax.get_ylabel(), ax.get_title(loc="left")) == ("log", "temperature", "")


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


def test_coefficients_keep_their_values_in_units_of_the_step(ax):
    wave, coefs = np.linspace(8400, 8800, 200), np.random.default_rng(0).normal(size=(3, 200))
    display = CoefficientDisplay(wave, coefs, list("abc"), unit="dex per mean flux").plot(ax)
    for place, (curve, row) in enumerate(zip(display.curves_, coefs, strict=True)):
        assert_allclose((curve.get_ydata() + place) * display.step_, row)
    assert any(text.get_text() == f"{display.step_:g} dex per mean flux" for text in ax.texts)
    with pytest.raises(ValueError, match=r"CoefficientDisplay.coefs has shape \(3, 200\)"):
        CoefficientDisplay(wave[1:], coefs).plot(ax)


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
