import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.utils import Bunch

from dualgate.study import cli as cli_module
from dualgate.study.config import ConfigError, StudyConfig
from dualgate.study.inputs import StudyRows
from dualgate.study.methods import METHODS, TABLE, choose_methods
from dualgate.study.results import StudyResults
from dualgate.study.run import run_study
from planted_study import analyse, planted_rows, quick_model

N_FLUX = 12
COLUMNS = {"flux": ["flux_*"], "error": ["error_*"], "target": "y", "regimes": "regime"}


def planted_frame(n_samples=1000):
    data = planted_rows(5, n_samples=n_samples)
    names = [f"{part}_{pixel}" for part in ("flux", "error") for pixel in range(N_FLUX)]
    frame = pd.DataFrame(data.X.astype(np.float64), columns=names)
    return frame.assign(y=data.y, regime=data.regimes, name="star", depth=np.exp(frame["error_0"]))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The same table as every kind of file, and what names its columns."""
    home, frame = tmp_path_factory.mktemp("tables"), planted_frame()
    numbers = frame.drop(columns="name")
    parts = {"flux": frame.filter(like="flux_").to_numpy(), "error": frame.filter(like="error_").to_numpy()}
    frame.to_csv(home / "t.csv", index=False)
    np.savez(home / "t.npz", y=frame["y"], regime=frame["regime"], wave=np.arange(12.0), **parts)
    np.save(home / "plain.npy", numbers.to_numpy())
    np.save(home / "named.npy", numbers.to_records(index=False))
    plain = {"flux": ["0:12"], "error": ["12:24"], "target": "24", "regimes": "25"}
    return {
        "csv": {"source": str(home / "t.csv"), **COLUMNS},
        "npz": {"source": str(home / "t.npz"), **COLUMNS, "flux": ["flux"], "error": ["error"]},
        "plain": {"source": str(home / "plain.npy"), **plain},
        "named": {"source": str(home / "named.npy"), **COLUMNS},
        "parquet": {"source": str(home / "t.parquet"), **COLUMNS},
    }


def rows_of(data, **more):
    return StudyRows(StudyConfig.of({"data": data, "training": {"max_epochs": 1}, **more}))


def given(data):
    """The section without the keys that are None."""
    return {key: value for key, value in data.items() if value is not None}


def kept_as(path, frame, **change):
    """Rows of a frame, written to a file."""
    frame.to_csv(path, index=False)
    return rows_of(given({"source": str(path), **COLUMNS, **change}))


def record_of(rows, method):
    (record,) = run_study(rows.make, [4], methods=[METHODS[method]], make_model=rows.make_model)
    return record


# ---- the same rows, whatever they lie in ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "npz", "plain", "named", "parquet"])
def test_a_table_gives_what_its_array_gives(kind, tables):
    frame = planted_frame()
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(tables[kind]["source"])
    expected = frame.filter(regex="flux_|error_").to_numpy()
    rows = rows_of(tables[kind])
    rows.check()
    assert_array_equal(rows.make(0).X, expected)
    assert_array_equal(rows.make(0).y, frame["y"])
    assert_array_equal(rows.make(0).regimes, frame["regime"])
    assert rows.offers == {"errors", "regimes"}


def test_parquet_without_its_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"")
    monkeypatch.setattr("dualgate.study.inputs.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"need pyarrow; install it with: pip install \"dualgate\[parquet\]\""):
        rows_of({"source": str(tmp_path / "t.parquet"), **COLUMNS}).check()


def test_conditions_are_cut_into_regimes(tmp_path):
    frame = planted_frame().assign(T=lambda f: 1000.0 * f["regime"], Z=0.0)
    conditions = {"conditions": ["T", "Z"], "regime_edges": [[500, 1500], [-1]]}
    data = kept_as(tmp_path / "t.csv", frame, regimes=None, **conditions).make(0)
    assert_array_equal(data.regimes, 2 * frame["regime"] + 1)
    assert_array_equal(data.conditions[:, 0], frame["T"])


def test_a_target_far_from_zero_is_predicted_as_one_around_it(tables):
    methods = [METHODS[name] for name in ("global", "oracle_9", "concat_9_hard", "poe_9")]
    data = rows_of(tables["csv"]).make(0)
    moved = Bunch(**data | {"y": 1e-3 * data.y - 1e6})
    plain, far = (
        run_study(lambda seed, rows=rows: rows, [4], methods=methods, make_model=quick_model)[0]
        for rows in (data, moved)
    )
    for method in methods:
        assert_allclose((far.predictions[method.name] + 1e6) / 1e-3, plain.predictions[method.name], atol=1e-3)


# ---- what a table lacks -----------------------------------------------------------------------------------


def test_quality_columns_stand_in_for_errors_and_the_snr_may_be_a_column(tmp_path):
    rows = kept_as(tmp_path / "t.csv", planted_frame().assign(snr=3.0), error=None, quality=["depth"])
    methods, left_out = choose_methods(["main"], rows.offers)
    assert {method.experts for method in methods} == {"", "9"}
    assert left_out["poe_9x4"] == "the rows have no errors"
    record = record_of(rows, "concat_9")
    assert rows.make_model(rows.make(0), 0).quality_gate.features == "passthrough"
    assert record.snr is None
    assert all(gate.trends == {} for gate in analyse([record], n_resamples=20).gates.values())
    binned = kept_as(tmp_path / "t.csv", planted_frame().assign(snr=3.0), error=None, quality=["depth"], snr="snr")
    assert_allclose(record_of(binned, "phys_9").snr, 3.0)


def test_wavelengths_that_cover_the_lines_make_it_a_spectrum(tmp_path):
    wave = np.linspace(8000, 8800, N_FLUX)
    rows = kept_as(tmp_path / "t.csv", planted_frame(), wave=wave.tolist())
    assert "spectral lines" in rows.offers
    assert rows.make_model(rows.make(0), 0).phys_gate.features is not None
    np.savetxt(tmp_path / "wave.txt", wave - 5000)
    other = kept_as(tmp_path / "t.csv", planted_frame(), wave=str(tmp_path / "wave.txt"))
    assert other.offers == {"errors", "regimes"}
    assert_allclose(other.make(0).wave, wave - 5000)


def test_a_method_that_cannot_run_is_left_out_of_a_group_and_refused_by_name():
    chosen, left_out = choose_methods(["all"], ["errors"])
    assert {method.name for method in chosen} | left_out.keys() == {method.name for method in TABLE}
    assert left_out["oracle_9"] == "the rows have no regimes"
    assert "oracle_4" not in left_out
    with pytest.raises(ConfigError, match="methods: 'oracle_9' cannot run: the rows have no regimes"):
        choose_methods(["oracle_9"], ["errors"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flux": ["flx_1"]}, r"\[data\] flux: 'flx_1' names no column .* did you mean \"flux_1"),
        ({"target": "name"}, r"\[data\] target: column 'name' has dtype"),
        ({"error": ["error_0"]}, r"\[data\] error: names 1 columns, flux 12"),
        ({"target": "[yd]*"}, r"\[data\] target: names 2 columns; it must name one"),
        ({"flux": ["error_*"], "error": ["flux_*"]}, r"\[data\] error: is -\d.* in row \d+, counted from 0; err"),
        ({"flux": ["*"]}, r"\[data\] flux: names 'y', but target is to be predicted and must not be read"),
        ({"error": ["error_*", "y"]}, r"\[data\] error: names 'y', but target"),
        ({"error": None, "quality": ["depth", "y"]}, r"\[data\] quality: names 'y', but target"),
        ({"flux": ["flux_*", "regime"]}, r"\[data\] flux: names 'regime', but regimes is not known when predicting"),
        ({"flux": ["*_*"]}, r"\[data\] flux: names 'error_0', but error is read for something else; leave the col"),
        (
            {"flux": ["flux_*", "depth"], "regimes": None, "conditions": ["depth"], "regime_edges": [[1.0]]},
            r"\[data\] flux: names 'depth', but conditions are not known when predicting",
        ),
        (
            {"flux": ["flux_*", "depth"], "error": None, "quality": ["error_*"], "snr": "depth"},
            r"\[data\] flux: names 'depth', but snr is no measurement",
        ),
        ({"regimes": "depth"}, r"\[data\] regimes: 'depth' holds 1,000 different values in 1,000 rows"),
        ({"regimes": "[yd]*"}, r"\[data\] regimes: '.yd.\*' names more than one column"),
        ({"wave": "nowhere.txt"}, r"\[data\] wave: 'nowhere.txt' names no array"),
        ({"source": "nowhere.csv"}, r"\[data\] source: .*nowhere.csv"),
    ],
)
def test_columns_that_do_not_fit_are_named(change, message, tables):
    with pytest.raises(ConfigError, match=message):
        rows_of(given(tables["csv"] | change)).check()


def missing(frame, name):
    return frame.assign(**{name: frame[name].where(frame.index != 17)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.assign(y=3.0), r"\[data\] target: 'y' does not vary, it is 3.0 in every row"),
        (lambda frame: missing(frame, "flux_3"), r"column 'flux_3' is not finite in row 17, counted from 0"),
        (lambda frame: missing(frame, "regime"), r"column 'regime' has no value in row 17, counted from 0"),
        (lambda frame: missing(frame.assign(regime="rye"), "regime"), r"column 'regime' has no value in row 17"),
        (lambda frame: frame.assign(regime=[f"star {n}" for n in range(1000)]), r"'regime' holds 1,000 different"),
        (lambda frame: frame[:900], "holds 900 rows, the study needs 1000"),
    ],
)
def test_values_that_do_not_fit_are_located(change, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        kept_as(tmp_path / "t.csv", change(planted_frame())).check()


def test_the_command_runs_on_the_documented_table(tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "study.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"### A table\n.*?```toml\n(.*?)```", text, flags=re.DOTALL)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(1000, 4))).add_prefix("nir_flux_")
    errors = pd.DataFrame(np.exp(rng.uniform(-3, 1, size=(1000, 1))) * np.ones(4)).add_prefix("nir_error_")
    grain = {"protein": rng.normal(size=1000), "moisture": rng.uniform(10, 17, size=1000), "variety": ["a", "b"] * 500}
    monkeypatch.chdir(tmp_path)
    frame.join(errors).assign(**grain).to_csv(tomllib.loads(block)["data"]["source"], index=False)
    few = "methods = ['reference', 'phys_9', 'concat_9']\nseeds = [1]\n[training]\nmax_epochs = 1\n"
    Path("study.toml").write_text(few + block)
    assert cli_module.main(["study", "--config", "study.toml", "--out", "out"]) == 0
    results = StudyResults.from_json(Path("out", "results.json").read_text())
    assert (results.run.target, results.run.rows) == ("protein", 1000)
    assert results.analysis.labels["phys_9"] == "physics tower, 3 experts"
    rows = rows_of(tomllib.loads(block)["data"]).make(0)
    assert_array_equal(rows.X, frame.join(errors))
    assert_array_equal(rows.regimes, np.digitize(grain["moisture"], [12, 15]))


def test_columns_may_be_read_twice(tmp_path):
    rows = kept_as(tmp_path / "t.csv", planted_frame(), error=None, quality=["depth"], snr="depth")
    assert_array_equal(rows.make(0).X[:, -1], rows.make(0).snr)
    data = kept_as(tmp_path / "t.csv", planted_frame(), error=["error_0"] * N_FLUX).make(0)
    assert_array_equal(data.X[:, N_FLUX:], np.repeat(data.X[:, [N_FLUX]], N_FLUX, axis=1))


# ---- regimes and rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[1, 2, 3], [2019, 2020, 2021], ["barley", "rye", "wheat"], [-0.0, 5.0, 1e9]])
def test_regimes_are_numbered_in_the_order_of_their_values(values, tmp_path):
    frame = planted_frame()
    codes = np.arange(1000) % 3
    rows = kept_as(tmp_path / "t.csv", frame.assign(regime=np.array(values)[codes]))
    rows.check()
    assert_array_equal(rows.make(0).regimes, codes)


def test_some_rows_of_a_sorted_table_are_like_all_of_it(tmp_path):
    frame = planted_frame(3000).sort_values("y")
    data = vars(kept_as(tmp_path / "t.csv", frame).data)
    some, again, more = (rows_of(given(data), rows=rows).make(0) for rows in (1000, 1000, 2000))
    assert len(some.X) == len(some.y) == len(some.regimes) == 1000
    assert_array_equal(some.X, again.X)
    assert (np.diff(some.y) >= 0).all()  # in the table's order
    assert np.isin(some.y, more.y).all()
    quantiles = [0.1, 0.5, 0.9]
    assert_allclose(np.quantile(some.y, quantiles), np.quantile(frame["y"], quantiles), atol=0.15 * frame["y"].std())
    whole = frame.set_index("y").loc[some.y]
    assert_array_equal(some.regimes, whole["regime"])
    assert_allclose(some.X[:, 0], whole["flux_0"])


def test_arrays_may_hold_texts_and_what_nobody_names_anything(tmp_path):
    names, objects = np.array(["rye", "barley"] * 500), np.array([{"a": 1}] * 1000, dtype=object)
    pixels = {f"{part}_{pixel}": np.arange(1, 1001.0) for part in ("flux", "error") for pixel in range(2)}
    np.savez(tmp_path / "t.npz", y=np.arange(1000.0), regime=names, notes=objects, few=np.ones(5), **pixels)
    data = {"source": str(tmp_path / "t.npz"), **COLUMNS}
    assert_array_equal(rows_of(data).make(0).regimes, names == "rye")
    for key in ("target", "regimes"):
        with pytest.raises(ConfigError, match=rf"\[data\] {key}: column 'notes' cannot be read from .*t.npz"):
            rows_of(data | {key: "notes"}).check()
    with pytest.raises(ConfigError, match=r"\[data\] target: column 'few' has 5 rows; it must have 1,000"):
        rows_of(data | {"target": "few"}).check()
