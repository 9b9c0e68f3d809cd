"""Small problems with a known answer for the study, shared by its tests."""

import numpy as np
from sklearn.utils import Bunch

from dualgate.study import analysis
from dualgate.study.config import StudyConfig
from dualgate.study.inputs import ERRORS, REGIMES
from dualgate.study.methods import BINNED, GLOBAL, METHODS, TABLE
from dualgate.study.results import RunFacts, StudyResults
from dualgate.study.run import SeedRecord

BASIC = [METHODS[name] for name in ("global", "oracle_9", "oracle_9x4", "phys_9", "quality_9", "poe_9", "poe_9x4")]


def analyse(records, **more):
    return analysis.analyse(analysis.StudyScores(records, **more))


def planted_rows(seed, *, constant=False, alike=False, n_samples=3000):
    """Twelve pixels that show the target with a slope of its own in each of three regimes.

    The brightness of four pixels spreads the signal-to-noise ratio over all bins and is independent of the target. With
    `constant` errors every row is measured equally well, so that quality is uninformative; regimes that are `alike`
    have one slope, so that physics is.
    """
    rng = np.random.default_rng(seed)
    regimes, y = rng.integers(3, size=n_samples), rng.normal(size=n_samples)
    flux = np.zeros((n_samples, 12))
    flux[:, :4] = (np.array([1.0, 1.0, 1.0] if alike else [1.0, -1.0, 0.4])[regimes] * y)[:, None]
    flux[np.arange(n_samples), 4 + regimes] = 3.5
    flux[:, 8:] = np.exp(rng.uniform(0, np.log(30), size=(n_samples, 1)))
    level = np.ones(n_samples) if constant else np.exp(rng.uniform(np.log(0.3), np.log(6), size=n_samples))
    error = np.repeat(level[:, None], 12, axis=1)
    flux += error * rng.normal(size=flux.shape)
    snr = np.linalg.norm(flux, axis=1) / np.linalg.norm(error, axis=1)
    return Bunch(X=np.hstack([flux, error]).astype(np.float32), y=y, regimes=regimes, snr=snr)


def planted_model(data, seed, experts="hierarchical"):
    from dualgate import DualTowerMoERegressor, FactorExperts, HierarchicalExperts, PhysGate, QualityGate

    flux, error = slice(0, 12), slice(12, None)
    if experts == "factor":
        experts = FactorExperts(flux, error, refine=1)
    else:
        experts = HierarchicalExperts(flux, error, quality_edges=(2, 4, 7))
    return DualTowerMoERegressor(
        PhysGate(flux, discriminants=False),
        QualityGate(error),
        experts=experts,
        start="random",
        weight_decay=0.0,
        max_epochs=24,
        batch_size=256,
        random_state=seed,
    )


def plant(monkeypatch, make_model):
    """Let the command simulate planted rows; returns how many rows each seed was asked for."""
    asked = {}

    def make_rows(n_samples, *, random_state):
        asked[random_state] = n_samples
        data = planted_rows(random_state, n_samples=n_samples)
        data.n_flux = 12
        return data

    monkeypatch.setattr("dualgate.study.inputs.stream_spectra", make_rows)
    monkeypatch.setattr("dualgate.study.inputs.table_model", make_model)
    monkeypatch.setattr("dualgate.study.inputs.StudyRows.offers", {ERRORS, REGIMES})  # they are no spectra
    monkeypatch.setattr("dualgate.study.config.LIMIT_ROWS", {False: 0, True: 0})
    return asked


def planted_record(seed, errors, validation=None, n_samples=300):
    """A record whose methods miss the target by the given scatter, each by luck of its own."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n_samples)
    errors = {method.name: 0.5 for method in TABLE} | errors
    gated = {method.name: 36 if method.experts == BINNED else 9 for method in TABLE if method.gated}
    seen = rng.normal(size=n_samples)
    return SeedRecord(
        seed=seed,
        n_train=8 * n_samples,
        n_validation=n_samples,
        y=y,
        y_validation=seen,
        snr=rng.uniform(0.5, 12, size=n_samples),
        regimes=rng.integers(9, size=n_samples),
        predictions={name: y + scale * rng.normal(size=n_samples) for name, scale in errors.items()},
        validation={name: seen + scale * rng.normal(size=n_samples) for name, scale in errors.items()},
        validation_r2={name: 1 - scale**2 for name, scale in errors.items()} | (validation or {}),
        entropy={name: rng.uniform(0, np.log(9), size=n_samples) for name in gated},
        n_experts=gated,
        seconds={"rows": 1.0, "fit phys_9": 2.0, "predict phys_9": 3.0},
    )


def quick_model(data, seed, experts="hierarchical"):
    return planted_model(data, seed, experts).set_params(max_epochs=1)


def planted_results(**facts):
    """Results of a study of planted records; `facts` are fields of `RunFacts`."""
    records = [planted_record(seed, GOOD) for seed in (1, 2, 3)]
    known = {
        "config": StudyConfig.of({"rows": 3000, "seeds": [1, 2, 3]}).as_dict(),
        "environment": {"dualgate": "0", "cores": 2},
        "hash": "0" * 64,
        "total_seconds": 1.0,
    }
    run = RunFacts(**{"source": "planted", "rows": 3000, "seeds": (1, 2, 3)} | known | facts)
    return StudyResults(run, analyse(records, n_resamples=200))


GOOD = {GLOBAL.name: 0.8, "phys_9": 0.6, "quality_9": 0.7, "poe_9x4": 0.4}
