"""What a result depends on: versions, the code, the host, and hashes of them."""

import hashlib
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import joblib

import dualgate
from dualgate.study.config import StudyConfig
from dualgate.study.methods import digest

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "skorch")
SHOWING = (
    *("analysis", "answers", "bayes", "cli", "command", "config", "figures", "gates", "glossary", "identity", "keys"),
    *("listing", "page", "places", "progress", "report", "report_tables", "roster", "scoring", "summary", "tidy"),
    "verdict",
)  # a method's fit is named after its own parameters


def environment() -> dict:
    """Versions of what may change the numbers, cores, and memory [GiB]; nothing that names the host."""
    return {**versions(), "matplotlib": version("matplotlib"), "cores": joblib.cpu_count(), "memory_gib": memory_gib()}


def versions() -> dict:
    """Versions of everything that may change the numbers."""
    return {
        "dualgate": dualgate.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def memory_gib() -> float:
    """Memory of this machine [GiB]; NaN where the system does not tell."""
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows
        return float("nan")
    return round(pages * size / 2**30, 1)


def peak_memory_gib() -> float:
    """Largest resident memory of this process so far [GiB]; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def result_hash(config: StudyConfig, surroundings: dict) -> str:
    """SHA-256 of the effective configuration, versions and host facts."""
    return digest([config.as_dict(), surroundings])


def stages_hash(config: StudyConfig, fingerprint: list) -> str:
    """SHA-256 of what the stages' numbers depend on.

    The rows and what they hold, the training, the library's code and the versions; not where results go, which
    methods and seeds are asked for (each has stages of its own), how gains are judged, nor where the files lie.

    Parameters
    ----------
    config : StudyConfig
    fingerprint : list
        What tells the rows from others, as `StudyRows.fingerprint` gives it.
    """
    settings = config.as_dict()
    columns = {name: value for name, value in settings["data"].items() if name != "source"}
    relevant = {"columns": columns} | {name: settings[name] for name in ("rows", "training", "scores")}
    return digest([relevant, config.data.kind, fingerprint, versions(), code_hash()])


def code_hash() -> str:
    """SHA-256 of the library's files, less those that only show results."""
    home, found = Path(dualgate.__file__).parent, hashlib.sha256()
    shown = {home / "study" / f"{name}.py" for name in SHOWING}
    for path in sorted(home.rglob("*")):
        if path.suffix in (".py", ".npz", ".csv") and path not in shown:
            found.update(path.relative_to(home).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()
