"""What the gates of a finished study do in each seed: temperatures, and weight on the experts of the lowest SNR bin.

    python benchmarks/gates_by_seed.py [stages of dualgate study --rows 200000 --full] [seeds]

Reads `dualgate-study/stages/<hash>` (the only one there) and seeds 42,123,456. Prints for each seed the rank
correlation with SNR and the means by SNR bin of the temperature over nine experts, and the weight that the 9x4 concat
model puts on the experts of bin X for the test rows of that bin.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from dualgate.evaluation import SNR_NAMES, quality_bins
from dualgate.rows.store import Store
from dualgate.study.inputs import ERRORS, LINES, REGIMES
from dualgate.study.methods import choose_methods
from dualgate.study.run import fit_stage, gate_trace


def main():
    given = sys.argv[1:]
    store = Store(Path(given[0]) if given else next(Path("dualgate-study/stages").iterdir()))
    seeds = map(int, (given[1] if len(given) > 1 else "42,123,456").split(","))
    methods, _ = choose_methods(["temperature_9", "concat_9x4"], frozenset({ERRORS, LINES, REGIMES}))
    by_name = {method.name: method for method in methods}
    for seed in seeds:
        cut = int(store.load(f"seed_{seed}/rows")["n_validation"])
        cool, whole = (store.load(fit_stage(by_name[name], seed).name) for name in ("temperature_9", "concat_9x4"))
        snr, temperature = cool["snr"][cut:], 1 + np.logaddexp(0, cool["quality_logits"][cut:, 0])
        bins = quality_bins(snr)
        means = [f"{name} {temperature[bins == code].mean():.3f}" for code, name in enumerate(SNR_NAMES)]
        weights = gate_trace(by_name["concat_9x4"], whole).weights[cut:].reshape(len(snr), -1, len(SNR_NAMES))
        lowest = weights[bins == 0][:, :, 0].sum(axis=1).mean()
        print(f"{seed}: temperature {spearmanr(temperature, snr)[0]:+.3f}, {', '.join(means)}; weight {lowest:.3f}")


if __name__ == "__main__":
    main()
