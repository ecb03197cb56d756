"""How sure a label must be, how frequent classes are taken to be, and second labels."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import cli
import numpy as np
import pytest
import torch
from engines.test_cuda_graphs import Recorder

from pcnn import InputError, Recognizer, load_image, weights
from pcnn.engines.cuda_graphs import CudaGraphs
from pcnn.networks.pcnn import FaceNet, Learner, ModelConfig
from pcnn.networks.trunk import initialise
from pcnn.results.values import UNCERTAIN
from pcnn.weights.expression import SECOND_PREFIX
from pcnn.weights.files import WeightsFile

SHARES = (0.5, 0.2, 0.1, 0.08, 0.05, 0.03, 0.02, 0.02)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small weights, with shares of the classes planted."""
    file = WeightsFile(weights.locate("small"))
    path = tmp_path_factory.mktemp("weights") / "shares.safetensors"
    weights.write(path, file.tensors(), {**file.metadata, "class_shares": SHARES})
    return path


def test_classes_that_are_equally_frequent_by_hand(shared: Path, astronaut: Path) -> None:
    plain = Recognizer(shared, device="cpu").predict(astronaut).faces[0]
    equal = Recognizer(shared, device="cpu", prior="uniform").predict(astronaut).faces[0]
    odds = np.array(list(plain.scores.values())) / np.array(SHARES)
    np.testing.assert_allclose(list(equal.scores.values()), odds / odds.sum(), rtol=1e-4)
    for name, own in plain.regions.items():
        odds = np.array(list(own.values())) / np.array(SHARES)
        np.testing.assert_allclose(list(equal.regions[name].values()), odds / odds.sum(), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "prior"), [("pcnn-ferplus", "uniform"), ("pcnn-ferplus-only", "data")]
)
def test_one_graph_answers_the_whole_question(name: str, prior: str, astronaut: Path) -> None:
    """From the views to the probabilities, those of the regions and mirror images included.

    On a GPU a CUDA graph is recorded of this; here a stand-in repeats the work on its memory.
    """
    recognizer, recorder = Recognizer(name, device="cpu", prior=prior), Recorder()
    picture = load_image(astronaut)
    pictures = [picture, picture // 32 * 32, picture // 2 + 60]
    expected = [recognizer.predict(each).faces[0] for each in pictures]
    reader = recognizer.reader
    reader._answers = CudaGraphs(reader._answers, recorder)
    for _ in range(2):
        for each, face in zip(pictures, expected, strict=True):
            found = recognizer.predict(each).faces[0]
            assert found.scores == pytest.approx(dict(face.scores), abs=1e-6)
            assert list(found.regions) == list(face.regions) and found.regions
            for region, own in face.regions.items():
                assert found.regions[region] == pytest.approx(dict(own), abs=1e-6)
    assert recorder.recorded == [1] and recorder.replays == 1 + 5
    assert len({round(face.scores["happiness"], 5) for face in expected}) > 1


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("prior", ["uniform", "data"])
@pytest.mark.parametrize("name", ["pcnn-ferplus", "pcnn-ferplus-only"])
def test_one_graph_answers_as_the_plain_road_on_a_gpu(
    name: str, prior: str, astronaut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = Recognizer(name, device="cuda", prior=prior)
    monkeypatch.setenv("PCNN_GRAPHS", "0")
    plain = Recognizer(name, device="cuda", prior=prior).predict(astronaut).faces[0]
    for _ in range(3):
        found = recognizer.predict(astronaut).faces[0]
        assert found.scores == pytest.approx(dict(plain.scores), abs=5e-3)
        for region, own in plain.regions.items():
            assert found.regions[region] == pytest.approx(dict(own), abs=5e-3)
    answers = recognizer.reader._answers
    assert isinstance(answers, CudaGraphs) and answers._recordable and len(answers._passes) == 1


@pytest.mark.parametrize("name", ["pcnn-ferplus", "pcnn-ferplus-only", "small", "mobile"])
def test_packaged_weights_know_how_frequent_classes_were(name: str) -> None:
    loaded = weights.load_expression(name)
    assert loaded.class_shares is not None and len(loaded.class_shares) == 8
    assert sum(loaded.class_shares) == pytest.approx(1, abs=1e-4)
    assert Recognizer(name, device="cpu", prior="uniform").classes == loaded.network.config.classes


def test_explanations_are_of_the_same_scores(shared: Path, astronaut: Path) -> None:
    file = WeightsFile(weights.locate("pcnn-ferplus"))
    path = shared.with_name("large.safetensors")
    weights.write(path, file.tensors(), {**file.metadata, "class_shares": SHARES})
    recognizer = Recognizer(path, device="cpu", prior="uniform")
    (explained,) = recognizer.explain(astronaut)
    face = recognizer.predict(astronaut).faces[0]
    assert explained.expression.scores == pytest.approx(dict(face.scores), abs=1e-4)


def test_weights_that_do_not_say_how_frequent_classes_were_are_named(tmp_path: Path) -> None:
    file = WeightsFile(weights.locate("small"))
    path = tmp_path / "old.safetensors"
    metadata = {name: value for name, value in file.metadata.items() if name != "class_shares"}
    weights.write(path, file.tensors(), metadata)
    with pytest.raises(InputError, match=r"prior 'uniform': .*old.safetensors does not record"):
        Recognizer(path, device="cpu", prior="uniform")


def test_a_label_is_uncertain_below_the_threshold(astronaut: Path) -> None:
    sure = Recognizer("small", device="cpu").predict(astronaut).faces[0]
    for threshold, label in ((sure.confidence - 1e-3, sure.label), (1.0, UNCERTAIN)):
        found = Recognizer("small", device="cpu", min_confidence=threshold)
        face = found.predict(astronaut).faces[0]
        assert face.label == label
        assert face.confidence == pytest.approx(sure.confidence, abs=1e-6)
        assert face.scores == pytest.approx(dict(sure.scores), abs=1e-6)


def test_the_command_says_uncertain(astronaut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(astronaut), "--weights", "small", "--format", "jsonl", "--device", "cpu"]
    assert cli.predict([*words, "--min-confidence", "1"]) == 0
    assert '"label": "uncertain"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_confidence": 1.5}, "Recognizer: min_confidence must lie in 0…1, got 1.5"),
        ({"prior": "flat"}, "Recognizer: prior must be data or uniform, got 'flat'"),
        ({"labels": "six"}, r"labels 'six': .*small.safetensors has second labels: .fer2013."),
        ({"prior": "uniform", "head": object()}, "a head has its own labels: omit labels"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recognizer("small", device="cpu", **options)  # type: ignore[arg-type]


def test_unknown_labels_are_refused_before_tensors_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: WeightsFile) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(WeightsFile, "tensors", refuse)
    with pytest.raises(InputError, match=r"labels 'six': .* has second labels: 'fer2013'"):
        weights.load_expression("mobile", "six")
    with pytest.raises(AssertionError, match="read"):
        weights.load_expression("mobile", "fer2013")


def test_second_labels_are_read_by_heads_of_their_own(tmp_path: Path, astronaut: Path) -> None:
    torch.manual_seed(0)
    grey = (0.5,)
    network = FaceNet(ModelConfig(size=32, width=8, mean=grey, std=grey))
    initialise(network)
    learner = Learner(network, ("happy", "sad", "angry"))
    assert learner.second is not None
    for name, own in learner.second.named_parameters():
        own.data.normal_(0, 1 if "weight" in name else 0.5)
    tensors = dict(network.state_dict())
    tensors |= {f"{SECOND_PREFIX}x.{n}": t for n, t in learner.second.state_dict().items()}
    metadata = {
        "kind": "expression",
        "architecture": "trunk",
        "config": asdict(network.config),
        "template": [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]],
        "native_size": 48,
        "temperature": 1.0,
        "region_temperatures": {},
        "labels": {"x": {"classes": ["happy", "sad", "angry"], "temperature": 2.0}},
    }
    path = tmp_path / "two.safetensors"
    weights.write(path, tensors, metadata)
    first, second = (Recognizer(path, device="cpu", labels=name) for name in (None, "x"))
    assert len(first.classes) == 8 and second.classes == ("happy", "sad", "angry")
    pixels = load_image(astronaut)[0:220, 110:330]
    found = second.predict_crops(pixels)
    loaded = weights.load_expression(path, "x")
    assert loaded.temperature == 2.0
    assert loaded.network.config.classes == second.classes
    vectors = first.embed_crops(pixels)
    np.testing.assert_allclose(vectors, second.embed_crops(pixels), atol=1e-5)
    assert sum(found.scores.values()) == pytest.approx(1, abs=1e-5)
    assert set(found.scores) == {"happy", "sad", "angry"}
    with pytest.raises(InputError, match="has second labels: 'x'"):
        Recognizer(path, device="cpu", labels="y")


@pytest.mark.parametrize("name", ["mobile", "pcnn-ferplus"])
def test_the_portrait_in_the_labels_of_fer2013(name: str, astronaut: Path) -> None:
    recognizer = Recognizer(name, device="cpu", labels="fer2013")
    assert len(recognizer.classes) == 7 and "contempt" not in recognizer.classes
    face = recognizer.predict(astronaut).faces[0]
    assert face.label == "happiness" and face.confidence > 0.8
    equal = Recognizer(name, device="cpu", labels="fer2013", prior="uniform")
    assert equal.predict(astronaut).faces[0].scores["happiness"] < face.scores["happiness"]
