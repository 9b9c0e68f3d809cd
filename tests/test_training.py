"""How the gates are trained: which rows and batches they see, when training stops, and what it leaves unchanged."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.model_selection import cross_val_score
from skorch.callbacks import LRScheduler
from skorch.dataset import Dataset
from torch import nn

from dualgate import HierarchicalExperts, PhysGate, QualityGate
from dualgate.gating import FUSIONS, NETWORKS, training
from dualgate.gating.training import Batches, GateSettings, GateTarget, fit_gates, run_gates
from small_models import NOISE, REGIMES, X, Y, fitted, model, planted_model

HELD_OUT = np.arange(400) < 100


def dropping(n_features, n_outputs):
    return nn.Sequential(nn.Linear(n_features, 16), nn.Dropout(0.5), nn.SiLU(), nn.Linear(16, n_outputs))


def normalising(n_features, n_outputs):
    return nn.Sequential(nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, n_outputs))


def squared_error(y):
    predictions = HierarchicalExperts(random_state=0).fit_predict_each(X, y, regimes=REGIMES)
    return GateTarget("mse", np.column_stack([predictions, y]), HELD_OUT)


def settings(**params):
    plain = {"max_epochs": 200, "lr": 0.05, "batch_size": 32, "warmup_epochs": 0, "patience": 3}
    return GateSettings(**plain | {"entropy_penalty": 0.0, "weight_decay": 0.0} | params)


def fit_physics_gate(target, how, **params):
    networks = {"phys": lambda n_features, n_outputs: NETWORKS["mlp"](n_features, n_outputs, (32, 16))}
    return fit_gates({"phys": X}, networks, FUSIONS["concat"](), 2, 1, target, how, seed=0, **params)


@pytest.mark.parametrize(("fraction", "n_held_out"), [(0.1, 40), (0.0, 0)])
def test_rows_held_out_to_stop_are_not_trained_on(fraction, n_held_out, monkeypatch):
    seen = []

    def watching(features, target):
        seen.append(features["phys"].numpy())
        return Dataset(features, target)

    monkeypatch.setattr(training, "Dataset", watching)
    found = fitted(validation_fraction=fraction, phys_gate=PhysGate(discriminants=False))
    train, valid = seen
    assert (len(train), len(valid)) == (400 - n_held_out, n_held_out)
    together = np.vstack(seen)
    assert_allclose(together[np.lexsort(together.T)], X[np.lexsort(X.T)])
    assert ("valid_loss" in found.history_[0]) == (n_held_out > 0)
    assert_allclose(found.net_.towers["phys"].mean, train.mean(axis=0))


def test_training_stops_early_and_goes_back_to_the_best_epoch():
    target = squared_error(NOISE)
    net, history = fit_physics_gate(target, settings())
    losses = [epoch["valid_loss"] for epoch in history]
    assert len(losses) < 200
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3
    weights = np.exp(run_gates(net, {"phys": X[HELD_OUT]})[2])
    residuals = (weights * target.values[HELD_OUT, :-1]).sum(1) - NOISE[HELD_OUT]
    assert_allclose(np.mean(residuals**2), losses[best], rtol=1e-4)


@pytest.mark.parametrize("penalty", [0.0, -10.0])
def test_a_loss_that_does_not_move_ends_training_whatever_its_sign(penalty):
    history = fitted(entropy_penalty=penalty, lr=1e-12, patience=3).history_
    assert np.sign(history[0]["valid_loss"]) == (1 if penalty == 0 else -1)
    assert len(history) == 1 + 3


@pytest.mark.parametrize("network", ["mlp", dropping])
def test_fits_in_threads_equal_serial_ones_bit_for_bit(network):
    quick = model(phys_gate=PhysGate(network=network), max_epochs=5)

    def scores(n_jobs):
        with parallel_config("threading", n_jobs=n_jobs):
            return cross_val_score(quick, X, Y, cv=8, params={"regimes": REGIMES})

    state, n_threads = torch.get_rng_state(), torch.get_num_threads()
    assert_array_equal(scores(4), scores(1))
    assert torch.equal(torch.get_rng_state(), state)
    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(torch.get_num_threads).result() == n_threads


def test_a_fit_leaves_the_generator_and_the_threads_of_torch_as_they_were():
    def failing(n_features, n_outputs):
        torch.rand(1)
        raise ZeroDivisionError

    before, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        fitted(max_epochs=1, phys_gate=PhysGate(network=dropping))
        with pytest.raises(ZeroDivisionError):
            fitted(phys_gate=PhysGate(network=failing))
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(before)


def test_verbose_prints_a_plain_line_for_every_epoch(capsys):
    history = fitted(max_epochs=3, verbose=1).history_
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("DualTowerMoERegressor: ")] == [
        f"epoch {epoch['epoch']}/3  train {epoch['train_loss']:.4g}  valid {epoch['valid_loss']:.4g}"
        for epoch in history
    ]
    assert len(lines) == len(history) + 3  # and what was done before the gates, with its time


def test_warm_up_starts_slowly():
    start = fitted(max_epochs=1, lr=1e-12).net_

    def moved(warmup_epochs):
        net = fitted(max_epochs=1, warmup_epochs=warmup_epochs).net_
        return sum((a - b).abs().sum().item() for a, b in zip(net.parameters(), start.parameters(), strict=True))

    assert moved(warmup_epochs=10) < 0.5 * moved(warmup_epochs=0)


@pytest.mark.parametrize(("n_rows", "sizes"), [(100, [32, 32, 32, 4]), (97, [32, 32, 33]), (1, [1]), (64, [32, 32])])
def test_training_batches_are_whole_and_shuffled_and_none_has_one_row(n_rows, sizes):
    rows = Dataset({"phys": torch.arange(n_rows)[:, None]}, torch.arange(n_rows))
    batches = Batches(rows, 32, torch.Generator().manual_seed(0))
    seen = [target for _, target in batches]
    assert [len(target) for target in seen] == sizes
    assert len(batches) == len(sizes)
    assert torch.equal(torch.cat(seen).sort().values, rows.y)
    assert n_rows == 1 or not torch.equal(torch.cat(seen), rows.y)
    for (_, target), expected in zip(Batches(rows, 32), rows.y.split(32), strict=True):  # of evaluation
        assert torch.equal(target, expected)


def test_batch_normalisation_trains_where_one_row_is_left_over():
    some = model(phys_gate=PhysGate(network=normalising), batch_size=32, validation_fraction=0.0)
    assert np.isfinite(some.fit(X[:33], Y[:33], regimes=REGIMES[:33]).predict(X)).all()


def test_cross_entropy_learns_regime_and_quality_bin(planted):
    train, test = planted
    found = planted_model(train, experts__quality_edges=(5,), loss="cross_entropy")
    found.fit(train.X, train.y, regimes=train.regimes)
    cells = 2 * test.regimes + found.experts_.quality_bins(test.X)
    assert np.mean(found.predict_weights(test.X).argmax(axis=1) == cells) > 0.9


def test_routing_is_checked_at_prediction_too():
    found = fitted(max_epochs=1)
    for params in ({"routing": 0}, {"routing": "soft", "fallback_confidence": 3}):
        with pytest.raises(ValueError, match=f"{list(params)[-1]}="):
            found.set_params(**params).predict(X)


def test_a_constant_column_that_differs_at_prediction_is_ignored():
    constant, moved = X.copy(), X.copy()
    constant[:, 3], moved[:, 3] = 0.1, 5.1
    found = model(experts=HierarchicalExperts([1, 2])).fit(constant, Y, regimes=REGIMES)
    assert_array_equal(found.trace(moved).phys_logits, found.trace(constant).phys_logits)


def test_a_large_offset_keeps_its_digits():
    dates = X.copy()
    dates[:, 0] = 2459000.5 + 0.05 * X[:, 0]
    experts = HierarchicalExperts([1, 2, 3])
    assert model(experts=experts).fit(dates, Y, regimes=REGIMES).score(dates, Y) > 0.9


@pytest.mark.parametrize("unit", [1e40, 1e-60])
def test_the_unit_of_the_columns_does_not_matter(unit):
    some = model(quality_gate=QualityGate([2, 3], "passthrough"), experts=HierarchicalExperts([1, 2, 3]))
    plain, other = (some.fit(X * u, Y, regimes=REGIMES).predict(X * u) for u in (1.0, unit))
    assert_allclose(other, plain, atol=1e-3)


def test_an_outlier_keeps_the_logits_moderate():
    found, wild = fitted(), X[:1].copy()
    wild[0, 2] = 1e6
    assert np.abs(found.trace(wild).phys_logits).max() < 20 * np.abs(found.trace(X).phys_logits).max()
    assert np.isfinite(found.predict(np.full((1, 4), 1e39))).all()


@pytest.mark.parametrize(
    ("params", "words"), [({"lr": 1e30}, "lr=1e"), ({"entropy_penalty": 1e300}, r"penalty closer to zero than 1e\+300")]
)
def test_training_that_diverges_is_an_error(params, words):
    with pytest.raises(ValueError, match=words):
        fitted(**params)


@pytest.mark.parametrize("hook", ["on_batch_end", "on_epoch_end", None])
def test_a_fit_that_ends_early_leaves_no_half_trained_gates(hook, monkeypatch):
    def interrupt(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt

    found = fitted(max_epochs=3)
    expected = found.predict(X)
    with monkeypatch.context() as patch:
        if hook is not None:
            patch.setattr(LRScheduler, hook, interrupt)
        with pytest.raises((KeyboardInterrupt, ValueError), match=None if hook else "negative"):
            found.fit(X, Y, regimes=REGIMES if hook else REGIMES - 1)
    with pytest.raises(ValueError, match="not fitted"):
        found.predict(X)
    assert_array_equal(found.fit(X, Y, regimes=REGIMES).predict(X), expected)


def test_found_regimes_hold_twenty_rows_or_more_on_average():
    assert model(max_epochs=1).fit(X[:60], Y[:60]).experts_.n_regimes_ == 3


def test_the_cache_distinguishes_rows_names_callables_and_found_regimes(tmp_path):
    def fit(memory, data=X, columns=(0,), **params):
        gate = PhysGate(list(columns) if isinstance(columns, tuple) else columns)
        return model(max_epochs=1, phys_gate=gate, memory=memory, **params).fit(data, Y).predict(data)

    for params in (
        {"data": X + 1.0},
        {"data": pd.DataFrame(X, columns=list("abcd")), "columns": ("a",)},
        {"data": pd.DataFrame(X, columns=list("badc")), "columns": ("a",)},
        {"columns": lambda X: [1]},
        {"columns": lambda X: [2]},
        {"n_regimes": 2},
        {"n_regimes": 5},
    ):
        assert_array_equal(fit(str(tmp_path), **params), fit(None, **params))


def test_frames_as_output_do_not_disturb_and_a_trace_is_no_view_of_the_data():
    expected = fitted(max_epochs=1)
    assert not np.shares_memory(expected.trace(X).phys_features, X)
    with config_context(transform_output="pandas"):
        assert_array_equal(fitted(max_epochs=1).predict(X), expected.predict(X))
