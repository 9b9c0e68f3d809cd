"""One fit of the default mixture for spectra over rows that stream: seconds a stage, memory, and how both grow.

    python benchmarks/scaling.py 10000 100000 1000000

Each size runs in a process of its own, for its peak memory. The rows are simulated when they are read, twice (those
that the factors learn from ten times more), so that the time of a row includes that of making it; `reading` is measured
apart, on 20,000 rows.
"""

import json
import resource
import subprocess
import sys
import time
from functools import partial


def measure(n_rows):
    import numpy as np

    from dualgate import DualTowerMoERegressor, passes
    from dualgate.datasets import make_spectra, stream_spectra
    from dualgate.rows import iter_blocks

    seconds = {}
    runner = passes.runner.get()

    def timed(owner, running, X, *rest):
        start = time.perf_counter()
        found = runner(owner, running, X, *rest)
        stage = {"Survey": "survey", "FactorSums": "factors"}.get(type(running[0]).__name__, "sums")
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
        return found

    passes.runner.set(timed)
    data = stream_spectra(n_rows, random_state=42)
    start = time.perf_counter()
    for _ in iter_blocks("benchmark", data.X[:20_000], n_jobs=-1):
        pass
    reading = (time.perf_counter() - start) / min(n_rows, 20_000)
    model = DualTowerMoERegressor.for_spectra(data.wave, fusion="poe", n_jobs=-1, random_state=0)
    start = time.perf_counter()
    model.fit(data.X, data.y, regimes=data.regimes)
    total = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    test = make_spectra(10_000, random_state=42, start=2 * 10**9)
    passes_seconds = seconds["survey"] + seconds["sums"]
    return {
        "rows": n_rows,
        "reading us/row": reading * 1e6,
        "survey us/row": seconds["survey"] / n_rows * 1e6,
        "sums us/row": seconds["sums"] / n_rows * 1e6,
        "both passes us/row": passes_seconds / n_rows * 1e6,
        "steps of the factors s": seconds["factors"],
        "rest s": total - passes_seconds - seconds["factors"],
        "total s": total,
        "peak GiB": memory,
        "R2 on 10,000 more": float(np.round(model.score(test.X, test.y), 4)),
    }


def main(sizes):
    for size in sizes:
        run = partial(subprocess.run, capture_output=True, text=True, check=True)
        result = json.loads(run([sys.executable, __file__, "--one", str(size)]).stdout)
        print("  ".join(f"{name} {value:,.4g}" for name, value in result.items()), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        main(list(map(int, sys.argv[1:])) or [10_000, 100_000, 1_000_000])
