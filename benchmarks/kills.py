"""Kill a fit with SIGKILL at a random block ten times, and compare what it ends with to a fit that was left alone.

    python benchmarks/kills.py [factor | hierarchical] [n_rows] [n_kills] [seed]

Each fit is a process of its own, over a memory map of simulated spectra; all share one checkpoint. Prints the blocks
that each process read before it was killed, those of the last and of the undisturbed fit, and whether the predictions
have the same bits. Exits with 1 where they do not.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dualgate.datasets import make_spectra

N_NEW = 500  # rows that are predicted
CHILD = """
import sys
import warnings
from pathlib import Path

import numpy as np

from dualgate import DualTowerMoERegressor
from dualgate.rows import ArrayRows, sources, store

folder, experts, checkpoint = Path(sys.argv[1]), sys.argv[2], sys.argv[3] or None
warnings.simplefilter("ignore")
sources.BLOCK_BYTES, store.EVERY_BLOCKS = 1 << 20, 2
read = ArrayRows.read_into


def told(self, *place):
    print("block", flush=True)
    return read(self, *place)


ArrayRows.read_into = told
wave, y, regimes = (np.load(folder / f"{name}.npy") for name in ("wave", "y", "regimes"))
X, X_new = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("X", "X_new"))
model = DualTowerMoERegressor.for_spectra(wave, experts=experts, random_state=0)
if experts == "hierarchical":
    model.set_params(max_epochs=3)
model.fit(X, y, regimes=regimes, checkpoint=checkpoint)
np.save(folder / "found.npy", np.array(model.predict(np.asarray(X_new), return_std=True)))
"""


def start(folder, experts, checkpoint=""):
    command = [sys.executable, "-c", CHILD, str(folder), experts, str(checkpoint)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(folder, child):
    """Blocks that a process still reads, and what it found."""
    n_blocks = len(child.communicate()[0].splitlines())
    assert child.returncode == 0, f"the fit ended with {child.returncode}"
    found = folder / "found.npy"
    values = np.load(found)
    found.unlink()
    return n_blocks, values


def write_rows(folder, n_rows, seed, n_new=N_NEW, coarse=8):
    """Write simulated spectra, means of so many pixels, to fit and to predict."""
    data = make_spectra(n_rows + n_new, random_state=seed)
    flux, error = (part.reshape(len(part), -1, coarse) for part in np.hsplit(data.X, 2))
    flux, error = flux.mean(axis=2), np.sqrt(np.square(error).mean(axis=2) / coarse)
    X = np.hstack([flux, error]).astype(np.float32)
    wave = data.wave.reshape(-1, coarse).mean(axis=1)
    parts = {"X": X[:n_rows], "X_new": X[n_rows:], "y": data.y[:n_rows], "regimes": data.regimes[:n_rows]}
    for name, values in {**parts, "wave": wave}.items():
        np.save(folder / f"{name}.npy", values)


def main(experts="factor", n_rows="3000", n_kills="10", seed="0"):
    rng = np.random.default_rng(int(seed))
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder, int(n_rows), int(seed))
        n_whole, expected = finish(folder, start(folder, experts))
        killed = []
        while len(killed) < int(n_kills):
            child, n_read = start(folder, experts, folder / "checkpoint"), 0
            last = rng.integers(2, max(3, n_whole // int(n_kills) + 10))
            while n_read < last and child.stdout.readline():
                n_read += 1
            if n_read < last:
                break  # it ended before
            os.kill(child.pid, signal.SIGKILL)
            child.communicate()
            killed.append(n_read)
        (folder / "found.npy").unlink(missing_ok=True)
        n_last, found = finish(folder, start(folder, experts, folder / "checkpoint"))
    same = np.array_equal(found, expected)
    print(
        f"{experts}: {len(killed)} fits were killed after {', '.join(map(str, killed))} blocks, the last read {n_last}"
    )
    print(f"undisturbed: {n_whole} blocks; predictions and their errors have the same bits: {same}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
