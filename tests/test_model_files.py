"""Model files: what is loaded is what was saved, bit for bit, and a file that was altered is refused."""

import hashlib
import io
import json
import pickle
import warnings
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, QuantileTransformer, RobustScaler, StandardScaler

from dualgate import DualTowerMoERegressor, FactorExperts, HierarchicalExperts, PhysGate, QualityGate
from dualgate.datasets import make_spectra
from dualgate.export import ModelFileError, load_model, save_model
from dualgate.export.model_files import CLASSES, MANIFEST, class_name, find_class
from dualgate.features import NoiseWhitenedPCA, Nuisances, SignalPCA, WienerScores
from dualgate.gating import FUSIONS, ConcatFusion, Fusion

P = 20
FLUX, ERROR = slice(0, P), slice(P, 2 * P)
RNG = np.random.default_rng(0)
REGIMES = RNG.integers(3, size=600)
_FACTORS = RNG.normal(size=(600, 4))
Y = np.einsum("ij,ij->i", _FACTORS, RNG.normal(size=(3, 4))[REGIMES])
_NOISE = np.exp(RNG.uniform(-2, 0.5, size=(600, 1))) * RNG.uniform(0.9, 1.1, P)
X = np.hstack([_FACTORS @ RNG.normal(size=(4, P)) + 3 + _NOISE * RNG.normal(size=_NOISE.shape), _NOISE])
HOLES = X.copy()
HOLES[::7, 3] = np.nan
WIENER = WienerScores(4, columns=FLUX, error_columns=ERROR, supervised=True)


def hierarchical(**params):
    return HierarchicalExperts(FLUX, ERROR, **{"n_components": 4, "random_state": 0, **params})


def factor(**params):
    return FactorExperts(FLUX, ERROR, **{"n_components": 6, "n_factors": 2, "refine": 1, "random_state": 0, **params})


def mixture(**params):
    gates = PhysGate(FLUX), QualityGate(ERROR, score_variances=True)
    experts = hierarchical(projection="wiener", quality_edges=(5.0, 20.0), clip=True)
    defaults = {"phys_gate": gates[0], "quality_gate": gates[1], "experts": experts, "max_epochs": 2, "random_state": 0}
    return DualTowerMoERegressor(**defaults | params)


CONVOLUTIONS = QualityGate(ERROR, network="cnn")
KINDS = {
    "ridges": lambda: hierarchical(projection=None),
    "ridges, whitened": lambda: hierarchical(projection=NoiseWhitenedPCA(4, columns=FLUX, error_columns=ERROR)),
    "ridges, frozen": lambda: hierarchical(projection=FrozenEstimator(WIENER.fit(X, Y, regimes=REGIMES))),
    "ridges, signal": lambda: HierarchicalExperts(FLUX, projection=SignalPCA(4), cv=KFold(3)),
    "factor": factor,
    "factor, estimated noise": lambda: FactorExperts(FLUX, n_components=4, n_factors=2, random_state=0),
    "factor, nuisances": lambda: factor(
        projection=WIENER.__class__(
            4, columns=FLUX, error_columns=ERROR, supervised=True, smooth=True,
            nuisances=Nuisances(np.linspace(8000, 8040, P), velocity=150.0, robust=True, free_errors=True),
        )
    ),
    "mixture": mixture,
    "mixture, one tower": lambda: mixture(quality_gate="drop", fallback_confidence=0.4, routing=2),
    "mixture, factor": lambda: mixture(phys_gate="drop", quality_gate="drop", experts=factor()),
    "mixture, factor and towers": lambda: mixture(experts=factor()),
    "mixture, found regimes": lambda: mixture(n_regimes=3, start="random", quality_gate=CONVOLUTIONS),
    **{f"mixture, {name}": lambda name=name: mixture(fusion=name) for name in FUSIONS if name != "concat"},
}  # fmt: skip


