"""Training by several processes, started as docs/training.md says."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcnn import weights
from pcnn.networks.pcnn import FERPLUS_CLASSES

TESTS = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.train

# What `pcnn-train` does; saves each process's network, to be compared.
_COMMAND = """
import os, sys, torch
import sys; sys.path.append(os.environ["TESTS"]); import cli
from pcnn.training.expression import data, run as train_expression
from pcnn.training.expression.loop import ExpressionTraining
class Watched(ExpressionTraining):
    def advance(self):
        loss = super().advance()
        torch.save(self.learner.network.state_dict(), f"rank{self.rank}.pt")
        return loss
train_expression.ExpressionTraining = Watched
# No detector finds a face in these.
points = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]
data.measure_template = lambda *_: points
sys.exit(cli.train(sys.argv[1:]))
"""


def _sheets(folder: Path) -> None:
    """FER+ as contact sheets: 80 faces a split, a bright half says the class."""
    draw = np.random.default_rng(0)
    for split in ("train", "valid"):
        tiles = draw.integers(60, 120, (80, 48, 48), dtype=np.uint8)
        tiles[1::2, :24] += 120
        sheet = tiles.reshape(2, 40, 48, 48).swapaxes(1, 2).reshape(2 * 48, 40 * 48)
        Image.fromarray(sheet).save(folder / f"{split}_00.png")
        with (folder / f"{split}.csv").open("w", newline="") as table:
            rows = csv.writer(table)
            rows.writerow(["image", *FERPLUS_CLASSES, "unknown", "NF", "fer2013", "duplicate"])
            for i in range(80):
                votes = [10 if i % 2 == place else 0 for place in range(8)]
                rows.writerow([f"fer{i:07}", *votes, 0, 0, "neutral", 0])


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    """They hold the same parameters after the last step, and one of them writes the files."""
    data = tmp_path / "faces"
    data.mkdir()
    _sheets(data)
    words = ["trunk", "--data", str(data), "--output", "trunk.safetensors", "--device", "cpu"]
    words += [
        "--size",
        "32",
        "--width",
        "8",
        "--epochs",
        "2",
        "--batch",
        "16",
        "--learning-rate",
        "3e-3",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", sys.executable, "-c", _COMMAND, *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TESTS": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("wrote trunk.safetensors") == 1
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    same = {name: torch.equal(value, second[name]) for name, value in first.items()}
    # Norms see their own process's faces; all that is learnt by gradients is one and the same.
    assert [name for name, equal in same.items() if not equal and "running" not in name] == []
    assert not same["trunk.bn1.running_mean"], "both processes saw the same faces"
    log = [
        json.loads(line)
        for line in (tmp_path / "trunk.safetensors.log.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in log] == [5, 10]
    assert weights.load_expression(tmp_path / "trunk.safetensors").network.config.width == 8
