"""One fit of the default mixture for spectra over rows that stream: seconds a stage, memory, and how both grow.

    python benchmarks/scaling.py 10000 100000 1000000

Each size runs in a process of its own, for its peak memory. The rows are simulated when they are read, once for the
reduction and, up to 60,000 of them, once for each step of expectation-maximisation, so that the time of a row includes
its simulation; `reading` is measured separately, on 20,000 rows.
"""

import json
import resource
import subprocess
import sys
import time
from functools import partial


def measure(n_rows):
    import numpy as np

    from dualgate import DualTowerMoERegressor
    from dualgate.datasets import make_spectra, stream_spectra
    from dualgate.rows import iter_blocks
    from dualgate.rows.passes import runner

    seconds = {}
    run = runner.get()

    def timed(owner, running, X, *rest):
        start = time.perf_counter()
        found = run(owner, running, X, *rest)
        stage = "factors" if type(running[0]).__name__ == "FactorSums" else "reduction"
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
        return found

    runner.set(timed)
    data = stream_spectra(n_rows, random_state=42)
    start = time.perf_counter()
    for _ in iter_blocks("benchmark", data.X[:20_000], n_jobs=-1):
        pass
    reading = (time.perf_counter() - start) / min(n_rows, 20_000)
    model = DualTowerMoERegressor.for_spectra(
        data.wave, experts="hierarchical", fusion="poe", n_jobs=-1, random_state=0
    )
    start = time.perf_counter()
    model.fit(data.X, data.y, regimes=data.regimes)
    total = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    test = make_spectra(10_000, random_state=42, start=2 * 10**9)
    return {
        "rows": n_rows,
        "reading us/row": reading * 1e6,
        "reduction us/row": seconds["reduction"] / n_rows * 1e6,
        "steps of the factors s": seconds["factors"],
        "rest s": total - sum(seconds.values()),
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
