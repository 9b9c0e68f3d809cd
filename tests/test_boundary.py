import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from dualgate.datasets.simulator import REGIME_EDGES, regimes_of
from dualgate.evaluation import boundary_crossings, boundary_samples
from dualgate.experts.regimes import regime_codes

DISTANCES = (100.0, 0.1)


def stars(n_samples=2000, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(3750, 6000, n_samples), rng.uniform(-2.5, 0.75, n_samples)])


def test_planted_rows_are_found_with_their_edge_and_their_neighbour():
    conditions = stars()
    conditions = conditions[~boundary_samples(conditions, REGIME_EDGES, DISTANCES).near]  # none is near
    planted = np.array([[4401, -0.5], [5349, -0.5], [4000, -1.09], [5500, 0.09], [4599, -0.5]])
    boundary = boundary_samples(np.vstack([conditions, planted]), REGIME_EDGES, DISTANCES)
    assert_array_equal(np.flatnonzero(boundary.near), len(conditions) + np.arange(5))
    assert boundary.condition[-5:].tolist() == [0, 0, 1, 1, 0]
    assert boundary.edge[-5:].tolist() == [0, 1, 0, 1, 0]
    assert boundary.regimes[-5:].tolist() == [1, 7, 0, 8, 4]
    assert boundary.neighbours[-5:].tolist() == [4, 4, 1, 7, 1]
    assert (boundary.neighbours[:-5] == -1).all()


def test_regimes_are_those_of_the_simulator_and_of_the_experts():
    conditions = np.vstack([stars(), [[4500, -1], [5250, 0], [4500, 0]]])
    for values in (conditions, conditions.astype(np.float32)):
        found = boundary_samples(values, REGIME_EDGES, DISTANCES).regimes
        assert_array_equal(found, regimes_of(values))
        assert_array_equal(found, regime_codes("test", values, REGIME_EDGES, len(values))[0])


@given(step=st.floats(0.05, 0.95), row=st.integers(0, 1999))
def test_a_step_over_the_near_edge_leads_into_the_neighbour(step, row):
    boundary = boundary_samples(stars(), REGIME_EDGES, (1e4, 1e4))  # every row is near some edge
    moved, column = stars()[row], boundary.condition[row]
    assert boundary.near[row]
    moved[column] -= boundary.offsets[row, column]  # onto the edge
    width = 0.75e3 if column == 0 else 1.0  # narrower than any bin
    moved[column] -= np.sign(boundary.offsets[row, column]) * step * width
    assert regimes_of(moved[None])[0] == boundary.neighbours[row]


def test_a_row_on_an_edge_is_above_it_and_its_neighbour_below():
    boundary = boundary_samples([[4500, -0.5], [4000, -1.0]], REGIME_EDGES, DISTANCES)
    assert boundary.regimes.tolist() == [4, 1]
    assert boundary.neighbours.tolist() == [1, 0]


def test_near_is_by_distance_alone():
    conditions = stars()
    near = boundary_samples(conditions, REGIME_EDGES, DISTANCES).near
    gaps = [np.abs(conditions[:, [i]] - np.array(REGIME_EDGES[i])).min(axis=1) / DISTANCES[i] for i in (0, 1)]
    assert_array_equal(near, np.min(gaps, axis=0) <= 1)


def test_crossings_are_wrong_choices_over_a_near_edge_and_no_others():
    rows = [[4450, -0.5], [4450, -0.5], [4450, -0.5], [4000, -0.5], [4450, -0.95], [4450, -0.95]]
    boundary = boundary_samples(rows, REGIME_EDGES, DISTANCES)
    top = [4, 1, 7, 4, 3, 8]  # over the edge, right, too far, far from any edge, over the corner, too far
    crossings = boundary_crossings(np.eye(9)[top], boundary)
    assert crossings.crossed.tolist() == [True, False, False, False, True, False]
    assert crossings.missed.tolist() == [True, False, True, True, True, True]
    assert crossings.crossing_rate.value == pytest.approx(2 / 5)
    assert crossings.missed_near.value == pytest.approx(4 / 5)
    assert crossings.missed_far.value == 1


def test_weights_of_quality_bins_add_up_to_their_regime():
    boundary = boundary_samples([[0.95], [0.95]], [[1.0]], [0.1])
    weights = [[0.3, 0.3, 0.4, 0.0], [0.2, 0.2, 0.35, 0.25]]  # two regimes, two bins
    assert boundary_crossings(weights, boundary, n_bins=2).crossed.tolist() == [False, True]


def test_a_gate_that_reads_a_noisy_condition_crosses_near_edges():
    """Regimes from conditions with an error of 60 K: mistakes are crossings, and far rows are safe."""
    conditions = stars(5000)
    noisy = conditions + np.random.default_rng(1).normal(size=conditions.shape) * [60, 1e-6]
    boundary = boundary_samples(conditions, REGIME_EDGES, (200.0, 0.1))
    crossings = boundary_crossings(np.eye(9)[regimes_of(noisy)], boundary)
    assert crossings.missed.sum() > 50
    assert_array_equal(crossings.crossed[boundary.near], crossings.missed[boundary.near])
    assert crossings.missed_far.high < crossings.missed_near.low


def test_without_rows_a_share_is_unknown():
    crossings = boundary_crossings([[1.0, 0.0]], boundary_samples([[0.0]], [[1.0]], [0.1]))
    assert np.isnan(crossings.crossing_rate.value)
    assert crossings.missed_far.value == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [[1.0]], [0.1]), r"conditions has shape \(1,\)"),
        (([[1.0]], [[1.0], [2.0]], [0.1]), "edges has 2 entries"),
        (([[np.nan]], [[1.0]], [0.1]), "is nan at row 0"),
        (([[1.0]], [[2.0, 1.0]], [0.1]), r"edges\[0\]"),
        (([[1.0]], [[1.0]], [0.0]), r"distances\[0\]=0.0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"boundary_samples.*{message}"):
        boundary_samples(*arguments)


def test_weights_must_fit_the_regimes():
    boundary = boundary_samples([[0.95]], [[1.0]], [0.1])
    with pytest.raises(ValueError, match=r"boundary_crossings.weights are for 1 rows and 3 regimes"):
        boundary_crossings([[1.0, 0.0, 0.0]], boundary)
