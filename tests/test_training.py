"""How the gates are trained: what they see, when they stop, what they leave behind."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from skorch.callbacks import EarlyStopping

from dualgate import DualTowerMoERegressor, HierarchicalExperts, PhysGate, QualityGate
from dualgate.gating import FUSIONS, NETWORKS, _nets

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 4))
REGIMES = (X[:, 0] > 0).astype(int)
Y = np.where(REGIMES, X[:, 1], -X[:, 1])
NOISE = RNG.normal(size=400)


def model(**params):
    return DualTowerMoERegressor(**{"random_state": 0, "max_epochs": 15, **params})


def spy(monkeypatch, **params):
    """Fit, and return the rows that reached the training and the validation set."""
    seen = []
    plain = _nets.Rows.__init__

    def watching(self, features, target):
        seen.append(features["phys"].numpy())
        plain(self, features, target)

    monkeypatch.setattr(_nets.Rows, "__init__", watching)
    fitted = model(**params).fit(X, Y, regimes=REGIMES)
    return fitted, *seen


def test_rows_held_out_to_stop_are_not_trained_on(monkeypatch):
    fitted, train, valid = spy(monkeypatch)
    assert (len(train), len(valid)) == (360, 40)
    together = np.vstack([train, valid])
    assert_allclose(together[np.lexsort(together.T)], X[np.lexsort(X.T)])
    assert "valid_loss" in fitted.history_[0]
    assert_allclose(fitted.net_.phys_tower.mean, train.mean(axis=0))


def test_without_held_out_rows_the_training_loss_is_watched(monkeypatch):
    fitted, train, _ = spy(monkeypatch, validation_fraction=0.0)
    assert len(train) == 400
    assert "valid_loss" not in fitted.history_[0]


def test_training_stops_early_and_goes_back_to_the_best_epoch():
    experts = HierarchicalExperts(random_state=0)
    predictions = experts.fit_predict_each(X, NOISE, regimes=REGIMES)
    held_out = np.arange(400) < 100
    target = np.column_stack([predictions, NOISE])
    training = {"max_epochs": 200, "lr": 0.05, "batch_size": 32, "warmup_epochs": 0, "patience": 3}
    training |= {"entropy_penalty": 0.0, "weight_decay": 0.0}
    networks = {"phys": lambda n_features, n_outputs: NETWORKS["mlp"](n_features, n_outputs, (32, 16))}
    net, history = _nets.fit_gates(
        {"phys": X}, networks, FUSIONS["concat"](), (2, 1), ("mse", target, held_out), training, seed=0
    )
    losses = [epoch["valid_loss"] for epoch in history]
    assert len(losses) < 200
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3
    weights = np.exp(_nets.run_gates(net, {"phys": X[held_out]})[2])
    assert_allclose(np.mean(((weights * predictions[held_out]).sum(1) - NOISE[held_out]) ** 2), losses[best], rtol=1e-4)


def test_warm_up_starts_slowly():
    def moved(warmup_epochs):
        net = model(max_epochs=1, warmup_epochs=warmup_epochs).fit(X, Y, regimes=REGIMES).net_
        start = model(max_epochs=1, lr=1e-12).fit(X, Y, regimes=REGIMES).net_
        return sum((a - b).abs().sum().item() for a, b in zip(net.parameters(), start.parameters(), strict=True))

    assert moved(warmup_epochs=10) < 0.5 * moved(warmup_epochs=0)


def test_batches_are_whole_and_shuffled():
    rows = _nets.Rows({"phys": torch.arange(100.0)[:, None]}, torch.arange(100))
    batches = list(_nets.Batches(rows, 32, torch.Generator().manual_seed(0)))
    assert [len(target) for _, target in batches] == [32, 32, 32, 4]
    order = torch.cat([target for _, target in batches])
    assert not torch.equal(order, torch.arange(100))
    assert torch.equal(order.sort().values, torch.arange(100))


def test_cross_entropy_learns_regime_and_quality_bin(planted):
    train, test = planted
    fitted = DualTowerMoERegressor(
        PhysGate([0, 1]),
        QualityGate(train.error, "passthrough"),
        experts=HierarchicalExperts(train.flux, train.error, quality_edges=(5,)),
        loss="cross_entropy",
        random_state=0,
    ).fit(train.X, train.y, regimes=train.regimes)
    cells = 2 * test.regimes + fitted.experts_.quality_bins(test.X)
    assert np.mean(fitted.predict_weights(test.X).argmax(axis=1) == cells) > 0.9


def test_rows_below_the_confidence_fall_back_and_no_others():
    fitted = model(max_epochs=3).fit(X, Y, regimes=REGIMES)
    confidence = fitted.predict_weights(X).max(axis=1)
    threshold = float(np.quantile(confidence, 0.2))
    trace = fitted.set_params(fallback_confidence=threshold).trace(X)
    assert_array_equal(trace.fell_back, confidence < threshold)
    assert 0 < trace.fell_back.mean() < 0.25


@pytest.mark.parametrize(
    ("params", "name"), [({"routing": 0}, "routing"), ({"fallback_confidence": 3}, "fallback_conf")]
)
def test_routing_is_checked_at_prediction_too(params, name):
    fitted = model(max_epochs=1).fit(X, Y, regimes=REGIMES).set_params(**params)
    with pytest.raises(ValueError, match=name):
        fitted.predict(X)


def test_a_constant_column_that_moves_later_has_no_say():
    constant = X.copy()
    constant[:, 3] = 0.1
    fitted = model(experts=HierarchicalExperts([1, 2])).fit(constant, Y, regimes=REGIMES)
    moved = constant.copy()
    moved[:, 3] += 5.0
    assert_array_equal(
        fitted.trace(moved).phys_logits,
        fitted.trace(constant).phys_logits,
    )


def test_a_large_offset_keeps_its_digits():
    dates = X.copy()
    dates[:, 0] = 2459000.5 + 0.05 * X[:, 0]
    experts = HierarchicalExperts([1, 2, 3])
    assert model(experts=experts).fit(dates, Y, regimes=REGIMES).score(dates, Y) > 0.9


@pytest.mark.parametrize("unit", [1e40, 1e-60])
def test_the_unit_of_the_columns_does_not_matter(unit):
    quality = QualityGate(subset_of := [2, 3], "passthrough")
    plain, other = (
        model(quality_gate=quality, experts=HierarchicalExperts([1, *subset_of]))
        .fit(X * u, Y, regimes=REGIMES)
        .predict(X * u)
        for u in (1.0, unit)
    )
    assert_allclose(other, plain, atol=1e-3)


def test_an_outlier_keeps_the_logits_moderate():
    fitted = model().fit(X, Y, regimes=REGIMES)
    wild = X[:1].copy()
    wild[0, 2] = 1e6
    assert np.abs(fitted.trace(wild).phys_logits).max() < 20 * np.abs(fitted.trace(X).phys_logits).max()
    assert np.isfinite(fitted.predict(np.full((1, 4), 1e39))).all()


def test_training_that_diverges_is_an_error():
    with pytest.raises(ValueError, match="lr=1e"):
        model(lr=1e30).fit(X, Y, regimes=REGIMES)


@pytest.mark.parametrize("hook", ["on_batch_end", "on_epoch_end"])
def test_an_interrupt_leaves_the_fit_and_no_half_trained_gates(hook, monkeypatch):
    def interrupt(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt

    fitted = model(max_epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr(EarlyStopping, hook, interrupt)
        with pytest.raises(KeyboardInterrupt):
            fitted.fit(X, Y, regimes=REGIMES)
    with pytest.raises(ValueError, match="not fitted"):
        fitted.predict(X)
    again = fitted.fit(X, Y, regimes=REGIMES).predict(X)
    assert_array_equal(again, model(max_epochs=3).fit(X, Y, regimes=REGIMES).predict(X))


def test_a_refit_that_fails_leaves_no_model_behind():
    fitted = model(max_epochs=1).fit(X, Y, regimes=REGIMES)
    with pytest.raises(ValueError, match="negative"):
        fitted.fit(X, Y, regimes=REGIMES - 1)
    with pytest.raises(ValueError, match="not fitted"):
        fitted.predict(X)


def test_found_regimes_hold_twenty_rows_or_more_on_average():
    assert model(max_epochs=1).fit(X[:60], Y[:60]).experts_.n_regimes_ == 3


def test_threads_are_left_as_they_were():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model(max_epochs=1).fit(X, Y, regimes=REGIMES)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_cache_knows_rows_names_callables_and_found_regimes(tmp_path):
    def fit(memory, data=X, columns=(0,), **params):
        gate = PhysGate(list(columns) if isinstance(columns, tuple) else columns)
        return model(max_epochs=1, phys_gate=gate, memory=memory, **params).fit(data, Y)

    fits = [
        {"data": X + 1.0},
        {"data": pd.DataFrame(X, columns=list("abcd")), "columns": ("a",)},
        {"data": pd.DataFrame(X, columns=list("badc")), "columns": ("a",)},
        {"columns": lambda X: [1]},
        {"columns": lambda X: [2]},
        {"n_regimes": 2},
        {"n_regimes": 5},
    ]
    for params in fits:
        data = params.get("data", X)
        assert_array_equal(fit(str(tmp_path), **params).predict(data), fit(None, **params).predict(data))


def test_frames_as_output_do_not_disturb():
    with config_context(transform_output="pandas"):
        fitted = model(max_epochs=1).fit(X, Y, regimes=REGIMES)
        assert_array_equal(fitted.predict(X), model(max_epochs=1).fit(X, Y, regimes=REGIMES).predict(X))


def test_a_trace_is_no_view_of_the_data():
    fitted = model(max_epochs=1).fit(X, Y, regimes=REGIMES)
    assert not np.shares_memory(fitted.trace(X).phys_features, X)


def test_an_unknown_word_for_a_gate_is_told_about_drop():
    with pytest.raises(ValueError, match="'drop'"):
        model(phys_gate="dropp").fit(X, Y)
