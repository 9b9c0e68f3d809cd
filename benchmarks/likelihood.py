"""What the likelihood brings: the factor mixture against the learned dual tower and other regressors.

    python benchmarks/likelihood.py [directory] [sizes] [seeds] [methods]

Trains on 5,000, 20,000 and 200,000 simulated rows of each seed (42,123,456), with loadings from these noisy rows and
from 20,000 noise-free spectra, and scores everything on the same 10,000 rows that none was fitted to, 2,000 of which
have their Bayes limit too. Prints R2 and the share of the limit with intervals over test rows and seeds, gains with
paired intervals, log score, CRPS, and coverage by SNR bin, and the CPU time and wall time of each fit. Everything is
kept in `directory`, so that a run that was interrupted continues; methods is a comma-separated choice of what takes
part, and a size such as 200000:42+123 is for these seeds alone. The share of the limit against the rows is drawn
to share_of_limit.png. CatBoost and RealMLP (pytabkit) can take part where they are installed.
"""

import sys
import time
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from quality_places import ERROR, FLUX, N_BAYES, N_TEST, TEST_START, _columns, kept, peers, read, simulate
from scipy.stats import norm
from sklearn.frozen import FrozenEstimator

from dualgate import DualTowerMoERegressor
from dualgate.datasets import bayes_limit, make_spectra, stream_spectra
from dualgate.evaluation import SNR_NAMES, Estimate, bootstrap_scores, row_slices
from dualgate.features import WienerScores
from dualgate.snr import quality_bins
from dualgate.study.analysis import seed_interval

DUAL, FACTOR, TOWERS = "dual 9x4", "factor mixture", "factor mixture and towers"
LEVELS = (0.68, 0.90, 0.95)
N_DRAWS, N_FOLDS = 400, 5


def loadings_of(kind, X, seed):
    """Parameters of `for_spectra` for loadings from noisy rows or from noise-free ones."""
    if kind == "noisy rows":
        return {}
    clean = stream_spectra(20_000, random_state=seed, noise_level=0).X
    scores = WienerScores(32, columns=FLUX, error_columns=ERROR).fit(X[:8192], clean=clean)
    return {"experts__projection": FrozenEstimator(scores)}


def fit_factor(train, test, seed, changes, towers):
    """Prediction and density of the default mixture for spectra."""
    X, y, conditions = train
    model = DualTowerMoERegressor.for_spectra(test.wave, towers=towers, n_jobs=-1, random_state=seed, **changes)
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(X, y, regimes=conditions)
    spent = time.perf_counter() - wall, time.process_time() - cpu
    density = model.predict_density(test.X)
    return {
        "mean": model.predict(test.X),
        "log_density": density.log_density(test.y),
        "crps": density.crps(test.y),
        "cdf": density.cdf(test.y),
        "seconds": spent,
        "n_experts": model.experts_.n_experts_,
    }


def fit_dual(rows, unseen, train, seed, wave):
    """Prediction of the dual tower on rows that were reduced before."""
    model = DualTowerMoERegressor.for_spectra(wave, experts="hierarchical", random_state=seed)
    return {"mean": model.fit(rows, train[1], regimes=train[2]).predict(unseen)}


def fit_peer(name, rows, unseen, y):
    """Prediction of another regressor on the scores and quality columns of the dual tower."""
    model = {**peers(), **optional_peers()}[name]
    columns, other = (_columns(each).astype(np.float32) for each in (rows, unseen))
    return {"mean": np.ravel(model.fit(columns, y).predict(other))}


def optional_peers():
    """Regressors of packages that may be missing."""
    found = {}
    try:
        from catboost import CatBoostRegressor

        found["CatBoost"] = CatBoostRegressor(iterations=2000, learning_rate=0.05, verbose=0, random_seed=0)
    except ImportError:
        pass
    try:
        from pytabkit import RealMLP_TD_S_Regressor

        found["RealMLP"] = RealMLP_TD_S_Regressor(device="cpu", random_state=0, n_threads=2)
    except ImportError:
        pass
    return found


def gaussian_scores(mean, std, y):
    """Log density, CRPS and probability integral transform of Gaussian predictions."""
    z = (y - mean) / std
    crps = std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    return {"log_density": norm.logpdf(y, mean, std), "crps": crps, "cdf": norm.cdf(z)}


def compute(seed, n_rows, kind, test, directory, methods):
    """Everything of one seed, number of rows and kind of loadings, by the name of the method."""
    n_drawn = max(n_rows, 20_000)
    X, y, conditions = simulate(n_drawn, seed, directory)
    train = X[:n_rows], y[:n_rows], conditions[:n_rows]
    changes, name = loadings_of(kind, X, seed), f"{seed}_{kind.replace(' ', '')}_{n_rows}"
    reduced = partial(read, train, test, changes, seed)
    found = {}
    for method in methods:
        path = directory / f"{method.replace(' ', '')}_{name}.joblib"
        if not path.exists():
            started = time.perf_counter()
            if method in (FACTOR, TOWERS):
                work = partial(fit_factor, train, test, seed, changes, method == TOWERS)
            else:
                rows, unseen = kept(directory / f"rows_{name}.joblib", reduced)
                work = partial(fit_peer, method, rows, unseen, train[1])
                if method == DUAL:
                    work = partial(fit_dual, rows, unseen, train, seed, test.wave)
            kept(path, work)
            print(f"  {method}, {name}: {time.perf_counter() - started:.0f} s", flush=True)
        found[method] = kept(path, None)
    return found


