"""What a tower may be made of, how sharp its gates are asked to be, and what is said when they collapse."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import entropy
from sklearn.base import clone
from torch import nn

from dualgate import HierarchicalExperts, PhysGate, QualityGate
from dualgate.gating import NETWORKS, GateCollapseWarning, nets
from dualgate.gating.collapse import COLLAPSED_FROM, STARVED_BELOW, warn_of_collapse
from dualgate.gating.training import GateLoss
from small_models import REGIMES, X, Y, fitted, model, planted_model


def wide_linear(n_features, n_outputs):
    """A network of the user's own, at module level so that it pickles."""
    return nn.Sequential(nn.Linear(n_features, 24), nn.Tanh(), nn.Linear(24, n_outputs))


def like_the_name(n_features, n_outputs):
    return NETWORKS["cnn"](n_features, n_outputs, (24,))


class Blind(nn.Module):
    """Ignores the features and gives the first output all."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.register_buffer("logits", 30.0 * torch.eye(n_outputs)[0])

    def forward(self, features):
        return self.logits.expand(len(features), -1)


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5, 4)])
@pytest.mark.parametrize("n_features", [1, 2, 3, 7, 31, 32, 100])
@pytest.mark.parametrize("alias", sorted(NETWORKS))
def test_a_network_weighs_any_number_of_features_row_by_row(alias, n_features, hidden):
    module = NETWORKS[alias](n_features, 5, hidden)
    features = torch.randn(6, n_features, generator=torch.Generator().manual_seed(0))
    logits = module(features)
    assert logits.shape == (6, 5)
    torch.testing.assert_close(module(features.flip(0)), logits.flip(0))
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())  # no layer without a say


@pytest.mark.parametrize("hidden", [(), (8, 4)])
@pytest.mark.parametrize("network", [*sorted(NETWORKS), wide_linear])
def test_any_network_finds_planted_regimes(planted, network, hidden):
    train, test = planted
    found = planted_model(train, phys_gate__network=network, phys_gate__hidden=hidden, max_epochs=8, start="linear")
    found.fit(train.X[:2000], train.y[:2000], regimes=train.regimes[:2000])
    assert np.mean(found.predict_weights(test.X).argmax(axis=1) == test.regimes) > 0.9


def test_convolutions_find_a_pattern_wherever_it_stands_and_a_linear_gate_does_not():
    rng = np.random.default_rng(3)
    n_rows, kinds = 1200, rng.integers(0, 2, 1200)
    pixels = 0.1 * rng.normal(size=(n_rows, 40))
    shapes = np.array([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]])  # at any place, of either sign
    starts = rng.integers(0, 36, n_rows)
    signs = rng.choice([-1, 1], (n_rows, 1))
    pixels[np.arange(n_rows)[:, None], starts[:, None] + np.arange(4)] += signs * shapes[kinds]
    z = rng.normal(size=n_rows)
    X, y = np.column_stack([pixels, z]), np.where(kinds, z, -z)

    def hits(**params):
        fitted = model(
            max_epochs=10,
            phys_gate=PhysGate(slice(0, 40), "passthrough", **params),
            quality_gate="drop",
            fusion="logit_add",  # which adds no layer of its own
            experts=HierarchicalExperts([40]),
        ).fit(X[:900], y[:900], regimes=kinds[:900])
        return np.mean(fitted.predict_weights(X[900:]).argmax(axis=1) == kinds[900:])

    assert hits(network="cnn", hidden=(6, 6)) > 0.95
    assert hits(hidden=()) < 0.7


def test_a_network_of_ones_own_is_what_the_name_would_build_and_clones_and_pickles():
    named, own = (
        fitted(phys_gate=PhysGate(network=network, hidden=(24,)), max_epochs=3) for network in ("cnn", like_the_name)
    )
    assert_array_equal(own.predict(X), named.predict(X))
    assert_array_equal(pickle.loads(pickle.dumps(own)).predict(X), own.predict(X))
    assert_array_equal(clone(own).fit(X, Y, regimes=REGIMES).predict(X), own.predict(X))


def test_a_network_sees_standardised_features_in_single_precision():
    seen = []

    class Watching(nn.Linear):
        def forward(self, features):
            seen.append(features)
            return super().forward(features)

    watching = model(phys_gate=PhysGate(network=Watching, discriminants=False), max_epochs=1)
    watching.fit(1e3 + 50 * X, Y, regimes=REGIMES)
    rows = max(seen, key=len)
    assert (rows.dtype, tuple(rows.shape)) == (torch.float32, (400, 4))
    assert_allclose(rows.mean(0), 0, atol=0.1)
    assert_allclose(rows.std(0), 1, atol=0.1)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda n_features, n_outputs: None, r"returned None: it must return a torch\.nn\.Module from features"),
        (lambda n_features, n_outputs: nn.Linear(n_features, 7), r"into \(2, 7\), not \(2, 2\)"),
        (lambda n_features, n_outputs: nn.Linear(9, n_outputs), r"fails on float32 features of shape \(2, 4\)"),
        (lambda n_features, n_outputs: nn.LSTM(n_features, n_outputs), r"into tuple, not \(2, 2\)"),
        (nn.Linear(4, 2), "is a module: give what makes one"),
    ],
)
@pytest.mark.parametrize(("gate", "name"), [(PhysGate, "phys_gate"), (QualityGate, "quality_gate")])
def test_a_network_that_is_none_is_named(gate, name, network, message):
    wrong = model(**{name: gate(features="passthrough", network=network)}).set_params(phys_gate__discriminants=False)
    with pytest.raises(ValueError, match=rf"{gate.__name__}\.network=.*{message}"):
        wrong.fit(X, Y, regimes=REGIMES)


def test_a_large_set_goes_through_the_net_in_parts(monkeypatch):
    found = fitted(max_epochs=1)
    whole = found.trace(X)
    monkeypatch.setattr(nets, "RUN_ROWS", 130)
    assert_allclose(found.trace(X).log_weights, whole.log_weights, rtol=1e-5)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_the_larger_the_penalty_the_lower_the_entropy(planted, loss):
    train, test = planted
    some, entropies = planted_model(train, loss=loss, max_epochs=8), []
    for penalty in (-1.0, -0.03, 0.1):
        some.set_params(entropy_penalty=penalty).fit(train.X, train.y, regimes=train.regimes)
        entropies.append(entropy(some.predict_weights(test.X), axis=1).mean())
    assert np.all(np.diff(entropies) < 0)
    assert entropies[0] > 1.5 * entropies[-1]


def test_the_penalty_is_so_many_times_the_mean_entropy():
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    log_weights, target = logits.log_softmax(1), torch.randn(50, 7)
    plain = GateLoss("mse", 0.0)
    both = GateLoss("mse", 0.7)(log_weights, target)
    expected = plain(log_weights, target).item() + 0.7 * entropy(log_weights.exp().double().numpy(), axis=1).mean()
    assert_allclose(both.item(), expected, rtol=1e-5)


def test_no_penalty_changes_no_bit():
    plain = fitted(max_epochs=3).predict(X)
    assert not np.array_equal(fitted(max_epochs=3, entropy_penalty=0.01).predict(X), plain)
    for zero in (0, -0.0):
        assert_array_equal(fitted(max_epochs=3, entropy_penalty=zero).predict(X), plain)


def test_gates_that_give_one_expert_all_are_told(planted):
    train, _ = planted
    message = (
        r"DualTowerMoERegressor: the gates leave 3 of 4 experts without weight, whose cells hold 7\d% of the training "
        "rows: regime 1, regime 2, regime 3. Try a smaller lr"
    )
    binned = r"7 of 8 experts.*: regime 1, regime 2, regime 3, regime 0 in quality bin 1"
    blind = planted_model(train, phys_gate__network=Blind, quality_gate="drop", max_epochs=2)
    for params, words in (({}, message), ({"experts__quality_edges": (5,)}, binned)):
        with pytest.warns(GateCollapseWarning, match=words):
            blind.set_params(**params).fit(train.X, train.y, regimes=train.regimes)
    with pytest.warns(GateCollapseWarning):  # a learning rate that saturates the gates
        planted_model(train, lr=10.0, max_epochs=5).fit(train.X, train.y, regimes=train.regimes)


def test_starved_is_relative_to_a_cells_own_rows_and_a_few_are_no_collapse():
    counts = np.array([[9_000, 0], [990, 10]])
    even = counts.ravel() / counts.sum()
    warn_of_collapse("Model", 1.1 * STARVED_BELOW * even, counts)
    with pytest.warns(GateCollapseWarning, match=r"leave 3 of 4 .* 100%.*: regime 1, regime 0 in quality bin 0\."):
        warn_of_collapse("Model", 0.9 * STARVED_BELOW * even, counts)
    one, edge = np.array([1.0, 0.0]), int(1000 * COLLAPSED_FROM)
    warn_of_collapse("Model", one, np.array([[1001 - edge], [edge - 1]]))
    with pytest.warns(GateCollapseWarning):
        warn_of_collapse("Model", one, np.array([[1000 - edge], [edge]]))