def fitted(kind):
    model = KINDS[kind]()
    return model.fit(X, Y, regimes=None if "found" in kind else REGIMES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small mixture and its file."""
    model = fitted("mixture")
    return model, save_model(model, tmp_path_factory.mktemp("saved") / "model.dualgate")


def outputs(model, rows):
    """All that a model says of rows, by name."""
    if isinstance(model, HierarchicalExperts):
        return {"each": model.predict_each(rows), "known": model.predict(rows, regimes=REGIMES[: len(rows)])}
    found = {"prediction": model.predict(rows)}
    if isinstance(model, DualTowerMoERegressor):
        trace = model.trace(rows)
        found |= {name: value for name, value in vars(trace).items() if isinstance(value, np.ndarray)}
        found |= {"weights": trace.weights}
        if model.fallback_confidence is None:
            found |= {"interval": model.predict_interval(rows, 0.5), "std": model.predict(rows, return_std=True)[1]}
    if isinstance(model, FactorExperts) or isinstance(model.experts_, FactorExperts):
        found |= {"std": model.predict(rows, return_std=True)[1], "novelty": model.novelty(rows)}
        found |= {"quantile": model.predict_density(rows).quantile(0.9)}
    return found


def assert_same(model, other, *sets):
    for rows in sets:
        for name, values in outputs(model, rows).items():
            assert_array_equal(values, outputs(other, rows)[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_is_the_one_that_was_saved(kind, tmp_path):
    model = fitted(kind)
    state = torch.get_rng_state()
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(loaded) == repr(model)
    assert_same(model, loaded, X[:100], X[:100].astype(np.float32))
    if "factor" in kind and "towers" not in kind and "estimated" not in kind:
        assert_same(model, loaded, HOLES[:100])
    again = save_model(loaded, tmp_path / "again")
    assert again.read_bytes() == (tmp_path / "model").read_bytes()


def test_the_models_for_spectra_can_be_saved(tmp_path):
    data = make_spectra(400, random_state=0)
    for params in (
        {"experts__n_components": 9, "experts__refine": 1},
        {"experts": "hierarchical", "max_epochs": 1, "experts__quality_edges": None},
    ):
        model = DualTowerMoERegressor.for_spectra(data.wave, random_state=0, experts__projection__max_iter=2, **params)
        model.fit(data.X, data.y, regimes=data.regimes)
        loaded = load_model(save_model(model, tmp_path / "model"))
        assert_same(model, loaded, data.X[:50])


def test_several_targets_and_names_of_columns_are_kept(tmp_path):
    frame = pd.DataFrame(X, columns=[f"p{i}" for i in range(2 * P)])
    names = list(frame.columns)
    model = factor().set_params(columns=names[:P], error_columns=names[P:]).fit(frame, np.column_stack([Y, -Y]))
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert_array_equal(loaded.feature_names_in_, names)
    assert_array_equal(loaded.predict(frame), model.predict(frame))
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame[names[::-1]])


@pytest.mark.parametrize(
    "transformer",
    [
        PCA(3, random_state=0),
        StandardScaler(),
        MinMaxScaler(),
        RobustScaler(),
        QuantileTransformer(n_quantiles=20, random_state=0),
        FunctionTransformer(np.sinh, inverse_func=np.arcsinh),
    ],
    ids=lambda each: type(each).__name__,
)
def test_transformers_of_scikit_learn(transformer, tmp_path):
    model = mixture(
        phys_gate=PhysGate(FLUX, transformer), quality_gate="drop", experts=hierarchical(projection=transformer)
    )
    model.fit(X, Y, regimes=REGIMES)
    assert_same(model, load_model(save_model(model, tmp_path / "model")), X[:50])


def test_a_pipeline_that_was_fitted_before(tmp_path):
    pipeline = make_pipeline(StandardScaler(), TruncatedSVD(3)).fit(X[:, FLUX])
    model = hierarchical(projection=FrozenEstimator(pipeline)).fit(X, Y, regimes=REGIMES)
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert_allclose(loaded.predict_each(X), model.predict_each(X), rtol=1e-9, atol=1e-12)  # the copy is contiguous


@pytest.mark.parametrize("seed", [np.random.default_rng(3), np.random.RandomState(3)], ids=["Generator", "RandomState"])
def test_a_loaded_model_goes_on_learning_as_the_saved_one(seed, tmp_path):
    model = hierarchical(projection=None, random_state=seed).partial_fit(X[:300], Y[:300], regimes=REGIMES[:300])
    loaded = load_model(save_model(model, tmp_path / "model"))
    for each in (model, loaded):
        each.partial_fit(X[300:], Y[300:], regimes=REGIMES[300:])
    assert_same(model, loaded, X)
    for each in (model, loaded):
        each.fit(X, Y, regimes=REGIMES)  # draws folds
    assert_same(model, loaded, X)


def test_axes_keep_their_order_in_memory(saved, tmp_path):
    loaded = load_model(saved[1])
    assert loaded.discriminants_.coef.strides == saved[0].discriminants_.coef.strides
    assert not saved[0].discriminants_.coef.flags.c_contiguous


def test_memory_is_left_out(tmp_path):
    model = mixture(memory=str(tmp_path / "cache")).fit(X, Y, regimes=REGIMES)
    assert load_model(save_model(model, tmp_path / "model")).memory is None
    assert model.memory == str(tmp_path / "cache")


def test_every_class_of_the_list_exists_under_its_name():
    assert {class_name(find_class(name)) for name in CLASSES} == CLASSES


# ---- what cannot be saved --------------------------------------------------------------------------------------------


def own_network(n_features, n_outputs):
    return torch.nn.Linear(n_features, n_outputs)


class OwnFusion(ConcatFusion):
    pass


def first_error(X):
    return [P]


def own_log(values):
    return np.log1p(np.abs(values))


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"phys_gate": PhysGate(FLUX, network=own_network)}, r"Regressor\.phys_gate\.network is <function own_network"),
        ({"fusion": OwnFusion()}, r"Regressor\.fusion is OwnFusion"),
        ({"quality_gate": QualityGate(first_error)}, r"Regressor\.quality_gate\.columns is <function first_error"),
        (
            {"phys_gate": PhysGate(FLUX, FunctionTransformer(own_log))},
            r"phys_gate\.features\.func is <function own_log",
        ),
    ],
)
def test_code_cannot_be_saved(params, named, tmp_path):
    model = mixture(**params).fit(X, Y, regimes=REGIMES)
    with pytest.raises(ModelFileError, match=named):
        save_model(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_fitted_model_cannot_be_saved(tmp_path):
    with pytest.raises(NotFittedError):
        save_model(mixture(), tmp_path / "model")
    with pytest.raises(TypeError, match="save_model: Pipeline is not among DualTowerMoERegressor"):
        save_model(make_pipeline(mixture()), tmp_path / "model")
    with pytest.raises(TypeError, match="save_model: PCA"):
        save_model(PCA(), tmp_path / "model")


def test_a_failed_write_leaves_the_old_file(saved, tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    monkeypatch.setattr(ZipFile, "writestr", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        save_model(saved[0], path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# ---- files that were altered -----------------------------------------------------------------------------------------


def unpack(path):
    with ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path, members, **options):
    with ZipFile(path, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def altered(saved, tmp_path, change, *, stated=True, **options):
    """Change members and manifest by a function; with `stated`, the manifest has the right hashes afterwards."""
    members = unpack(saved[1])
    manifest = json.loads(members.pop(MANIFEST))
    change(members, manifest)
    if stated:
        manifest["members"] = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    return pack(tmp_path / "altered", {MANIFEST: json.dumps(manifest), **members}, **options)


def npy(array, **header):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape, **header}
    )
    return buffer.getvalue() + array.tobytes()


def pickled():
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


class Bomb:
    """Writes a file when it is unpickled."""

    place = None

    def __reduce__(self):
        return Path.touch, (Path(self.place),)


def last_class(manifest, name):
    manifest["objects"][-1]["class"] = name


def put(members, manifest, data, name="arrays/0.npy"):
    members[name] = data


def widen(manifest):
    for entry in manifest["objects"]:
        if entry["class"].endswith("PhysGate"):
            entry["state"]["hidden"] = {"tuple": [10**9, 10**9]}


CHANGES = {
    "a pickled array": (lambda m, f: put(m, f, pickled()), r"arrays/0.npy has the type object"),
    "a huge shape": (lambda m, f: put(m, f, npy(np.zeros(3), shape=(10**12,))), r"states the shape \(1000000000000,\)"),
    "a negative shape": (lambda m, f: put(m, f, npy(np.zeros(3), shape=(-1, 3))), "states the shape|damaged"),
    "a shape that overflows": (lambda m, f: put(m, f, npy(np.zeros(3), shape=(2**61, 8, 3))), "states the shape"),
    "structured numbers": (lambda m, f: put(m, f, npy(np.zeros(3, "f8,f8"))), "has the type|damaged"),
    "another version of npy": (lambda m, f: put(m, f, b"\x93NUMPY\x02\x00" + b" " * 99), "version of the .npy format"),
    "a path upwards": (lambda m, f: put(m, f, b"", "../../evil.npy"), r"'../../evil.npy' is no part"),
    "an absolute path": (lambda m, f: put(m, f, b"", "/tmp/evil.npy"), r"'/tmp/evil.npy' is no part"),
    "a member more": (lambda m, f: put(m, f, b"", "setup.py"), "'setup.py' is no part"),
    "os.system": (lambda m, f: last_class(f, "os.system"), "'os.system' is not a class"),
    "builtins": (lambda m, f: last_class(f, "builtins.eval"), "'builtins.eval' is not a class"),
    "another estimator": (lambda m, f: last_class(f, "sklearn.linear_model.Ridge"), "Ridge' is not a class"),
    "another class of the list": (lambda m, f: last_class(f, "dualgate.features.factors.Factors"), "not a model"),
    "no class": (lambda m, f: last_class(f, ["x"]), "damaged"),
    "a function": (lambda m, f: f["objects"][0]["state"].update(x={"ufunc": "load"}), "'ufunc' of 'load'"),
    "an unknown code": (lambda m, f: f["objects"][0]["state"].update(x={"pickle": "gASVJA=="}), "'pickle' of"),
    "a later object": (lambda m, f: f["objects"][0]["state"].update(x={"object": len(f["objects"]) - 1}), "damaged"),
    "a negative number": (lambda m, f: f["objects"][0]["state"].update(x={"array": -1}), "damaged"),
    "a store of pickles": (lambda m, f: f["objects"][-1]["state"].update(memory="/tmp/evil"), "memory of a DualTower"),
    "no attributes": (lambda m, f: f["objects"][-1].update(state={}), "damaged"),
    "wide towers": (lambda m, f: widen(f), "damaged(.|\n)*size mismatch"),
    "another schema": (lambda m, f: f.update(schema=2), "schema 2, and dualgate .* reads schema 1"),
    "another release": (lambda m, f: f.update(dualgate="7.3.1"), r"Install dualgate 7\.3\.\*"),
    "another format": (lambda m, f: f.update(format="skops"), "does not describe"),
    "no versions": (lambda m, f: f.pop("schema"), "damaged"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_altered_file_is_refused(change, saved, tmp_path):
    function, message = CHANGES[change]
    Bomb.place = tmp_path / "exploded"
    path = altered(saved, tmp_path, function)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert set(tmp_path.rglob("*")) == before


def test_an_array_that_differs_from_its_hash_is_refused(saved, tmp_path):
    def nudge(members, manifest):
        members["arrays/3.npy"] = members["arrays/3.npy"][:-1] + bytes([members["arrays/3.npy"][-1] ^ 1])

    with pytest.raises(ModelFileError, match=r"arrays/3.npy does not have the SHA-256"):
        load_model(altered(saved, tmp_path, nudge, stated=False))


def test_a_missing_array_is_refused(saved, tmp_path):
    with pytest.raises(ModelFileError, match=r"'arrays/0.npy' is missing"):
        load_model(altered(saved, tmp_path, lambda m, f: m.pop("arrays/0.npy"), stated=False))


def test_a_bomb_is_refused_before_it_is_unpacked(saved, tmp_path):
    def swell(members, manifest):
        members["arrays/0.npy"] = npy(np.zeros(10**7))

    path = altered(saved, tmp_path, swell, compression=ZIP_DEFLATED)
    assert path.stat().st_size < 10**6
    with pytest.raises(ModelFileError, match="unpack to more bytes"):
        load_model(path)


def test_two_members_of_one_name_are_refused(saved, tmp_path):
    path = tmp_path / "double"
    path.write_bytes(saved[1].read_bytes())
    with warnings.catch_warnings(), ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("arrays/0.npy", b"other")
    with pytest.raises(ModelFileError, match="two members have one name"):
        load_model(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"text", pickle.dumps(Y), b"[" * 100_000],
    ids=["empty", "zip header", "text", "pickle", "brackets"],
)
def test_what_is_no_model_file_is_refused(content, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged, or no file of save_model"):
        load_model(path)
    with pytest.raises(ModelFileError, match=r"damaged|no file"):
        load_model(pack(path, {MANIFEST: content}))
    with pytest.raises(ModelFileError, match="no manifest"):
        load_model(pack(path, {"other.json": content}))


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "nothing")


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_bytes_raise_our_error_or_change_nothing(saved, tmp_path_factory, data):
    model, whole = saved[0], bytearray(saved[1].read_bytes())
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("damaged") / "model"
    path.write_bytes(whole)
    try:
        loaded = load_model(path)
    except ModelFileError:
        return
    assert_array_equal(loaded.predict(X[:5]), model.predict(X[:5]))


def test_transformers_of_another_scikit_learn_warn(saved, tmp_path):
    def age(members, manifest):
        for entry in manifest["objects"]:
            if "_sklearn_version" in entry["state"]:
                entry["state"]["_sklearn_version"] = "1.0.0"

    model = mixture(phys_gate=PhysGate(FLUX, PCA(3)), quality_gate="drop").fit(X, Y, regimes=REGIMES)
    path = altered((model, save_model(model, tmp_path / "model")), tmp_path, age)
    with pytest.warns(InconsistentVersionWarning):
        load_model(path)
    with pytest.raises(InconsistentVersionWarning):
        load_model(path)


def test_a_fusion_of_the_list_is_every_fusion_of_the_registry():
    assert all(class_name(each) in CLASSES and issubclass(each, Fusion) for each in FUSIONS.values())