def report(test, limit, found):
    """Print the tables; `found` is by (rows, kind, seed) and method."""
    few, bins = slice(0, N_BAYES), quality_bins(test.snr)
    slices, found_shares = row_slices(N_TEST, snr=test.snr), {}
    for n_rows, kind in dict.fromkeys(key[:2] for key in found):
        runs = [each for key, each in found.items() if key[:2] == (n_rows, kind)]
        names = [name for name in runs[0] if all(name in run for run in runs)]
        print(f"\n{n_rows:,} rows, loadings from {kind}: R2 by SNR bin, share of the limit")
        tables = [
            bootstrap_scores(
                test.y, {name: run[name]["mean"] for name in names}, slices, n_resamples=N_DRAWS, random_state=0
            )
            for run in runs
        ]
        for name in names:
            shares = []
            for run in runs:
                guesses = {"limit": limit.prediction, name: run[name]["mean"][few]}
                table = bootstrap_scores(test.y[few], guesses, n_resamples=N_DRAWS, random_state=0)
                own, whole = table.estimate("r2", name), table.estimate("r2", "limit")
                shares.append(Estimate(own.value / whole.value, own.draws / whole.draws))
            share = found_shares[n_rows, kind, name] = seed_interval(shares)
            r2 = seed_interval([table.estimate("r2", name) for table in tables])
            by_bin = " ".join(
                f"{np.mean([t.estimate('r2', name, part).value for t in tables]):6.3f}" for part in SNR_NAMES
            )
            text = f"{name:28s} {r2}  {by_bin}   {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"
            if name in (FACTOR, TOWERS):
                gain = seed_interval([table.estimate("r2", name, "all", reference=DUAL) for table in tables])
                text += f"   over {DUAL} {gain}"
            print(text)
            seconds = [run[name]["seconds"] for run in runs if "seconds" in run[name]]
            if seconds:
                wall, cpu = np.median(seconds, axis=0)
                print(
                    f"{'':28s} fit {wall:.0f} s, {cpu:.0f} s of CPU; experts {[run[name]['n_experts'] for run in runs]}"
                )
        if FACTOR in names:
            for name in names:
                if name != FACTOR:
                    gain = seed_interval([table.estimate("r2", FACTOR, "all", reference=name) for table in tables])
                    print(f"  factor mixture over {name:28s} {gain}")
        for name in names:
            if "cdf" in runs[0][name]:
                log_density, crps = (np.mean([run[name][key] for run in runs]) for key in ("log_density", "crps"))
                print(f"{name}: log score {log_density:.3f}, CRPS {crps:.4f}; coverage by bin")
                for level in LEVELS:
                    inside = [np.abs(run[name]["cdf"] - 0.5) < level / 2 for run in runs]
                    cells = " ".join(
                        f"{np.mean([each[bins == i] for each in inside]):.3f}" for i in range(len(SNR_NAMES))
                    )
                    print(f"  {level:.2f}: {cells}")
    return found_shares


def main(directory="likelihood", sizes="5000,20000,200000", seeds="42,123,456", methods=f"{DUAL},{FACTOR}", kinds=""):
    directory = Path(directory)
    directory.mkdir(exist_ok=True)
    test = make_spectra(N_TEST, random_state=42, start=TEST_START)
    few = slice(0, N_BAYES)
    limit = kept(directory / "bayes.joblib", partial(bayes_limit, test.X[few], y=test.y[few], random_state=0))
    print(f"Bayes limit: expected R2 {limit.r2:.3f}")
    found = {}
    for size in sizes.split(","):
        n_rows, _, own = size.partition(":")
        for kind in kinds.split(",") if kinds else ("noisy rows", "noise-free rows"):
            for seed in map(int, own.split("+") if own else seeds.split(",")):
                path = int(n_rows), kind, seed
                found[path] = compute(seed, int(n_rows), kind, test, directory, methods.split(","))
    draw(report(test, limit, found), directory / "share_of_limit.png")


def draw(shares, path):
    """Draw the share of the limit against the number of training rows; `shares` is by (rows, kind, method)."""
    figure, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
    names = list(dict.fromkeys(key[1:] for key in shares))
    for place, (kind, name) in enumerate(names):
        sizes = sorted(key[0] for key in shares if key[1:] == (kind, name))
        points = [shares[n_rows, kind, name] for n_rows in sizes]
        middle = np.array([point.value for point in points])
        error = np.abs(np.array([(point.low, point.high) for point in points]).T - middle)
        shift = 1 + 0.02 * (place - len(names) / 2)  # so that bars stand beside each other
        style = {"color": f"C{list(dict.fromkeys(each[1] for each in names)).index(name)}"}
        label = f"{name}, loadings from {kind}" if len({each[0] for each in names}) > 1 else name
        line = "-" if kind == names[0][0] else "--"
        ax.errorbar(np.array(sizes) * shift, middle, error, fmt="o" + line, ms=4, capsize=2, label=label, **style)
    ax.axhline(1, color="0.6", lw=1)
    ax.set(xscale="log", xlabel="training rows", ylabel="share of the Bayes limit of R2")
    ax.legend(fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main(*sys.argv[1:])
