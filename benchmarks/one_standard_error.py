"""How often the one-standard-error rule keeps the simplest level, in its three forms; the table of docs/method.md."""

import numpy as np

from dualgate import OneStandardError

LEVELS = np.repeat(np.arange(4), (2, 4, 2, 4))  # one tower, both, one with bins, both with bins
FORMS = {
    "first form": OneStandardError(paired=False),
    "paired": OneStandardError(test_ratio=0.0),
    "paired, overlap counted": OneStandardError(),
}


def simulate(gain, between, rng, n_folds=5, own=0.006):
    """Scores of all candidates on all folds; two towers gain so much."""
    level = rng.normal(0, own, (4, n_folds))[LEVELS]
    scores = rng.normal(0, between, n_folds) + 0.8 * level + 0.6 * rng.normal(0, own, (len(LEVELS), n_folds))
    return scores + gain * (LEVELS % 2)[:, None]


def main(n_trials=4000):
    rng = np.random.default_rng(0)
    for gain in (0.0, 0.011):
        for between in (0.005, 0.02):
            trials = [simulate(gain, between, rng) for _ in range(n_trials)]
            kept = {
                name: np.mean([LEVELS[rule.compare(scores, LEVELS)["chosen"]] == 0 for scores in trials])
                for name, rule in FORMS.items()
            }
            print(f"gain {gain:.3f}, scatter {between:.3f}:", *(f"{name} {share:.0%}" for name, share in kept.items()))


if __name__ == "__main__":
    main()
