import io
import json

import numpy as np
import pytest
from rich.console import Console

from dualgate import HierarchicalExperts
from dualgate.study import analyse, run_study
from dualgate.study import cli as cli_module
from dualgate.study.data import REGIMES
from dualgate.study.fits import SeedWork
from dualgate.study.progress import StudyProgress, TimeLeft
from dualgate.study.roster import ROSTER
from dualgate.study.runner import Observer, plan_stages
from dualgate.study.stages import FIT, SURVEY, Stage, StageError, Stages
from planted_study import BASIC, planted_rows, quick_model

SEEDS = (1, 2)


def make_data(seed):
    return planted_rows(seed, n_samples=1000)


class Killer(Observer):
    """Interrupts the run when a stage begins."""

    def __init__(self, place):
        self.left = place

    def begin(self, stage):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1


@pytest.fixture
def calls(monkeypatch):
    """Stages that are computed, in order."""
    ran, run = [], SeedWork.run

    def count(self, stage, method):
        ran.append(stage)
        return run(self, stage, method)

    monkeypatch.setattr(SeedWork, "run", count)
    return ran


def study(stages, observer=None, methods=BASIC):
    return run_study(make_data, SEEDS, methods=methods, make_model=quick_model, stages=stages, observer=observer)


def numbers(records):
    """All that the analysis makes of the records, but for durations."""
    results = analyse(records, n_resamples=20)
    del results["seconds"]
    return json.dumps(results)


def test_a_killed_run_goes_on_from_every_stage_to_the_same_results(calls, tmp_path):
    whole = numbers(study(Stages()))
    n_stages = sum(len(plan_stages(BASIC, seed)) for seed in SEEDS)
    assert len(calls) == len(set(calls)) == n_stages
    for place in range(0, n_stages, 3):
        calls.clear()
        directory = tmp_path / str(place)
        with pytest.raises(KeyboardInterrupt):
            study(Stages(directory), Killer(place))
        assert len(calls) == place
        assert numbers(study(Stages(directory))) == whole
        assert len(calls) == len(set(calls)) == n_stages  # none ran twice


def test_a_further_method_runs_nothing_but_its_fit(calls, tmp_path):
    before = study(Stages(tmp_path))
    calls.clear()
    more = [*BASIC, ROSTER["concat_9"], ROSTER["concat_9_hard"]]
    after = study(Stages(tmp_path), methods=more)
    assert [(stage.seed, stage.kind) for stage in calls] == [(seed, f"{FIT} 9") for seed in SEEDS]
    for one, two in zip(before, after, strict=True):
        assert all((two.predictions[name] == one.predictions[name]).all() for name in one.predictions)


def test_finished_fits_need_no_readings(calls, tmp_path):
    study(Stages(tmp_path))
    calls.clear()
    for path in [*tmp_path.glob("seed_*/reading-*"), *tmp_path.glob("seed_*/survey-*")]:
        path.unlink()  # they are large
    study(Stages(tmp_path))
    assert calls == []


def test_a_kill_while_writing_leaves_no_half_of_a_stage(tmp_path, monkeypatch):
    stages, stage = Stages(tmp_path), Stage(1, "fit-x", FIT, "")

    def torn(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", torn)
        with pytest.raises(KeyboardInterrupt):
            stages.save(stage, {"y": np.arange(3)})
    assert stage not in stages
    stages.save(stage, {"y": np.arange(3)})
    assert stages.load(stage)["y"].tolist() == [0, 1, 2]


def test_a_damaged_stage_is_named(tmp_path):
    stages, stage = Stages(tmp_path), Stage(1, "fit-x", FIT, "")
    stages.save(stage, {"y": np.arange(3)})
    path = next(tmp_path.glob("seed_1/*"))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StageError, match=r"fit-x.npz: is no whole stage .* delete it"):
        stages.load(stage)


