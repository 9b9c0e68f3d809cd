"""The notebooks run from top to bottom, and are what their sources say."""

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SOURCES = sorted(EXAMPLES.glob("*.py"))


def test_there_are_examples():
    assert len(SOURCES) >= 2


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's own dependencies
def test_notebook_matches_its_source(source):
    import jupytext

    script, notebook = jupytext.read(source), jupytext.read(source.with_suffix(".ipynb"))
    assert [cell.source for cell in script.cells] == [cell.source for cell in notebook.cells]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "the stored notebook has not been executed"
    errors = [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert not errors


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_runs(source, monkeypatch):
    import matplotlib

    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    matplotlib.use("Agg")
    namespace = {"__name__": "example"}
    exec(compile(source.read_text(), str(source), "exec"), namespace)
