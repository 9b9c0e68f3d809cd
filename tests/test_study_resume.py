import io
import json
import os
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import pytest
from rich.console import Console

from dualgate.rows.store import Store, StoreError
from dualgate.study import cli as cli_module
from dualgate.study.cli import seconds_left, show_progress
from dualgate.study.methods import METHODS
from dualgate.study.run import FIT, SeedWork, Stage, pending_stages, plan_stages, run_study
from planted_study import BASIC, analyse, plant, planted_rows, quick_model

SEEDS = (1, 2)


def make_data(seed):
    return planted_rows(seed, n_samples=1000)


def kill_at(place):
    """Make a watch that interrupts the run when the stage at this place begins."""
    begun = []

    def watch(stage):
        if len(begun) == place:
            raise KeyboardInterrupt
        return nullcontext(begun.append(stage))

    return watch


@pytest.fixture
def calls(monkeypatch):
    """Stages that are computed, in order."""
    ran, run = [], SeedWork.run

    def count(self, stage):
        ran.append(stage)
        return run(self, stage)

    monkeypatch.setattr(SeedWork, "run", count)
    return ran


def study(store, methods=BASIC, **more):
    return run_study(make_data, SEEDS, methods, make_model=quick_model, store=store, **more)


def numbers(records):
    """All that the analysis makes of the records, but for durations."""
    return repr(replace(analyse(records, n_resamples=20), seconds={}))


def test_a_killed_run_goes_on_from_every_stage_to_the_same_results(calls, tmp_path):
    whole = numbers(study(Store()))
    n_stages = len(plan_stages(BASIC, SEEDS))
    assert len(calls) == len(set(calls)) == n_stages
    for place in range(0, n_stages, 3):
        calls.clear()
        directory = tmp_path / str(place)
        with pytest.raises(KeyboardInterrupt):
            study(Store(directory), watch=kill_at(place))
        assert len(calls) == place
        assert numbers(study(Store(directory))) == whole
        assert len(calls) == len(set(calls)) == n_stages  # none ran twice


def test_a_further_method_runs_nothing_but_its_fit_and_finished_fits_need_no_readings(calls, tmp_path):
    before = study(Store(tmp_path))
    calls.clear()
    more = [*BASIC, METHODS["concat_9"], METHODS["concat_9_hard"]]
    after = study(Store(tmp_path), methods=more)
    assert [(stage.seed, stage.kind) for stage in calls] == [(seed, f"{FIT} 9") for seed in SEEDS]
    for one, two in zip(before, after, strict=True):
        assert all((two.predictions[name] == one.predictions[name]).all() for name in one.predictions)
    for path in [*tmp_path.glob("seed_*/reduced-rows-*"), *tmp_path.glob("seed_*/reduction-*")]:
        path.unlink()  # they are large
    assert pending_stages(plan_stages(more, SEEDS), Store(tmp_path)) == []
    study(Store(tmp_path), methods=more)
    assert len(calls) == len(SEEDS)


def test_a_resumed_run_has_what_a_fresh_one_has(tmp_path):
    """A fit that a routing variant asked for first holds the permutations that the dual model shows."""
    variant, dual = METHODS["concat_9x4_hard"], METHODS["concat_9x4"]
    study(Store(tmp_path), methods=[variant])
    resumed, fresh = (study(store, methods=[dual]) for store in (Store(tmp_path), Store()))
    for one, two in zip(resumed, fresh, strict=True):
        assert one.traces[dual.name].keys() == two.traces[dual.name].keys() >= {"permutation"}
        assert (one.traces[dual.name]["permutation"] == two.traces[dual.name]["permutation"]).all()


@pytest.mark.parametrize(("stage", "asks"), [("fit-*.zip", "none"), ("reduction-*.zip", "fit-*.zip")])
def test_a_damaged_stage_is_named(stage, asks, tmp_path):
    study(Store(tmp_path))
    path = next(tmp_path.glob(f"seed_1/{stage}"))
    path.write_bytes(path.read_bytes()[:50])
    for each in tmp_path.glob(f"seed_1/{asks}"):
        each.unlink()
    with pytest.raises(StoreError, match=f"{path.name}: .* delete it"):
        study(Store(tmp_path))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no POSIX system")
def test_a_stage_that_others_may_write_is_refused(tmp_path):
    study(Store(tmp_path))
    path = next(tmp_path.glob("seed_1/fit-*.zip"))
    path.chmod(0o666)
    with pytest.raises(StoreError, match=f"{path.name}: holds pickles"):
        study(Store(tmp_path))


def test_the_command_says_how_to_go_on(calls, monkeypatch, tmp_path, capsys):
    plant(monkeypatch, quick_model)
    config = tmp_path / "study.toml"
    config.write_text(
        "rows = 1000\nseeds = [3]\nmethods = ['oracle_9', 'quality_9', 'phys_9', 'poe_9']\n[training]\nmax_epochs = 1"
    )
    line = ["study", "--config", str(config), "--out", str(tmp_path / "out")]
    save = Store.save

    def save_few(self, stage, result):
        save(self, stage, result)
        if len(calls) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", save_few)
        assert cli_module.main(line) == 130
    shown = capsys.readouterr().err
    assert "4 finished stages are in" in shown
    assert f"dualgate study --config {config} --out {tmp_path / 'out'}" in shown
    assert not (tmp_path / "out" / "results.json").exists()
    assert cli_module.main(line) == 0
    assert len(calls) == len(set(calls)) == 7
    assert json.loads((tmp_path / "out" / "results.json").read_text())["run"]["stages_kept"] == 4
    config.write_text(config.read_text() + "\nlr = 0.02")  # other numbers: other stages, besides the first
    calls.clear()
    assert cli_module.main(line) == 0
    assert len(calls) == 7
    assert len(list((tmp_path / "out" / "stages").iterdir())) == 2


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_names_what_runs_and_what_is_left(terminal, monkeypatch):
    clock = iter(range(0, 999, 60))
    monkeypatch.setattr("dualgate.study.cli.time.perf_counter", lambda: next(clock))
    stages = [Stage(None, name, "fit 9", f"the fit {name}") for name in "bc"]
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with show_progress(stages, 1, console) as watch:  # one was run before
        for stage in stages:
            with watch(stage):
                pass
    shown = console.file.getvalue()
    assert "3/3" in shown
    assert "done" in shown
    if not terminal:
        assert "[2/3] the fit b, 60.0 s; about 0:01:00 left" in shown


def test_time_left_is_exact_where_stages_of_a_kind_take_the_same():
    took = {"rows": 1.0, "reduced rows": 7.0, "fit 9": 3.0}
    assert seconds_left(Counter(took.keys()), {}) == 0
    found = seconds_left(Counter({"rows": 1, "fit 9": 4}), {kind: [seconds] * 2 for kind, seconds in took.items()})
    assert found == pytest.approx(1 + 4 * 3)
    assert seconds_left(Counter(["fit 9"]), {"reduced rows": [6.0]}) == pytest.approx(2.0)  # a third of the work
