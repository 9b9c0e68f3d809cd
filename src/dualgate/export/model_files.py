"""Model files: fitted models as numbers and text, so that loading one runs no code of whoever wrote it.

A file is a zip archive, not compressed, of ``manifest.json`` and ``arrays/0.npy``, ``arrays/1.npy``, ... The manifest
has the versions, the SHA-256 of every array, and the objects of the model, each as the name of its class and its
attributes. Objects are of the classes in `CLASSES` alone and are made by setting attributes; an object refers to
arrays, and to objects before it, by number.
"""

import hashlib
import io
import json
import math
import platform
import reprlib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dualgate import __version__
from dualgate.experts import FactorExperts, HierarchicalExperts
from dualgate.mixture import DualTowerMoERegressor
from dualgate.rows import whole_file

FORMAT, SCHEMA = "dualgate model", 1
MANIFEST, MEMBER = "manifest.json", "arrays/{}.npy"
MOST_TEXT = 1 << 24  # bytes of a manifest; that of a mixture for spectra has about 50,000
KINDS = "biufcU"  # of the numpy types that arrays may have
LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch")
MODELS = (DualTowerMoERegressor, FactorExperts, HierarchicalExperts)
BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_MODULES = {  # classes by module, without the private modules of scikit-learn
    "dualgate.experts.cells": "Target",
    "dualgate.experts.factor_experts": "FactorExperts TargetScale",
    "dualgate.experts.factor_mixture": "ColumnNoise FactorMixture",
    "dualgate.experts.hierarchical": "HierarchicalExperts PartialState",
    "dualgate.experts.novelty": "NoveltyScale",
    "dualgate.features.discriminants": "Discriminants",
    "dualgate.features.factors": "Factors Span",
    "dualgate.features.lines": "Continuum LinePixels LineWindows",
    "dualgate.features.nuisances": "Nuisances",
    "dualgate.features.projection": "FrozenProjection PlainColumns TransformerProjection",
    "dualgate.features.quality": "QualityStatistics",
    "dualgate.features.signal": "SignalPCA",
    "dualgate.features.whitened": "NoiseWhitenedPCA",
    "dualgate.features.wiener": "WienerScores",
    "dualgate.gating.fusion": "ConcatFusion LogitAddFusion ProductOfExpertsFusion TemperatureFusion",
    "dualgate.gating.gates": "PhysGate QualityGate",
    "dualgate.intervals": "IntervalScale",
    "dualgate.mixture": "DualTowerMoERegressor",
    "dualgate.reduction": "Reduction",
    "dualgate.statistics": "CellStatistics",
    "sklearn.decomposition": "FactorAnalysis IncrementalPCA PCA TruncatedSVD",
    "sklearn.frozen": "FrozenEstimator",
    "sklearn.model_selection": "KFold StratifiedKFold",
    "sklearn.pipeline": "Pipeline",
    "sklearn.preprocessing": "FunctionTransformer MaxAbsScaler MinMaxScaler QuantileTransformer RobustScaler "
    "StandardScaler",
}
CLASSES = frozenset(f"{module}.{name}" for module, names in _MODULES.items() for name in names.split())


class ModelFileError(ValueError):
    """A model cannot be saved as a file, or a file is not what `save_model` writes."""


