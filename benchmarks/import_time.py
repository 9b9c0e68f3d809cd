"""How long ``import dualgate`` takes beyond scikit-learn's own import: medians of five fresh interpreters.

python benchmarks/import_time.py
"""

import subprocess
import sys
from statistics import median

SCRIPT = """
import time
import sklearn
start = time.perf_counter()
import dualgate
imported = time.perf_counter()
dualgate.DualTowerMoERegressor
print(imported - start, time.perf_counter() - start)
"""


def main():
    runs = [
        subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True, text=True) for _ in range(5)
    ]
    package, estimator = zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
    print(f"import dualgate {median(package):.3f} s, with DualTowerMoERegressor {median(estimator):.3f} s")


if __name__ == "__main__":
    main()
