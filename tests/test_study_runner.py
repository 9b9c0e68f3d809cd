from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import r2_score
from sklearn.utils import Bunch

from dualgate import HierarchicalExperts
from dualgate.experts import EmptyCellWarning
from dualgate.gating import FUSIONS
from dualgate.study.analysis import FAIL, PASS
from dualgate.study.methods import BOTH, DUAL, METHODS, SINGLE, TABLE, VARIANT
from dualgate.study.run import plan_stages, run_study
from planted_study import BASIC, analyse, planted_model, planted_rows, quick_model


def fitted(model, data):
    """Fit a mixture to the training rows without the study."""
    reduction = model.make_reduction().fit(data.X[:1200], data.y[:1200], regimes=data.regimes[:1200])
    rows = reduction.read(data.X[:1200], training=True)
    return model.fit(rows, data.y[:1200], regimes=data.regimes[:1200])


def study(data, methods, seed=3):
    """The record of one seed, and the stages that ran."""
    methods, ran = [METHODS[each] if isinstance(each, str) else each for each in methods], []
    (record,) = run_study(
        lambda seed: data, [seed], methods, make_model=quick_model, watch=lambda stage: nullcontext(ran.append(stage))
    )
    return record, ran


def test_runner_trains_on_the_first_rows_and_keeps_the_last():
    data = planted_rows(7, n_samples=1500)
    record, ran = study(data, BASIC, 7)
    assert (record.n_train, record.n_validation, record.n_rows) == (1200, 150, 1500)
    assert_allclose(record.y, data.y[1350:])
    assert_allclose(record.snr, data.snr[1350:], rtol=1e-6)
    assert ran == plan_stages(BASIC, [7])
    # what a model learned does not depend on the targets and regimes of the rows held out
    changed = Bunch(X=data.X, y=data.y.copy(), regimes=data.regimes.copy(), snr=data.snr)
    changed.y[1200:], changed.regimes[1200:] = 99.0, 0
    other, _ = study(changed, BASIC, 7)
    for name in ("poe_9", "global"):
        assert_allclose(other.predictions[name], record.predictions[name], rtol=1e-6, atol=1e-9)
    # the oracle is the row's own expert
    model = quick_model(data, 7).set_params(fusion="poe")
    model.fit(data.X[:1200], data.y[:1200], regimes=data.regimes[:1200])
    oracle = model.experts_.predict(data.X[1350:], regimes=data.regimes[1350:])
    assert_allclose(record.predictions["oracle_9x4"], oracle, rtol=1e-4, atol=1e-5)


def test_rows_in_some_order_are_divided_at_random():
    data = planted_rows(7, n_samples=1500)
    data.ordered = True
    one, two = run_study(lambda seed: data, [1, 2], methods=BASIC[:1], make_model=quick_model)
    assert (one.n_train, len(one.y)) == (1200, 150)
    assert not np.isin(one.y, two.y).all()
    assert np.isin(one.y, data.y).all()
    assert np.isin(one.y, data.y[:1200]).any()


def test_main_methods_are_both_towers_alone_and_every_fusion_twice():
    found = {kind: sorted(m.name for m in TABLE if m.main and m.kind == kind) for kind in (SINGLE, DUAL)}
    for kind, names in ((SINGLE, BOTH), (DUAL, FUSIONS)):
        assert found[kind] == sorted(f"{name}_{experts}" for name in names for experts in ("9", "9x4"))
    assert len({method.name for method in TABLE}) == len(TABLE)


def test_methods_share_fits_and_reductions_and_predict_as_their_models_do():
    """Routing, oracle and root train nothing of their own; every reader reduces the rows once."""
    data = planted_rows(3, n_samples=1500)
    views = ["oracle_9", "global", "phys_9", "concat_9x4", "concat_9x4_hard", "concat_9x4_top3"]
    record, ran = study(data, [*views, "concat_9x4_whitened"])
    reading = ["reduction", "reduced rows"]
    assert [stage.kind for stage in ran] == ["rows", *reading, "fit 9", "fit 9x4", *reading, "fit 9x4"]
    assert {"reduction whitened", "reduced rows whitened"} <= record.seconds.keys()
    whitened = {"experts__projection": "whitened", "phys_gate__discriminants": True}
    for name, changes in [("", {}), ("_hard", {"routing": "hard"}), ("_top3", {"routing": 3}), ("_whitened", whitened)]:
        expected = fitted(quick_model(data, 3).set_params(**changes), data).predict(data.X[1350:])
        assert_allclose(record.predictions[f"concat_9x4{name}"], expected, rtol=1e-3, atol=1e-4)


def test_the_experts_of_quality_bins_have_no_regime():
    data = planted_rows(3, n_samples=1500)
    record, _ = study(data, ["oracle_4"])
    experts = HierarchicalExperts(slice(0, 12), slice(12, None), quality_edges=(2, 4, 7), random_state=0)
    experts.fit(data.X[:1200], data.y[:1200])
    expected = experts.predict(data.X[1350:], regimes=np.zeros(150, dtype=int))
    assert np.corrcoef(record.predictions["oracle_4"], expected)[0, 1] > 0.99  # other folds


