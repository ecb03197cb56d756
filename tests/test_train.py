"""Training itself, on faces that are quick to learn: a bright half says the class."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from pcnn import train_expression, weights
from pcnn.datasets import FaceSet
from pcnn.detector import Detector
from pcnn.errors import InputError, WeightsError
from pcnn.evaluate import predict_logits
from pcnn.metrics import accuracy
from pcnn.train import Training, TrainOptions
from pcnn.train_expression import measure_template
from pcnn.train_expression import train_expression as train

OPTIONS = TrainOptions(
    network="pcnn", data="", output="", size=32, width=8, epochs=15, batch=8, lr=3e-3, ema=0.9
)


def _faces(count: int = 48) -> FaceSet:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    faces = torch.randint(60, 120, (count, 48, 48), generator=draw, dtype=torch.uint8)
    faces[labels == 1, :24] += 120
    return FaceSet(faces, torch.eye(8)[labels], tuple(str(i) for i in range(count)))


def test_it_learns() -> None:
    faces = _faces()
    training = Training(OPTIONS, faces)
    losses = [training.advance() for _ in range(training.steps)]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    logits, regions = predict_logits(training.network, faces.faces)
    assert accuracy(logits, faces.votes) > 0.9
    assert regions["mouth"].shape == (48, 8)


@pytest.mark.parametrize("network", ["trunk", "pcnn"])
def test_a_killed_training_goes_on_to_the_same_result(network: str, tmp_path: Path) -> None:
    options = TrainOptions(
        network=network, data="", output="", size=32, width=8, epochs=1, batch=8, lr=1e-3
    )
    faces = _faces()
    whole = Training(options, faces)
    expected = [whole.advance() for _ in range(6)]
    killed = Training(options, faces)
    found = [killed.advance() for _ in range(2)]
    killed.save(tmp_path / "checkpoint")
    killed.advance()  # lost with the process
    again = Training(options, faces)
    again.resume(tmp_path / "checkpoint")
    found += [again.advance() for _ in range(4)]
    assert found == expected
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, again.average.state_dict()[name]), name


def test_a_checkpoint_of_other_options_is_refused(tmp_path: Path) -> None:
    Training(OPTIONS, _faces()).save(tmp_path / "checkpoint")
    other = Training(TrainOptions("trunk", "", "", size=32, width=8, batch=8), _faces())
    with pytest.raises(InputError, match="begun with another network, epochs, lr, ema"):
        other.resume(tmp_path / "checkpoint")


def test_options_that_cannot_be() -> None:
    with pytest.raises(InputError, match="network must be trunk or pcnn, got 'vgg'"):
        Training(TrainOptions("vgg", "", "", width=8, batch=8), _faces())
    with pytest.raises(InputError, match="batch must be at least 1, got 0"):
        TrainOptions("trunk", "", "", batch=0)
    with pytest.raises(InputError, match=r"epochs and lr must be above 0, got -3 and 0.001"):
        TrainOptions("trunk", "", "", epochs=-3)
    with pytest.raises(InputError, match=r"must be at least 0 and below 1, got 1 and 0.995"):
        TrainOptions("trunk", "", "", warm_up=1)
    with pytest.raises(InputError, match="batch 64 is larger than the 48 training faces"):
        Training(TrainOptions("trunk", "", "", size=32, width=8), _faces())


class _EyesAt(Detector):
    """A detector that finds one face, its five landmarks at given places."""

    def __init__(self) -> None: ...

    def detect(self, images, *, min_score=None):  # type: ignore[no-untyped-def]
        from pcnn.results import Detection

        points = torch.tensor([[0.25, 0.4], [0.75, 0.4], [0.5, 0.6], [0.3, 0.8], [0.7, 0.8]])
        face = Detection((0, 0, 9, 9), 0.99, (points * 192 + 48).numpy())
        return [(face,) for _ in images]


def test_both_commands_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_expression, "load_ferplus", lambda *_: _faces())
    monkeypatch.setattr(train_expression.Detector, "load", lambda *_: _EyesAt())
    parser = argparse.ArgumentParser()
    train_expression.add_trunk_arguments(parser)
    trunk = tmp_path / "trunk.safetensors"
    common = ["--data", "faces", "--epochs", "1", "--batch", "8", "--size", "32", "--width", "8"]
    train_expression.run_trunk(parser.parse_args([*common, "--output", str(trunk)]))
    parser = argparse.ArgumentParser()
    train_expression.add_arguments(parser)
    output = tmp_path / "sub" / "pcnn.safetensors"
    chosen = parser.parse_args([*common, "--output", str(output), "--init", str(trunk)])
    assert train_expression.run(chosen) == 0
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
    ]
    with pytest.raises(WeightsError, match="holds 'trunk', expected 'pcnn'"):
        weights.load_expression(trunk)
    with pytest.raises(WeightsError, match="holds 'pcnn', expected 'trunk'"):
        weights.load_facenet(output)


def test_a_template_needs_faces() -> None:
    class Blind(_EyesAt):
        def detect(self, images, *, min_score=None):  # type: ignore[no-untyped-def]
            return [() for _ in images]

    with pytest.raises(InputError, match="found no face in the training faces"):
        measure_template(Blind(), _faces())


def test_missing_data_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must hold"):
        train(TrainOptions("trunk", str(tmp_path), str(tmp_path / "x.safetensors")))
