import os
import signal
import subprocess
import sys
import warnings

import pandas as pd
import pytest

import dualgate
from dualgate.experts import EmptyCellWarning
from dualgate.rows.store import StoreError
from dualgate.study import cli as cli_module
from dualgate.study.config import ConfigError
from dualgate.study.methods import GROUPS, TABLE
from dualgate.study.results import StudyResults
from planted_study import plant, planted_model


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_the_command_answers_without_heavy_imports(flag):
    code = (
        "import sys; from dualgate.study.cli import main\n"
        f"try: main(['{flag}'])\n"
        "except SystemExit as exit: assert exit.code == 0\n"
        "assert not {'torch', 'matplotlib', 'sklearn', 'numpy', 'rich'} & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "dualgate" in shown


def test_the_package_runs_as_a_module():
    shown = subprocess.run([sys.executable, "-m", "dualgate", "--version"], check=True, capture_output=True, text=True)
    assert shown.stdout == f"dualgate {dualgate.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "999"], r"rows = 999: must be at least 1,000"),
        (["--rows", "many"], r"--rows: invalid int value: 'many'"),
        (["--seeds", "1,two"], r"--seeds: invalid integers value: '1,two'"),
        (["--seeds", "4,4"], r"seeds = [4, 4]: must name one value or more, and none twice"),
        (["--seeds", "-1"], r"seeds = [-1]: must be at least 0"),
        (["--data", "elsewhere"], r"[data] source: open_spectra.paths='elsewhere' matches no file"),
        (["--methods", "poe_9x5"], r"methods: 'poe_9x5' is no method and no group; did you mean"),
        (["--full", "--methods", "poe_9"], r"--full: runs every method"),
        (["--config", "elsewhere.toml"], r"elsewhere.toml: cannot be read"),
        (["--out", "taken"], r"out = 'taken': must be a directory that can be written"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    with pytest.raises(SystemExit) as caught:
        cli_module.main(["study", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["matplotlib", "rich"])
def test_a_missing_extra_is_named_with_the_way_to_get_it(missing, monkeypatch, capsys):
    monkeypatch.setattr(cli_module, "find_spec", lambda name: None if name == missing else object())
    assert cli_module.main(["study"]) == 1
    message = capsys.readouterr().err
    assert f"missing: {missing}." in message
    assert 'pip install "dualgate[study]"' in message


def test_list_names_every_method_and_group(capsys):
    assert cli_module.main(["study", "--list"]) == 0
    shown = capsys.readouterr().out
    assert all(f" {method.name} " in shown and f"  {method.description}\n" in shown for method in TABLE)
    assert all(f"{group}: " in shown for group in GROUPS)


def test_a_list_that_nobody_reads_ends_without_a_traceback():
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([sys.executable, "-m", "dualgate", "study", "--list"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")


# ---- Ctrl-C ----------------------------------------------------------------------------------------------


@pytest.fixture
def terminal():
    """Ctrl-C is heard, as in a terminal, though what runs in the background is told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_and_raise(error):
    """Interrupt as a terminal does; code that cannot stand it raises an error of its own."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise error from None
    raise AssertionError("nobody heard the signal")


@pytest.mark.parametrize("where", ["__init__", "__call__"])
@pytest.mark.parametrize(
    "error", [ValueError("no valid buffer"), StoreError("x.npz"), ConfigError("no table"), ImportError()]
)
def test_an_interrupt_says_how_to_go_on_whatever_is_made_of_it(where, error, terminal, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(f"dualgate.study.cli.StudyRun.{where}", lambda *given: press_and_raise(error))
    before = signal.getsignal(signal.SIGINT)
    assert cli_module.main(["study", "--out", str(tmp_path)]) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().err == (
        "dualgate study was interrupted. No stage was finished, nothing has been written.\n"
    )


def test_an_error_without_an_interrupt_stays_itself(monkeypatch, tmp_path, capsys):
    def fail(self):
        raise error

    monkeypatch.setattr("dualgate.study.cli.StudyRun.__call__", fail)
    for error in (ValueError("a fault"), RuntimeError("a fault")):
        with pytest.raises(type(error), match="a fault"):
            cli_module.main(["study", "--out", str(tmp_path)])
    error = StoreError("x.npz: delete it")
    assert cli_module.main(["study", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "x.npz: delete it\n"


@pytest.fixture
def planted_command(monkeypatch):
    """Run the command on planted rows; returns how many rows each seed was asked for."""
    return plant(monkeypatch, planted_model)


def test_the_command_prints_its_table_and_writes_its_files(planted_command, tmp_path, capsys):
    config = tmp_path / "study.toml"
    config.write_text("seeds = [3]\n[training]\nmax_epochs = 1\n[bootstrap]\nresamples = 50\n")
    out = tmp_path / "new"
    line = ["study", "--config", str(config), "--rows", "1000", "--seeds", "3,5", "--out", str(out)]
    assert cli_module.main(line) == 0
    assert planted_command == {3: 1000, 5: 1000}
    shown = capsys.readouterr()
    assert "physics tower, 3 experts" in shown.out
    assert "left out: concat_9x4_clean: the rows have no known simulator" in shown.out
    assert "done" in shown.err
    results = StudyResults.from_json((out / "results.json").read_text())
    run, found = results.run, results.analysis
    run_here = {method.title(3) for method in TABLE if method.main and method.reader != "wiener clean"}
    assert {method.label for method in found.methods} == run_here
    assert (run.source, run.rows, run.seeds, len(run.hash)) == ("embedded", 1000, (3, 5), 64)
    assert run.config["training"]["max_epochs"] == 1
    assert run.config["bootstrap"] == {"resamples": 50}
    assert {"python", "numpy", "scikit-learn", "torch", "dualgate", "cores", "memory_gib"} <= run.environment.keys()
    assert found.rows.test == 100
    assert found.seconds.keys() == {"3", "5"}
    lines = pd.read_csv(out / "results.csv")
    assert set(lines["method"]) == {method.name for method in found.methods}
    assert set(lines["run"]) == {run.hash}
    lines = lines.query("method == 'poe_9x4' and slice == 'all' and metric == 'r2'")
    assert lines["value"].to_list() == pytest.approx(list(found.method("poe_9x4").r2_by_seed.values()))


def test_methods_are_chosen_by_name_and_group(planted_command, tmp_path, capsys):
    base = ["study", "--rows", "1000", "--seeds", "3", "--out", str(tmp_path)]
    assert cli_module.main([*base, "--methods", "temperature_9, peer"]) == 0
    found = StudyResults.from_json((tmp_path / "results.json").read_text()).analysis
    assert {method.name for method in found.methods} - {"lightgbm"} == {"temperature_9", "hist_gradient_boosting"}
    assert found.recommendation is None
    assert "a verdict needs a single tower and a dual model" in " ".join(capsys.readouterr().out.split())


SOME = ["--methods", "reference,phys_9,concat_9"]


def test_the_command_runs_on_shards(tmp_path, capsys):
    pytest.importorskip("tables")
    from dualgate.datasets import make_spectra, write_spectra

    for shard in range(2):
        clean = make_spectra(500, random_state=0, noise_level=0, start=500 * shard)
        write_spectra(tmp_path / f"shard_{shard}.h5", clean.flux, clean.error, clean.labels, clean.wave)
    few = ["study", "--data", str(tmp_path / "shard_0.h5"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        cli_module.main(few)
    assert "holds 500 rows" in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyCellWarning)  # 800 rows for 36 cells
        assert cli_module.main([*few[:2], str(tmp_path / "shard_*.h5"), "--seeds", "1", *few[3:], *SOME]) == 0
    results = StudyResults.from_json((tmp_path / "out" / "results.json").read_text())
    assert results.run.rows == 1000
    assert {"reduction wiener", "reduced rows wiener", "leakage audit"} <= results.analysis.seconds["1"].keys()
    assert results.analysis.method("global").r2.value > 0  # though noise of the shards' own errors was added
