"""The study: whether two towers together beat the better one alone."""

from importlib import import_module

_HOMES = {
    "StudyConfig": "dualgate.study.config",
    "load_config": "dualgate.study.config",
    "run_study": "dualgate.study.run",
    "analyse": "dualgate.study.analysis",
    "judge": "dualgate.study.analysis",
    "seed_interval": "dualgate.study.analysis",
    "write_report": "dualgate.study.report",
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dualgate.study' has no attribute {name!r}; it has {', '.join(_HOMES)}.")
