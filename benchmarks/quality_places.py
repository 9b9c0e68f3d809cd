"""Where quality enters, what it brings, and how far the Bayes limit is: the evidence table of the docs.

    python benchmarks/quality_places.py [n_train] [seeds] [directory] [seeds of the peers]

Trains on `n_train` simulated rows (200,000) of each seed (42,123,456): with quality in the gates alone, in the experts
too, and in the representation too, with other regressors on the same scores. All are scored on 10,000 rows that none
was fitted to, 2,000 of which also have their Bayes limit. Rows are simulated once, into a memory map in `directory`
(6.6 GB a seed). Prints R2 with intervals over test rows and seeds, by SNR bin, gains with paired intervals, and shares
of the Bayes limit. Reduced rows and predictions are stored in the same directory, so that a run that was interrupted
continues. Needs LightGBM.
"""

import sys
import time
from functools import partial
from pathlib import Path

import joblib
import numpy as np
from lightgbm import LGBMRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from dualgate import DualTowerMoERegressor
from dualgate.datasets import bayes_limit, make_spectra, stream_spectra
from dualgate.evaluation import SNR_NAMES, Estimate, bootstrap_scores, row_slices
from dualgate.features import WienerScores
from dualgate.study.analysis import seed_interval

TEST_START, N_TEST, N_BAYES, FEW, N_DRAWS = 300_000, 10_000, 2_000, 5_000, 400
FLUX, ERROR = slice(0, 4096), slice(4096, None)
PHYS9 = {"quality_gate": "drop", "experts__quality_edges": None}
DUAL = "dual, 9x4 experts"
MIXTURES = {
    "one tower (physics), 9 experts": PHYS9,
    "one tower (quality), 9 experts": {"phys_gate": "drop", "experts__quality_edges": None},
    "one tower (physics), 9x4 experts": {"quality_gate": "drop"},
    "dual at the gate, 9 experts": {"experts__quality_edges": None},
    DUAL: {},
    "dual, 16x4 experts": {"experts__regime_edges": ((4312.5, 4875.0, 5437.5), (-1.6875, -0.875, -0.0625))},
}


def peers():
    """Regressors of other libraries, on scores and quality columns."""
    return {
        "Ridge": RidgeCV(np.logspace(-2, 4, 13)),
        "HistGradientBoosting": HistGradientBoostingRegressor(
            max_iter=300, learning_rate=0.08, early_stopping=True, random_state=0
        ),
        "LightGBM": LGBMRegressor(
            n_estimators=400,
            learning_rate=0.06,
            num_leaves=63,
            min_child_samples=50,
            n_jobs=1,
            verbose=-1,
            random_state=0,
        ),
        "MLP": make_pipeline(
            StandardScaler(),
            FunctionTransformer(np.arcsinh),
            MLPRegressor(hidden_layer_sizes=(64, 64), early_stopping=True, random_state=0),
        ),
    }


def simulate(n_rows, seed, directory):
    """Simulate the rows of a seed into a memory map; return it with targets and conditions."""
    path = directory / f"rows_{seed}_{n_rows}.float32"
    labels = stream_spectra(n_rows, random_state=seed)
    if not path.exists():
        part = path.with_suffix(".part")
        rows = np.memmap(part, np.float32, "w+", shape=(n_rows, 8192))
        for first in range(0, n_rows, 4096):
            last = min(first + 4096, n_rows)
            labels.X.read_into(first, last, rows[first:last])
        rows.flush()
        part.rename(path)
    return np.memmap(path, np.float32, "r", shape=(n_rows, 8192)), labels.y, labels.conditions


def representations(X, wave, seed):
    """List what the experts may read, by name: parameters of `for_spectra`."""
    clean = WienerScores(32, columns=FLUX, error_columns=ERROR).fit(
        X[:8192], clean=stream_spectra(20_000, random_state=seed, noise_level=0).X
    )
    return {
        "whitened": {"experts__projection": "whitened", "quality_gate__score_variances": False},
        "Wiener": {},
        "Wiener, clean basis": {"experts__projection": FrozenEstimator(clean)},
    }


def kept(path, compute):
    """Return what `path` holds, or compute it and keep it there."""
    if not path.exists():
        joblib.dump(compute(), path)
    return joblib.load(path)


def predict_all(seed, n_train, test, directory, *, only_peers=False):
    """Predictions on the test rows by name: of mixtures, or of peers on what the mixtures read."""
    X, y, conditions = simulate(n_train, seed, directory)
    found = {}
    for kind, changes in representations(X, test.wave, seed).items():
        for n_rows in (n_train,) if only_peers else (n_train, FEW):
            train = X[:n_rows], y[:n_rows], conditions[:n_rows]
            name = f"{seed}_{kind.replace(' ', '')}_{n_rows}"
            start = time.perf_counter()
            rows, unseen = kept(directory / f"rows_{name}.joblib", partial(read, train, test, changes, seed))
            if only_peers:
                others = kept(directory / f"peers_{name}.joblib", partial(predict_peers, rows, train, unseen))
                found |= {f"{kind}|{peer}, {n_rows:,} rows": values for peer, values in others.items()}
            else:
                mixtures = MIXTURES if n_rows > FEW else {DUAL: {}}
                compute = partial(predict_mixtures, kind, rows, train, unseen, changes, seed, mixtures)
                found |= kept(directory / f"mixtures_{name}.joblib", compute)
            print(f"  seed {seed}, {kind}, {n_rows:,} rows: {time.perf_counter() - start:.0f} s", flush=True)
    return found


