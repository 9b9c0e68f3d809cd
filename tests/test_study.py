import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import t
from sklearn.metrics import r2_score
from sklearn.utils import Bunch

from dualgate.evaluation import Interval
from dualgate.experts import EmptyCellWarning
from dualgate.study import analyse, decide, run_study, seed_interval, write_report
from dualgate.study import cli as cli_module
from dualgate.study.report import html, markdown, method_rows, summary, tables
from dualgate.study.roster import DUAL, GLOBAL, ORACLES, SINGLE, all_methods, gated_methods
from dualgate.study.runner import N_READING, SeedRecord
from dualgate.study.verdict import CONTINUE, FALL_BACK, MARGINAL

LADDER = [FALL_BACK, MARGINAL, CONTINUE]


# ---- planted problems ----------------------------------------------------------------------------------


def planted_rows(seed, *, constant=False, n_samples=3000):
    """Twelve pixels that show the target with a slope of its own in each of three regimes.

    The brightness of four pixels spreads the signal-to-noise ratio over all bins and says nothing of the target.
    With `constant` errors every row is measured equally well, and quality has nothing to tell.
    """
    rng = np.random.default_rng(seed)
    regimes, y = rng.integers(3, size=n_samples), rng.normal(size=n_samples)
    flux = np.zeros((n_samples, 12))
    flux[:, :4] = (np.array([1.0, -1.0, 0.4])[regimes] * y)[:, None]
    flux[np.arange(n_samples), 4 + regimes] = 3.5
    flux[:, 8:] = np.exp(rng.uniform(0, np.log(30), size=(n_samples, 1)))
    level = np.ones(n_samples) if constant else np.exp(rng.uniform(np.log(0.3), np.log(6), size=n_samples))
    error = np.repeat(level[:, None], 12, axis=1)
    flux += error * rng.normal(size=flux.shape)
    snr = np.linalg.norm(flux, axis=1) / np.linalg.norm(error, axis=1)
    return Bunch(X=np.hstack([flux, error]).astype(np.float32), y=y, regimes=regimes, snr=snr)


def planted_model(data, seed):
    from dualgate import DualTowerMoERegressor, HierarchicalExperts, PhysGate, QualityGate

    flux, error = slice(0, 12), slice(12, None)
    experts = HierarchicalExperts(flux, error, quality_edges=(2, 4, 7))
    return DualTowerMoERegressor(
        PhysGate(flux), QualityGate(error), experts=experts, max_epochs=24, batch_size=256, random_state=seed
    )


