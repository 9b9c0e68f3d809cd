"""The group likelihood of the study: a factor mixture that knows the errors of a row, and what is blind to them."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax
from sklearn.utils import Bunch

from dualgate import MixtureTrace
from dualgate.rows import FitStages, open_rows
from dualgate.study.analysis import PASS, StudyScores, analyse, answer_all
from dualgate.study.config import ConfigError
from dualgate.study.figures import draw_figures
from dualgate.study.inputs import ERRORS, REGIMES
from dualgate.study.methods import LIKELIHOOD, METHODS, TABLE, TEMPERED, choose_methods
from dualgate.study.report import sections, words_of
from dualgate.study.results import EXACT, LEARNED
from dualgate.study.run import fit_temperature, gate_trace, run_study
from planted_study import GOOD, planted_record, planted_results, planted_rows, quick_model

BLIND = ("factor_blind_evidence", "factor_blind_gate", "factor_tempered", "factor_blind_experts", "factor_blind")
MIXED = METHODS["factor"]


@pytest.fixture(scope="module")
def planted():
    """Rows, their study, and the same factor mixture without the study."""
    data = planted_rows(3, n_samples=1500)
    few = {"experts__n_components": 6, "experts__max_iter": 3}
    methods = [replace(METHODS[name], settings=few) for name in ("factor", "factor_towers", *BLIND)]
    ran = []
    (record,) = run_study(
        lambda seed: data,
        [3],
        methods,
        make_model=quick_model,
        watch=lambda stage: nullcontext(ran.append(stage.title)),
    )
    return data, record, ran, few


def test_blind_methods_share_the_fit_of_the_mixture(planted):
    _, record, ran, _ = planted
    assert ran == ["rows", "reduction likelihood", "reduced rows likelihood", "factor", "factor_towers"]
    assert set(BLIND) < record.predictions.keys()
    assert {"phys_logits", "quality_logits"} <= record.traces["factor_towers"].keys()


@pytest.mark.filterwarnings("ignore::dualgate.experts.ExtrapolationWarning")  # errors that are not the rows' own
def test_a_blind_mixture_is_the_mixture_on_rows_with_typical_errors(planted):
    """What the study calls blind is what the library finds where the errors of every row are the typical ones."""
    data, record, _, few = planted
    model = quick_model(data, 3, "factor").set_params(phys_gate="drop", quality_gate="drop")
    model.set_params(experts__regime_edges=None, experts__n_components=36)
    reduction = model.make_reduction()
    X, y, codes = data.X[:1200], data.y[:1200], data.regimes[:1200]
    rows = open_rows(reduction, X, reset=True)
    model.make_experts().learn_reduction(reduction.prepare(X, rows), X, rows, y, codes, FitStages())
    conditions, edges = codes[:, None].astype(float), [[0.5, 1.5]]
    model.set_params(**few, experts__regime_edges=edges)
    model.fit(reduction.read(X, training=True), y, regimes=conditions)
    alike = data.X[1200:].copy()
    alike[:, 12:] = model.experts_.projection_.noise_
    known, blind = model.trace(data.X[1200:]), model.trace(alike)
    arrays = record.traces["factor"]
    assert_allclose(arrays["expert_predictions"], known.expert_predictions, rtol=1e-3, atol=1e-3)
    assert_allclose(arrays["blind_predictions"], blind.expert_predictions, rtol=1e-3, atol=1e-3)
    for method in (MIXED, *(METHODS[name] for name in BLIND)):
        if method.by_bin or "gate" in method.blind:
            continue
        weights, predictions = known.log_weights, known.expert_predictions
        if "evidence" in method.blind:
            temperature = arrays["temperatures"][int("experts" in method.blind), 0]
            weights = log_softmax(blind.log_evidence / temperature, axis=1)
        if "experts" in method.blind:
            predictions = blind.expert_predictions
        expected = MixtureTrace(log_weights=weights, expert_predictions=predictions).prediction[150:]
        assert_allclose(record.predictions[method.name], expected, rtol=5e-3, atol=5e-3)


def test_what_is_blind_does_not_depend_on_the_errors_of_a_row(planted):
    """Held-out rows with errors twice as large, and the same flux."""
    data, record, _, few = planted
    louder = data.X.copy()
    louder[1200:, 12:] *= 2
    method = replace(MIXED, settings=few)
    (other,) = run_study(lambda seed: Bunch(**data | {"X": louder}), [3], [method], make_model=quick_model)
    one, two = record.traces["factor"], other.traces["factor"]
    for name in ("blind_evidence", "blind_predictions", "blind_gate"):
        assert_allclose(one[name], two[name], rtol=1e-5, atol=1e-5)
    for name in ("log_weights", "expert_predictions"):
        assert np.abs(one[name] - two[name]).max() > 0.1


def test_no_other_temperature_is_better_on_the_validation_rows(planted):
    """A blind gate is the best blind gate."""
    _, record, _, _ = planted
    arrays, seen = record.traces["factor"], slice(0, record.n_validation)

    def error(name, scale=1.0):
        changed = dict(arrays) | {"temperatures": scale * arrays["temperatures"]}
        return np.mean((gate_trace(METHODS[name], changed, seen).prediction - record.y_validation) ** 2)

    for name in ("factor_blind_evidence", "factor_blind"):
        assert all(error(name) <= error(name, scale) + 1e-6 for scale in (0.8, 0.95, 1.05, 1.25))
    assert error("factor_tempered") <= error("factor_blind_evidence") + 1e-9


@pytest.mark.parametrize("temperature", [0.5, 3.0, 40.0])
def test_a_planted_temperature_is_found(temperature):
    rng = np.random.default_rng(0)
    evidence, predictions = temperature * rng.normal(size=(3000, 5)), rng.normal(size=(3000, 5))
    y = (np.exp(log_softmax(evidence / temperature, axis=1)) * predictions).sum(axis=1) + 0.1 * rng.normal(size=3000)
    assert fit_temperature(evidence, predictions, y) == pytest.approx(temperature, rel=0.05)


def test_rows_without_errors_have_no_likelihood():
    chosen, left_out = choose_methods(["main"], {REGIMES})
    assert not any(method.group == "likelihood" for method in chosen)
    assert left_out["factor"] == "the rows have no errors"
    with pytest.raises(ConfigError, match="no errors"):
        choose_methods(["factor"], {REGIMES})
    assert {method.name for method in choose_methods(["likelihood"], {ERRORS})[0]} == {
        method.name for method in TABLE if method.group == "likelihood" and method.name != "factor_clean"
    }


# ---- what is made of it --------------------------------------------------------------------------------------


def test_both_dual_towers_are_answered_and_named():
    """The factor mixture is as good as asked for, and no learned dual tower is."""
    errors = GOOD | {"poe_9x4": 0.6, "factor": 0.2, "factor_9": 0.3, **dict.fromkeys(BLIND, 0.6)}
    scores = StudyScores([planted_record(seed, errors) for seed in (1, 2, 3)], n_resamples=100)
    answers = {answer.key: answer for answer in answer_all(scores, {})}
    exact = {key: answer for key, answer in answers.items() if answer.form == EXACT}
    assert exact.keys() == {f"exact_{name}" for name in ("gain", "low_snr", "physics", "experts", "first", "recovery")}
    assert {answer.verdict for answer in exact.values()} == {PASS}
    assert (exact["exact_physics"].dual, exact["exact_physics"].single) == ("factor", "factor_blind_evidence")
    assert answers["gain"].form == LEARNED
    assert METHODS[answers["gain"].dual].kind != LIKELIHOOD
    (table,) = (
        each for each in sections(replace(planted_results(), analysis=analyse(scores))) if each.heading == "Answers"
    )
    assert [name.split(":")[0] for name, _ in table.groups] == ["the learned dual tower", "the exact dual tower"]


def test_the_mixture_is_recommended_by_its_own_line():
    better = planted_results()
    records = [planted_record(seed, GOOD | {"factor": 0.2}) for seed in (1, 2, 3)]
    words = words_of(replace(better, analysis=analyse(StudyScores(records, n_resamples=50))))
    assert words["use"].startswith("Use the factor mixture (")
    assert words["code"] == "DualTowerMoERegressor.for_spectra(wave).fit(X, y, regimes=regimes)"
    assert "is worth +" in words["exact"]


def calibrated(record, width=1.0):
    """Give a record a factor mixture whose densities the targets follow, but for their width."""
    rng, n_rows = np.random.default_rng(record.seed), record.n_validation + len(record.y)
    means, weights = rng.normal(size=(n_rows, 3)), rng.dirichlet(np.ones(3), size=n_rows)
    variances = rng.uniform(0.01, 1, size=(n_rows, 3))
    drawn = (rng.uniform(size=(n_rows, 1)) > weights.cumsum(axis=1)).sum(axis=1)
    own = np.arange(n_rows), drawn
    y = means[own] + np.sqrt(variances[own]) * rng.normal(size=n_rows)
    record.y = y[record.n_validation :]
    record.traces["factor"] = {
        "log_weights": np.log(weights), "expert_predictions": means, "expert_variances": width**2 * variances
    }  # fmt: skip
    return record


def test_calibrated_densities_are_found_calibrated_and_wide_ones_are_not():
    def densities(width):
        records = [calibrated(planted_record(seed, {}, n_samples=3000), width) for seed in (1, 2)]
        return analyse(StudyScores(records, n_resamples=20)), records

    found, records = densities(1.0)
    shown = found.densities
    rows = found.rows.by_slice
    for name, counts in shown.pit.items():
        mean = rows[name] / len(counts)
        assert sum(counts) == rows[name]
        assert_allclose(counts, mean, atol=4 * np.sqrt(mean))
        assert_allclose(shown.coverage[name], [0.68, 0.9, 0.95], atol=4 * np.sqrt(0.25 / rows[name]))
    assert len(shown.truths) == len(shown.densities) == 6
    assert shown.snr == sorted(shown.snr)
    assert set(shown.truths) <= set(records[0].y)
    assert_allclose(np.trapezoid(shown.densities, shown.y, axis=1), 1, atol=0.02)
    assert all(shares[0] > 0.8 for shares in densities(2.0)[0].densities.coverage.values())
    drawn = draw_figures(replace(planted_results(), analysis=found))
    assert {"densities", "pit"} <= drawn.keys()


def test_the_temperature_of_blind_weights_is_read_and_its_parts_follow_what_was_planted():
    """Blind evidence that follows the regime, and what errors change of it, which follows the SNR."""
    record = planted_record(1, {})
    bins = np.digitize(record.snr, [2, 4, 7])
    zeros, regimes = np.zeros((record.n_validation, 9)), np.eye(9)[record.regimes]
    blind, change = 5 * regimes, 5 * np.eye(9)[bins]
    noise = 0.1 * np.random.default_rng(0).normal(size=(2, *blind.shape))
    record.traces["factor"] = record.traces[TEMPERED] = {
        "log_weights": np.vstack([zeros, blind + change + noise.sum(axis=0)]),
        "blind_evidence": np.vstack([zeros, blind + noise[0]]),
        "expert_predictions": np.zeros((2 * len(zeros), 9)),
        "temperatures": np.array([[2.0, 8.0, 4.0, 2.0, 1.0]] * 2),
        "snr": np.r_[record.snr, record.snr],
    }
    found = analyse(StudyScores([record], n_resamples=20)).gates
    assert found["factor"].axes["physics"].low > 0.8
    assert found["factor"].axes["quality"].low > 0.8
    cooled = found[TEMPERED].trends["temperature"]
    assert cooled.rho.high < -0.9
    assert_allclose([mean.value for mean in cooled.means], [8, 4, 2, 1])
