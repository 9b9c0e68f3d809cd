"""What is wrong with the input is named: the argument, the value, what must hold, what to do."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from numpy.testing import assert_allclose
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import FunctionTransformer

from dualgate import DualTowerMoERegressor, FactorExperts, HierarchicalExperts, PhysGate, QualityGate
from dualgate.datasets import bayes_limit, join_spectra, make_spectra, open_spectra
from dualgate.evaluation import bootstrap_scores, quality_bins, row_slices
from dualgate.experts import EmptyCellWarning
from dualgate.features import LineWindows, NoiseWhitenedPCA, QualityStatistics, SignalPCA, WienerScores, signal_to_noise
from dualgate.rows import ArrayRows
from dualgate.rows.store import StoreError
from dualgate.study.config import ConfigError, load_config
from dualgate.study.inputs import StudyRows

RNG = np.random.default_rng(0)
WAVE = np.linspace(8000, 8800, 64)
FLUX, ERROR = RNG.normal(1, 0.2, (90, 64)), RNG.uniform(0.1, 0.3, (90, 64))
MIDDLE = float(np.median(signal_to_noise(FLUX, ERROR)))
X, Y, REGIMES = np.hstack([FLUX, ERROR]), RNG.normal(3, 1, 90), np.arange(90) % 3


def model(**params):
    return DualTowerMoERegressor.for_spectra(
        WAVE,
        **{"experts": "hierarchical", "max_epochs": 1, "experts__quality_edges": None, "random_state": 0, **params},
    )


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        *((5, value, r"X of DualTowerMoERegressor contains NaN or infinity: 1 values in 1 rows, the first is X\[7, 5\]")
          for value in (np.nan, np.inf, -np.inf)),
        *((69, value, rf"error_columns selects an error of {value} at X\[7, 69\]") for value in (0.0, -0.1)),
        (69, np.nan, r"X\[7, 69\]=nan"),
    ],
)  # fmt: skip
def test_flux_and_errors_that_cannot_be(column, value, message):
    bad = X.copy()
    bad[7, column] = value
    some = model(experts__quality_edges=(MIDDLE,), phys_gate__features=None)  # principal components take no NaN
    with pytest.raises(ValueError, match=message):
        some.fit(bad, Y, regimes=REGIMES)
    some.fit(X, Y, regimes=REGIMES)
    with pytest.raises(ValueError, match=message):
        some.predict(bad)


@pytest.mark.parametrize(
    ("rows", "y", "message"),
    [
        (X[:, :-1], Y, r"error_columns selects 63 columns, columns selects 64.*even number"),
        (X[:1], Y[:1], "X has 1 sample: DualTowerMoERegressor needs at least 2"),
        *((X, np.where(np.arange(90) == 4, value, Y), r"y of .* contains NaN or infinity in 1 rows \(first: row 4\)")
          for value in (np.nan, np.inf)),
    ],
)  # fmt: skip
def test_rows_and_targets_that_cannot_be(rows, y, message):
    with pytest.raises(ValueError, match=message):
        model().fit(rows, y, regimes=REGIMES[: len(y)])


@pytest.mark.parametrize("n_pixels", [32, 63, 65, 100])
def test_wave_of_the_wrong_length(n_pixels):
    other = DualTowerMoERegressor.for_spectra(
        np.linspace(8000, 8800, n_pixels), experts="hierarchical", max_epochs=1, random_state=0
    )
    with pytest.raises(ValueError, match=r"wave|error_columns selects \d+ columns, columns selects"):
        other.fit(X, Y, regimes=REGIMES)


@pytest.mark.parametrize(
    ("regimes", "message"),
    [
        (REGIMES[:-1], r"regimes has shape \(89,\), X has 90 rows"),
        (REGIMES - 1, "regimes holds the negative code -1"),
        (REGIMES + 0.5, "regimes holds .*0.5.*integer codes"),
        (REGIMES * 1000, "regimes holds 3 different codes up to 2,000 in 90 rows: codes must be 0, 1"),
        (np.arange(90) + 5, "regimes holds 90 different codes up to 94 in 90 rows"),
        (np.array(["a", "b", "c"])[REGIMES], "regimes of dtype <U1 must be finite numbers"),
        (np.where(REGIMES == 0, np.nan, 1.0), "must be finite numbers"),
        (np.zeros((90, 3)), "regimes holds 3 conditions per row.*regime_edges"),
    ],
)
def test_bad_regimes(regimes, message):
    with pytest.raises(ValueError, match=message):
        model().fit(X, Y, regimes=regimes)


def test_an_empty_regime():
    with pytest.warns(EmptyCellWarning, match="regimes leaves 1 of 3 cells without training rows: regime 1"):
        model().fit(X, Y, regimes=np.where(REGIMES == 1, 2, REGIMES))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (slice(500, 600), r"PhysGate\.columns=slice\(500, 600, None\) selects none of the 128 columns"),
        ([], r"PhysGate\.columns=\[\] selects none"),
        ([3, 128], r"PhysGate\.columns names 1 columns that X lacks: 128"),
        (["flux"], r"PhysGate\.columns names 1 columns that X lacks: 'flux'.*pass a DataFrame"),
        (np.zeros(128, dtype=bool), r"PhysGate\.columns=.* selects none"),
        (np.ones(5, dtype=bool), r"PhysGate\.columns is a mask of length 5, X has 128 columns"),
        (lambda X: [], r"PhysGate\.columns=\[\] selects none"),
        (1.5, r"PhysGate\.columns=\[1.5\] must be a slice"),
    ],
)
def test_a_column_specification_that_names_nothing(columns, message):
    with pytest.raises(ValueError, match=message):
        DualTowerMoERegressor(PhysGate(columns)).fit(X, Y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"fusion": "add"}, r"DualTowerMoERegressor\.fusion='add' must be None, one of 'concat', 'logit_add', 'poe'"),
        ({"fusion": 3}, r"\.fusion=3 must be"),
        ({"experts__sharing": "all"}, r"HierarchicalExperts\.sharing='all' must be one of 'alpha', 'independent'"),
        ({"experts__projection": "pca"}, r"HierarchicalExperts\.projection='pca' must be one of 'auto', 'whitened'"),
        ({"experts__projection": 7}, r"HierarchicalExperts\.projection=7 must be"),
        ({"experts__alphas": [0.0]}, r"HierarchicalExperts\.alphas=\[0.0\] must be"),
        ({"experts__quality_edges": (4, 2)}, r"HierarchicalExperts\.quality_edges=\(4, 2\) must be .* increase"),
        ({"experts__error_columns": None, "experts__quality_edges": (2,)}, "needs error_columns, which is None"),
        ({"experts__cv": 1}, r"HierarchicalExperts\.cv=1 must be an integer at least 2"),
        ({"experts__n_components": 0}, r"HierarchicalExperts\.n_components=0 must be"),
        ({"phys_gate": "off"}, r"\.phys_gate='off' must be None, one of 'drop' or an instance of PhysGate"),
        ({"phys_gate": "drop", "quality_gate": "drop"}, "leave no tower"),
        ({"phys_gate__hidden": 32}, r"PhysGate\.hidden=32 must be a sequence"),
        ({"phys_gate__hidden": (0,)}, r"PhysGate\.hidden=0 must be an integer at least 1"),
        ({"phys_gate__network": "rnn"}, r"PhysGate\.network='rnn' must be one of 'cnn', 'mlp', or a callable"),
        ({"quality_gate__network": 3}, r"QualityGate\.network=3 must be one of"),
        ({"entropy_penalty": np.inf}, r"\.entropy_penalty=inf must be a finite number\."),
        ({"entropy_penalty": np.nan}, r"\.entropy_penalty=nan must be a finite number\."),
        ({"entropy_penalty": "much"}, r"\.entropy_penalty='much' must be a finite number\."),
        (
            {"phys_gate__features": FunctionTransformer(lambda rows: rows * np.inf)},
            r"PhysGate\.features=Func.* gave an array of shape \(90, 64\)",
        ),
        ({"quality_gate__features": "raw"}, r"QualityGate\.features='raw' must be"),
        ({"routing": "firm"}, r"\.routing='firm' must be"),
        ({"routing": 0}, r"\.routing=0 must be an integer at least 1"),
        ({"loss": "mae"}, r"\.loss='mae' must be one of 'cross_entropy', 'mse'"),
        ({"lr": 0.0}, r"\.lr=0.0 must be a number above 0"),
        ({"max_epochs": 2.5}, r"\.max_epochs=2.5 must be an integer"),
        ({"fallback_confidence": 1.5}, r"\.fallback_confidence=1.5 must be .* at most 1"),
        ({"validation_fraction": 0.9}, r"\.validation_fraction=0.9 must be"),
        ({"batch_size": 0}, r"\.batch_size=0 must be"),
        ({"random_state": -1}, r"\.random_state=-1 must be"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        model(**params).fit(X, Y, regimes=REGIMES)


def test_a_constant_target():
    with pytest.warns(UserWarning, match=r"y is constant \(4\.5\) over 90 rows"):
        fitted = model().fit(X, np.full(90, 4.5), regimes=REGIMES)
    assert_allclose(fitted.predict(X), 4.5)


@pytest.mark.parametrize("dtype", [np.float32, ">f8", ">f4", np.longdouble, np.int16, np.uint8, ">i4"])
def test_other_types_of_number_give_the_same_answer(dtype):
    rows = X if np.dtype(dtype).kind == "f" else np.round(40 * X).clip(1)
    expected, found = (model().fit(each, Y, regimes=REGIMES).predict(each) for each in (rows, rows.astype(dtype)))
    assert_allclose(found, expected, atol=0.02 if np.dtype(dtype).kind == "f" else 1e-7)


def test_a_frame_selects_by_name_and_other_names_are_refused():
    names = [f"flux_{i}" for i in range(64)] + [f"error_{i}" for i in range(64)]
    frame = pd.DataFrame(X, columns=names)
    by_name = model(
        experts__columns=slice("flux_0", "flux_63"),
        experts__error_columns=lambda X: [name for name in X.columns if name.startswith("error")],
        quality_gate__columns=names[64:],
    )
    by_name.fit(frame, Y, regimes=REGIMES)
    assert_allclose(by_name.predict(frame), model().fit(X, Y, regimes=REGIMES).predict(X), rtol=1e-6)
    with pytest.raises(ValueError, match="feature names should match"):
        by_name.predict(frame.rename(columns={"flux_3": "flux_three"}))
    with pytest.raises(ValueError, match=r"QualityGate\.columns names 1 columns that X lacks: 'noise'"):
        DualTowerMoERegressor(quality_gate=QualityGate(["noise"])).fit(frame, Y)


def test_oracle_of_an_unknown_regime():
    experts = HierarchicalExperts(random_state=0).fit(FLUX, Y, regimes=REGIMES)
    with pytest.raises(ValueError, match="regimes holds the code 5, the experts were fitted with regimes 0 to 2"):
        experts.predict(FLUX, regimes=REGIMES + 3)


def test_more_columns_than_memory_holds_say_what_to_set():
    wide = np.ones((20, 30_000), dtype=np.float32)
    with pytest.raises(ValueError, match=r"projection=None leaves 30,000 columns.*Set projection to 'whitened'"):
        HierarchicalExperts(projection=None).fit(wide, np.arange(20.0))
    with pytest.raises(ValueError, match=r"SignalPCA: the statistics.*30,000 features.*Select fewer columns"):
        HierarchicalExperts().fit(wide, np.arange(20.0))


@pytest.mark.parametrize("wave", [None, [8000.0], np.linspace(800, 880, 64), WAVE[::-1]])
def test_wave_is_checked_before_any_fit(wave):
    with pytest.raises(ValueError, match=r"for_spectra\.wave"):
        DualTowerMoERegressor.for_spectra(wave, experts="hierarchical")


# ---- factor experts, alone and in a mixture --------------------------------------------------------------------------

PIXELS, ERRORS = slice(0, 64), slice(64, None)
SMALL = {"n_components": 3, "n_factors": 2, "refine": 0, "random_state": 0}


def factor(**params):
    return FactorExperts(**{"columns": PIXELS, "error_columns": ERRORS, **SMALL, **params})


def mixture(**params):
    return DualTowerMoERegressor("drop", "drop", experts=factor(), random_state=0).set_params(**params)


def with_value(row, column, value):
    rows = X.copy()
    rows[row, column] = value
    return rows


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("n_components", (0, 2.5, "many", None, True, np.nan), "an integer at least 1: or 'auto'"),
        ("n_factors", (0, "all", 1.5, None), "an integer at least 1: or 'auto'"),
        ("refine", (-1, 1.5, None), "an integer at least 0"),
        ("max_iter", (0, None, "x"), "an integer at least 1"),
        ("tol", (-1.0, None, "x"), "a number at least 0"),
        ("tol", (np.inf, np.nan), "a finite number at least 0"),
        ("max_rows", (1, None), "an integer at least 2"),
        ("cv", (1, None, "k"), "an integer at least 2"),
        ("projection", ("pca", 3), "must be"),
        ("random_state", (-1, "x", 1.5), "an integer at least 0"),
        ("n_jobs", ("x", 0, 1.5, True), "must be None or an integer other than 0"),
        ("columns", ([], slice(500, 600)), "selects none"),
        ("columns", (["f"],), "names 1 columns that X lacks"),
        ("error_columns", ([],), "selects none"),
        ("error_columns", (slice(64, 100), slice(64, None, 2)), "selects .* columns, columns selects 64"),
    ],
)
def test_parameters_of_factor_experts(name, values, message):
    for value in values:
        with pytest.raises(ValueError, match=rf"^FactorExperts\.{name}.*{message}"):
            factor(**{name: value}).fit(X, Y, regimes=REGIMES)


@pytest.mark.parametrize(
    ("rows", "y", "more", "error", "message"),
    [
        (X, None, {}, ValueError, "the target y is None"),
        (X, np.array(["a"] * 90), {}, ValueError, "y of FactorExperts has shape .* and dtype <U1"),
        (X, np.zeros((90, 2, 2)), {}, ValueError, r"y of FactorExperts has shape \(90, 2, 2\)"),
        (X, np.zeros((90, 0)), {}, ValueError, r"y of FactorExperts has shape \(90, 0\)"),
        (X, Y + 1j, {}, ValueError, "y of FactorExperts has .* dtype complex"),
        (X, Y[:-1], {}, ValueError, r"inconsistent numbers of samples: \[90, 89\]"),
        (X, np.column_stack([Y, np.where(np.arange(90) == 3, np.nan, Y)]), {}, ValueError, r"NaN .* \(first: row 3\)"),
        (with_value(7, 69, 0.0), Y, {}, ValueError, r"error_columns selects an error of 0\.0 at X\[7, 69\]"),
        (with_value(7, 69, -1.0), Y, {}, ValueError, r"error_columns selects an error of -1\.0 at X\[7, 69\]"),
        (np.hstack([np.nan * FLUX, ERROR]), Y, {}, ValueError, "no pixel that was measured"),
        (X[:1], Y[:1], {}, ValueError, "X has 1 sample: FactorExperts needs at least 2"),
        (X[:0], Y[:0], {}, ValueError, "0 sample"),
        (X[0], Y, {}, ValueError, "Expected 2D array"),
        (X[None], Y, {}, ValueError, "array with dim 3"),
        (np.full((90, 128), "a"), Y, {}, ValueError, "could not convert string to float"),
        (X + 1j, Y, {}, ValueError, "Complex data"),
        (scipy.sparse.csr_matrix(X), Y, {}, TypeError, "dense data is required"),
        (X, Y, {"regimes": REGIMES[:-1]}, ValueError, r"FactorExperts: regimes has shape \(89,\), X has 90 rows"),
        (X, Y, {"regimes": REGIMES - 1}, ValueError, "negative code -1"),
        (X, Y, {"regimes": np.zeros((90, 2))}, ValueError, r"FactorExperts\.regime_edges=None must hold edges"),
        (X, Y, {"checkpoint": 3}, ValueError, "checkpoint=3 must be None or the path"),
        (X, Y, {"checkpoint": __file__}, StoreError, "is a file, results are stored in a directory"),
    ],
)
def test_what_factor_experts_cannot_be_fitted_to(rows, y, more, error, message):
    with pytest.raises(error, match=message):
        factor().fit(rows, y, **more)


def test_edges_of_conditions_that_do_not_increase():
    with pytest.raises(ValueError, match=r"FactorExperts\.regime_edges=\[2, 1\] must be finite numbers that increase"):
        factor(regime_edges=[[2, 1]]).fit(X, Y, regimes=Y[:, None])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"experts": "forest"}, r"\.experts='forest' must be None, one of 'factor', 'hierarchical'"),
        ({"experts": 3}, r"\.experts=3 must be"),
        ({"fallback_confidence": 0.5}, r"\.fallback_confidence=0\.5 needs a root ridge"),
        ({"routing": "firm"}, r"\.routing='firm' must be"),
        ({"memory": 3}, "'memory' should be None, a string"),
        ({"n_jobs": "x"}, r"DualTowerMoERegressor\.n_jobs='x' must be None or an integer"),
        ({"n_jobs": 0}, r"DualTowerMoERegressor\.n_jobs=0 must be"),
        ({"device": "quantum"}, r"\.device='quantum' must be a device that torch can use here"),
        ({"device": 1.5}, r"\.device=1\.5 must be a device"),
        ({"lr": np.inf}, r"\.lr=inf must be a finite number above 0"),
        ({"weight_decay": -1}, r"\.weight_decay=-1 must be a number at least 0"),
        ({"patience": 0}, r"\.patience=0 must be an integer at least 1"),
        ({"warmup_epochs": -1}, r"\.warmup_epochs=-1 must be an integer at least 0"),
        ({"n_regimes": 0}, r"\.n_regimes=0 must be an integer at least 1"),
        ({"start": "warm"}, r"\.start='warm' must be one of 'linear', 'random'"),
        ({"random_state": "x"}, r"\.random_state='x' must be an integer"),
    ],
)
def test_parameters_of_a_mixture_without_towers(params, message):
    with pytest.raises(ValueError, match=message):
        mixture(**params).fit(X, Y, regimes=REGIMES)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        *(({"continuum": value}, r"Nuisances\.continuum=.* must be a") for value in (-1, "x", np.nan, True)),
        *(({"velocity": value}, r"Nuisances\.velocity=.* must be a") for value in (-5, "x", np.inf)),
        *(({"robust": value}, r"for_spectra: robust=.* must be None, True or False") for value in ("x", 3)),
        ({"towers": "x"}, r"for_spectra: towers='x' must be None, True or False"),
        ({"experts": ["factor"]}, r"for_spectra: experts=\['factor'\] must be one of"),
        ({"nothing": 3}, "Invalid parameter 'nothing'"),
        ({"experts__nothing": 3}, "Invalid parameter 'nothing' for estimator FactorExperts"),
        ({"phys_gate__hidden": (8,)}, r"phys_gate='drop' has no parameters"),
    ],
)
def test_parameters_of_for_spectra(params, message):
    with pytest.raises(ValueError, match=message):
        DualTowerMoERegressor.for_spectra(WAVE, **params).fit(X, Y, regimes=REGIMES)


@pytest.mark.parametrize("wave", [np.array([8000.0, np.nan, 8100.0]), np.ones((3, 3)), "8000"])
def test_wave_of_the_factor_mixture(wave):
    with pytest.raises(ValueError, match=r"for_spectra\.wave"):
        DualTowerMoERegressor.for_spectra(wave)


# ---- every method that takes rows ------------------------------------------------------------------------------------

OF_MIXTURES = ("predict", "predict_density", "predict_interval", "predict_weights", "trace")
OF_FACTORS = ("novelty", "score_samples", "check_errors", "predict_velocity")
METHODS = [
    *(("mixture", name) for name in (*OF_MIXTURES, *OF_FACTORS)),
    *(("factor", name) for name in ("predict", "predict_density", "predict_interval", *OF_FACTORS)),
    *(("dual", name) for name in OF_MIXTURES),
    ("ridges", "predict"),
    ("ridges", "predict_each"),
    ("wiener", "transform"),
    ("whitened", "transform"),
]


def make(name):
    return {
        "mixture": mixture,
        "factor": factor,
        "dual": lambda: model(experts__quality_edges=(MIDDLE,)),
        "ridges": lambda: HierarchicalExperts(PIXELS, ERRORS, quality_edges=(MIDDLE,), random_state=0),
        "wiener": lambda: WienerScores(4, columns=PIXELS, error_columns=ERRORS),
        "whitened": lambda: NoiseWhitenedPCA(4, columns=PIXELS, error_columns=ERRORS),
    }[name]()


@pytest.fixture(scope="module")
def fitted():
    kept = {}
    for name in dict(METHODS):
        kept[name] = make(name)
        kept[name].fit(X, Y, **({} if name in ("wiener", "whitened") else {"regimes": REGIMES}))
    return kept


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_rows_that_do_not_fit_are_named_by_every_method(fitted, name, method):
    ask = getattr(fitted[name], method)
    with pytest.raises(ValueError, match=r"X has 127 features, but \w+ is expecting 128"):
        ask(X[:, :-1])
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        ask(X[0])
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        ask(X[:0])
    with pytest.raises(ValueError, match="could not convert string"):
        ask(np.full((3, 128), "a"))
    if name != "whitened":  # which weighs pixels by typical errors, and reads those of a row for masks alone
        with pytest.raises(ValueError, match=r"error_columns selects an error of 0\.0 at X\[7, 69\]"):
            ask(with_value(7, 69, 0.0))
    with pytest.raises(NotFittedError):
        getattr(make(name), method)(X)


def test_methods_that_a_model_cannot_have(fitted):
    for name in OF_FACTORS:
        assert not hasattr(fitted["dual"], name)
    for name in ("mixture", "factor"):
        with pytest.raises(ValueError, match=r"the velocity of a row is taken to be zero\. Set it free by"):
            fitted[name].predict_velocity(X)


def test_fusing_what_is_not_there(fitted):
    features = {"phys": np.zeros((3, 2)), "quality": np.zeros((3, 2))}
    for model_name, given, message in [
        ("mixture", {}, "fuse: log_evidence must be given for factor experts"),
        ("mixture", features, r"features of \['phys', 'quality'\] must be those of the towers, \[\]"),
        ("dual", {"phys": features["phys"]}, r"features of \['phys'\] must be those of the towers"),
    ]:
        with pytest.raises(ValueError, match=message):
            fitted[model_name].fuse(given)


# ---- features, sources, data, scores ---------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Directory with files that are not what their names say."""
    monkeypatch.chdir(tmp_path)
    for name in ("junk.h5", "junk.npz", "junk.npy", "junk.parquet"):
        (tmp_path / name).write_bytes(b"junk" * 100)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "folder.csv").mkdir()
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    np.save(tmp_path / "cube.npy", np.zeros((3, 3, 3)))
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000), }"
    header += b" " * (117 - len(header)) + b"\n"
    (tmp_path / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return tmp_path


SPECTRA = {"columns": PIXELS, "error_columns": ERRORS}
CALLS = [
    *((lambda n=n, kind=kind: kind(n, **SPECTRA).fit(X), ValueError, rf"{kind.__name__}\.n_components=")
      for kind in (WienerScores, NoiseWhitenedPCA) for n in (0, 1.5, "x")),
    (lambda: WienerScores(4, max_iter=0, **SPECTRA).fit(X), ValueError, r"WienerScores\.max_iter=0"),
    (lambda: WienerScores(4, **SPECTRA).fit(X, clean=FLUX[:, :5]), ValueError, r"clean has shape \(90, 5\)"),
    (lambda: WienerScores(4, supervised=True, **SPECTRA).fit(X), ValueError, "WienerScores requires y"),
    (lambda: SignalPCA(0).fit(X), ValueError, r"SignalPCA\.n_components=0"),
    (lambda: QualityStatistics(["x"]).fit(ERROR), ValueError, r"QualityStatistics\.subset=\['x'\]"),
    (lambda: QualityStatistics([]).fit(ERROR), ValueError, "it lists none"),
    (lambda: LineWindows(WAVE[:5]).fit(FLUX), ValueError, r"LineWindows\.wave has shape \(5,\)"),
    (lambda: ArrayRows(np.zeros(3)), ValueError, r"X is a ndarray of shape \(3,\)"),
    (lambda: ArrayRows(np.full((3, 3), "a")), ValueError, "dtype <U1: rows must be an array of numbers"),
    (lambda: ArrayRows([[1, 2]]), ValueError, r"X is a list of shape \(\)"),
    (lambda: ArrayRows(X)[:, 3], TypeError, "ArrayRows is indexed by rows alone"),
    (lambda: ArrayRows(X)[np.array([999])], IndexError, "index 999 is out of bounds"),
    (lambda: ArrayRows(X)[np.ones(5, dtype=bool)], IndexError, "boolean index did not match"),
    (lambda: ArrayRows(X)[np.array([1.5])], IndexError, "must be of integer"),
    *((lambda name=name, value=value: make_spectra(**{"n_samples": 2, name: value}), ValueError,
       rf"make_spectra\.{name}=") for name, value in [
        ("n_samples", 0), ("n_samples", 2.5), ("n_samples", "x"), ("random_state", -1), ("random_state", "x"),
        ("noise_level", -1), ("noise_level", np.nan), ("noise", "pink"), ("start", -1), ("faults", 3)]),
    (lambda: make_spectra(2, faults={"x": 1}), ValueError, "make_spectra.faults names 'x'"),
    (lambda: make_spectra(2, faults={"shift": "a"}), ValueError, r"faults\['shift'\]='a' must be a number"),
    (lambda: open_spectra([]), ValueError, r"open_spectra\.paths=\[\] names no file"),
    (lambda: open_spectra(3), ValueError, r"open_spectra\.paths=3 must be a path"),
    (lambda: open_spectra([3]), ValueError, r"open_spectra\.paths=\[3\] must be a path"),
    (lambda: open_spectra("nothing*.h5"), FileNotFoundError, r"open_spectra\.paths='nothing\*.h5' matches no file"),
    (lambda: open_spectra("junk.h5"), OSError, r"shard '.*junk.h5' cannot be read"),
    (lambda: open_spectra(["junk.h5", "junk.h5"]), ValueError, "the same file twice"),
    (lambda: join_spectra(FLUX, ERROR[:, :5]), ValueError, r"join_spectra\.error has shape \(90, 5\)"),
    (lambda: join_spectra(FLUX, ERROR, mask=np.ones(3, dtype=bool)), ValueError, r"join_spectra\.mask has shape \(3,"),
    (lambda: join_spectra(FLUX, ERROR, mask=ERROR), ValueError, r"join_spectra\.mask .* must hold bool or integers"),
    (lambda: join_spectra(FLUX.astype(str), ERROR), ValueError, r"join_spectra\.flux .* must hold numbers"),
    (lambda: bayes_limit(X[:2], y=Y[:2]), ValueError, r"bayes_limit\.X has 128 columns"),
    (lambda: quality_bins([1.0], edges=(3, 2)), ValueError, r"quality_bins\.edges=\[3\.0, 2\.0\] must increase"),
    (lambda: quality_bins([np.nan]), ValueError, "quality_bins.snr is nan at row 0"),
    (lambda: bootstrap_scores(Y, {}), ValueError, "bootstrap_scores.predictions is empty"),
    (lambda: bootstrap_scores(Y, {"a": np.nan * Y}), ValueError, r"predictions\['a'\] is nan at row 0"),
    (lambda: bootstrap_scores(Y, {"a": Y}, n_resamples=0), ValueError, r"bootstrap_scores\.n_resamples=0"),
    (lambda: row_slices(3, snr=[1.0, 2.0]), ValueError, "must hold 3 integer codes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"), CALLS, ids=[f"{n}-{each[2][:30]}" for n, each in enumerate(CALLS)]
)
@pytest.mark.usefixtures("place")
def test_calls_that_cannot_be_answered(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (69, -1.0, r"error_columns selects an error of -1\.0 at X\[7, 69\]"),
        (69, 0.0, r"error_columns selects an error of 0\.0 at X\[7, 69\]"),
    ],
)
def test_rows_in_a_file_are_checked_as_they_are_read(column, value, message, tmp_path):
    np.save(tmp_path / "x.npy", with_value(7, column, value))
    with pytest.raises(ValueError, match=message):
        mixture().fit(np.load(tmp_path / "x.npy", mmap_mode="r"), Y, regimes=REGIMES)


@pytest.mark.parametrize(
    "name",
    ["junk.npz", "junk.npy", "junk.parquet", "empty.csv", "empty.npy", "bytes.csv", "broken.npz", "folder.csv",
     "objects.npy", "cube.npy", "missing.csv", "huge.npy"],
)  # fmt: skip
def test_tables_that_are_none(name, place):
    columns = {"flux": "f*", "quality": "q", "target": "y"}
    rows = StudyRows(load_config(None, {"data": {"source": str(place / name), **columns}}))
    with pytest.raises(ConfigError, match=rf"^\[data\] source: .*{name}.* cannot be read as a table of numbers"):
        rows.check()


def test_shards_that_are_none(place):
    with pytest.raises(ConfigError, match=r"^\[data\] source: shard .*junk\.h5"):
        StudyRows(load_config(None, {"data": {"source": str(place / "junk.h5")}})).check()
