"""Simulated spectra, in memory, in blocks and as a row source: the same rows, their noise and their labels."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from itertools import pairwise, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from dualgate.datasets import make_spectra, stream_spectra
from dualgate.datasets.emulator import HIGH, LOW, coordinates, load_emulator
from dualgate.datasets.noise import detector, flux_error

N = 3000


@pytest.fixture(scope="module")
def data():
    return make_spectra(N, random_state=7)


@pytest.fixture(scope="module")
def clean():
    return make_spectra(N, random_state=7, noise_level=0)


def test_emulator_is_small_and_covers_the_labels():
    assert files("dualgate.datasets").joinpath("emulator.npz").stat().st_size < 2e6
    corners = np.array(list(product(*zip(LOW, HIGH, strict=True))))
    assert_allclose([coordinates(corners).min(axis=0), coordinates(corners).max(axis=0)], [[-1] * 5, [1] * 5])
    assert np.isfinite(load_emulator()(corners)).all()


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(1, 99), unique=True).map(sorted), start=st.integers(0, 70), data_=st.data())
def test_no_bit_depends_on_what_is_read_together(data, cuts, start, data_):
    source = stream_spectra(N, random_state=7).X
    parts = [source.read(start + a, start + b) for a, b in pairwise([0, *cuts, 100])]
    assert_array_equal(np.concatenate(parts), data.X[start : start + 100])
    rows = np.array(data_.draw(st.lists(st.integers(0, N - 1), max_size=12)), dtype=int)
    assert_array_equal(np.asarray(source[rows]), data.X[rows])


def test_threads_and_prefixes_give_the_same_rows(data):
    assert_array_equal(make_spectra(40, random_state=7, n_jobs=1).X, data.X[:40])
    source = stream_spectra(N, random_state=7).X
    ranges = [(first, first + 7) for first in range(100, 200, 5)]
    with ThreadPoolExecutor(4) as pool:
        blocks = list(pool.map(lambda cut: source.read(*cut), ranges))
    for cut, block in zip(ranges, blocks, strict=True):
        assert_array_equal(block, data.X[slice(*cut)])


def test_blocks_and_source_have_the_labels_of_make_spectra(data):
    block = make_spectra(70, random_state=7, start=500, n_jobs=1)
    assert set(block) == set(data)
    for key in ("X", "y", "flux", "error", "conditions", "regimes", "snr", "labels"):
        assert_array_equal(block[key], data[key][500:570])
    streamed = stream_spectra(70, random_state=7, start=500)
    for key in ("y", "conditions", "regimes"):
        assert_array_equal(streamed[key], data[key][500:570])
    assert_array_equal(streamed.wave, data.wave)
    pd.testing.assert_frame_equal(streamed.labels, data.labels[500:570].drop(columns="snr").reset_index(drop=True))
    assert streamed.regime_edges == data.regime_edges
    assert "snr" not in streamed


@pytest.mark.parametrize("options", [{"noise_level": 0}, {"noise_level": 0.5}, {"noise": "white"}], ids=str)
def test_a_source_has_the_noise_of_make_spectra_and_noise_changes_no_star(data, options):
    made = make_spectra(50, random_state=7, **options)
    assert_array_equal(np.asarray(stream_spectra(50, random_state=7, **options).X), made.X)
    assert_array_equal(made.labels.drop(columns="snr"), data.labels.drop(columns="snr")[:50])
    assert (len(np.unique(made.error)) == 1) == ("noise" in options)


def test_a_source_pickles_as_a_seed_and_simulates_the_same_bits(data):
    source = stream_spectra(20, random_state=7).X
    source.read(0, 1)  # with the emulator loaded
    text = pickle.dumps(source)
    assert len(text) < 1000
    script = "import pickle, sys; sys.stdout.buffer.write(pickle.load(sys.stdin.buffer).read(3, 9).tobytes())"
    run = subprocess.run([sys.executable, "-c", script], input=text, capture_output=True, check=True)
    assert run.stdout == data.X[3:9].tobytes()


@pytest.mark.parametrize("row", [1234, 2**66 + 5])
def test_a_row_has_a_random_stream_of_its_own(row):
    data, clean = (make_spectra(1, random_state=7, start=row, noise_level=level) for level in (1, 0))
    generator = np.random.Generator(np.random.Philox(key=7, counter=row << 64))
    uniform = generator.random(8)
    assert_array_equal(data.labels.to_numpy()[0, :5], LOW + uniform[:5] * (HIGH - LOW))
    noise = generator.standard_normal(data.flux.shape[1], dtype=np.float32) * data.error[0]
    assert_array_equal(data.flux[0], clean.flux[0] + noise)


def test_the_seed_names_the_table_and_may_be_drawn_by_a_generator(data):
    assert not np.isin(make_spectra(20, random_state=8).y, data.y).any()
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for make in (np.random.RandomState, np.random.default_rng):
        assert_array_equal(*(make_spectra(2, random_state=make(5)).X for _ in range(2)))
    drawn = stream_spectra(3)
    assert_array_equal(stream_spectra(3, random_state=drawn.X.seed).X.read(0, 2), drawn.X.read(0, 2))
    assert (make_spectra(2).y != make_spectra(2).y).all()
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_clean_flux_is_that_of_the_labels_and_noise_is_normal_with_the_stated_error(data, clean):
    assert_allclose(clean.flux.mean(axis=1), 1, atol=1e-5)
    assert_allclose(clean.flux[500:600], load_emulator()(clean.labels.to_numpy()[500:600, :5]), rtol=1e-4)
    assert_array_equal(data.error, clean.error)
    z = (data.flux - clean.flux) / data.error
    assert_allclose([z.mean(), z.std(), (z**4).mean()], [0, 1, 3], atol=0.01)
    assert_allclose((z[:, 1:] * z[:, :-1]).mean(), 0, atol=0.01)
    assert_allclose((z[1:] * z[:-1]).mean(), 0, atol=0.01)
    assert data.flux.min() < 0  # not clipped
    double = make_spectra(50, random_state=7, noise_level=2)
    assert_allclose(double.flux - clean.flux[:50], 2 * (data.flux - clean.flux)[:50], atol=1e-4)


def test_snr_is_the_ratio_of_norms_and_fills_its_bins(data):
    norms = [np.linalg.norm(part.astype(float), axis=1) for part in (data.flux, data.error)]
    assert_allclose(data.snr, norms[0] / norms[1], rtol=1e-6)
    shares = np.bincount(np.digitize(data.snr, (2, 4, 7), right=True), minlength=4) / N
    assert_allclose(shares, [0.29, 0.38, 0.30, 0.03], atol=0.06)


def test_error_falls_with_brightness_and_peaks_at_sky_lines_and_telluric_bands(data):
    chip = detector()
    faint, bright = (data.error[where].mean() for where in (data.labels.mag > 22.3, data.labels.mag < 20.7))
    assert faint > 3 * bright
    profile = np.median(data.error / np.median(data.error, axis=1, keepdims=True), axis=0)
    assert profile[chip.sky > np.quantile(chip.sky, 0.98)].mean() > 3
    oxygen = (data.wave > 7595) & (data.wave < 7625)
    assert profile[oxygen].mean() > 1.3
    assert chip.transmission[oxygen].mean() < 0.6
    sky_line = np.abs(data.wave - 8399.2) < 1  # OH 7-3 P1(3), the brightest near here
    assert profile[sky_line].max() > 5


def test_bright_stars_are_limited_by_their_own_photons():
    flat, dark = np.ones((4, 4096), dtype=np.float32), detector().sky < np.median(detector().sky)
    errors = flux_error(flat, [10.0, 12.5, 27.0, 29.5], np.ones(4), np.ones(4)).astype(float)
    assert_allclose((errors[1] / errors[0])[dark], np.sqrt(10), rtol=0.02)
    assert_allclose(errors[0][dark], 1 / np.sqrt(12 * detector().light[dark] * 1e4), rtol=0.01)
    assert_allclose(errors[3] / errors[2], 10, rtol=0.01)


def test_labels_are_uniform_and_independent(data):
    for name, low, high in zip(data.labels.columns[:6], [*LOW, 20.5], [*HIGH, 22.5], strict=True):
        assert kstest((data.labels[name] - low) / (high - low), "uniform").pvalue > 1e-3
    correlation = np.corrcoef(data.labels.to_numpy()[:, :6].T) - np.eye(6)
    assert np.abs(correlation).max() < 0.07


def test_regimes_follow_from_the_conditions(data):
    assert_array_equal(data.conditions, data.labels[["T_eff", "M_H"]])
    hot, rich = data.regime_edges
    expected = [3 * np.sum(np.array(hot) <= T) + np.sum(np.array(rich) <= M) for T, M in data.conditions]
    assert_array_equal(data.regimes, expected)
    assert set(data.regimes) == set(range(9))
    assert_array_equal(data.y, data.labels.log_g)


def test_flux_and_error_are_views_with_named_columns(data):
    assert np.shares_memory(data.flux, data.X)
    assert np.shares_memory(data.error, data.X)
    assert (data.X.dtype, len(set(data.feature_names))) == (np.float32, data.X.shape[1])
    assert (data.feature_names[0], data.feature_names[-1]) == ("flux_7100.2", "error_8849.8")
    assert f"{N} stars" in data.description


def test_flux_tells_gravity_and_quality_does_not(data, clean):
    half = N // 2
    score = [
        r2_score(data.y[half:], Ridge(alpha).fit(part[:half], data.y[:half]).predict(part[half:]))
        for part, alpha in ((clean.flux[:, ::4].astype(float), 1e-3), (np.log(data.error[:, ::16]), 10.0))
    ]
    assert score[0] > 0.8
    assert score[1] < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": 0}, r"{function}.n_samples=0"),
        ({"n_samples": 2.5}, r"{function}.n_samples=2.5 must be an integer"),
        ({"n_samples": 2, "noise_level": -1}, r"{function}.noise_level=-1 .* Try 1.0"),
        ({"n_samples": 2, "noise_level": np.inf}, r"noise_level=inf .* at most"),
        ({"n_samples": 2, "noise": "pink"}, r"{function}.noise='pink' must be one of 'sky', 'white'"),
        ({"n_samples": 2, "random_state": -3}, r"{function}.random_state=-3"),
        ({"n_samples": 2, "random_state": "a"}, r"random_state='a'"),
        ({"n_samples": 2, "start": -1}, r"{function}.start=-1"),
    ],
)
@pytest.mark.parametrize("function", [make_spectra, stream_spectra])
def test_wrong_arguments_are_named(function, arguments, message):
    with pytest.raises(ValueError, match=message.replace("{function}", function.__name__)):
        function(**arguments)