@pytest.mark.parametrize("name", ["hist_gradient_boosting", "lightgbm"])
def test_a_peer_reads_projected_columns_and_quality_features(name):
    """Only quality features predict the error level so well, only projected columns a pixel."""
    method = METHODS[name]
    if method.package:
        pytest.importorskip(method.package)
    data = planted_rows(3, n_samples=2000)
    for target, reach in [(np.log(data.X[:, 12]), 0.99), (data.X[:, 8], 0.9)]:
        data.y = target.astype(float)
        record, _ = study(data, [method])
        assert r2_score(record.y, record.predictions[name]) > reach
        assert name not in record.entropy


def test_a_method_is_added_by_a_line():
    """The runner reads nothing of a method but its fields."""
    method = replace(METHODS["concat_9x4"], name="narrow", kind=VARIANT, settings={"quality_gate__hidden": (2,)})
    record, _ = study(planted_rows(3, n_samples=1500), [method])
    assert analyse([record], methods=[method], n_resamples=20).methods[0].name == "narrow"


def test_fields_of_a_method_are_those_of_what_it_changes():
    """Choices are made by fields: a variant has the towers, fusion and experts of its reference."""
    for method in TABLE:
        if method.kind == VARIANT:
            reference = METHODS[method.changes]
            fields = ("towers", "fusion", "experts", "view", "head")
            assert [getattr(method, name) for name in fields] == [getattr(reference, name) for name in fields]
        elif method.kind in (SINGLE, DUAL):
            dropped = {f"{tower}_gate" for tower in BOTH if tower not in method.towers}
            assert {name for name, value in method.parameters.items() if value == "drop"} == dropped


def test_a_regime_without_training_rows_has_an_expert():
    """The highest regime occurs among the last rows alone: its true-regime expert is the ridge for all rows."""
    data = planted_rows(3, n_samples=1500)
    data.regimes[1400:] = 3
    names = ("global", "oracle_9", "oracle_9x4", "phys_9", "concat_9", "concat_9x4")
    methods = [METHODS[name] for name in names]
    with pytest.warns(EmptyCellWarning, match="regime 3"):
        record, _ = study(data, methods)
    unseen = record.regimes == 3
    assert_allclose(record.predictions["oracle_9"][unseen], record.predictions["global"][unseen], rtol=1e-6)
    assert record.n_experts["phys_9"] == 4
    assert "regime 3" in analyse([record], methods=methods, n_resamples=20).rows.by_slice


def test_rows_without_regimes_and_errors_have_what_remains():
    """Regimes are found, and tables by regime or SNR are left out of the results."""
    data = planted_rows(3, n_samples=1500)
    data.regimes = data.snr = None
    methods = [METHODS[name] for name in ("global", "phys_9", "concat_9")]

    def model(data, seed):
        changes = {"experts__error_columns": None, "experts__quality_edges": None, "n_regimes": 3}
        return quick_model(data, seed).set_params(**changes)

    (record,) = run_study(lambda seed: data, [3], methods=methods, make_model=model)
    assert record.snr is None
    assert record.regimes is None
    results = analyse([record], methods=methods, n_resamples=20)
    assert all(gate.trends == {} for gate in results.gates.values())
    assert not any(name.startswith(("snr", "regime")) for name in results.rows.by_slice)
    assert {"gain", "gate"} <= {answer.key for answer in results.answers}


CASES = {  # which tower is informative: verdicts on the gains over one tower and over physics, towers recommended
    (True, True): (PASS, PASS, BOTH),
    (True, False): (FAIL, FAIL, BOTH[:1]),
    (False, True): (FAIL, None, BOTH[1:]),
    (False, False): (FAIL, FAIL, ()),
}


@pytest.mark.parametrize(("physics", "quality"), CASES)
def test_the_verdicts_follow_the_data(physics, quality):
    """Regimes with slopes of their own need the physics tower, rows that differ in noise the quality tower."""
    names = ("global", "oracle_9x4", "phys_9", "quality_9", "phys_9x4", "quality_9x4", "logit_add_9", "logit_add_9x4")
    records = run_study(
        lambda seed: planted_rows(seed, constant=not quality, alike=not physics, n_samples=4000),
        range(1, 4),
        methods=[METHODS[name] for name in names],
        make_model=lambda data, seed: planted_model(data, seed).set_params(max_epochs=12),
    )
    results = analyse(records, n_resamples=200)
    gain, over_physics, shipped = CASES[physics, quality]
    verdicts = {answer.key: answer.verdict for answer in results.answers}
    assert verdicts["gain"] == gain
    assert verdicts["physics"] == over_physics or (over_physics is None and verdicts["physics"] != FAIL)
    assert METHODS[results.recommendation.name].towers == shipped
