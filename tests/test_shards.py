"""Spectra in HDF5 shards: a row has the same bits however it is read, and what is wrong with a file names the file."""

import os
import pickle
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from dualgate.datasets import join_spectra, make_spectra, open_spectra, write_spectra
from dualgate.datasets.shards import ERROR, FLUX, PARAMS, WAVE, repair_errors
from dualgate.rows.store import digest, fingerprint

COUNTS, N_PIXELS = (7, 1, 20, 12), 50
N = sum(COUNTS)


def spectra(n_rows, seed, n_pixels=N_PIXELS):
    """Arrays of a shard, in the order that `write_spectra` takes them."""
    rng = np.random.default_rng(seed)
    flux = rng.uniform(0, 2, (n_rows, n_pixels)).astype(np.float32)
    error = rng.uniform(0.1, 1, (n_rows, n_pixels)).astype(np.float32)
    values = rng.uniform([3750, 1, -2.5, 0], [6000, 5, 0.75, 50], (n_rows, 4))
    params = pd.DataFrame(values, columns=["T_eff", "log_g", "M_H", "snr"])
    return flux, error, params, np.linspace(7100, 8850, n_pixels)


A, E, P, W = spectra(4, 0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Pattern of four shards, and the table in them."""
    folder = tmp_path_factory.mktemp("shards")
    parts = [spectra(count, seed) for seed, count in enumerate(COUNTS)]
    for i, part in enumerate(parts):
        write_spectra(folder / f"shard_{i}.h5", *part, compression=(None, "gzip", "lzf", None)[i])
    return folder / "shard_*.h5", pd.concat([part[2] for part in parts], ignore_index=True)


@pytest.fixture(scope="module")
def whole(shards):
    """All rows, read at once."""
    return np.asarray(opened(shards).X)


@pytest.fixture
def shard(tmp_path):
    """One good shard to spoil."""
    write_spectra(tmp_path / "spoilt.h5", *spectra(9, 0))
    return tmp_path / "spoilt.h5"


def with_value(array, place, value):
    array = array.copy()
    array[place] = value
    return array


def opened(shards, **options):
    return open_spectra(shards[0], **{"random_state": 5, **options})


# ---- what is read ----------------------------------------------------------------------------------------------------


def test_simulated_spectra_come_back_and_have_noise_apart_from_the_simulators(tmp_path):
    clean = make_spectra(64, random_state=0, noise_level=0)
    write_spectra(tmp_path / "a.h5", clean.flux, clean.error, clean.labels, clean.wave)
    data = open_spectra(tmp_path / "a.h5", noise_level=0)
    assert_array_equal(np.asarray(data.X), clean.X)
    pd.testing.assert_frame_equal(data.labels, clean.labels)
    for name in ("y", "conditions", "regimes", "wave", "snr", "regime_edges"):
        assert_array_equal(data[name], clean[name], err_msg=name)
    read = open_spectra(tmp_path / "a.h5", random_state=0, clip=False).X.read(0, 64)
    both = [(X - clean.X)[:, :4096] / clean.error for X in (read, make_spectra(64, random_state=0).X)]
    for lag in range(40):  # the simulator draws the star first
        assert abs(np.corrcoef(both[0][:, lag : lag + 50].ravel(), both[1][:, :50].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("noise_level", [1.0, 0.3])
def test_noise_is_normal_of_the_size_of_the_error(tmp_path, noise_level):
    n_rows = 300
    write_spectra(tmp_path / "a.h5", *spectra(n_rows, 0))
    clean = np.asarray(open_spectra(tmp_path / "a.h5", noise_level=0).X)
    noisy = np.asarray(open_spectra(tmp_path / "a.h5", noise_level=noise_level, random_state=1, clip=False).X)
    assert_array_equal(noisy[:, N_PIXELS:], clean[:, N_PIXELS:])
    draws = (noisy - clean)[:, :N_PIXELS] / clean[:, N_PIXELS:] / noise_level
    assert_allclose([draws.mean(), draws.std()], [0, 1], atol=4 / np.sqrt(draws.size))
    between = np.corrcoef(draws)[np.triu_indices(n_rows, 1)]  # rows have draws of their own
    assert_allclose(between.std(), 1 / np.sqrt(N_PIXELS), rtol=0.05)


def test_clip_only_lifts_what_is_below_zero(shards, tmp_path):
    free, clipped = (np.asarray(opened(shards, clip=clip).X) for clip in (False, True))
    assert (free < 0).any()
    assert_array_equal(clipped, np.maximum(free, 0))
    flux, *rest = spectra(3, 0)
    write_spectra(tmp_path / "a.h5", with_value(flux, (1, 4), -0.5), *rest)
    stored = [open_spectra(tmp_path / "a.h5", noise_level=0, clip=clip).X.read(1, 2)[0, 4] for clip in (True, False)]
    assert stored == [0, -0.5]


@settings(max_examples=25)
@given(stop=st.integers(1, N), data=st.data())
def test_any_rows_are_those_of_the_whole(shards, whole, stop, data):
    some = opened(shards, stop=np.int64(stop))
    assert_array_equal(some.y, shards[1]["log_g"][:stop])
    cuts = np.sort(data.draw(st.tuples(*[st.integers(0, stop)] * 2)))  # integers of numpy
    assert_array_equal(some.X.read(*cuts), whole[:stop][slice(*cuts)])
    assert_array_equal(np.asarray(some.X[slice(*cuts)]), whole[:stop][slice(*cuts)])
    rows = np.array(data.draw(st.lists(st.integers(0, stop - 1))), dtype=int)
    assert_array_equal(np.asarray(some.X[rows]), whole[:stop][rows])


def test_threads_read_the_same_bits(shards, whole):
    X = opened(shards).X
    ranges = [(first, min(first + 3, N)) for first in range(N)] * 5
    with ThreadPoolExecutor(8) as pool:
        blocks = list(pool.map(lambda cut: X.read(*cut), ranges))
    for cut, block in zip(ranges, blocks, strict=True):
        assert_array_equal(block, whole[slice(*cut)])
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == 0  # no file stays open


def test_pickles_as_names_and_reads_the_same_bits(shards, whole):
    text = pickle.dumps(opened(shards).X)
    assert len(text) < 2000
    script = "import pickle, sys; sys.stdout.buffer.write(pickle.load(sys.stdin.buffer).read(0, 9).tobytes())"
    run = subprocess.run([sys.executable, "-c", script], input=text, capture_output=True, check=True, cwd="/")
    assert run.stdout == whole[:9].tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_threads_read_reads_the_same_bits(shards, whole):
    X, done, codes = opened(shards).X, Event(), []

    def keep_reading():
        while not done.is_set():
            X.read(0, 9)

    with ThreadPoolExecutor(1) as pool, warnings.catch_warnings():
        pool.submit(keep_reading)
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        for _ in range(10):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # one that waits forever ends
                os._exit(0 if np.array_equal(np.asarray(X), whole) else 1)
            codes.append(os.waitpid(child, 0)[1])
        done.set()
    assert codes == [0] * 10


def test_a_seed_that_none_draws_is_kept(shards):
    data = opened(shards, random_state=None)
    first = np.asarray(data.X)
    assert_array_equal(np.asarray(data.X), first)
    assert_array_equal(np.asarray(opened(shards, random_state=data.X.seed).X), first)
    assert opened(shards, random_state=None).X.seed != data.X.seed


def nearest_good(error):
    """Every bad pixel looks at all good ones: the reference."""
    good = [k for k in range(len(error)) if np.isfinite(error[k]) and error[k] > 0]
    return np.array([error[min(good, key=lambda other: (abs(other - k), other))] for k in range(len(error))])


@settings(max_examples=100)
@given(rows=st.lists(st.lists(st.sampled_from([1.0, 2.0, 3.0, np.nan, np.inf, 0.0, -1.0]), min_size=8, max_size=8)))
def test_errors_are_those_of_the_nearest_good_pixel(rows):
    rows = [[*row, 4.0] if seed % 2 else [4.0, *row] for seed, row in enumerate(rows)]
    error = np.array(rows, dtype=np.float32).reshape(-1, 9)
    expected = [nearest_good(row) for row in error]
    repair_errors("a.h5", error)
    assert_array_equal(error, np.reshape(expected, (-1, 9)))


def test_repair_comes_before_the_noise_and_does_not_depend_on_the_block(tmp_path):
    flux, error, params, wave = spectra(6, 0)
    error[2, 10:14], error[4, :5], error[4, -1] = np.nan, 0, np.inf
    write_spectra(tmp_path / "broken.h5", flux, error, params, wave)
    write_spectra(tmp_path / "whole.h5", flux, [nearest_good(row) for row in error], params, wave)
    broken, whole = (open_spectra(tmp_path / f"{name}.h5", random_state=0).X for name in ("broken", "whole"))
    assert_array_equal(np.asarray(broken), np.asarray(whole))
    assert_array_equal(broken.read(2, 3), np.asarray(whole)[2:3])


def test_values_that_cannot_be_repaired_name_shard_and_row(shard, shards):
    with h5py.File(shard, "r+") as file:
        file[FLUX][5, 3], file[ERROR][2] = np.inf, np.nan
    X = open_spectra([shards[0], shard]).X
    with pytest.raises(ValueError, match=r"flux of shard '.*spoilt.h5' contains .* flux\[5, 3\]=inf"):
        X.read(N + 4, N + 8)
    with pytest.raises(ValueError, match=r"shard '.*spoilt.h5' has no error .* in row 2"):
        X.read(0, N + 3)
    assert np.isfinite(X.read(N + 6, N + 9)).all()


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["fixed", "table"])
def test_both_styles_of_pandas_and_numbers_of_any_width(tmp_path, style):
    flux, error, params, wave = spectra(9, 0)
    path = tmp_path / "foreign.h5"
    with h5py.File(path, "w") as file:
        file[WAVE], file[FLUX], file[ERROR] = wave.astype(np.float32), flux.astype(">f8"), error.astype(np.float64)
    params["kind"] = np.arange(9)
    params.set_index(np.arange(9)[::-1] + 50).to_hdf(path, key=PARAMS, format=style)
    write_spectra(tmp_path / "own.h5", flux, error, params, wave)
    data = open_spectra([path, tmp_path / "own.h5"], noise_level=0)  # the grid was rounded to float32: the same
    assert_array_equal(data.X.read(0, 9), np.hstack([flux, error]))
    pd.testing.assert_frame_equal(data.labels, pd.concat([params, params], ignore_index=True))


def test_paths_are_one_a_pattern_or_a_list(shards, tmp_path, monkeypatch):
    folder = shards[0].parent
    names = [str(folder / f"shard_{i}.h5") for i in range(len(COUNTS))]
    assert opened(shards).X.files == names
    assert open_spectra([names[2], folder / "shard_[01].h5"]).X.files == [names[2], *names[:2]]
    assert open_spectra(names[1]).y.tolist() == shards[1]["log_g"][7:8].tolist()
    monkeypatch.chdir(folder)
    X = open_spectra("shard_1.h5", noise_level=0).X
    monkeypatch.chdir("/")
    assert X.read(0, 1).shape == (1, 2 * N_PIXELS)
    write_spectra(tmp_path / "a[1].h5", A, E, P.drop(columns="snr"), W)  # a name may hold the letters of a pattern
    data = open_spectra(tmp_path / "a[1].h5")
    assert list(data.labels) == ["T_eff", "log_g", "M_H"]
    assert "snr" not in data


def test_a_replaced_shard_is_read_again_and_has_another_fingerprint(shard):
    before = open_spectra(shard, noise_level=0).X
    np.asarray(before)
    flux, *rest = spectra(9, 0)
    write_spectra(shard, flux + 0.5, *rest, overwrite=True)
    assert_array_equal(np.asarray(before)[:, :N_PIXELS], flux + np.float32(0.5))
    prints = []
    for time in (0, 1):  # of the same bytes
        os.utime(shard, (time, time))
        prints += [digest(fingerprint(before)), digest(fingerprint(before[2:]))]
    assert len(set(prints)) == 4


@pytest.mark.parametrize("module", ["h5py", "tables"])
def test_a_missing_extra_says_what_to_install(shard, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    for call in (lambda: open_spectra(shard), lambda: write_spectra(shard, *spectra(2, 0), overwrite=True)):
        with pytest.raises(ImportError, match=r'pip install "dualgate\[hdf5\]"'):
            call()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"stop": N + 1}, "open_spectra.stop=41 .*at most 40: 4 shards hold 40 rows"),
        ({"stop": 2.0}, "open_spectra.stop=2.0 must be an integer at least 1"),
        ({"noise_level": -1}, "open_spectra.noise_level=-1"),
        ({"noise_level": np.nan}, "open_spectra.noise_level=nan"),
        ({"random_state": -1}, "open_spectra.random_state=-1"),
        ({"random_state": "a"}, "open_spectra.random_state='a'"),
    ],
)
def test_arguments_out_of_range_are_named(shards, options, named):
    with pytest.raises(ValueError, match=named):
        opened(shards, **options)


def test_paths_that_name_nothing_or_the_same_file_twice(shards, tmp_path):
    for nothing in ("nowhere.h5", "nowhere_*.h5", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"open_spectra\.paths=.* matches no file"):
            open_spectra(nothing)
    with pytest.raises(ValueError, match=r"open_spectra\.paths=\[\] names no file"):
        open_spectra([])
    link = tmp_path / "link.h5"
    link.symlink_to(shards[0].with_name("shard_1.h5"))
    for twice in (link.resolve(), link):
        with pytest.raises(ValueError, match=rf"same file twice, '.*{twice.name}'"):
            open_spectra([shards[0], twice])


# ---- bad files -------------------------------------------------------------------------------------------------------


def store(name, values=None):
    """Replace an array of a shard, or delete it."""

    def spoil(path):
        with h5py.File(path, "r+") as file:
            del file[name]
            if values is not None:
                file[name] = values

    return spoil


def tabulate(change, **options):
    """Change the table of a shard."""

    def spoil(path):
        store(PARAMS)(path)
        change(spectra(9, 0)[2]).to_hdf(path, key=PARAMS, **options)

    return spoil


without_target = tabulate(lambda t: t.assign(log_g=t["log_g"].where(t.index != 4)))
BAD_SHARDS = {
    "no wave": (store(WAVE), "lacks 'spectrumdataset/wave'"),
    "no flux": (store(FLUX), "lacks 'dataset/arrays/flux/value'"),
    "no error": (store(ERROR), "lacks 'dataset/arrays/error/value'"),
    "no params": (store(PARAMS), "lacks 'dataset/params'"),
    "error of fewer rows": (store(ERROR, np.ones((8, N_PIXELS))), r"error of shape \(8, 50\)"),
    "flux in one dimension": (store(FLUX, np.ones(9)), r"flux of shape \(9,\)"),
    "flux in letters": (store(FLUX, np.full((9, N_PIXELS), b"a")), "'dataset/arrays/flux/value' of dtype"),
    "wave of fewer pixels": (store(WAVE, W[:-1]), r"wave of shape \(49,\)"),
    "a shifted grid": (store(WAVE, W + 0.01), "another wavelength grid, 50 pixels from 7100.0100"),
    "a grid of NaN": (store(WAVE, W * np.nan), "another wavelength grid, 50 pixels from nan"),
    "a coarse grid": (
        lambda path: write_spectra(path, *spectra(3, 0, n_pixels=49), overwrite=True),
        "another wavelength grid, 49 .*shard_0.h5', 50",
    ),
    "fewer parameters": (tabulate(lambda t: t[:-1]), "has 8 rows of params for 9 spectra"),
    "no log_g": (tabulate(lambda t: t[["T_eff", "M_H"]]), r"columns \['T_eff', 'M_H'\]: .*T_eff, log_g"),
    "log_g in letters": (tabulate(lambda t: t.assign(log_g="a"), format="table"), "'log_g' of dtype (object|str)"),
    "NaN as target": (without_target, r"contains .*\[4, 1\]=nan"),
    "infinite T_eff": (tabulate(lambda t: t.assign(T_eff=np.inf)), r"9 values .*\[0, 0\]=inf"),
    "a series": (tabulate(lambda t: t["log_g"]), "a Series in 'dataset/params'"),
}


@pytest.mark.parametrize("case", BAD_SHARDS)
def test_a_bad_shard_is_named(shards, shard, case):
    spoil, what = BAD_SHARDS[case]
    spoil(shard)
    with pytest.raises(ValueError, match=f"shard '.*spoilt.h5' .*{what}"):
        open_spectra([shards[0], shard])


def test_rows_after_the_last_may_be_bad(shards, shard):
    without_target(shard)
    for stop in (3, N, N + 4):
        assert np.isfinite(open_spectra([shards[0], shard], stop=stop).y).all()
    with pytest.raises(ValueError, match=r"spoilt.h5' contains .*\[4, 1\]=nan"):
        open_spectra([shards[0], shard], stop=N + 5)


def overwrite(path, offset, n_bytes):
    with open(path, "rb+") as file:
        file.seek(offset)
        file.write(bytes(n_bytes))


def last_chunk(path):
    """Where the last chunk of the arrays lies: (offset, size) in bytes."""
    with h5py.File(path) as file:
        chunks = [file[name].id.get_chunk_info(0) for name in (FLUX, ERROR)]
    return max((chunk.byte_offset, chunk.size) for chunk in chunks)


DAMAGES = {
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut before the last chunk": lambda path: os.truncate(path, last_chunk(path)[0]),
    "empty": lambda path: os.truncate(path, 0),
    "a chunk of zeros": lambda path: overwrite(path, *last_chunk(path)),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_shard_that_was_damaged_after_opening_is_named(shards, tmp_path, damage):
    path = tmp_path / "cut.h5"
    write_spectra(path, *spectra(400, 0), compression="gzip")
    X = open_spectra([shards[0], path]).X
    X.read(N, N + 10)
    damage(path)
    with pytest.raises(OSError, match=r"shard '.*cut.h5' cannot be read at rows 0 to 400"):
        np.asarray(X)
    assert X.read(0, N).shape == (N, 2 * N_PIXELS)


def test_what_is_no_shard_or_another_one_is_named(shard):
    X = open_spectra(shard).X
    write_spectra(shard, *spectra(5, 0), overwrite=True)
    with pytest.raises(ValueError, match=r"shard '.*spoilt.h5' has changed"):
        X.read(0, 9)
    store(PARAMS, np.ones(9))(shard)
    with pytest.raises(OSError, match=r"shard '.*spoilt.h5' cannot be read at 'dataset/params'"):
        open_spectra(shard)
    for content in (shard.read_bytes()[:3000], b"not HDF5", b""):
        shard.write_bytes(content)
        with pytest.raises(OSError, match=r"shard '.*spoilt.h5' cannot be read at its arrays"):
            open_spectra(shard)


BAD_ARGUMENTS = {
    "flux, one row": ((A[0], E, P, W), r"write_spectra .* flux of shape \(50,\)"),
    "flux, no rows": ((A[:0], E[:0], P[:0], W), r"write_spectra .* flux of shape \(0, 50\)"),
    "flux, NaN": ((with_value(A, (2, 1), np.nan), E, P, W), r"flux of write_spectra .* flux\[2, 1\]=nan"),
    "flux, beyond float32": ((with_value(A.astype(float), (2, 1), 1e300), E, P, W), r"flux\[2, 1\]=inf"),
    "error, fewer rows": ((A, E[:3], P, W), r"write_spectra .* error of shape \(3, 50\)"),
    "error, none good": ((A, with_value(E, 3, np.nan), P, W), "write_spectra has no error .* in row 3"),
    "wave, fewer pixels": ((A, E, P, W[1:]), r"write_spectra .* wave of shape \(49,\)"),
    "wave, NaN": ((A, E, P, with_value(W, 3, np.nan)), r"wave of write_spectra .* wave\[3, 0\]=nan"),
    "params, fewer rows": ((A, E, P[:3], W), "write_spectra has 3 rows of params for 4 spectra"),
    "params, no T_eff": ((A, E, P.drop(columns="T_eff"), W), "write_spectra has 4 rows .* must .* T_eff"),
    "params, twice": ((A, E, pd.concat([P, P], axis=1), W), "under unique names"),
    "params, text": ((A, E, P.assign(name="HD 1"), W), "write_spectra.params has the column 'name'"),
    "params, a number as name": ((A, E, P.rename(columns={"snr": 1}), W), "has the column 1 of"),
    "params, NaN": ((A, E, P.assign(M_H=P["M_H"].where(P.index != 2)), W), r"params .*\[2, 2\]=nan"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_what_cannot_be_written_is_named_and_leaves_no_file(tmp_path, case):
    arguments, named = BAD_ARGUMENTS[case]
    with pytest.raises(ValueError, match=named):
        write_spectra(tmp_path / "a.h5", *arguments)
    assert not list(tmp_path.iterdir())


def test_a_file_is_kept_unless_told_and_where_writing_fails(shard, tmp_path, monkeypatch):
    before = shard.read_bytes()
    with pytest.raises(FileExistsError, match=r"write_spectra.path='.*spoilt.h5'"):
        write_spectra(shard, A, E, P, W)
    with pytest.raises(ValueError, match=r"write_spectra.compression='zip'"):
        write_spectra(tmp_path / "b.h5", A, E, P, W, compression="zip")
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        write_spectra(tmp_path / "nowhere" / "b.h5", A, E, P, W)

    def crash(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_hdf", crash)
    with pytest.raises(OSError, match="no space"):
        write_spectra(shard, A, E, P, W, overwrite=True)
    assert shard.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["spoilt.h5"]


# ---- measured spectra ------------------------------------------------------------------------------------------------


def test_measured_spectra_are_read_as_they_are(tmp_path):
    flux, error, _, wave = spectra(9, 0)
    flux, error = flux - 1, error.copy()  # some below zero
    flux[2, 5], flux[3, 6], error[4, 7], error[5, 8], error[6] = np.nan, np.inf, 0, -1, np.inf
    params = pd.DataFrame({"A(Li)": np.arange(9.0), "age": np.r_[np.nan, np.ones(8)], "objId": np.arange(9) + 2**40})
    for name, part in (("a", slice(0, 4)), ("b", slice(4, 9))):
        write_spectra(tmp_path / f"{name}.h5", flux[part], error[part], params[part], wave, measured=True)
    data = open_spectra(tmp_path / "*.h5", measured=True, target="A(Li)")
    bad = ~(np.isfinite(flux) & (error > 0) & np.isfinite(error))
    assert bad.sum() == 4 + N_PIXELS
    assert_array_equal(np.asarray(data.X), join_spectra(flux, error, bad))
    assert_array_equal(data.X.read(3, 6), join_spectra(flux, error, bad)[3:6])
    assert_array_equal(data.y, np.arange(9.0))
    pd.testing.assert_frame_equal(data.labels, params)
    assert "regimes" not in data
    both = open_spectra(tmp_path / "*.h5", measured=True, target=["A(Li)", "age"])
    assert_array_equal(both.y, params[["A(Li)", "age"]])
    assert "y" not in open_spectra(tmp_path / "*.h5", measured=True)
    with pytest.raises(ValueError, match=r"open_spectra\.target='mass'.*A\(Li\), age, objId"):
        open_spectra(tmp_path / "*.h5", measured=True, target="mass")
    with pytest.raises(ValueError, match=r"open_spectra\.noise_level=0\.5.*have their noise"):
        open_spectra(tmp_path / "*.h5", measured=True, target="age", noise_level=0.5)
    with pytest.raises(ValueError, match="T_eff, log_g, M_H"):
        open_spectra(tmp_path / "a.h5")


def test_measured_spectra_with_labels_of_stars_have_regimes(shards):
    noise_free, data = open_spectra(shards[0], noise_level=0, clip=False), open_spectra(shards[0], measured=True)
    assert_array_equal(np.asarray(data.X), np.asarray(noise_free.X))
    for name in ("y", "regimes", "conditions"):
        assert_array_equal(data[name], noise_free[name])


def test_measured_spectra_of_some_unknown_stars_have_no_regimes(tmp_path):
    write_spectra(tmp_path / "a.h5", A, E, P.assign(T_eff=[np.nan, 5000, 5100, 5200]), W, measured=True)
    data = open_spectra(tmp_path / "a.h5", measured=True)
    assert_array_equal(data.y, P["log_g"])
    assert "regimes" not in data
