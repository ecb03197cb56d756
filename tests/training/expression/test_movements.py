"""A teacher's movements, learnt beside the expressions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from pcnn.datasets.labels import FaceSet
from pcnn.errors import InputError
from pcnn.training.expression.landmarker import movement_targets
from pcnn.training.expression.loop import ExpressionTraining
from pcnn.training.expression.losses import movement_loss
from pcnn.training.expression.options import ExpressionOptions

OPTIONS = ExpressionOptions(
    network="trunk", data="", output="", size=32, width=8, epochs=4, batch=8, movements="table.npz"
)


def _table(path: Path, count: int) -> tuple[str, ...]:
    """Answers for faces in reverse order; the second was not found."""
    generator = np.random.default_rng(0)
    movements = generator.random((count, 5)).astype(np.float32)
    movements[:, 4] = 0.2  # never varies
    found = np.arange(count) != 1
    names = np.array([f"face{i}" for i in range(count)])
    np.savez(
        path,
        image=names[::-1],
        found=found[::-1],
        movements=movements[::-1],
        names=np.array(["smileLeft", "jawOpen", "smileRight", "pucker", "cheekPuff"]),
    )
    return tuple(names.tolist())


def test_left_and_right_are_averaged_and_constant_ones_left_out(tmp_path: Path) -> None:
    names = _table(tmp_path / "t.npz", 40)
    found = movement_targets(tmp_path / "t.npz", names)
    with np.load(tmp_path / "t.npz") as table:
        own = table["movements"][::-1]
    assert found.shape == (40, 3) and found.dtype == torch.float32
    assert found[1].isnan().all() and found[[0, 2]].isfinite().all()
    known = [i for i in range(40) if i != 1]
    smile = (own[:, 0] + own[:, 2])[known] / 2
    expected = (smile - smile.mean()) / smile.std()
    np.testing.assert_allclose(found[known, 0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(found[known].mean(0), 0, atol=1e-5)


def test_other_files_are_refused(tmp_path: Path) -> None:
    names = _table(tmp_path / "t.npz", 4)
    with pytest.raises(InputError, match=r"movements .*t\.npz: holds no movements of these faces"):
        movement_targets(tmp_path / "t.npz", (*names, "stranger"))
    with np.load(tmp_path / "t.npz") as table:
        own = dict(table)
    for change, reason in (
        ({"found": np.zeros(4, bool)}, "the teacher found no face"),
        ({"movements": np.full((4, 5), 0.2, np.float32)}, "no movement varies"),
    ):
        np.savez(tmp_path / "v.npz", **{**own, **change})
        with pytest.raises(InputError, match=reason):
            movement_targets(tmp_path / "v.npz", names)
    np.savez(tmp_path / "u.npz", image=np.array(names))
    with pytest.raises(InputError, match="holds no movements"):
        movement_targets(tmp_path / "u.npz", names)


def test_unknown_movements_cost_nothing() -> None:
    answers = torch.tensor([[0.0, 2.0], [5.0, 5.0]], requires_grad=True)
    targets = torch.tensor([[0.0, 0.0], [float("nan")] * 2])
    loss = movement_loss(answers, targets)
    assert float(loss.detach()) == pytest.approx((0 + 1.5) / 2)  # smooth: 2 − ½
    loss.backward()
    assert answers.grad is not None and answers.grad[1].abs().sum() == 0
    unknown = movement_loss(answers, targets[1:].expand(2, 2))
    assert float(unknown.detach()) == 0


@pytest.mark.train
def test_movements_are_learnt_beside_the_expressions() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(48) % 2
    faces = torch.randint(60, 120, (48, 48, 48), generator=draw, dtype=torch.uint8)
    faces[labels == 1, :24] += 120
    train = FaceSet(faces, torch.eye(8)[labels], tuple(map(str, range(48))))
    movements = torch.stack((2.0 * labels - 1, torch.zeros(48)), 1)
    movements[5] = float("nan")
    training = ExpressionTraining(OPTIONS, train, movements=movements)
    for _ in range(training.steps):
        training.advance()
    training.learner.eval()
    seen = training.learner(torch.randn(3, 1, 32, 32))[1]
    assert seen is not None and seen.shape == (3, 2)
    batch, _, targets = training._batch()
    with torch.no_grad():
        answers = training.learner(batch)[1]
    assert targets is not None and answers is not None
    known = targets.isfinite().all(1)
    right = (answers[known, 0] > 0) == (targets[known, 0] > 0)
    assert right.float().mean() > 0.8
    # The head is the training's alone: the written network is one without it.
    plain = ExpressionTraining(dataclasses.replace(OPTIONS, movements=None), train)
    assert training.result().network.state_dict().keys() == (
        plain.result().network.state_dict().keys()
    )
    assert plain._batch()[2] is None and plain.learner.movements is None
    for wrong in (None, movements[:-1]):
        with pytest.raises(InputError, match="movements must have a row for each face"):
            ExpressionTraining(OPTIONS, train, movements=wrong)
