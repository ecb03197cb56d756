"""Explanations: of planted networks that look at one place only, whose reasons are known."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cli
import numpy as np
import pytest
import torch
from PIL import Image
from planted_networks import CONFIG, answer, faces, network_that_sees, settled

from pcnn import Recognizer, weights
from pcnn.analysis.sanity_checks import heat_shares
from pcnn.commands import predict as commands
from pcnn.errors import InputError
from pcnn.networks.pcnn import FERPLUS_CLASSES, PCNN, FaceNet
from pcnn.networks.regions import REGIONS, VIEWS
from pcnn.recognition import explanations
from pcnn.recognition.explanations import attributions, heat_maps, hide
from pcnn.results import explanation_picture as explanation_panels
from pcnn.results.style import letters
from pcnn.results.values import Detection, Explanation, Expression

ROOT = Path(__file__).parent.parent.parent
TEMPLATE = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]]
# At 32 pixels the stitched map has two rows and skips the cheeks between eyes and mouth.
SEEN = ("left_eye", "mouth")


def drops(network: PCNN, face: torch.Tensor) -> torch.Tensor:
    """(B, 5): what hiding each region takes from the answer's probability."""
    views = network.cut(face)
    chosen = answer(network, face)[:, None]
    whole = network(face)[0].softmax(1).gather(1, chosen)
    hidden = explanations.without_regions(
        lambda some: network.forward_views(some)[0], views, CONFIG.layout
    )
    left = [hidden[name].softmax(1).gather(1, chosen) for name in REGIONS]
    return whole - torch.cat(left, 1)


# --- hiding ---


@pytest.mark.parametrize("region", REGIONS)
def test_a_hidden_region_is_gone_from_both_views_and_nothing_else_is(region: str) -> None:
    views = settled().cut(faces() + 10)  # no value is 0
    before = [view.clone() for view in views]
    hidden = hide(views, region, CONFIG.layout)
    box = CONFIG.layout.boxes(32)[region]
    gone = hidden[0] == 0
    assert gone[:, :, box.top : box.bottom, box.left : box.right].all()
    assert int(gone.sum()) == 2 * box.size[0] * box.size[1]
    for name, old, view, new in zip(VIEWS, before, views, hidden, strict=True):
        assert torch.equal(view, old)
        assert bool((new == 0).all()) == (name == region)
        assert name in ("face", region) or torch.equal(new, old)


@pytest.mark.parametrize("region", SEEN)
def test_only_the_region_that_is_looked_at_is_missed(region: str) -> None:
    network = network_that_sees(region)
    found = drops(network, faces())
    own = REGIONS.index(region)
    assert (found[:, own] > 0.1).all()
    others = torch.cat((found[:, :own], found[:, own + 1 :]), 1)
    assert others.abs().max() < 1e-6


def test_a_region_is_hidden_from_the_whole_face_too() -> None:
    network = network_that_sees("face", sharpness=10)
    assert (drops(network, faces()).abs().amax(0) > 1e-3).all()


def test_an_unknown_region_is_refused() -> None:
    with pytest.raises(InputError) as error:
        hide(settled().cut(faces()), "nose", CONFIG.layout)
    assert str(error.value) == (
        "hide: region must be one of left_eye, right_eye, left_cheek, right_cheek, mouth, "
        "got 'nose'"
    )


# --- heat ---


@pytest.mark.parametrize("region", SEEN)
def test_the_heat_is_where_the_network_looks(region: str) -> None:
    network = network_that_sees(region)
    face = faces()
    added = attributions(network, network.cut(face), answer(network, face), steps=2)
    box = CONFIG.layout.boxes(32)[region]
    inside = added[:, box.top : box.bottom, box.left : box.right]
    assert inside.abs().amax((1, 2)).min() > 0
    assert added.abs().sum() == pytest.approx(float(inside.abs().sum()), rel=1e-5)
    heat = heat_maps(network, network.cut(face), answer(network, face), steps=2)
    shares = heat_shares(heat, CONFIG.layout)
    # Smoothing carries a little over the edges.
    assert (shares.argmax(1) == REGIONS.index(region)).all()
    assert shares[:, REGIONS.index(region)].min() > 0.6


