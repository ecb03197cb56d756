"""The notebooks of docs/notebooks run from their first cell to their last, as Jupyter runs them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
# In a process of its own: Jupyter's client has warnings and an event loop of its own.
RUN = """
import sys, jupytext, nbclient
notebook = jupytext.read(sys.argv[1], fmt="py:percent")
client = nbclient.NotebookClient(notebook, timeout=None, startup_timeout=600, kernel_name="python3")
client.execute(cwd=".")
jupytext.write(notebook, sys.argv[2], fmt="ipynb")
"""

pytestmark = pytest.mark.notebooks
TRAIN = all(importlib.util.find_spec(name) for name in ("sklearn", "matplotlib"))


def outputs(cell: dict[str, Any]) -> str:
    """What a cell printed and gave, as text."""
    texts = []
    for output in cell.get("outputs", ()):
        texts += output.get("text", ())
        texts += output.get("data", {}).get("text/plain", ())
    return "".join(texts)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a notebook in an empty folder with the pages beside it; returns its cells' outputs."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))

    def run_notebook(name: str) -> list[str]:
        script, executed = ROOT / "docs" / "notebooks" / f"{name}.py", tmp_path / f"{name}.ipynb"
        command = [sys.executable, "-c", RUN, str(script), str(executed)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
        return [outputs(cell) for cell in cells if cell["cell_type"] == "code"]

    return run_notebook


def test_first_steps(run: Any) -> None:
    shown, label, scores, regions, several, crop = run("first_steps")
    assert "Prediction" in shown
    assert label.startswith("happiness 100.0%")
    assert len(scores.splitlines()) == 8 and scores.startswith("happiness")
    assert len(regions.splitlines()) == 5
    assert several.splitlines()[0] == "1" and "missing.jpg: no such file" in several
    assert crop == "'happiness'"


def test_explanations(run: Any) -> None:
    _, drops, without_mouth, blurred = run("explanations")
    assert drops.startswith("happiness 100% decided by: mouth\nwithout mouth ")
    assert 0.5 < float(without_mouth) < 0.95
    eyes, mouth = (float(line.split()[-1].rstrip("%")) for line in blurred.splitlines())
    assert eyes > 90 and mouth < eyes


@pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs pcnn[video]")
def test_film(run: Any) -> None:
    _, frames, people, row = run("film")
    assert len(frames.splitlines()) == 10
    assert all("person 1  happiness" in line for line in frames.splitlines())
    assert people == "people: 1\n"
    assert row.startswith("(0.0, 1, 'happiness', 0.9")


@pytest.mark.skipif(not TRAIN, reason="needs pcnn[train]")
def test_own_labels(run: Any) -> None:
    _, report, used, suspects = run("own_labels")
    assert report.startswith("50 faces of 50 pictures\nCross-validated in 5 folds")
    bare, worn, portrait = (line.split() for line in used.splitlines())
    assert bare[1] == portrait[1] == "bare" and worn[1] == "sunglasses"
    assert "moved.png" in suspects


@pytest.mark.skipif(not TRAIN, reason="needs pcnn[train]")
def test_paper(run: Any, tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "ferplus").symlink_to(shared_data / "ferplus")
    size, accuracy, confusion, regions, mosaic = run("paper")
    assert size.startswith("150 faces: neutral, happiness, ")
    share = float(accuracy.split("%")[0])
    assert 70 < share < 97 and accuracy.endswith("of 150 faces\n")
    shares = {line.split()[0]: int(line.split()[1].rstrip("%")) for line in regions.splitlines()}
    assert len(shares) == 6 and shares["whole"] == max(shares.values())
    assert all("image" in each.lower() for each in (confusion, mosaic))


def test_every_notebook_is_run_and_listed() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert {script.stem for script in SCRIPTS} == {
        *("first_steps", "own_labels", "explanations", "film", "paper"),
    }
    assert all(f"generated/notebooks/{script.stem}" in index for script in SCRIPTS)
