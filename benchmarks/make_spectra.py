"""Time ``make_spectra`` for 20,000 rows: ``python benchmarks/make_spectra.py [n_samples]``."""

import sys
import time

from dualgate.datasets import make_spectra


def main():
    n_samples = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    make_spectra(64, random_state=0)  # loads the emulator
    for _ in range(3):
        begun = time.perf_counter()
        data = make_spectra(n_samples, random_state=0)
        seconds = time.perf_counter() - begun
        print(f"{n_samples} rows of {data.X.shape[1]} columns in {seconds:.2f} s")


if __name__ == "__main__":
    main()