class Linear:
    """Log-odds of the first of two classes: each view's sum times a number of its own."""

    config = dataclasses.replace(CONFIG, classes=("yes", "no"), size=20)
    factors = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)

    def forward_views(self, views: list[torch.Tensor]) -> tuple[torch.Tensor, dict]:
        sums = [k * view.sum((1, 2, 3)) for k, view in zip(self.factors, views, strict=True)]
        odds = torch.stack(sums).sum(0)
        return torch.stack((odds, torch.zeros_like(odds)), 1), {}


def test_attributions_by_hand() -> None:
    """Of a linear network they are pixel × weight, the face's and the region's added up."""
    face = torch.randn(2, 1, 20, 20)
    boxes = Linear.config.layout.boxes(20)
    views = [face[:, :, b.top : b.bottom, b.left : b.right] for b in boxes.values()]
    weight = torch.ones(20, 20)
    for name, factor in zip(REGIONS, Linear.factors[1:], strict=True):
        box = boxes[name]
        weight[box.top : box.bottom, box.left : box.right] += factor
    for steps in (1, 3):
        added = attributions(Linear(), views, torch.tensor([0, 1]), steps=steps)
        torch.testing.assert_close(added[0], face[0, 0] * weight)
        torch.testing.assert_close(added[1], -face[1, 0] * weight)


def test_the_heat_is_for_the_class_asked_about() -> None:
    network, face = network_that_sees("mouth"), faces(1).expand(2, -1, -1, -1)
    first, second = heat_maps(network, network.cut(face), torch.tensor([0, 1]), steps=2)
    assert first.min() >= 0 and first.max() == 1 and second.max() == 1
    assert (first - second).abs().max() > 0.5


def test_a_network_that_sees_nothing_has_no_heat() -> None:
    network = network_that_sees()
    heat = heat_maps(network, network.cut(faces()), torch.tensor([0, 1]), steps=2)
    assert torch.equal(heat, torch.zeros(2, 32, 32))
    assert torch.equal(heat_shares(heat, CONFIG.layout), torch.zeros(2, 5))


def test_heat_works_in_inference_mode() -> None:
    network = network_that_sees("mouth")
    expected = heat_maps(network, network.cut(faces()), torch.tensor([0, 1]), steps=1)
    with torch.inference_mode():
        found = heat_maps(network, network.cut(faces()), torch.tensor([0, 1]), steps=1)
    torch.testing.assert_close(found, expected)


def test_at_least_one_step() -> None:
    with pytest.raises(InputError) as error:
        heat_maps(settled(), [], torch.empty(0), steps=0)
    assert str(error.value) == "attributions: steps must be at least 1, got 0"


# --- through the recognizer ---


class Planted:
    """A detector that finds two faces, the second smaller."""

    def detect(self, images: list[np.ndarray], *, min_score: float | None = None) -> list[list]:
        return [[self._face(60.0), self._face(30.0)] if len(i) > 50 else [] for i in images]

    def _face(self, side: float) -> Detection:
        points = (np.array(TEMPLATE) * side).astype(np.float32)
        return Detection((0, 0, side, side), 0.9, points)


