import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualgate.snr import SNR_EDGES, SNR_NAMES, SNR_RANGES, equal_edges, quality_bins, signal_to_noise


def test_every_bin_holds_its_upper_edge_from_noise_to_infinite_snr():
    assert quality_bins(SNR_EDGES).tolist() == [0, 1, 2]
    assert quality_bins(np.nextafter(SNR_EDGES, np.inf)).tolist() == [1, 2, 3]
    assert quality_bins([0.0, np.inf]).tolist() == [0, 3]
    assert len(SNR_NAMES) == len(SNR_RANGES) == len(SNR_EDGES) + 1


@pytest.mark.parametrize(
    ("snr", "edges", "named"),
    [
        ([1, np.nan], SNR_EDGES, "snr is nan at row 1"),
        ([1, -0.5], SNR_EDGES, "snr is -0.5 at row 1"),
        ([1], (4, 2), "edges"),
    ],
)
def test_impossible_ratios_and_edges_are_named(snr, edges, named):
    with pytest.raises(ValueError, match=f"quality_bins.{named}"):
        quality_bins(snr, edges)


@given(
    values=st.lists(st.integers(1, 12), min_size=1, max_size=60),
    step=st.sampled_from([1.0, np.finfo(float).eps]),
    n_bins=st.integers(1, 6),
)
def test_equal_edges_leave_no_bin_empty_and_none_too_large(values, step, n_bins):
    values = 1.0 + step * np.array(values)  # down to neighbouring floats
    edges = equal_edges(values, n_bins)
    assert np.all(np.diff(edges) > 0)
    counts = np.bincount(quality_bins(values, edges), minlength=len(edges) + 1)
    assert counts.min() > 0
    assert len(counts) <= n_bins
    ties = np.unique(values, return_counts=True)[1].max()
    assert counts.max() <= -(-len(values) // n_bins) + ties - 1 + (len(counts) == 1) * len(values)


def test_the_ratio_is_of_norms_and_float32_rows_do_not_overflow():
    flux = np.full((2, 8), 1e25, dtype=np.float32)
    assert signal_to_noise(flux, flux / 4) == pytest.approx([4, 4], rel=1e-6)