def planted_record(seed, errors, validation=None, n_samples=300):
    """A record whose methods miss the target by the given scatter, each by luck of its own."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n_samples)
    errors = {method.name: 0.5 for method in all_methods()} | errors
    gated = [method.name for method in gated_methods()]
    return SeedRecord(
        seed=seed,
        n_train=8 * n_samples,
        n_validation=n_samples,
        y=y,
        snr=rng.uniform(0.5, 12, size=n_samples),
        regimes=rng.integers(9, size=n_samples),
        predictions={name: y + scale * rng.normal(size=n_samples) for name, scale in errors.items()},
        validation_r2={name: 1 - scale**2 for name, scale in errors.items()} | (validation or {}),
        entropy={name: rng.uniform(0, np.log(9), size=n_samples) for name in gated},
        n_experts=dict.fromkeys(gated, 9),
        seconds={"rows": 1.0, "fit phys_9": 2.0, "predict phys_9": 3.0},
    )


GOOD = {GLOBAL.name: 0.8, "phys_9": 0.6, "quality_9": 0.7, "poe_9x4": 0.4}


@pytest.fixture(scope="module")
def results():
    records = [planted_record(seed, GOOD) for seed in (1, 2, 3)]
    return analyse(records, n_resamples=200) | {
        "settings": {"data": "planted", "rows": 3000, "seeds": [1, 2, 3]},
        "environment": {"dualgate": "0", "cores": 2},
        "total_seconds": 1.0,
        "peak_memory_gib": float("nan"),
    }


# ---- the verdict ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "low", "verdict"),
    [
        (0.05, 0.03, CONTINUE),
        (0.01, 1e-9, CONTINUE),
        (0.0099, 0.002, MARGINAL),
        (0.005, 0.001, MARGINAL),
        (0.0049, 0.002, FALL_BACK),
        (0.05, 0.0, FALL_BACK),
        (0.05, -0.02, FALL_BACK),
        (-0.03, -0.05, FALL_BACK),
        (float("nan"), float("nan"), FALL_BACK),
    ],
)
def test_verdict_on_planted_numbers(value, low, verdict):
    assert decide(Interval(value, low, 0.1)).verdict == verdict


def test_a_gain_that_is_not_shown_is_not_called_absent():
    assert "not shown" in decide(Interval(0.05, -0.01, 0.11)).reason
    assert "below" in decide(Interval(0.001, -0.01, 0.012)).reason


@given(value=st.floats(-0.1, 0.1), low=st.floats(-0.1, 0.1), more=st.floats(0, 0.1))
def test_more_gain_never_lowers_the_verdict(value, low, more):
    before, after = decide(Interval(value, low, 1)), decide(Interval(value + more, low + more, 1))
    assert LADDER.index(after.verdict) >= LADDER.index(before.verdict)


def test_interval_is_students_when_rows_do_not_matter():
    values = np.array([0.1, 0.12, 0.17])
    interval = seed_interval(values, np.repeat(values[:, None], 50, axis=1))
    assert_allclose([interval.low, interval.high], t.interval(0.95, 2, values.mean(), values.std(ddof=1) / np.sqrt(3)))


def test_seeds_that_agree_by_luck_do_not_feign_precision():
    draws = 0.1 + 0.02 * np.random.default_rng(0).normal(size=(3, 5000))
    interval = seed_interval([0.1, 0.1, 0.1], draws)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.02 / np.sqrt(3), rel=0.05)


def test_one_seed_has_the_interval_of_its_rows():
    draws = np.linspace(0, 1, 1001)[None]
    interval = seed_interval([0.5], draws)
    assert_allclose([interval.low, interval.high], [0.025, 0.975])


def test_seeds_without_the_number_are_left_out():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(3, 100))
    draws[1] = np.nan
    assert seed_interval([0.1, np.nan, 0.3], draws) == seed_interval([0.1, 0.3], draws[[0, 2]])
    assert np.isnan(seed_interval([np.nan], [[np.nan, np.nan]]).value)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """Scatter of rows and of seeds alike; the truth is 0."""
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(400):
        values = rng.normal(scale=0.01, size=3) + rng.normal(scale=0.01, size=3)
        interval = seed_interval(values, values[:, None] + rng.normal(scale=0.01, size=(3, 200)))
        hits.append(interval.low <= 0 <= interval.high)
    assert np.mean(hits) >= 0.92


# ---- the analysis --------------------------------------------------------------------------------------


def test_validation_rows_choose_and_test_rows_judge():
    """One dual is better on the test rows, another on the validation rows: the latter is judged."""
    record = planted_record(0, GOOD | {"poe_9": 0.55, "concat_9": 0.3}, {"poe_9": 0.9, "concat_9": 0.1})
    answer = analyse([record], n_resamples=50)["questions"]["gate"]
    assert answer["dual"] == "poe_9"
    here, there = (r2_score(record.y, record.predictions[name]) for name in ("poe_9", "phys_9"))
    assert answer["gain"]["value"] == pytest.approx(here - there)


def test_each_question_has_duals_of_its_own(results):
    kinds = {method.name: method.experts for method in all_methods() if method.kind == DUAL}
    assert kinds[results["questions"]["gate"]["dual"]] == "9"
    assert kinds[results["questions"]["experts"]["dual"]] == "9x4"
    assert results["questions"]["overall"]["dual"] == "poe_9x4"
    assert results["questions"]["experts"]["verdict"] == CONTINUE


def test_the_gate_is_judged_with_the_experts_left_as_they_are():
    """A single tower over 9x4 experts says nothing against a second tower over nine."""
    record = planted_record(0, GOOD | {"phys_9x4": 0.3, "poe_9": 0.5})
    questions = analyse([record], n_resamples=50)["questions"]
    assert questions["gate"]["single"] == "phys_9"
    assert questions["overall"]["single"] == "phys_9x4"
    assert questions["experts"]["single"] == "phys_9"


def test_table_holds_the_mean_of_the_seeds(results):
    line = next(method for method in results["methods"] if method["name"] == "poe_9x4")
    records = [planted_record(seed, GOOD) for seed in (1, 2, 3)]
    scores = [r2_score(record.y, record.predictions["poe_9x4"]) for record in records]
    assert line["r2"]["value"] == pytest.approx(np.mean(scores))
    assert_allclose(list(line["r2_by_seed"].values()), scores)


def test_recovery_is_left_out_where_the_oracle_gains_nothing():
    record = planted_record(0, {GLOBAL.name: 0.2, ORACLES["9"].name: 0.6, ORACLES["9x4"].name: 0.1})
    ratios = {method["name"]: method["rho"] for method in analyse([record], n_resamples=50)["methods"]}
    assert ratios["poe_9"] is None
    assert ratios["poe_9x4"] is not None


def test_the_best_of_eight_equal_duals_rarely_passes():
    """Duals no better than the single tower must not win by being many."""
    verdicts = []
    for trial in range(40):
        records = [planted_record(100 * trial + seed, {"quality_9": 0.9}) for seed in range(3)]
        for record in records:  # validation scores by luck alone
            luck = np.random.default_rng(record.seed).normal(0, 0.01, len(record.validation_r2))
            noisy = zip(record.validation_r2.items(), luck, strict=True)
            record.validation_r2 = {name: score + shift for (name, score), shift in noisy}
        verdicts.append(analyse(records, n_resamples=100)["questions"]["overall"]["verdict"])
    assert np.mean([verdict == FALL_BACK for verdict in verdicts]) >= 0.9


# ---- the runner ----------------------------------------------------------------------------------------


def quick_model(data, seed):
    return planted_model(data, seed).set_params(max_epochs=1)


def test_runner_trains_on_the_first_rows_and_keeps_the_last():
    data, stages = planted_rows(7, n_samples=1500), []
    (record,) = run_study(lambda seed: data, [7], make_model=quick_model, on_stage=stages.append)
    assert (record.n_train, record.n_validation, record.n_rows) == (1200, 150, 1500)
    assert_allclose(record.y, data.y[1350:])
    assert_allclose(record.snr, data.snr[1350:], rtol=1e-6)
    assert len(stages) == N_READING + len(gated_methods())
    # what a model learned does not depend on the targets and regimes of the rows held out
    changed = Bunch(X=data.X, y=data.y.copy(), regimes=data.regimes.copy(), snr=data.snr)
    changed.y[1200:], changed.regimes[1200:] = 99.0, 0
    (other,) = run_study(lambda seed: changed, [7], make_model=quick_model)
    for name in ("poe_9", GLOBAL.name):
        assert_allclose(other.predictions[name], record.predictions[name], rtol=1e-6, atol=1e-9)
    # the oracle is the row's own expert
    model = quick_model(data, 7).set_params(fusion="poe")
    model.fit(data.X[:1200], data.y[:1200], regimes=data.regimes[:1200])
    oracle = model.experts_.predict(data.X[1350:], regimes=data.regimes[1350:])
    assert_allclose(record.predictions[ORACLES["9x4"].name], oracle, rtol=1e-4, atol=1e-5)


def test_rows_in_some_order_are_divided_at_random():
    data = planted_rows(7, n_samples=1500)
    data.ordered = True
    one, two = run_study(lambda seed: data, [1, 2], make_model=quick_model)
    assert (one.n_train, len(one.y)) == (1200, 150)
    assert not np.isin(one.y, two.y).all()
    assert np.isin(one.y, data.y).all()
    assert np.isin(one.y, data.y[:1200]).any()


def test_roster_has_both_towers_alone_and_every_fusion_twice():
    from dualgate.gating import FUSIONS

    methods = gated_methods()
    assert sorted(m.name for m in methods if m.kind == SINGLE) == sorted(
        f"{tower}_{kind}" for tower in ("phys", "quality") for kind in ("9", "9x4")
    )
    assert sorted(m.name for m in methods if m.kind == DUAL) == sorted(
        f"{fusion}_{kind}" for fusion in FUSIONS for kind in ("9", "9x4")
    )
    assert len({method.name for method in all_methods()}) == len(all_methods())


@pytest.mark.parametrize(("constant", "verdict"), [(True, FALL_BACK), (False, CONTINUE)])
def test_the_verdict_follows_the_data(constant, verdict):
    """Where quality tells nothing the study falls back; where it tells something it continues."""
    records = run_study(lambda seed: planted_rows(seed, constant=constant), range(1, 6), make_model=planted_model)
    questions = analyse(records, n_resamples=200)["questions"]
    assert questions["overall"]["verdict"] == verdict
    assert questions["experts"]["verdict"] == verdict
    if constant:
        assert questions["gate"]["verdict"] == verdict


# ---- the report ----------------------------------------------------------------------------------------


def test_results_file_carries_everything_the_report_shows(results, tmp_path):
    paths = write_report(results, tmp_path)
    assert all(path.stat().st_size > 0 for path in paths)
    again = json.loads((tmp_path / "results.json").read_text())
    assert markdown(again) == (tmp_path / "report.md").read_text()
    other = tmp_path / "again"
    other.mkdir()
    write_report(again, other)
    assert all((other / path.name).read_bytes() == path.read_bytes() for path in paths)


def test_markdown_names_figures_that_exist(results, tmp_path):
    write_report(results, tmp_path)
    text = (tmp_path / "report.md").read_text()
    for path in tmp_path.glob("*.png"):
        assert f"({path.name})" in text
        assert path.read_bytes().startswith(b"\x89PNG")
    assert text.count("![") == 3


def test_page_stands_alone_and_says_the_verdict_first(results):
    page = html(results, dict.fromkeys(("r2_by_method", "r2_by_snr", "entropy_by_snr"), b"png"))
    assert page.count('src="data:image/png;base64,') == 3
    assert "http" not in page
    assert 'name="viewport"' in page
    assert page.index(results["questions"]["overall"]["verdict"]) < page.index("<table>")


def test_names_cannot_break_the_page(results):
    page = html(results | {"environment": {"cpu": "<b>&"}}, dict.fromkeys(
        ("r2_by_method", "r2_by_snr", "entropy_by_snr"), b""))  # fmt: skip
    assert "&lt;b&gt;&amp;" in page


def test_every_table_is_rectangular(results):
    for heading, _, rows in tables(results):
        assert len({len(row) for row in rows}) == 1, heading


def test_the_table_has_one_line_for_every_method(results):
    head, *body = method_rows(results)
    assert [row[0] for row in body] == [method.label for method in all_methods()]
    assert [row[2] for row in body].count("best single") == 1
    assert len(head) == 8


def test_an_empty_snr_bin_is_said_and_not_invented(tmp_path):
    record = planted_record(0, GOOD)
    record.snr = np.full_like(record.snr, 3.0)
    results = analyse([record], n_resamples=50) | {
        "settings": {"data": "planted", "rows": 3000, "seeds": [0]},
        "environment": {},
        "total_seconds": 1.0,
        "peak_memory_gib": 1.0,
    }
    write_report(results, tmp_path)
    line = json.loads((tmp_path / "results.json").read_text())["methods"][0]
    assert line["r2_by_snr"]["H"]["value"] is None
    assert method_rows(results)[1][-1] == "n/a"
    assert "scatter between seeds is unknown" in summary(results)


# ---- the command ---------------------------------------------------------------------------------------


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
    import dualgate

    command = [sys.executable, "-m", "dualgate", "--version"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == [
        "dualgate",
        dualgate.__version__,
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "999"], r"--rows: 999 must be at least 1000"),
        (["--rows", "many"], r"--rows: 'many' must be an integer"),
        (["--seeds", "1,two"], r"--seeds: '1,two' must be integers"),
        (["--seeds", "4,4"], r"--seeds: '4,4' names a seed twice"),
        (["--seeds", "-1"], r"--seeds: '-1' must lie from 0"),
        (["--data", "elsewhere"], r"--data: open_spectra.paths='elsewhere' matches no file"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        cli_module.main(["study", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_output_that_is_no_directory_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    with pytest.raises(SystemExit) as caught:
        cli_module.main(["study", "--out", str(tmp_path / "taken")])
    assert caught.value.code == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["matplotlib", "rich"])
def test_a_missing_extra_is_named_with_the_way_to_get_it(missing, monkeypatch, capsys):
    monkeypatch.setattr(cli_module, "find_spec", lambda name: None if name == missing else object())
    assert cli_module.main(["study"]) == 1
    message = capsys.readouterr().err
    assert f"missing: {missing}." in message
    assert 'pip install "dualgate[study]"' in message


def test_the_command_prints_its_table_and_writes_its_files(monkeypatch, tmp_path, capsys):
    rows = {}

    def make_rows(n_samples, *, random_state):
        rows[random_state] = n_samples
        return planted_rows(random_state, n_samples=n_samples)

    monkeypatch.setattr("dualgate.study.command.stream_spectra", make_rows)
    monkeypatch.setattr(
        "dualgate.study.runner.spectral_model", lambda *args: planted_model(*args).set_params(max_epochs=1)
    )
    assert cli_module.main(["study", "--rows", "2000", "--seeds", "3,5", "--out", str(tmp_path / "new")]) == 0
    assert rows == {3: 2000, 5: 2000}
    shown = capsys.readouterr()
    assert all(method.label in shown.out for method in all_methods())
    assert "done" in shown.err
    results = json.loads((tmp_path / "new" / "results.json").read_text())
    assert results["settings"] == {"data": "embedded", "rows": 2000, "seeds": [3, 5]}
    assert {"python", "numpy", "scikit-learn", "torch", "dualgate", "cores"} <= set(results["environment"])
    assert results["rows"]["test"] == 200
    assert results["seconds"].keys() == {"3", "5"}


def test_the_command_runs_on_shards(tmp_path, capsys):
    pytest.importorskip("tables")
    from dualgate.datasets import make_spectra, write_spectra

    for shard in range(2):
        clean = make_spectra(500, random_state=0, noise_level=0, start=500 * shard)
        write_spectra(tmp_path / f"shard_{shard}.h5", clean.flux, clean.error, clean.labels, clean.wave)
    few = ["study", "--data", str(tmp_path / "shard_0.h5"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        cli_module.main(few)
    assert "holds 500 spectra" in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyCellWarning)  # 800 rows for 36 cells
        assert cli_module.main([*few[:2], str(tmp_path / "shard_*.h5"), "--seeds", "1", *few[3:]]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["settings"]["rows"] == 1000
    assert {"survey", "reading"} <= results["seconds"]["1"].keys()
    by_name = {method["name"]: method["r2"]["value"] for method in results["methods"]}
    assert by_name["global"] > 0  # the noise of the shards' own errors was added, and something is left to see
