import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from sklearn.metrics import r2_score

from dualgate.evaluation import EntropyDisplay, R2ByMethodDisplay, R2BySNRDisplay, r2_by_bin, snr_bins


@pytest.fixture
def ax():
    return Figure().add_subplot()


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    y, snr = rng.normal(size=300), rng.uniform(0.5, 12, size=300)
    predictions = {"good": y + 0.3 * rng.normal(size=300), "poor": y + rng.normal(size=300) / snr}
    return y, snr, predictions


def test_entropy_display_draws_every_row_and_the_limit(ax):
    weights = np.vstack([np.full((20, 4), 0.25), np.eye(4)[np.arange(20) % 4]])
    snr = np.linspace(1, 10, 40)
    display = EntropyDisplay.from_trace(SimpleNamespace(weights=weights), snr, ax=ax)
    assert_allclose(display.scatter_.get_offsets(), np.column_stack([snr, [np.log(4)] * 20 + [0.0] * 20]))
    assert_allclose(display.median_.get_ydata(), [np.log(4)] * 5 + [0] * 5)
    assert any("ln 4" in text.get_text() for text in ax.texts)
    assert display.ax_ is ax
    assert "nats" in ax.get_ylabel()


def test_entropy_display_wants_one_snr_for_every_row(ax):
    with pytest.raises(ValueError, match=r"EntropyDisplay.snr has shape \(2,\)"):
        EntropyDisplay.from_trace(SimpleNamespace(weights=np.eye(3)), [1.0, 2.0], ax=ax)


def test_scatter_style_reaches_the_points(ax):
    display = EntropyDisplay(np.ones(3), np.ones(3)).plot(ax, scatter_kwargs={"s": 9})
    assert display.scatter_.get_sizes().tolist() == [9]


def test_methods_are_scored_and_drawn_from_top_to_bottom(ax, problem):
    y, _, predictions = problem
    display = R2ByMethodDisplay.from_predictions(y, predictions, random_state=0, ax=ax)
    assert_allclose(display.r2, [r2_score(y, guess) for guess in predictions.values()])
    assert (display.low < display.r2).all()
    assert (display.r2 < display.high).all()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["good", "poor"]
    assert ax.yaxis_inverted()


def test_groups_become_one_set_of_dots_each(ax):
    display = R2ByMethodDisplay(list("abc"), [0.1, 0.2, 0.3], [0, 0, 0], [1, 1, 1], groups=["one", "two", "one"])
    first, second = display.plot(ax).errorbars_
    assert first.lines[0].get_xdata().tolist() == [0.1, 0.3]
    assert second.lines[0].get_xdata().tolist() == [0.2]


def test_snr_display_shows_the_r2_of_every_bin(ax, problem):
    y, snr, predictions = problem
    display = R2BySNRDisplay.from_predictions(y, predictions, snr, ax=ax)
    for bars, guess in zip(display.errorbars_, predictions.values(), strict=True):
        assert_allclose(bars.lines[0].get_ydata(), r2_by_bin(y, guess, snr_bins(snr), 4))
    assert [label.get_text()[0] for label in ax.get_xticklabels()] == list("XLMH")


def test_snr_display_leaves_a_gap_for_an_empty_bin(ax):
    display = R2BySNRDisplay(["a"], [[0.1, np.nan, 0.3, 0.4]]).plot(ax)
    assert np.isnan(display.errorbars_[0].lines[0].get_ydata()).tolist() == [False, True, False, False]


def test_without_axes_a_new_figure_is_made():
    import matplotlib.pyplot as plt

    display = EntropyDisplay(np.ones(3), np.ones(3)).plot()
    assert display.figure_.number in plt.get_fignums()
    plt.close(display.figure_)


def test_importing_the_evaluation_loads_neither_torch_nor_matplotlib():
    code = "import sys, dualgate.evaluation; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
