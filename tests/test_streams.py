"""Spectra that are simulated when they are read: the rows of `make_spectra`, without the memory."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from dualgate.datasets import make_spectra, stream_spectra

N, START = 100, 45


@pytest.fixture(scope="module")
def made():
    return make_spectra(N, random_state=4, start=START)


@pytest.fixture(scope="module")
def streamed():
    return stream_spectra(N, random_state=4, start=START)


def test_all_but_the_spectra_is_that_of_make_spectra(made, streamed):
    for name in ("y", "conditions", "regimes", "wave"):
        assert_array_equal(streamed[name], made[name], err_msg=name)
    pd.testing.assert_frame_equal(streamed.labels, made.labels.drop(columns="snr"))
    assert streamed.regime_edges == made.regime_edges
    assert "snr" not in streamed


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, N), min_size=2, max_size=2).map(sorted))
def test_any_range_is_a_range_of_make_spectra(made, streamed, cuts):
    block = streamed.X.read(*cuts)
    assert block.dtype == streamed.X.dtype == np.float32
    assert_array_equal(block, made.X[slice(*cuts)])


@settings(max_examples=10)
@given(rows=st.lists(st.integers(0, N - 1), max_size=12))
def test_any_subset_is_a_subset_of_make_spectra(made, streamed, rows):
    rows = np.array(rows, dtype=int)
    assert_array_equal(np.asarray(streamed.X[rows]), made.X[rows])


@pytest.mark.parametrize("options", [{"noise_level": 0}, {"noise_level": 0.5}, {"noise": "white"}], ids=str)
def test_noise_is_that_of_make_spectra(options):
    X = stream_spectra(5, random_state=1, **options).X
    assert_array_equal(np.asarray(X), make_spectra(5, random_state=1, **options).X)


def test_threads_simulate_the_same_bits(made, streamed):
    ranges = [(first, min(first + 7, N)) for first in range(0, N, 5)]
    with ThreadPoolExecutor(4) as pool:
        blocks = list(pool.map(lambda cut: streamed.X.read(*cut), ranges))
    for cut, block in zip(ranges, blocks, strict=True):
        assert_array_equal(block, made.X[slice(*cut)])


def test_pickles_as_a_seed_and_simulates_the_same_bits(made, streamed):
    streamed.X.read(0, 1)  # with the emulator loaded
    text = pickle.dumps(streamed.X)
    assert len(text) < 1000
    script = "import pickle, sys; sys.stdout.buffer.write(pickle.load(sys.stdin.buffer).read(3, 9).tobytes())"
    run = subprocess.run([sys.executable, "-c", script], input=text, capture_output=True, check=True)
    assert run.stdout == made.X[3:9].tobytes()


def test_a_seed_that_none_draws_is_kept():
    data = stream_spectra(3)
    assert_array_equal(data.X.read(0, 2), data.X.read(0, 2))
    again = stream_spectra(3, random_state=data.X.seed)
    assert_array_equal(again.y, data.y)
    assert stream_spectra(3).X.seed != data.X.seed


def test_a_long_set_costs_only_its_labels():
    data = stream_spectra(20_000, random_state=0)
    assert data.X.shape == (20_000, 8192)
    assert len(data.y) == len(data.labels) == len(data.regimes) == 20_000
    assert_array_equal(data.X.read(19_999, 20_000), make_spectra(1, random_state=0, start=19_999).X)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n_samples": 0}, r"stream_spectra\.n_samples=0"),
        ({"n_samples": 2.5}, r"stream_spectra\.n_samples=2.5"),
        ({"n_samples": 2, "start": -1}, r"stream_spectra\.start=-1"),
        ({"n_samples": 2, "noise_level": -1}, r"\.noise_level=-1"),
        ({"n_samples": 2, "noise": "pink"}, r"\.noise='pink'"),
        ({"n_samples": 2, "random_state": -1}, r"\.random_state=-1"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        stream_spectra(**arguments)
