"""The door is light, and imports run downward only."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import dualgate

ROOT = Path(dualgate.__file__).parent

# who may import whom: a module sees only rooms of a smaller number, and its own
FLOORS = {
    "_markdown": 0,
    "_validation": 0,
    "snr": 1,
    "statistics": 1,
    "_components": 1,
    "density": 1,
    "intervals": 1,
    "trace": 2,
    "evaluation": 2,
    "rows": 2,
    "datasets": 3,
    "features": 3,
    "gating": 4,
    "reduction": 4,
    "experts": 5,
    "mixture": 6,
    "selection": 7,
    "export": 7,
    "study": 8,
    "__main__": 9,
}
TORCH = {"gating/nets.py", "gating/training.py", "export/modules.py"}  # import torch; imported inside functions


def modules():
    return [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]


def room(path):
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imported(path):
    """Names of the modules that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            yield node.module
            if node.module == "dualgate":
                yield from (f"dualgate.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward(path):
    here = room(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] in ("torch", "skorch"):
            assert str(path.relative_to(ROOT)) in TORCH, f"only {', '.join(sorted(TORCH))} import {name}"
        if parts[0] == "dualgate" and len(parts) > 1 and parts[1] in FLOORS and parts[1] != here:
            assert FLOORS[parts[1]] < FLOORS[here], f"{here} may not import {parts[1]}"


def test_importing_loads_neither_torch_nor_matplotlib():
    script = (
        "import json, sys, dualgate, dualgate.datasets, dualgate.evaluation, dualgate.export;"
        "dualgate.DualTowerMoERegressor();"
        "heavy = {'torch', 'skorch', 'matplotlib', 'h5py', 'tables', 'dask', 'zarr', 'astropy'};"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == []


def test_every_public_name_is_there_and_listed():
    for name in dualgate.__all__:
        assert getattr(dualgate, name) is not None
        assert name in dir(dualgate)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = dualgate.nonsense


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_room_reaches_into_private_attributes_of_another(path):
    """No `x._name` on anything but self, cls, and names imported from modules of the same room."""
    tree, here = ast.parse(path.read_text()), room(path)
    own = {"self", "cls"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith(f"dualgate.{here}"):
            own |= {alias.asname or alias.name for alias in node.names}
    reached = [
        f"{path.name}:{node.lineno} {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in own)
        and ast.unparse(node.value) != "super()"
    ]
    assert reached == []


def test_no_file_name_is_used_twice():
    names = [path.name for path in modules() if path.name != "__init__.py"]
    assert sorted(set(names)) == sorted(names)
