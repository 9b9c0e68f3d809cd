"""What is wrong with the input is named: the argument, the value, what must hold, what to do."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.preprocessing import FunctionTransformer

from dualgate import DualTowerMoERegressor, HierarchicalExperts, PhysGate, QualityGate
from dualgate.experts import EmptyCellWarning
from dualgate.features import signal_to_noise

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
