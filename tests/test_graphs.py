"""Mixtures as torch modules and ONNX graphs: what they predict is what the mixture predicts."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from dualgate import DualTowerMoERegressor, FactorExperts, HierarchicalExperts, PhysGate, QualityGate
from dualgate.datasets import make_spectra
from dualgate.export import export_onnx, to_torch
from dualgate.features import Nuisances, SignalPCA, WienerScores
from dualgate.gating import FUSIONS

P = 20
FLUX, ERROR = slice(0, P), slice(P, 2 * P)
WIENER = WienerScores(4, columns=FLUX, error_columns=ERROR, supervised=True)


def draw(n_rows, seed):
    rng = np.random.default_rng(seed)
    planted = np.random.default_rng(9)
    regimes, factors = rng.integers(3, size=n_rows), rng.normal(size=(n_rows, 4))
    y = 2 + 3 * np.einsum("ij,ij->i", factors, planted.normal(size=(3, 4))[regimes])
    error = np.exp(rng.uniform(-2, 0.5, size=(n_rows, 1))) * rng.uniform(0.9, 1.1, size=(n_rows, P))
    flux = 3 + factors @ planted.normal(size=(4, P)) + error * rng.normal(size=error.shape)
    return np.hstack([flux, error]), y, regimes


X, Y, REGIMES = draw(600, 0)
UNSEEN = draw(300, 1)[0]


def factor(**params):
    return FactorExperts(FLUX, ERROR, **{"n_components": 6, "n_factors": 2, "refine": 1, "random_state": 0, **params})


def hierarchical(projection="wiener", **params):
    return HierarchicalExperts(FLUX, ERROR, projection=projection, n_components=4, **{"clip": True, **params})


def mixture(**params):
    gates = PhysGate(FLUX), QualityGate(ERROR, score_variances=True)
    experts = hierarchical(quality_edges=(5.0, 20.0))
    defaults = {"phys_gate": gates[0], "quality_gate": gates[1], "experts": experts, "max_epochs": 2, "random_state": 0}
    return DualTowerMoERegressor(**defaults | params)


def frozen():
    return FrozenEstimator(WienerScores(3, columns=FLUX, error_columns=ERROR).fit(X))


QUALITY = QualityGate(ERROR)
KINDS = {
    "factor": factor,
    "factor, frozen scores": lambda: factor(projection=frozen()),
    "factor, no towers": lambda: mixture(phys_gate="drop", quality_gate="drop", experts=factor()),
    "factor, both towers": lambda: mixture(experts=factor()),
    "both towers": mixture,
    "one tower": lambda: mixture(quality_gate="drop"),
    "plain columns": lambda: mixture(quality_gate=QUALITY, experts=hierarchical(None, clip=False)),
    "whitened": lambda: mixture(quality_gate=QUALITY, experts=hierarchical("whitened")),
    "components": lambda: mixture(
        phys_gate=PhysGate(FLUX, "passthrough", network="cnn", discriminants=False),
        quality_gate=QualityGate(ERROR, network="cnn"),
        experts=HierarchicalExperts(FLUX, projection=SignalPCA(4)),
    ),
    **{f"both towers, {name}": lambda name=name: mixture(fusion=name) for name in FUSIONS if name != "concat"},
}


def fitted(kind):
    return KINDS[kind]().fit(X, Y, regimes=REGIMES)


def assert_same(model, rows, found, tolerance=1e-5):
    expected = model.predict(rows, return_std=True)
    for name, values, wanted in zip(("mean", "std"), found, expected, strict=True):
        assert_allclose(np.asarray(values), wanted, rtol=0, atol=tolerance * Y.std(), err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_predicts_what_the_mixture_predicts(kind):
    model = fitted(kind)
    module = to_torch(model)
    with torch.no_grad():
        assert_same(model, UNSEEN, module(torch.from_numpy(UNSEEN)))
        single = UNSEEN.astype(np.float32)
        assert_same(model, single, module(torch.from_numpy(single)), 1e-4)
        one = module(torch.from_numpy(UNSEEN[:1]))
    assert [values.shape for values in one] == [(1,), (1,)]


def test_pixels_that_were_not_measured():
    model, rows = fitted("factor"), UNSEEN.copy()
    rows[::3, 2], rows[1::3, P + 5], rows[2::3, P + 7] = np.nan, np.nan, np.inf
    with torch.no_grad():
        assert_same(model, rows, to_torch(model)(torch.from_numpy(rows)))


@pytest.mark.parametrize("experts", ["factor", "hierarchical"])
def test_models_for_spectra(experts):
    data = make_spectra(700, random_state=0)
    params = {"experts__n_components": 9, "experts__refine": 1} if experts == "factor" else {"max_epochs": 1}
    params |= {} if experts == "factor" else {"experts__quality_edges": None}
    model = DualTowerMoERegressor.for_spectra(
        data.wave, experts=experts, robust=False, random_state=0, experts__projection__max_iter=2, **params
    )
    model.fit(data.X[:600], data.y[:600], regimes=data.regimes[:600])
    rows = data.X[600:].astype(np.float64)
    with torch.no_grad():
        found = to_torch(model)(torch.from_numpy(rows))
    for values, wanted in zip(found, model.predict(rows, return_std=True), strict=True):
        assert_allclose(values, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["factor", "factor, both towers", "both towers", "whitened", "plain columns"])
def test_an_onnx_graph_predicts_what_the_mixture_predicts(kind, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = fitted(kind)
    export_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    for rows in (UNSEEN, UNSEEN[:1]):
        assert_same(model, rows, session.run(["mean", "std"], {"X": rows}))


NUISANCES = Nuisances(np.linspace(8000, 8040, P), velocity=150.0)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (factor(projection=WienerScores(4, columns=FLUX, error_columns=ERROR, nuisances=NUISANCES)), r"nuisances=Nuis"),
        (FactorExperts(FLUX, n_components=3, n_factors=2, random_state=0), r"FactorExperts\.projection"),
        (mixture(routing="hard"), r"routing='hard'"),
        (mixture(fallback_confidence=0.5), r"fallback_confidence=0\.5"),
        (mixture(phys_gate=PhysGate(FLUX, PCA(3))), r"phys_gate\.features=PCA"),
        (mixture(experts=hierarchical(PCA(3)), quality_gate=QUALITY), r"HierarchicalExperts\.projection=PCA"),
    ],
)
def test_what_is_not_supported_is_named(model, named):
    with pytest.raises(ValueError, match=named):
        to_torch(model.fit(X, Y, regimes=REGIMES))


def test_what_is_no_mixture():
    with pytest.raises(NotFittedError):
        to_torch(mixture())
    with pytest.raises(TypeError, match="HierarchicalExperts must be"):
        to_torch(hierarchical())
    with pytest.raises(ValueError, match="2 targets"):
        to_torch(factor().fit(X, np.column_stack([Y, -Y])))


def test_a_module_is_apart_from_its_model():
    model = fitted("both towers")
    module = to_torch(model)
    with torch.no_grad():
        before = [values.clone() for values in module(torch.from_numpy(UNSEEN))]
        for values in model.net_.parameters():
            values.zero_()
        model.experts_.coef_[:] = 0
        for values, wanted in zip(module(torch.from_numpy(UNSEEN)), before, strict=True):
            assert torch.equal(values, wanted)
