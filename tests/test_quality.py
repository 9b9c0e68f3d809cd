import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from dualgate.features import QualityStatistics, signal_to_noise
from dualgate.features.quality import STATISTICS


def listed_quality_features(error):
    """The statistics as the method's document lists them."""
    from scipy import stats

    return np.column_stack(
        [
            np.mean(error, axis=-1),
            np.std(error, axis=-1),
            np.min(error, axis=-1),
            np.max(error, axis=-1),
            np.median(error, axis=-1),
            np.sum(error, axis=-1),
            np.percentile(error, 25, axis=-1),
            np.percentile(error, 75, axis=-1),
            stats.skew(error, axis=-1),
            stats.kurtosis(error, axis=-1),
        ]
    )


@pytest.mark.parametrize("n_pixels", [3, 64, 101, 4096])
@pytest.mark.parametrize("spread", [0.05, 0.5, 1.5])
def test_statistics_equal_the_listing(n_pixels, spread):
    rng = np.random.default_rng(n_pixels)
    error = np.exp(spread * rng.standard_normal((40, n_pixels))).astype(np.float32)
    ours = QualityStatistics().fit_transform(error)
    # the listing in double, which float32 rounding of its own would blur
    assert_allclose(ours, listed_quality_features(error.astype(np.float64)), rtol=1e-5)
    # and as it stands, on float32, where its shape statistics carry rounding of order 1e-6 times three
    assert_allclose(ours, listed_quality_features(error), rtol=1e-5, atol=1e-5 * 3)


def peculiar_rows(kind, shape, rng):
    """Rows on which a selection by sampling could err: ties, order, long tails."""
    rows = rng.standard_normal(shape)
    return {
        "normal": rows,
        "tied": np.round(rows),
        "half of one value": np.where(np.arange(shape[1]) < shape[1] // 2, 1.0, np.exp(rows)),
        "two values": np.where(rows > 0.7, 3.0, 2.0),
        "rising": np.sort(rows, axis=1),
        "falling": -np.sort(rows, axis=1),
        "long tail": np.exp(9 * rows),
        "constant": np.full(shape, 0.35),
    }[kind]


KINDS = ("normal", "tied", "half of one value", "two values", "rising", "falling", "long tail", "constant")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_pixels", [1, 2, 512, 513, 1000, 1026, 4096, 4097, 8192, 8193])
@pytest.mark.parametrize("kind", KINDS)
def test_order_statistics_are_exact(kind, n_pixels, dtype):
    error = peculiar_rows(kind, (70, n_pixels), np.random.default_rng(n_pixels)).astype(dtype)
    subset = ["min", "q25", "median", "q75", "max"]
    expected = np.percentile(error.astype(np.float64), [0, 25, 50, 75, 100], axis=1).T
    assert_allclose(QualityStatistics(subset=subset).fit_transform(error), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("unit", [1e-20, 1e20])
def test_any_unit_gives_the_same_shape(unit):
    error = np.exp(0.5 * np.random.default_rng(0).standard_normal((3, 4096))).astype(np.float32)
    shape = QualityStatistics(subset=["skew", "kurtosis"])
    assert_allclose(shape.fit_transform(error * np.float32(unit)), shape.fit_transform(error), rtol=1e-5)


def test_subset_keeps_order_and_values():
    error = np.random.default_rng(0).uniform(1, 2, (5, 30))
    subset = ["max", "mean", "std", "median", "min"]
    everything = QualityStatistics().fit_transform(error)
    expected = everything[:, [STATISTICS.index(name) for name in subset]]
    assert_allclose(QualityStatistics(subset=subset).fit_transform(error), expected, rtol=0)


@settings(max_examples=50)
@given(
    error=arrays(np.float64, (3, 20), elements=st.floats(0.01, 100)),
    scale=st.floats(0.1, 10),
    order=st.permutations(range(20)),
)
def test_statistics_ignore_pixel_order_and_scale_with_the_unit(error, scale, order):
    base = QualityStatistics().fit_transform(error)
    again = QualityStatistics().fit_transform(error[:, order] * scale)
    sizes = [STATISTICS.index(name) for name in STATISTICS if name not in ("skew", "kurtosis")]
    assert_allclose(again[:, sizes], scale * base[:, sizes], rtol=1e-9, atol=1e-9 * scale * error.max())


def test_a_row_of_equal_errors_has_no_shape():
    row = np.full((1, 4096), 0.3, dtype=np.float32)
    mean, std, *_, skew, kurtosis = QualityStatistics().fit_transform(row)[0]
    assert_allclose(mean, np.float32(0.3))
    assert (std, skew, kurtosis) == (0, 0, 0)


@pytest.mark.parametrize("subset", [["mean", "mode"], []])
def test_unknown_statistic_is_named(subset):
    with pytest.raises(ValueError, match=r"QualityStatistics\.subset="):
        QualityStatistics(subset=subset).fit(np.ones((2, 3)))


def test_signal_to_noise_of_float32_rows_does_not_overflow():
    flux = np.full((1, 4096), 1e19, dtype=np.float32)
    assert_allclose(signal_to_noise(flux, flux / 4), 4, rtol=1e-6)