@pytest.mark.parametrize("what", ["values", "header"])
def test_arrays_that_were_damaged_in_their_place_are_named_when_they_are_read(what, tmp_path):
    stages, stage = Stages(tmp_path), Stage(1, "fit-x", FIT, "")
    stages.save(stage, {"x": np.arange(3.0), "y": np.arange(1000.0)})
    path = next(tmp_path.glob("seed_1/*"))
    content, values = bytearray(path.read_bytes()), np.arange(500.0, 510.0).tobytes()
    place = content.index(values) if what == "values" else content.index(b"PK", content.index(b"x.npy") + 5)
    content[place : place + 4] = b"\xff" * 4
    path.write_bytes(content)
    found = stages.load(stage)
    assert found["x"].tolist() == [0, 1, 2]
    with pytest.raises(StageError, match=r"fit-x.npz: is no whole stage .* delete it"):
        found["y"]


def test_a_damaged_pickle_is_named_whatever_is_wrong_with_it(tmp_path):
    stages, stage = Stages(tmp_path), Stage(1, "survey-x", SURVEY, "")
    stages.save(stage, HierarchicalExperts())
    path = next(tmp_path.glob("seed_1/*"))
    whole = path.read_bytes()
    for old, new in [(b"dualgate", b"dualgone"), (b"HierarchicalExperts", b"HierarchicalSomeone"), (whole[2:], b"0")]:
        assert old in whole
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(StageError, match=r"survey-x.pickle: is no whole stage .* delete it"):
            stages.load(stage)


def test_the_command_says_how_to_go_on(calls, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("dualgate.study.data.stream_spectra", lambda n, *, random_state: make_data(random_state))
    monkeypatch.setattr("dualgate.study.data.table_model", quick_model)
    monkeypatch.setattr("dualgate.study.data.StudyRows.offers", {REGIMES})  # they are no spectra
    monkeypatch.setattr("dualgate.study.config.LIMIT_ROWS", {False: 0, True: 0})
    config = tmp_path / "study.toml"
    config.write_text(
        "rows = 1000\nseeds = [3]\nmethods = ['oracle_9', 'quality_9', 'phys_9', 'poe_9']\n[training]\nmax_epochs = 1"
    )
    line = ["study", "--config", str(config), "--out", str(tmp_path / "out")]
    save = Stages.save

    def save_few(self, stage, result):
        save(self, stage, result)
        if len(calls) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Stages, "save", save_few)
        assert cli_module.main(line) == 130
    shown = capsys.readouterr().err
    assert "4 finished stages are in" in shown
    assert f"dualgate study --config {config} --out {tmp_path / 'out'}" in shown
    assert not (tmp_path / "out" / "results.json").exists()
    assert cli_module.main(line) == 0
    assert len(calls) == len(set(calls)) == 6
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["stages_kept"] == 4
    config.write_text(config.read_text() + "\nlr = 0.02")  # other numbers: other stages, beside the first
    calls.clear()
    assert cli_module.main(line) == 0
    assert len(calls) == 6
    assert len(list((tmp_path / "out" / "stages").iterdir())) == 2


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_names_what_runs_and_what_is_left(terminal):
    stages = [Stage(1, name, "fit 9", f"the fit {name}") for name in "abc"]
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with StudyProgress(stages, console) as progress:
        progress.end(stages[0], 60.0)  # in an earlier run
        for stage in stages[1:]:
            progress.begin(stage)
            progress.end(stage, 60.0)
        progress.done()
    shown = console.file.getvalue()
    assert progress.kept == 1
    assert "3/3" in shown
    assert "done" in shown
    if not terminal:
        assert "[2/3] the fit b, 60.0 s; about 1 min 0 s left" in shown
        assert "the fit a" not in shown


def test_time_left_is_exact_where_stages_of_a_kind_take_the_same():
    took = {"rows": 1.0, "reading": 7.0, "fit 9": 3.0}
    kinds = [*took, *took, "fit 9"]
    left = TimeLeft(kinds)
    assert left.seconds() is None
    for place, kind in enumerate(kinds, start=1):
        left.finish(kind, took[kind])
        if place >= len(took):
            assert left.seconds() == pytest.approx(sum(took[each] for each in kinds[place:]))


def test_stages_that_were_not_needed_cost_nothing():
    left = TimeLeft(["reading", "fit 9", "fit 9"])
    left.finish("reading", None)
    left.finish("fit 9", 2.0)
    assert left.seconds() == 2.0