def save_weights(path: Path, network: PCNN) -> Path:
    metadata = {
        "architecture": "pcnn",
        "config": asdict(network.config),
        "template": TEMPLATE,
        "native_size": 32,
        "temperature": 0.5,
        "region_temperatures": dict.fromkeys(REGIONS, 1.5),
    }
    weights.write(path, network.state_dict(), metadata)
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two gradients for each face say as much of these networks as eight."""
    monkeypatch.setattr(explanations, "STEPS", 2)


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    path = tmp_path_factory.mktemp("weights") / "mouth.safetensors"
    return Recognizer(save_weights(path, network_that_sees("mouth")), Planted(), "cpu")


def picture(seed: int = 0, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)


def test_an_explanation_has_the_prediction_and_the_reason(recognizer: Recognizer) -> None:
    explained = recognizer.explain(picture())
    predicted = recognizer.predict(picture()).faces
    assert len(explained) == len(predicted) == 2
    for each, face in zip(explained, predicted, strict=True):
        assert each.label == face.label == each.answer and each.expression.box == face.box
        assert dict(each.expression.scores) == pytest.approx(dict(face.scores), abs=1e-4)
        assert each.regions["mouth"] == pytest.approx(dict(face.regions["mouth"]), abs=1e-4)
        assert each.decisive == "mouth" and each.drops["mouth"] > 0.1
        assert all(abs(each.drops[name]) < 1e-5 for name in REGIONS if name != "mouth")
        assert tuple(each.without) == tuple(each.boxes) == REGIONS
        assert each.heat.shape == (32, 32) and each.heat.max() == 1
        assert each.heat[: each.heat.shape[0] // 2].max() < 0.05
        assert each.picture.shape == (400, 400, 3)
    written = json.loads(json.dumps(explained[0].to_dict()))
    assert (written["answer"], written["decisive"]) == (explained[0].answer, "mouth")


@pytest.mark.parametrize("options", [{"min_confidence": 1.0}, {"min_quality": 1.0}], ids=str)
def test_an_uncertain_face_is_explained_by_its_likeliest_class(
    options: dict[str, float], recognizer: Recognizer
) -> None:
    doubtful = Recognizer(recognizer._weights.path, Planted(), "cpu", **options)
    faces = doubtful.predict(picture()).faces
    for each, sure, face in zip(
        doubtful.explain(picture()), recognizer.explain(picture()), faces, strict=True
    ):
        assert (each.label, each.answer) == (face.label, sure.answer)
        assert each.label == "uncertain" == each.to_dict()["label"]
        assert each.drops == pytest.approx(sure.drops, abs=1e-6) and each.decisive == "mouth"
        assert each.draw().tobytes() != sure.draw().tobytes()  # the title
    if "min_confidence" in options:
        assert doubtful.explain_crops(picture()).label == "uncertain"


def test_a_face_is_classified_once_for_an_explanation(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions and their engine have no part in it."""
    monkeypatch.setattr(recognizer.reader, "expressions", None)
    monkeypatch.setattr(recognizer.reader, "_answers", None)
    assert len(recognizer.explain(picture())) == 2