def read(train, test, changes, seed):
    """Reduced training and test rows."""
    base = DualTowerMoERegressor.for_spectra(test.wave, experts="hierarchical", n_jobs=-1, random_state=seed, **changes)
    X, y, conditions = train
    reduction = base.make_reduction().fit(X, y, regimes=base.known_codes(conditions, len(y)))
    return reduction.read(X, training=True), reduction.read(test.X)


def predict_mixtures(kind, rows, train, unseen, changes, seed, mixtures):
    """Predictions of the mixtures on one representation, and of the root ridge."""
    found, (_, y, conditions) = {}, train
    for name, parameters in mixtures.items():
        own = {key: value for key, value in changes.items() if key.split("__")[0] not in parameters}
        model = DualTowerMoERegressor.for_spectra(
            np.linspace(7100, 8850, 4096), experts="hierarchical", random_state=seed, **own, **parameters
        )
        trace = model.fit(rows, y, regimes=conditions).trace(unseen)
        found[f"{kind}|{name}, {len(y):,} rows"] = trace.prediction
        if name == DUAL:
            found[f"{kind}|global ridge, {len(y):,} rows"] = trace.root_prediction
    return found


def predict_peers(rows, train, unseen):
    """Predictions of regressors of other libraries on the same columns."""
    columns, other = (_columns(each) for each in (rows, unseen))
    return {name: peer.fit(columns, train[1]).predict(other) for name, peer in peers().items()}


def _columns(rows):
    """Everything that a mixture may read of some rows, side by side."""
    variances = [] if rows.variances is None else [np.log(rows.variances)]
    return np.hstack([rows.projected, np.log(rows.snr)[:, None], *rows.features.values(), *variances])


def main(n_train=200_000, seeds="42,123,456", directory="quality-places", peer_seeds="42"):
    n_train, directory = int(n_train), Path(directory)
    seeds, peer_seeds = ([int(seed) for seed in text.split(",")] for text in (seeds, peer_seeds))
    directory.mkdir(exist_ok=True)
    test = make_spectra(N_TEST, random_state=42, start=TEST_START)
    few = slice(0, N_BAYES)
    limit = kept(directory / "bayes.joblib", partial(bayes_limit, test.X[few], y=test.y[few], random_state=0))
    found = [predict_all(seed, n_train, test, directory) for seed in seeds]
    for own, seed in zip(found, seeds, strict=True):
        if seed in peer_seeds:
            own |= predict_all(seed, n_train, test, directory, only_peers=True)
    report(test, found, limit)


def report(test, per_seed, limit):
    """Print the tables."""
    slices = row_slices(N_TEST, snr=test.snr)
    few = slice(0, N_BAYES)
    tables, shares = [], []
    for found in per_seed:
        tables.append(bootstrap_scores(test.y, found, slices, n_resamples=N_DRAWS, random_state=0))
        guesses = {"limit": limit.prediction} | {name: guess[few] for name, guess in found.items()}
        table = bootstrap_scores(test.y[few], guesses, n_resamples=N_DRAWS, random_state=0)
        whole, own = table.estimate("r2", "limit"), {name: table.estimate("r2", name) for name in found}
        shares.append({name: Estimate(r2.value / whole.value, r2.draws / whole.draws) for name, r2 in own.items()})

    size = np.quantile(limit.effective_sample_size, [0, 0.05, 0.5])
    print(f"Bayes limit: expected R2 {limit.r2:.3f}, observed {whole.value:.3f}")
    print(f"effective sample sizes: smallest, 5 %, median {size.round()}")
    print(f"{'representation | model':66s} R2 {'X':>26s} {'L':>6s} {'M':>6s} {'H':>6s}   share of the limit, seeds")
    names = list(dict.fromkeys(name for found in per_seed for name in found))
    for name in names:
        known = [table for found, table in zip(per_seed, tables, strict=True) if name in found]
        r2 = seed_interval([table.estimate("r2", name) for table in known])
        share = seed_interval([each[name] for each in shares if name in each])
        means = (np.mean([table.estimate("r2", name, part).value for table in known]) for part in SNR_NAMES)
        bins = " ".join(f"{value:6.3f}" for value in means)
        print(f"{name:66s} {r2}  {bins}   {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]  {len(known)}")

    def gain(name, other, part):
        pairs = [table for found, table in zip(per_seed, tables, strict=True) if name in found and other in found]
        return seed_interval([table.estimate("r2", name, part, reference=other) for table in pairs])

    rows = names[0].rsplit(", ", 1)[1]
    print("\ngains (paired): all rows, bin X")
    for kind in dict.fromkeys(name.split("|")[0] for name in names):
        dual = f"{kind}|{DUAL}, {rows}"
        for other in [*MIXTURES, "HistGradientBoosting", "LightGBM", "MLP"]:
            against = f"{kind}|{other}, {rows}"
            if other != DUAL and against in names:
                print(f"{kind}: dual 9x4 over {other:36s} {gain(dual, against, 'all')}   {gain(dual, against, 'X')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
