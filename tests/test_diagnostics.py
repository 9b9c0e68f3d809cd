import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import ortho_group

from dualgate.evaluation import SNR_EDGES, SNR_NAMES, snr_bins, tower_correlation


def test_every_bin_holds_its_upper_edge():
    assert snr_bins(SNR_EDGES).tolist() == [0, 1, 2]
    assert snr_bins(np.nextafter(SNR_EDGES, np.inf)).tolist() == [1, 2, 3]
    assert len(SNR_NAMES) == len(SNR_EDGES) + 1


def test_bins_run_from_noise_to_infinite_snr():
    assert snr_bins([0.0, np.inf]).tolist() == [0, 3]


@pytest.mark.parametrize("snr", [[1.0, np.nan], [1.0, -0.5]])
def test_an_impossible_snr_is_named(snr):
    with pytest.raises(ValueError, match=r"snr_bins.snr is .* at row 1"):
        snr_bins(snr)


def test_edges_must_increase():
    with pytest.raises(ValueError, match=r"snr_bins.edges"):
        snr_bins([1.0], edges=(4, 2))


def test_towers_of_width_one_give_the_squared_correlation():
    rng = np.random.default_rng(0)
    a = rng.normal(size=200)
    b = a + rng.normal(size=200)
    expected = np.corrcoef(a, b)[0, 1] ** 2
    assert tower_correlation(a[:, None], b[:, None]) == pytest.approx(expected)


def test_likeness_ignores_rotation_scale_offset_and_order():
    rng = np.random.default_rng(1)
    phys = rng.normal(size=(100, 4))
    quality = phys[:, :2] + rng.normal(size=(100, 2))
    turned = 3 * phys @ ortho_group.rvs(4, random_state=0) + 5
    assert_allclose(tower_correlation(turned, quality), tower_correlation(phys, quality))
    assert_allclose(tower_correlation(quality, phys), tower_correlation(phys, quality))
    assert tower_correlation(phys, turned) == pytest.approx(1)


def test_independent_towers_are_nearly_unlike():
    phys, quality = np.random.default_rng(2).normal(size=(2, 5000, 3))
    assert tower_correlation(phys, quality) < 0.01


def test_a_tower_that_always_says_the_same_has_no_likeness():
    phys = np.random.default_rng(3).normal(size=(50, 3))
    assert np.isnan(tower_correlation(phys, np.full((50, 4), 0.1)))


def test_towers_must_share_rows():
    with pytest.raises(ValueError, match=r"tower_correlation.phys has shape \(3, 2\)"):
        tower_correlation(np.zeros((3, 2)), np.zeros((4, 2)))