def test_the_heat_is_of_the_label_also_with_another_prior(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prior makes `second` the likeliest where the network says `first`."""
    loaded = recognizer._weights
    crop = recognizer.predict_crops(picture())
    first, second = sorted(crop.scores, key=crop.scores.__getitem__)[::-1][:2]
    shares = tuple(0.1 * (name != second) + 1e-4 for name in FERPLUS_CLASSES)
    uniform = dataclasses.replace(loaded, class_shares=shares, uniform=True)
    asked: list[int] = []

    def seen(network: Any, views: Any, classes: torch.Tensor, **_: Any) -> torch.Tensor:
        asked.extend(classes.tolist())
        return torch.zeros(len(classes), 32, 32)

    monkeypatch.setattr(explanations, "heat_maps", seen)
    monkeypatch.setattr(recognizer.reader, "_loaded", uniform)
    explained = recognizer.explain_crops(picture())
    assert explained.label == second != first
    assert asked == [FERPLUS_CLASSES.index(second)]


def test_crops_batches_and_errors(recognizer: Recognizer) -> None:
    _, second = recognizer.explain_crops([picture(0), picture(1)])
    alone = recognizer.explain_crops(picture(1))
    np.testing.assert_allclose(second.heat, alone.heat, atol=1e-3)
    assert second.without["mouth"] == pytest.approx(alone.without["mouth"], abs=1e-4)
    faceless = picture(side=40)
    none, bad, two = recognizer.explain([faceless, "missing.png", picture()], on_error="return")
    assert none == [] and isinstance(bad, InputError) and len(two) == 2
    with pytest.raises(InputError, match=r"missing\.png: no such file"):
        recognizer.explain("missing.png")


def test_the_picture_to_be_drawn_is_the_face_square(recognizer: Recognizer) -> None:
    """64 pixels to 400: the middle of the picture's pixel (16, 48) lies at 6¼ times that."""
    image = picture()
    square = recognizer.explain_crops(image).picture
    for row, column in ((16, 48), (0, 63), (40, 3)):
        y, x = (round((at + 0.5) * 6.25 - 0.5) for at in (row, column))
        np.testing.assert_allclose(square[y, x], image[row, column].astype(int), atol=25)


# --- drawing ---


def planted_explanation(drop: float = 0.5, region: str = "mouth") -> Explanation:
    """Happiness of 0.9, of which hiding one region takes `drop`."""
    scores = dict.fromkeys(FERPLUS_CLASSES, 0.0) | {"happiness": 0.9, "neutral": 0.1}
    left = dict.fromkeys(FERPLUS_CLASSES, 0.0) | {"happiness": 0.9 - drop, "neutral": 0.1 + drop}
    boxes = CONFIG.layout.boxes(100)
    heat = np.zeros((32, 32), np.float32)
    heat[24, 16] = 1
    return Explanation(
        Expression("happiness", 0.9, scores, dict.fromkeys(REGIONS, scores)),
        "happiness",
        {name: left if name == region else scores for name in REGIONS},
        heat,
        {n: tuple(e / 100 for e in (b.left, b.top, b.right, b.bottom)) for n, b in boxes.items()},
        np.full((400, 400, 3), 100, np.uint8),
    )


@pytest.mark.parametrize(
    ("drop", "decisive", "sentence"),
    [
        (0.5, "mouth", "The mouth decides: with it hidden, the answer would be neutral (60%)."),
        (0.2, "mouth", "The mouth counts most: with it hidden, happiness falls to 70%."),
        (
            *(0.04, None),
            "No single region decides: hiding any one of them hardly lowers happiness.",
        ),
    ],
)
def test_what_it_comes_to(drop: float, decisive: str | None, sentence: str) -> None:
    explained = planted_explanation(drop)
    assert explained.decisive == decisive
    assert explained.drops["mouth"] == pytest.approx(drop)
    assert explanation_panels.summary(explained) == sentence


def test_drawn() -> None:
    drawn = planted_explanation().draw()
    assert drawn.mode == "RGB" and drawn.size == (1000, 562)
    face = np.asarray(drawn)[104:504, 24:424].astype(int)
    glow = face[..., 0] - face[..., 2]  # the heat is yellow, all else there grey or blue
    assert np.unravel_index(glow.argmax(), glow.shape)[0] == pytest.approx(306, abs=8)
    assert glow[:200].max() < 5
    other = np.asarray(planted_explanation(region="left_eye").draw())
    blue = (np.asarray(drawn) == (86, 180, 233)).all(2), (other == (86, 180, 233)).all(2)
    # The decisive region is outlined: its lower edge is blue, and the other's is not.
    assert blue[0][502, 24:424].mean() > 0.9 and blue[1][502, 24:424].mean() == 0
    assert blue[1][105, 24:200].mean() > 0.9 and blue[0][105, 24:200].mean() == 0


def test_the_number_of_a_face_stands_before_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = written(monkeypatch)
    planted_explanation().draw(number=3)
    assert "3: happiness 90%" in texts
    texts.clear()
    planted_explanation().draw()
    assert "happiness 90%" in texts
    explained = planted_explanation()
    unsure = dataclasses.replace(explained.expression, label="uncertain")
    dataclasses.replace(explained, expression=unsure).draw(number=3)
    assert "3: uncertain (happiness 90%)" in texts


def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written from now on, as it comes."""
    texts: list[str] = []
    draw_text = explanation_panels.ImageDraw.ImageDraw.text

    def note(self: object, place: object, text: str, *rest: object, **options: object) -> None:
        texts.append(text)
        draw_text(self, place, text, *rest, **options)

    monkeypatch.setattr(explanation_panels.ImageDraw.ImageDraw, "text", note)
    return texts


def test_the_bar_has_the_length_of_what_is_left() -> None:
    drawn = np.asarray(planted_explanation(0.5).draw())
    track = (drawn[:, 788:968] == (86, 180, 233)).all(2)  # 180 pixels for all of it
    lengths = [int(row.sum()) for row in track[104:] if row[:30].all()]
    assert {round(length / 180, 1) for length in lengths} == {0.4, 0.9}


def test_the_mouths_row_says_what_would_be_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = written(monkeypatch)
    planted_explanation(0.5).draw()
    assert "happiness 90%" in texts and "answer: neutral 60%" in texts
    assert texts.count("no change") == 4 and texts.count("mouth") == 2
    texts.clear()
    planted_explanation(0.2).draw()
    assert "-20 points" in texts
    planted_explanation(0.01).draw()
    assert "-1 point" in texts


def test_the_letters_have_all_that_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they lack would be drawn as an empty box."""
    texts = written(monkeypatch)
    for drop in (0.2, -0.05):
        planted_explanation(drop).draw(number=2)
    font = letters(40)
    lacking = bytes(font.getmask("\ue000"))  # of private use: surely not there
    assert {"-20 points", "+5 points"} <= set(texts)
    assert not [sign for sign in set("".join(texts)) if bytes(font.getmask(sign)) == lacking]


def test_long_names_still_fit() -> None:
    """A sentence wider than the picture gets smaller letters."""
    explained = planted_explanation()
    name = "a very long name of a state of mind" * 2
    scores = {name: 0.9, "x": 0.1}
    every = dict.fromkeys(REGIONS, scores)
    long = dataclasses.replace(
        explained,
        expression=Expression(name, 0.9, scores, every),
        answer=name,
        without=every,
    )
    drawn = np.asarray(long.draw())
    assert (drawn[60:100, 990:] == (24, 24, 24)).all()


# --- pcnn-predict --explain ---


def test_the_command_saves_a_picture_for_each_file(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "load_recognizer", lambda _: recognizer)
    texts = written(monkeypatch)
    Image.fromarray(picture()).save(tmp_path / "two.jpg")
    Image.fromarray(picture(side=40)).save(tmp_path / "none.png")
    why = tmp_path / "why"
    inputs = [str(tmp_path / name) for name in ("two.jpg", "none.png")]
    assert cli.predict([*inputs, "--explain", str(why)]) == 0
    assert [path.name for path in why.iterdir()] == ["two.explained.png"]
    with Image.open(why / "two.explained.png") as drawn:
        assert drawn.size == (1000, 2 * 562)
    assert [text[:3] for text in texts if re.match(r"\d: ", text)] == ["1: ", "2: "]
    texts.clear()
    assert cli.predict([inputs[1], "--faces", "--explain", str(why)]) == 0
    assert len(list(why.iterdir())) == 2
    with Image.open(why / "none.explained.png") as drawn:
        assert drawn.size == (1000, 562)
    assert not [text for text in texts if re.match(r"\d: ", text)]  # the only one has no number


def test_a_folder_that_cannot_be_made(
    recognizer: Recognizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(commands, "load_recognizer", lambda _: recognizer)
    Image.fromarray(picture()).save(tmp_path / "two.png")
    assert cli.predict([str(tmp_path / "two.png"), "--explain", str(tmp_path / "two.png")]) == 2
    assert "two.png: cannot be written" in capsys.readouterr().err


def test_weights_without_regions_are_refused_before_a_picture_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(picture()).save(tmp_path / "two.png")
    words = [str(tmp_path / "two.png"), "--explain", str(tmp_path / "why")]
    assert cli.predict([*words, "--weights", "small"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert (
        told.err == "pcnn-predict: --explain needs weights with regions: --weights pcnn-ferplus\n"
    )
    assert not (tmp_path / "why").exists()


def test_answers_of_a_head_are_not_explained(recognizer: Recognizer) -> None:
    reader = copy.copy(recognizer.reader)
    reader._head = object()
    other = copy.copy(recognizer)
    other.reader = reader
    with pytest.raises(InputError) as error:
        other.explain_crops(picture())
    assert str(error.value) == "Recognizer.explain: cannot explain a head's answers: omit head="


def test_a_network_without_regions_is_not_explained() -> None:
    plain = SimpleNamespace(network=FaceNet(CONFIG))
    with pytest.raises(InputError) as error:
        explanations.explain_faces(plain, [], [], torch.device("cpu"))
    assert str(error.value) == (
        "Recognizer.explain: weights must be of a PCNN; these have no regions: use pcnn-ferplus"
    )


def test_the_astronaut_smiles_with_her_mouth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What everybody sees, by the packaged weights and the example of docs/explain.md."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "explain.md").read_text(), re.DOTALL
    )
    scope: dict[str, Any] = {}
    exec(compile(example, "explain.md", "exec"), scope)
    explained = scope["explanation"]
    assert (explained.label, explained.decisive) == ("happiness", "mouth")
    row = int(explained.heat.max(1).argmax())
    assert row > 0.65 * len(explained.heat)
    with Image.open("why.png") as drawn:
        assert drawn.size == (1000, 562)