def save_model(model, path):
    """Write a fitted model to a file that holds numbers and text alone.

    Parameters
    ----------
    model : DualTowerMoERegressor, FactorExperts or HierarchicalExperts
        Fitted. Its `memory` is left out. Networks, fusions and projections of your own are code and cannot be saved,
        nor can columns that a function chooses; of scikit-learn, the transformers in `CLASSES` can.
    path : str or Path
        Replaced in one step if it exists. Any name; ``.dualgate`` is customary.

    Returns
    -------
    path : Path

    Raises
    ------
    ModelFileError
        If the model holds what a file cannot; the message names it.
    sklearn.exceptions.NotFittedError
        If the model is not fitted.
    TypeError
        If `model` is something else.

    See Also
    --------
    load_model : Read the file.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from dualgate import HierarchicalExperts
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> experts = HierarchicalExperts(random_state=0).fit(X, X[:, 0])
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     loaded = load_model(save_model(experts, f"{directory}/small.dualgate"))
    >>> bool((loaded.predict(X) == experts.predict(X)).all())
    True
    """
    if not isinstance(model, MODELS):
        raise TypeError(
            f"save_model: {type(model).__name__} is not among {', '.join(each.__name__ for each in MODELS)}; of a "
            "search or a pipeline, save the fitted mixture inside."
        )
    check_is_fitted(model)
    writer, path = _Writer(), Path(path)
    manifest = {"format": FORMAT, "schema": SCHEMA, "dualgate": __version__}
    manifest |= {"versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}}
    manifest |= {"model": writer.encode(model, type(model).__name__), "objects": writer.objects}
    members = {MEMBER.format(number): _npy(array) for number, array in enumerate(writer.arrays)}
    manifest["members"] = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    with whole_file(path) as file, ZipFile(file, "w", ZIP_STORED) as archive:
        text = json.dumps(manifest, allow_nan=False, ensure_ascii=False)
        for name, data in {MANIFEST: text.encode(), **members}.items():
            archive.writestr(ZipInfo(name), data)  # without a date: one model, one file
    return path


def load_model(path):
    """Read a model from a file of `save_model`.

    No code in the file is run, and nothing is written; see SECURITY.md for what that does and does not promise.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    model : DualTowerMoERegressor, FactorExperts or HierarchicalExperts
        With the same libraries its predictions are those of the model that was saved, bit for bit; those of
        transformers of scikit-learn up to rounding, since arrays are made contiguous.

    Raises
    ------
    ModelFileError
        If the file is damaged, was altered, is no model file, or comes from another release series of dualgate.
    OSError
        If it cannot be opened.

    Warns
    -----
    sklearn.exceptions.InconsistentVersionWarning
        If it holds transformers of another version of scikit-learn.
    """
    with open(path, "rb") as file:
        try:
            with ZipFile(file) as archive:
                return _Reader(path, archive, file.seek(0, io.SEEK_END)).model
        except (ModelFileError, Warning):  # a warning that was made an error
            raise
        except Exception as error:  # bytes that nobody vouches for make zipfile, json and numpy raise nearly anything
            reason = str(error) or type(error).__name__
            raise ModelFileError(f"{path}: is damaged, or no file of save_model: {reason}.") from error


def class_name(kind):
    """Name of a class by the public module that holds it."""
    modules = [part for part in kind.__module__.split(".") if not part.startswith("_")]
    return ".".join([*modules, kind.__qualname__])


def find_class(name):
    """Class of a name in `CLASSES`."""
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def _npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


class _Writer:
    """Turns a model into what JSON can hold, `objects` and `arrays`; what is shared stays shared."""

    def __init__(self):
        self.objects, self.arrays, self._known = [], [], {}

    def encode(self, value, place):
        """Encode a value; `place` is how messages call it."""
        kind = type(value)
        if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
            return value
        if kind is float:
            return {"float": repr(value)}
        if kind in (list, tuple):
            items = [self.encode(each, f"{place}[{number}]") for number, each in enumerate(value)]
            return items if kind is list else {"tuple": items}
        if kind is dict and all(type(name) is str for name in value):
            return {"dict": {name: self.encode(each, f"{place}[{name!r}]") for name, each in value.items()}}
        if kind in (slice, range):
            return {kind.__name__: [self.encode(each, place) for each in (value.start, value.stop, value.step)]}
        if kind is np.ufunc and getattr(np, value.__name__, None) is value:
            return {"ufunc": value.__name__}
        if id(value) not in self._known:
            self._known[id(value)] = None, value  # with the value, so that its id is not given to another
            self._known[id(value)] = self._shared(value, place), value
        code = self._known[id(value)][0]
        if code is None:
            raise ModelFileError(f"save_model: {place} refers to an object that holds it: a model file has no cycles.")
        return code

    def _shared(self, value, place):
        if isinstance(value, np.ndarray) and value.dtype == object and all(type(each) is str for each in value):
            return {"names": value.tolist()}
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in KINDS:
            return self._array(value)
        if isinstance(value, np.random.RandomState):
            return {"random_state": self.encode(value.get_state(legacy=False), place)}
        if isinstance(value, np.random.Generator):
            return {"generator": self.encode(value.bit_generator.state, place)}
        name = class_name(type(value))
        if name not in CLASSES or find_class(name) is not type(value):
            raise ModelFileError(
                f"save_model: {place} is {value!r:.80}, of the type {name}, which is code or needs code to be "
                "read again: a model file holds numbers, text, and objects of dualgate and of some classes of "
                "scikit-learn. Use a network, fusion, projection or columns that are named, or keep this model with "
                "joblib, for yourself alone."
            )
        state = dict(value.__getstate__() or {})
        if "memory" in state:  # a place on this machine, with pickles
            state["memory"] = None
        if isinstance(value, DualTowerMoERegressor) and value.net_ is not None:
            from dualgate.gating.nets import state_of

            state["net_"] = state_of(value.net_)
        attributes = {name: self.encode(each, f"{place}.{name}") for name, each in state.items()}
        self.objects.append({"class": name, "state": attributes})
        return {"object": len(self.objects) - 1}

    def _array(self, value):
        """Keep an array with the order of its axes in memory, by which sums of products round."""
        axes = np.argsort([-stride for stride in value.strides], kind="stable").tolist()
        turned = not value.flags.forc and value.transpose(axes).flags.c_contiguous
        self.arrays.append(value.transpose(axes) if turned else value)
        number = len(self.arrays) - 1
        if turned:
            return {"turned": [number, axes]}
        return {"array" if isinstance(value, np.ndarray) else "scalar": number}


class _Reader:
    """Makes the `model` of an open archive, whose file has `size` bytes."""

    def __init__(self, path, archive, size):
        self._path, self._archive = path, archive
        manifest = self._manifest(size)
        self._check_versions(manifest)
        hashes = manifest["members"]
        expected = {MANIFEST, *map(MEMBER.format, range(len(hashes)))}
        for strange in sorted(expected.symmetric_difference(archive.namelist()), key=expected.__contains__):
            raise self._refusal(f"{strange!r} is {'missing' if strange in expected else 'no part of a model file'}")
        self._arrays = {number: self._array(MEMBER.format(number), hashes) for number in range(len(hashes))}
        self._objects = {}
        for number, entry in enumerate(manifest["objects"]):  # each refers to earlier ones alone
            self._objects[number] = self._object(entry["class"], entry["state"])
        self.model = self._decode(manifest["model"])
        if not isinstance(self.model, MODELS):
            raise self._refusal(f"it holds a {type(self.model).__name__}, not a model")
        check_is_fitted(self.model)

    def _refusal(self, reason):
        return ModelFileError(
            f"{self._path}: {reason}: the file is damaged, was altered, or is no file of save_model. Ask for it "
            "again, and take model files only from whom you would take numbers."
        )

    def _manifest(self, size):
        parts = self._archive.infolist()
        if len({part.filename for part in parts}) < len(parts):
            raise self._refusal("two members have one name")
        if any(part.compress_type != ZIP_STORED for part in parts) or sum(part.file_size for part in parts) > size:
            raise self._refusal("its members unpack to more bytes than the file has, or are compressed")
        if MANIFEST not in self._archive.namelist() or self._archive.getinfo(MANIFEST).file_size > MOST_TEXT:
            raise self._refusal(f"it has no {MANIFEST} of at most {MOST_TEXT:,} bytes")
        manifest = json.loads(self._archive.read(MANIFEST))
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise self._refusal(f"its {MANIFEST} does not describe a {FORMAT}")
        return manifest

    def _check_versions(self, manifest):
        schema, written = manifest["schema"], manifest["dualgate"]
        if schema != SCHEMA:
            raise ModelFileError(
                f"{self._path}: has schema {schema!r}, and dualgate {__version__} reads schema {SCHEMA}: load it with "
                f"the release that wrote it, dualgate {written}, or fit the model again."
            )
        series, own = (".".join(each.split(".")[:2]) for each in (written, __version__))
        if series != own:
            raise ModelFileError(
                f"{self._path}: was written by dualgate {written}, and this is {__version__}: what a fitted model "
                f"holds may differ between release series. Install dualgate {series}.*, or fit the model again."
            )

    def _array(self, name, hashes):
        data = self._archive.read(name)
        if hashlib.sha256(data).hexdigest() != hashes[name]:
            raise self._refusal(f"{name} does not have the SHA-256 that the manifest states")
        file = io.BytesIO(data)
        if np.lib.format.read_magic(file) != (1, 0):
            raise self._refusal(f"{name} has a version of the .npy format other than 1.0")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.kind not in KINDS or dtype.hasobject:
            raise self._refusal(f"{name} has the type {dtype}, of objects (a pickle) or of no numbers")
        place = file.tell()
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - place:
            raise self._refusal(f"{name} states the shape {shape}, which its {len(data) - place:,} bytes do not have")
        flat = np.frombuffer(data, dtype, offset=place).copy()
        return flat.reshape(shape, order="F" if is_fortran else "C")

    def _object(self, name, state):
        if name not in CLASSES:
            raise self._refusal(f"{name!r} is not a class that a model file may hold")
        kind, state = find_class(name), {key: self._decode(value) for key, value in state.items()}
        if state.get("memory") is not None:
            raise self._refusal(f"memory of a {kind.__name__} is {state['memory']!r}, which save_model leaves out")
        if kind is DualTowerMoERegressor and state["net_"] is not None:
            from dualgate.gating.nets import restore_net

            networks = {tower: gate.build_network for tower, gate in state["reduction_"].gates.items()}
            sizes = state["experts_"].n_regimes_, state["experts_"].n_quality_bins_
            state["net_"] = restore_net(state["net_"], networks, state["fusion_"], *sizes)
        made = kind.__new__(kind)
        if hasattr(made, "__setstate__"):  # that of scikit-learn compares versions
            made.__setstate__(state)
        else:
            vars(made).update(state)
        return made

    def _decode(self, code):
        if isinstance(code, list):
            return [self._decode(each) for each in code]
        if not isinstance(code, dict):
            return code
        ((kind, value),) = code.items()
        if kind in ("array", "scalar", "object"):
            found = (self._objects if kind == "object" else self._arrays)[value]
            return found[()] if kind == "scalar" else found
        if kind == "turned":
            number, axes = value
            return self._arrays[number].transpose(np.argsort(axes))
        if kind == "dict":
            return {name: self._decode(each) for name, each in value.items()}
        if kind == "float":
            return {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[value]
        if kind == "names":
            return np.array([str(each) for each in value], dtype=object)
        if kind == "ufunc":
            found = getattr(np, value)
            if isinstance(found, np.ufunc):
                return found
        if kind in ("slice", "range", "tuple"):
            values = self._decode(value)
            return tuple(values) if kind == "tuple" else {"slice": slice, "range": range}[kind](*values)
        if kind == "random_state":
            found = np.random.RandomState()
            found.set_state(self._decode(value))
            return found
        if kind == "generator":
            state = self._decode(value)
            if state["bit_generator"] in BIT_GENERATORS:
                bits = getattr(np.random, state["bit_generator"])(0)
                bits.state = state
                return np.random.Generator(bits)
        raise self._refusal(f"{kind!r} of {reprlib.repr(value)} is nothing that a model file may hold")
