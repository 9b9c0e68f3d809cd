"""`dualgate study` from its arguments to its files: progress on stderr, the table on stdout."""

import platform
import sys
import time
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import joblib
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.utils import Bunch

import dualgate
from dualgate.datasets import open_spectra, stream_spectra
from dualgate.study.analysis import analyse
from dualgate.study.report import method_rows, summary, write_report
from dualgate.study.roster import gated_methods
from dualgate.study.runner import N_READING, run_study

TABLE_WIDTH = 140  # where the output is no terminal
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "skorch", "matplotlib")


def run(rows: int | None, seeds: list[int], directory: Path, data: str) -> dict:
    """Run the study, print its table and write its files.

    Parameters
    ----------
    rows : int or None
        Spectra per seed; None is all there are in `data`.
    seeds : list of int
        Seeds of rows and models.
    directory : Path
        Existing directory for the files.
    data : str
        "embedded" for simulated spectra, else path or pattern of HDF5 shards.

    Returns
    -------
    results : dict
        What `results.json` holds.
    """
    start = time.perf_counter()
    columns = [BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")]
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(seeds) * (N_READING + len(gated_methods())) + 2)
        begun = iter([0])

        def on_stage(label):
            progress.update(task, advance=next(begun, 1), description=label)

        records = run_study(partial(make_data, data, rows), seeds, on_stage=on_stage)
        on_stage("scores and intervals")
        results = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": {"data": data, "rows": records[0].n_rows, "seeds": seeds},
            "environment": environment(),
            **analyse(records),
        }
        on_stage("report")
        results["total_seconds"] = time.perf_counter() - start
        results["peak_memory_gib"] = peak_memory()
        results["summary"] = summary(results)
        paths = write_report(results, directory)
        progress.update(task, advance=1, description="done")
    _print(results, paths)
    return results


def make_data(data: str, rows: int | None, seed: int) -> Bunch:
    """Rows of one seed, read when they are needed: simulated ones, or those of shards with noise of this seed."""
    if data == "embedded":
        return stream_spectra(rows, random_state=seed)
    spectra = open_spectra(data, stop=rows, random_state=seed)
    spectra.ordered = True
    return spectra


def environment() -> dict:
    """Versions of everything that may change the numbers, and the number of cores."""
    return {
        "dualgate": dualgate.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "cores": joblib.cpu_count(),
    }


def peak_memory() -> float:
    """Largest resident memory of this process so far [GiB]; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _print(results, paths):
    """Table, verdicts and where the files are."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    head, *body = method_rows(results)
    table = Table(header_style="bold")
    for place, name in enumerate(head):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in body:
        table.add_row(*row)
    console.print(table)
    console.print("ρ: share of the gain from global ridge to oracle. SNR bins: X ≤ 2, L 2 to 4, M 4 to 7, H > 7.")
    console.print(summary(results), highlight=False, markup=False)
    for path in paths:
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)
