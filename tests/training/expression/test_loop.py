"""Training itself, on faces that are quick to learn: a bright half says the class."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pcnn import weights
from pcnn.commands import train_expression as expression_command
from pcnn.commands import train_trunk as trunk_command
from pcnn.datasets.labels import FaceSet
from pcnn.errors import InputError
from pcnn.evaluation.logits import predict_logits
from pcnn.evaluation.metrics import accuracy
from pcnn.faces.alignment import measure_template
from pcnn.faces.resampling import resample
from pcnn.networks.pcnn import PCNN, FaceNet
from pcnn.results.values import Detection
from pcnn.training.expression import data as expression_data
from pcnn.training.expression import run as train_expression
from pcnn.training.expression.loop import ExpressionTraining, draw_faces
from pcnn.training.expression.options import ExpressionOptions
from pcnn.training.expression.run import train_expression as train
from pcnn.training.expression.teachers import mean_answers

pytestmark = pytest.mark.train

OPTIONS = ExpressionOptions(
    network="pcnn",
    data="",
    output="",
    size=32,
    width=8,
    epochs=15,
    batch=8,
    learning_rate=3e-3,
    average=0.9,
)
TRUNK = ExpressionOptions(network="trunk", data="", output="", size=32, width=8, epochs=1, batch=8)


def _faces(count: int = 48) -> FaceSet:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    faces = torch.randint(60, 120, (count, 48, 48), generator=draw, dtype=torch.uint8)
    faces[labels == 1, :24] += 120
    return FaceSet(faces, torch.eye(8)[labels], tuple(str(i) for i in range(count)))


def _written(network: PCNN | FaceNet, path: Path) -> str:
    """The path of a file with a network, for `init` and `teachers`."""
    architecture = "pcnn" if isinstance(network, PCNN) else "trunk"
    metadata = {"architecture": architecture, "config": dataclasses.asdict(network.config)}
    weights.write(path, network.state_dict(), metadata)
    return str(path)


def test_it_learns() -> None:
    faces = _faces()
    training = ExpressionTraining(dataclasses.replace(OPTIONS, epochs=5), faces)
    losses = [training.advance() for _ in range(training.steps)]
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    logits, regions = predict_logits(training.learner.network, faces.faces)
    assert accuracy(logits, faces.votes) > 0.9
    assert regions["mouth"].shape == (48, 8)


def test_hard_labels_and_the_papers_optimizer() -> None:
    faces = _faces()
    doubtful = FaceSet(faces.faces, 0.9 * faces.votes + 0.1 / 8, faces.names)
    options = dataclasses.replace(TRUNK, labels="majority", optimizer="sgd", epochs=16)
    training = ExpressionTraining(options, doubtful)
    _, (targets,), _ = training.batch()
    assert set(targets.flatten().tolist()) == {0.0, 1.0}
    assert isinstance(training.optimizer, torch.optim.SGD)
    training.advance()
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)
    training.step = 15 * training.epoch_steps  # the rate halves after 15 epochs
    training.advance()
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(5e-4)


def test_balance_draws_rare_classes_as_often() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    faces = torch.zeros((100, 48, 48), dtype=torch.uint8)
    rare = FaceSet(faces, torch.eye(8)[labels], tuple(str(i) for i in range(100)))

    def share(balance: float) -> float:
        options = dataclasses.replace(TRUNK, balance=balance)
        drawn = [draw_faces(options, rare.votes, step) for step in range(240)]  # 20 epochs
        return float((labels[torch.cat(drawn)] == 1).double().mean())

    assert share(0) == pytest.approx(0.1, abs=0.005)  # four of 100 are left out in an epoch
    assert share(1) == pytest.approx(0.5, abs=0.05)


def test_teachers_are_mixed_into_the_labels(tmp_path: Path) -> None:
    faces = _faces(16)
    teacher = ExpressionTraining(TRUNK, faces)
    path = tmp_path / "teacher.safetensors"
    teachers = (_written(teacher.learner.network, path),)
    options = dataclasses.replace(TRUNK, teachers=teachers, teaching=0.25, size=40)
    pupil = ExpressionTraining(options, faces)
    logits, _ = predict_logits(teacher.learner.network, faces.faces, mirror=True)
    expected = 0.75 * faces.votes + 0.25 * logits.softmax(1)
    torch.testing.assert_close(pupil.targets, [expected])
    _, (targets,), _ = pupil.batch()
    torch.testing.assert_close(targets, expected[draw_faces(options, faces.votes, 0)])
    pupil.save(tmp_path / "checkpoint")
    path.unlink()
    _written(ExpressionTraining(dataclasses.replace(TRUNK, seed=5), faces).learner.network, path)
    resumed = ExpressionTraining(options, faces, checkpoint=tmp_path / "checkpoint")
    assert torch.equal(resumed.targets[0], pupil.targets[0])  # as they were taught at first
    assert not torch.equal(ExpressionTraining(options, faces).targets[0], pupil.targets[0])
    other = FaceSet(faces.faces, faces.votes[:, :7], faces.names, faces.classes[:7])
    with pytest.raises(InputError, match=r"teacher .* must have the data's classes neutral"):
        ExpressionTraining(options, other)
    path.unlink()  # teachers that have answered are not read again
    again = ExpressionTraining(options, faces, checkpoint=tmp_path / "checkpoint")
    assert torch.equal(again.batch()[1][0], targets)


@pytest.mark.parametrize("colour", [False, True])
def test_photographs_are_learnt_as_teachers_label_them(colour: bool, tmp_path: Path) -> None:
    faces = _faces(16)
    if colour:
        faces = dataclasses.replace(faces, faces=faces.faces[..., None].expand(-1, -1, -1, 3))
    teacher = ExpressionTraining(TRUNK, faces).learner.network
    path = _written(teacher, tmp_path / "teacher.safetensors")
    photographs = torch.randint(
        0, 255, (5, 96, 96, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8
    )
    photographs = photographs if colour else photographs[..., 0]
    options = dataclasses.replace(
        TRUNK, size=96, teachers=(path,), photographs="a.tar", photographs_share=0.5
    )
    pupil = ExpressionTraining(options, faces, photographs=photographs)
    (targets,) = pupil.targets
    assert targets.shape == (16 + 5, 8)
    # They are labelled as coarse as the training faces: two by two pixels at a time.
    if colour:
        coarse = photographs.view(5, 48, 2, 48, 2, 3).float().mean((2, 4))
    else:
        coarse = photographs.view(5, 48, 2, 48, 2).float().mean((2, 4))
    logits, _ = predict_logits(teacher, coarse.round().byte(), mirror=True)
    torch.testing.assert_close(targets[16:], logits.softmax(1), atol=0.02, rtol=0)
    seen, (wanted,), _ = pupil.batch()
    assert seen.shape == (8 + 4, 3 if colour else 1, 96, 96) and wanted.shape == (12, 8)
    assert all(any(torch.equal(row, other) for other in targets[16:]) for row in wanted[8:])
    pupil.advance()
    unsure = dataclasses.replace(options, photographs_confidence=float(targets[16:].amax()))
    sure = ExpressionTraining(unsure, faces, photographs=photographs)
    (targets,) = sure.targets
    likeliest = targets[16 + int(targets[16:].amax(1).argmax())]
    assert all(torch.equal(row, likeliest) for row in sure.batch()[1][0][8:])


def test_second_labels_have_heads_of_their_own(tmp_path: Path) -> None:
    faces = _faces(16)
    seven = FaceSet(faces.faces, torch.eye(7)[torch.arange(16) % 2], faces.names, faces.classes[:7])
    options = dataclasses.replace(TRUNK, second=0.5, epochs=8)
    training = ExpressionTraining(options, faces, second=seven)
    losses = [training.advance() for _ in range(training.steps)]
    assert losses[-1] < losses[0]
    other = training.learner.relabelled()
    assert other.config.classes == faces.classes[:7]
    assert predict_logits(other, faces.faces)[0].shape == (16, 7)
    with pytest.raises(InputError, match="second must hold the faces of train, in their order"):
        ExpressionTraining(options, faces, second=seven.subset(list(range(15))))


def test_a_frozen_network_learns_second_heads_alone(tmp_path: Path) -> None:
    faces = _faces(16)
    seven = FaceSet(faces.faces, torch.eye(7)[torch.arange(16) % 2], faces.names, faces.classes[:7])
    begun = ExpressionTraining(TRUNK, faces).learner.network
    path = _written(begun, tmp_path / "start.safetensors")
    options = dataclasses.replace(
        TRUNK, second=1.0, frozen=True, init=path, epochs=20, learning_rate=1e-2
    )
    training = ExpressionTraining(options, faces, second=seven)
    losses = [training.advance() for _ in range(training.steps)]
    assert losses[-1] < losses[0] - 0.1
    result = training.result()
    for name, value in result.network.state_dict().items():
        assert torch.equal(value, begun.state_dict()[name]), name
    right = predict_logits(result.relabelled(), faces.faces)[0].argmax(1) == seven.votes.argmax(1)
    assert right.float().mean() > 0.7
    for wrong in ({"second": 0.0}, {"movements": "a.npz"}):
        with pytest.raises(InputError, match="frozen= needs second= and no movements="):
            dataclasses.replace(options, **wrong)
    with pytest.raises(InputError, match="frozen= needs init="):
        ExpressionTraining(dataclasses.replace(options, init=None), faces, second=seven)
    with pytest.raises(InputError, match="frozen= needs init= of a trunk of size 40"):
        ExpressionTraining(dataclasses.replace(options, size=40), faces, second=seven)


def test_movements_are_learnt_beside_the_expressions() -> None:
    labels = torch.arange(48) % 2
    faces = _faces()
    options = dataclasses.replace(TRUNK, epochs=4, movements="table.npz")
    movements = torch.stack((2.0 * labels - 1, torch.zeros(48)), 1)
    movements[5] = float("nan")
    training = ExpressionTraining(options, faces, movements=movements)
    for _ in range(training.steps):
        training.advance()
    training.learner.eval()
    seen = training.learner(torch.randn(3, 1, 32, 32))[1]
    assert seen is not None and seen.shape == (3, 2)
    batch, _, targets = training.batch()
    with torch.no_grad():
        answers = training.learner(batch)[1]
    assert targets is not None and answers is not None
    known = targets.isfinite().all(1)
    right = (answers[known, 0] > 0) == (targets[known, 0] > 0)
    assert right.float().mean() > 0.8
    # The head is the training's alone: the written network is one without it.
    plain = ExpressionTraining(dataclasses.replace(options, movements=None), faces)
    assert training.result().network.state_dict().keys() == (
        plain.result().network.state_dict().keys()
    )
    assert plain.batch()[2] is None and plain.learner.movements is None
    for wrong in (None, movements[:-1]):
        with pytest.raises(InputError, match="movements must have a row for each face"):
            ExpressionTraining(options, faces, movements=wrong)


@pytest.mark.parametrize("options", [TRUNK, OPTIONS], ids=["trunk", "pcnn"])
def test_a_teacher_answers_both_kinds_of_labels(options: ExpressionOptions) -> None:
    faces = _faces(16)
    seven = FaceSet(faces.faces, torch.eye(7)[torch.arange(16) % 2], faces.names, faces.classes[:7])
    both = dataclasses.replace(options, second=0.5)
    teacher = ExpressionTraining(both, faces, second=seven).learner.eval()
    plain = ExpressionTraining(dataclasses.replace(options, seed=3), faces).learner.eval()
    kinds, place = [faces.classes, seven.classes], (torch.device("cpu"), torch.float32)
    first, second = mean_answers([teacher, plain], faces.faces, kinds, place=place, shown=False)
    expected = [
        predict_logits(network, faces.faces, mirror=True)[0].softmax(1)
        for network in (teacher.network, plain.network, teacher.relabelled())
    ]
    assert first is not None and second is not None
    torch.testing.assert_close(first, (expected[0] + expected[1]) / 2, rtol=0, atol=1e-5)
    torch.testing.assert_close(second, expected[2], rtol=0, atol=1e-5)
    alone = mean_answers([plain], faces.faces, kinds, place=place, shown=False)
    assert alone[0] is not None and alone[1] is None


def test_a_teacher_without_second_labels_teaches_the_first_alone(tmp_path: Path) -> None:
    faces = _faces(16)
    seven = FaceSet(faces.faces, torch.eye(7)[torch.arange(16) % 2], faces.names, faces.classes[:7])
    teacher = ExpressionTraining(TRUNK, faces).learner.network
    path = _written(teacher, tmp_path / "teacher.safetensors")
    options = dataclasses.replace(TRUNK, second=0.5, teachers=(path,), teaching=0.5)
    first, second = ExpressionTraining(options, faces, second=seven).targets
    assert not torch.equal(first, faces.votes) and torch.equal(second, seven.votes)
    asked = dataclasses.replace(options, photographs="a.tar")
    photographs = torch.zeros((2, 32, 32), dtype=torch.uint8)
    with pytest.raises(InputError, match="photographs have no labels; no teacher knows neutral"):
        ExpressionTraining(asked, faces, second=seven, photographs=photographs)


def test_a_pcnn_goes_on_from_a_pcnn_of_another_size(tmp_path: Path) -> None:
    faces = _faces()
    first = ExpressionTraining(OPTIONS, faces)
    path = _written(first.learner.network, tmp_path / "pcnn.safetensors")
    larger = ExpressionTraining(dataclasses.replace(OPTIONS, init=path, size=80, seed=1), faces)
    ours, theirs = larger.learner.network.state_dict(), first.learner.network.state_dict()
    differing = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert differing == ["interaction.localisation.0.weight"]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_result_has_its_share_of_the_start(share: float, tmp_path: Path) -> None:
    faces = _faces(16)
    first = ExpressionTraining(TRUNK, faces)
    path = _written(first.learner.network, tmp_path / "start.safetensors")
    training = ExpressionTraining(dataclasses.replace(TRUNK, init=path, init_share=share), faces)
    training.advance()
    learnt, start = training.average.network.state_dict(), first.learner.network.state_dict()
    kept = training.result().network.state_dict()
    assert not torch.equal(learnt["trunk.conv1.weight"], start["trunk.conv1.weight"])
    for name, value in kept.items():
        if value.is_floating_point():
            expected = (1 - share) * learnt[name] + share * start[name]
            torch.testing.assert_close(value, expected, msg=name)


def test_heads_that_the_start_lacks_have_no_share_of_it(tmp_path: Path) -> None:
    faces = _faces(16)
    seven = FaceSet(faces.faces, torch.eye(7)[torch.arange(16) % 2], faces.names, faces.classes[:7])
    path = _written(
        ExpressionTraining(TRUNK, faces).learner.network, tmp_path / "start.safetensors"
    )
    options = dataclasses.replace(TRUNK, init=path, init_share=0.5, second=0.5)
    training = ExpressionTraining(options, faces, second=seven)
    training.advance()
    kept, learnt = training.result(), training.average
    for own, other in zip(kept.second.parameters(), learnt.second.parameters(), strict=True):
        assert torch.equal(own, other)
    assert not torch.equal(kept.network.trunk.conv1.weight, learnt.network.trunk.conv1.weight)


def test_a_share_of_another_kind_of_network_is_refused(tmp_path: Path) -> None:
    faces = _faces(16)
    trunk = ExpressionTraining(TRUNK, faces).learner.network
    path = _written(trunk, tmp_path / "trunk.safetensors")
    with pytest.raises(InputError, match=r"init_share= needs init= of a pcnn of size"):
        ExpressionTraining(dataclasses.replace(OPTIONS, init=path, init_share=0.5), faces)
    with pytest.raises(InputError, match=r"init_share= needs init= of a trunk of size 80"):
        ExpressionTraining(dataclasses.replace(TRUNK, init=path, init_share=0.5, size=80), faces)
    with pytest.raises(InputError, match=r"init_share= needs init=$"):
        ExpressionTraining(dataclasses.replace(OPTIONS, init_share=0.5), faces)


@pytest.mark.parametrize("network", ["trunk", "pcnn"])
def test_a_killed_training_goes_on_to_the_same_result(network: str, tmp_path: Path) -> None:
    options = ExpressionOptions(
        network=network, data="", output="", size=32, width=8, epochs=1, batch=8, learning_rate=1e-3
    )
    faces = _faces()
    whole = ExpressionTraining(options, faces)
    expected = [whole.advance() for _ in range(6)]
    killed = ExpressionTraining(options, faces)
    found = [killed.advance() for _ in range(2)]
    killed.save(tmp_path / "checkpoint")
    killed.advance()  # lost with the process
    again = ExpressionTraining(options, faces, checkpoint=tmp_path / "checkpoint")
    found += [again.advance() for _ in range(4)]
    assert found == expected
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, again.average.state_dict()[name]), name


def test_a_checkpoint_of_other_options_is_refused(tmp_path: Path) -> None:
    ExpressionTraining(OPTIONS, _faces()).save(tmp_path / "checkpoint")
    other = ExpressionOptions("trunk", "", "", size=32, width=8, batch=8)
    with pytest.raises(
        InputError, match="started with another network, epochs, learning_rate, average"
    ):
        ExpressionTraining(other, _faces(), checkpoint=tmp_path / "checkpoint")


def test_a_checkpoint_of_an_earlier_version_is_taken_up(tmp_path: Path) -> None:
    """Options that it does not know were as they are by default."""
    ExpressionTraining(TRUNK, _faces()).save(tmp_path / "checkpoint")
    state = torch.load(tmp_path / "checkpoint", weights_only=True)
    del state["options"]["aligned"]
    torch.save(state, tmp_path / "checkpoint")
    ExpressionTraining(TRUNK, _faces(), checkpoint=tmp_path / "checkpoint")
    aligned = dataclasses.replace(TRUNK, aligned=True)
    with pytest.raises(InputError, match="was started with another aligned"):
        ExpressionTraining(aligned, _faces(), checkpoint=tmp_path / "checkpoint")
    ExpressionTraining(aligned, _faces()).save(tmp_path / "checkpoint")
    other = dataclasses.replace(TRUNK, aligned=True, detector="resnet50")
    with pytest.raises(InputError, match="was started with another detector"):
        ExpressionTraining(other, _faces(), checkpoint=tmp_path / "checkpoint")


@pytest.mark.parametrize("kind", ["faces", "votes", "classes"])
def test_a_checkpoint_belongs_to_its_faces_and_labels(kind: str, tmp_path: Path) -> None:
    faces = _faces()
    training = ExpressionTraining(OPTIONS, faces)
    training.advance()
    training.save(tmp_path / "c.pt")
    assert ExpressionTraining(OPTIONS, faces, checkpoint=tmp_path / "c.pt").step == 1
    given = getattr(faces, kind)
    other = given[::-1] if kind == "classes" else given.flip(0)
    changed = dataclasses.replace(faces, **{kind: other})
    with pytest.raises(InputError, match=r"c\.pt was started with other faces or labels; remove"):
        ExpressionTraining(OPTIONS, changed, checkpoint=tmp_path / "c.pt")


def test_options_that_cannot_be() -> None:
    with pytest.raises(InputError, match="network must be trunk or pcnn, got 'vgg'"):
        ExpressionTraining(ExpressionOptions("vgg", "", "", width=8, batch=8), _faces())
    with pytest.raises(InputError, match="batch must be at least 1, got 0"):
        ExpressionOptions("trunk", "", "", batch=0)
    with pytest.raises(InputError, match=r"epochs must be above 0 and finite, got -3"):
        ExpressionOptions("trunk", "", "", epochs=-3)
    with pytest.raises(InputError, match=r"balance must lie in 0…1, got 2"):
        ExpressionOptions("trunk", "", "", balance=2)
    with pytest.raises(InputError, match="labels must be votes or majority, got 'hard'"):
        ExpressionOptions("trunk", "", "", labels="hard")
    with pytest.raises(InputError, match=r"warm_up must be at least 0 and below 1, got 1"):
        ExpressionOptions("trunk", "", "", warm_up=1)
    with pytest.raises(InputError, match="batch 64 is larger than the 48 training faces"):
        ExpressionTraining(ExpressionOptions("trunk", "", "", size=32, width=8), _faces())


class _EyesAt:
    """A detector of one face in each picture, a tenth of its side too far right, then left, …"""

    def __init__(self) -> None:
        self.asked = 0

    def detect(self, images, *, min_score=None):  # type: ignore[no-untyped-def]
        return [(self._face(image.shape[0]),) for image in images]

    def _face(self, side: int) -> Detection:
        shift = 0.1 if self.asked % 2 == 0 else -0.1
        self.asked += 1
        points = torch.tensor([[0.25, 0.4], [0.75, 0.4], [0.5, 0.6], [0.3, 0.8], [0.7, 0.8]])
        inner = side - 96  # a frame of 48 pixels lies around it
        box = (48.0, 48.0, 48.0 + inner, 48.0 + inner)
        points = points + torch.tensor([shift, 0.0])
        return Detection(box, 0.99, (points * inner + 48).numpy())


def test_both_commands_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(expression_data, "load_faces", lambda *_, **__: _faces())
    monkeypatch.setattr(expression_data.Detector, "load", lambda *_: _EyesAt())
    parser = argparse.ArgumentParser()
    trunk_command.add_arguments(parser)
    trunk = tmp_path / "trunk.safetensors"
    common = ["--data", "faces", "--epochs", "1", "--batch", "8", "--size", "32", "--width", "8"]
    common += ["--device", "cpu"]
    trunk_command.run(parser.parse_args([*common, "--output", str(trunk)]))
    parser = argparse.ArgumentParser()
    expression_command.add_arguments(parser)
    output = tmp_path / "sub" / "pcnn.safetensors"
    chosen = parser.parse_args([*common, "--output", str(output), "--init", str(trunk)])
    assert expression_command.run(chosen) == 0
    assert "wrote" in capsys.readouterr().err
    loaded = weights.load_expression(output)
    assert loaded.network.config.size == 32 and loaded.native_size == 48
    assert loaded.template[1] == pytest.approx((0.75, 0.4), abs=1e-3)
    assert 0.05 < loaded.temperature < 20
    lines = (tmp_path / "sub" / "pcnn.safetensors.log.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    assert log[-1]["epoch"] == 1.0 and 0 <= log[-1]["valid_accuracy"] <= 1
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == [
        "pcnn.safetensors",
        "pcnn.safetensors.log.jsonl",
        "pcnn.safetensors.png",
    ]
    alone = weights.load_expression(trunk)  # a trunk by itself is an expression network, too
    assert alone.network.config.size == 32 and alone.region_temperatures == {}


def test_aligned_faces_are_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and its score see faces that are aligned to the template, of the network's size."""
    seen, scored = [], []

    def predict(network: torch.nn.Module, faces: torch.Tensor, **options: object) -> object:
        scored.append(faces)
        return predict_logits(network, faces, **options)

    monkeypatch.setattr(train_expression, "predict_logits", predict)

    class Watched(ExpressionTraining):
        def __init__(self, options: ExpressionOptions, train: FaceSet, *rest: Any, **more: Any):
            seen.append(train)
            super().__init__(options, train, *rest, **more)

    monkeypatch.setattr(train_expression, "ExpressionTraining", Watched)
    monkeypatch.setattr(expression_data, "load_faces", lambda *_, **__: _faces())
    monkeypatch.setattr(expression_data.Detector, "load", lambda *_: _EyesAt())
    options = dataclasses.replace(TRUNK, data="faces", output=str(tmp_path / "trunk.safetensors"))
    for aligned in (True, False):
        output = train(dataclasses.replace(options, aligned=aligned))
        loaded = weights.load_expression(output)
        assert loaded.aligned == aligned
        assert loaded.native_size == 48
    as_they_were, votes = _faces().faces, _faces().votes
    assert torch.equal(seen[1].faces, as_they_were)
    assert torch.equal(seen[0].votes, votes)
    plain = resample(as_they_were[:, None].float(), 32)[:, 0]
    for first, shift in ((0, -3), (1, 3)):  # by a tenth of 32 pixels, and as if cut there
        found, still = seen[0].faces[first::2, :, 4:-4], plain[first::2, :, 4:-4]
        moved = plain[first::2].roll(shift, 2)[:, :, 4:-4]
        close, far = ((other - found).abs().mean() for other in (moved, still))
        assert close < 0.6 * far
    assert all(torch.equal(faces, seen[0].faces) for faces in scored[: len(scored) // 2])


def test_a_template_needs_faces() -> None:
    class Blind(_EyesAt):
        def detect(self, images, *, min_score=None):  # type: ignore[no-untyped-def]
            return [() for _ in images]

    with pytest.raises(InputError, match="found no face in the training faces"):
        measure_template(_faces().faces, Blind())


def test_missing_data_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no known layout"):
        train(ExpressionOptions("trunk", str(tmp_path), str(tmp_path / "x.safetensors")))
