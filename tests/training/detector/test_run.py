"""The detector's training: mosaics, targets, loss, scores, and a run that stops and goes on."""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcnn import weights
from pcnn.commands import train_detector as command
from pcnn.errors import InputError
from pcnn.faces.detector import Detector
from pcnn.networks.anchors import anchor_grid, decode_boxes, decode_landmarks
from pcnn.networks.retinaface import RetinaFace
from pcnn.results.values import Detection
from pcnn.training.detector import loop as loop_module
from pcnn.training.detector import run as module
from pcnn.training.detector.loop import DetectorTraining
from pcnn.training.detector.mosaics import Mosaic, View, degrade, mosaic, turned_box
from pcnn.training.detector.options import DetectorOptions
from pcnn.training.detector.run import train_detector
from pcnn.training.detector.scores import score_photographs, score_small_faces
from pcnn.training.detector.targets import Targets, distillation_loss, targets_of
from pcnn.training.photographs import Faces, Photograph, is_held_out, read_photographs
from pcnn.weights.detector import DetectorSettings

SETTINGS = DetectorSettings()
# Red, green, blue, yellow, magenta: a synthetic face's landmarks, told apart by colour.
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
POINTS = ((80, 80), (120, 80), (100, 105), (85, 130), (115, 130))


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _photograph(name: str = "face.png", score: float = 0.99) -> Photograph:
    """A grey square with five coloured dots of 13 pixels, a face as far as labels go."""
    pixels = np.full((200, 200, 3), 128, np.uint8)
    for (x, y), colour in zip(POINTS, COLOURS, strict=True):
        pixels[y - 6 : y + 7, x - 6 : x + 7] = colour
    boxes = np.array([[60.0, 50, 140, 150]], np.float32)
    # The middle of pixel (80, 80) lies at 80.5.
    landmarks = np.array(POINTS, np.float32).reshape(1, 10) + 0.5
    faces = Faces(boxes, landmarks, np.array([score], np.float32))
    return Photograph(name, _encoded(Image.fromarray(pixels)), faces)


def _archive(path: Path, count: int = 12) -> Path:
    random = np.random.default_rng(0)
    with tarfile.open(path, "w") as archive:
        for index in range(count):
            pixels = random.integers(0, 256, (20, 24, 3), np.uint8)
            image = Image.fromarray(pixels).resize((96, 80))
            data = _encoded(image)
            member = tarfile.TarInfo(f"photo_{index}.png")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def _teacher(path: Path) -> Path:
    """A network that has learnt nothing but takes every coarse cell for a large face."""
    torch.manual_seed(1)
    state = RetinaFace("retinaface-mobilenet0.25").state_dict()
    for level, bias in enumerate(([9.0, -9, 9, -9], [9, -9, 9, -9], [0, 3, 9, -9])):
        state[f"ClassHead.{level}.conv1x1.weight"].zero_()
        state[f"ClassHead.{level}.conv1x1.bias"].copy_(torch.tensor(bias))
    published = replace(SETTINGS, trusted_side=None, least_side=0)
    weights.write(path, state, {"kind": "detector", **published.to_metadata()})
    return path


@pytest.fixture
def options(tmp_path: Path) -> DetectorOptions:
    return DetectorOptions(
        photographs=_archive(tmp_path / "photographs.tar"),
        teacher=_teacher(tmp_path / "teacher.safetensors"),
        output=tmp_path / "out" / "detector.safetensors",
        steps=3,
        polish=1,
        batch=2,
        side=96,
        early_side=64,
        early=2,
        save_every=2,
        start="scratch",
        learning_rate=3e-3,
    )


# Photographs


def test_one_in_ten_is_held_out_whatever_folder_it_lies_in() -> None:
    names = [f"person_{index:04d}.jpg" for index in range(2000)]
    kept = sum(is_held_out(name) for name in names)
    assert 150 < kept < 250
    assert all(is_held_out(f"lfw/{name}") == is_held_out(name) for name in names[:50])


def test_the_teachers_faces_are_kept_between_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, cache = _archive(tmp_path / "photographs.tar", 3), tmp_path / "kept" / "faces.npz"
    teacher = Detector.load(_teacher(tmp_path / "teacher.safetensors"))
    fresh = read_photographs(archive, teacher, cache=cache)
    assert [photo.name for photo in fresh] == ["photo_0.png", "photo_1.png", "photo_2.png"]
    assert sum(len(photo.faces.scores) for photo in fresh) > 0
    blind = Detector(teacher.network, replace(SETTINGS, min_sizes=((1, 2), (3, 4), (5, 6))))
    with monkeypatch.context() as patch:
        patch.setattr(Detector, "detect", lambda *_, **__: pytest.fail("they were kept"))
        again = read_photographs(archive, teacher, cache=cache)
    for one, other in zip(fresh, again, strict=True):
        np.testing.assert_array_equal(one.faces.boxes, other.faces.boxes)
        np.testing.assert_array_equal(one.faces.landmarks, other.faces.landmarks)
        assert one.pixels().shape == (80, 96, 3)
    other = read_photographs(archive, blind, cache=cache)  # another teacher: anew
    assert len(other) == 3 and other[0].faces.sides().max() < fresh[0].faces.sides().max()


def test_archives_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    teacher = Detector.load(_teacher(tmp_path / "teacher.safetensors"))
    path = tmp_path / "x.tar"
    with pytest.raises(InputError, match=r"read_photographs: cannot read archive .*x.tar"):
        read_photographs(path, teacher)
    path.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(InputError, match=r"read_photographs: cannot read archive .*x.tar"):
        read_photographs(path, teacher)
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("notes.txt"))
    with pytest.raises(InputError, match=r"x.tar holds no JPEG or PNG file"):
        read_photographs(path, teacher)
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("empty.jpg"))
    with pytest.raises(InputError, match=r"read_photographs: cannot decode empty.jpg"):
        read_photographs(path, teacher)


# Mosaics


def _colour_at(pixels: np.ndarray, point: np.ndarray) -> np.ndarray:
    x, y = point.astype(int)
    return pixels[y, x].astype(int)


@pytest.mark.parametrize("side", [96, 288, 512])
def test_labels_move_with_their_photographs(side: int) -> None:
    seen = 0
    for seed in range(12):
        picture = mosaic([_photograph()], side, np.random.default_rng(seed))
        assert picture.pixels.shape == (side, side, 3) and picture.pixels.dtype == np.uint8
        for box, points in zip(picture.boxes, picture.landmarks.reshape(-1, 5, 2), strict=True):
            width, height = box[2:] - box[:2]
            # The box of the turned ellipse: as slim as the photograph's, or less.
            assert min(width, height) >= 10 and 80 / 100 <= height / width <= 100 / 80 + 1e-3
            if width < 30:  # dots too small to keep their colour
                continue
            seen += 1
            # Left stays left, mirrored or not: the second dot on the left then.
            mirrored = _colour_at(picture.pixels, points[0])[1] > 128
            order = (1, 0, 2, 4, 3) if mirrored else (0, 1, 2, 3, 4)
            for point, index in zip(points, order, strict=True):
                found = _colour_at(picture.pixels, point)
                assert np.abs(found - COLOURS[index]).max() < 90
    assert seen > 5


@pytest.mark.parametrize("mirrored", [False, True])
def test_boxes_turn_with_their_ellipse(mirrored: bool) -> None:
    sign = -1.0 if mirrored else 1.0
    for angle, half in ((0, (40, 50)), (90, (50, 40)), (45, (45.28, 45.28)), (180, (40, 50))):
        cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        matrix = np.array([[sign * cosine, -sine], [sign * sine, cosine]])
        view = View(matrix, np.array([7.0, 9.0]), 1.0, mirrored, np.deg2rad(angle))
        centre, found = turned_box(np.array([60.0, 50, 140, 150]), view)
        assert centre == pytest.approx(matrix @ (100, 100) + (7, 9))
        assert found == pytest.approx(half, abs=0.01)


def test_photographs_lie_at_any_angle_when_asked() -> None:
    angles = []
    for seed in range(60):
        picture = mosaic([_photograph()], 128, np.random.default_rng(seed), turned=1.0)
        points = picture.landmarks.reshape(-1, 5, 2)
        across = points[:, 1] - points[:, 0]
        angles.extend(np.rad2deg(np.arctan2(across[:, 1], across[:, 0])).tolist())
        # The teacher is not believed where a photograph lies further than it knows.
        assert len(picture.turned) <= 9
    for low in range(-180, 180, 60):
        assert any(low <= angle < low + 60 for angle in angles)


def test_turned_cells_and_doubtful_faces_ask_nothing_of_the_teacher() -> None:
    nowhere = np.empty((0, 4), np.float32)
    corner = np.array([[0, 0, 128, 128]], np.float32)
    doubtful = np.array([[30, 30, 90, 90]], np.float32)
    points = np.empty((0, 10), np.float32)
    picture = Mosaic(np.zeros((256, 256, 3), np.uint8), nowhere, points, corner, doubtful)
    targets = _targets(picture, face=4.0)
    inside = (GRID[:, :2] < 128).all(dim=1)
    unasked = targets.faces[0].isnan()
    assert unasked.any() and inside[unasked].all()
    assert (targets.faces[0, inside & ~unasked] == 0).all()
    assert (targets.faces[0, ~inside] > 0.9).all()
    outputs = _outputs(len(GRID), face=0.0)
    loss = distillation_loss(outputs, targets)  # type: ignore[arg-type]
    assert loss.isfinite()


def test_faces_come_in_all_sizes() -> None:
    sides: list[float] = []
    for seed in range(30):
        picture = mosaic([_photograph()], 384, np.random.default_rng(seed))
        sides.extend((picture.boxes[:, 2:] - picture.boxes[:, :2]).min(axis=1).tolist())
    assert min(sides) < 16 and max(sides) > 300
    assert 0.1 < np.mean(np.array(sides) < 24) < 0.9


def test_doubtful_faces_are_no_labels() -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        assert len(mosaic([_photograph(score=0.6)], 128, random).boxes) == 0


def test_mosaics_repeat_with_their_seed() -> None:
    one, two = (mosaic([_photograph()], 128, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one.pixels, two.pixels)
    np.testing.assert_array_equal(one.landmarks, two.landmarks)


@pytest.mark.parametrize(("count", "side"), [(0, 64), (1, 31)])
def test_mosaic_refuses(count: int, side: int) -> None:
    with pytest.raises(InputError, match=rf"mosaic: needs .* got {count}, {side}"):
        mosaic([_photograph()] * count, side, np.random.default_rng(0))


def test_untouched_photographs_keep_their_pixels() -> None:
    pixels = _photograph().pixels()
    for seed in range(5):
        random = np.random.default_rng(seed)
        picture = mosaic([_photograph()], 160, random, untouched=1.0)
        if len(picture.boxes) != 1 or picture.boxes[0, 2] - picture.boxes[0, 0] != 80:
            continue  # cut into small cells, or the face lies over the edge
        x, y = np.rint(picture.boxes[0, :2] + [40, 50]).astype(int)
        expected = pixels[90:110, 90:110]
        found = picture.pixels[y - 10 : y + 10, x - 10 : x + 10]
        assert np.array_equal(found, expected) or np.array_equal(found, expected[:, ::-1])
        return
    pytest.fail("none of five mosaics showed the photograph whole")


def test_degrading_keeps_the_picture_in_place() -> None:
    pixels = _photograph().pixels()
    variants = [degrade(pixels, np.random.default_rng(seed)) for seed in range(40)]
    assert all(variant.shape == pixels.shape for variant in variants)
    untouched = sum(np.array_equal(variant, pixels) for variant in variants)
    assert 8 <= untouched <= 26
    assert all(variant[0, 0].std() < 40 for variant in variants)


# Targets and loss


def _outputs(count: int, *, face: float = -4.0) -> tuple[torch.Tensor, ...]:
    """Offsets of a teacher that says the same everywhere; `face` is its logit for a face."""
    logits = torch.tensor([0.0, face]).repeat(1, count, 1)
    return logits, torch.full((1, count, 4), 0.25), torch.full((1, count, 10), 0.25)


def _picture(*boxes: tuple[float, float, float, float]) -> Mosaic:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    points = np.arange(10 * len(corners), dtype=np.float32).reshape(-1, 10)
    nowhere = np.empty((0, 4), np.float32)
    return Mosaic(np.zeros((256, 256, 3), np.uint8), corners, points, nowhere, nowhere)


GRID = anchor_grid(256, 256, min_sizes=SETTINGS.min_sizes, steps=SETTINGS.steps)


def _targets(picture: Mosaic, *, face: float = -4.0) -> Targets:
    outputs = _outputs(len(GRID), face=face)
    return targets_of(outputs, [picture], GRID, SETTINGS)  # type: ignore[arg-type]


def test_without_known_faces_the_teacher_is_the_target() -> None:
    targets = _targets(_picture(), face=1.0)
    expected = torch.full((1, len(GRID)), 1.0).sigmoid()
    torch.testing.assert_close(targets.faces, expected)
    assert (targets.boxes == 0.25).all() and (targets.landmarks == 0.25).all()


@pytest.mark.parametrize("side", [11, 40, 200])
def test_a_face_the_teacher_misses_is_put_right(side: float) -> None:
    picture = _picture((20, 20, 20 + side, 20 + side))
    targets = _targets(picture)
    positive = targets.faces[0] == 1
    assert 1 <= positive.sum() < 60
    boxes = decode_boxes(targets.boxes[0, positive], GRID[positive], SETTINGS.variances)
    torch.testing.assert_close(boxes, torch.tensor(picture.boxes).expand_as(boxes))
    points = decode_landmarks(targets.landmarks[0, positive], GRID[positive], SETTINGS.variances)
    expected = torch.tensor(picture.landmarks).expand_as(points)
    torch.testing.assert_close(points, expected, rtol=1e-4, atol=1e-3)


def test_in_its_range_the_teachers_offsets_stay() -> None:
    targets = _targets(_picture((20, 20, 60, 60)), face=4.0)
    assert (targets.faces == 1).any()
    assert (targets.boxes == 0.25).all() and (targets.landmarks == 0.25).all()


def test_parts_of_a_large_face_are_no_faces() -> None:
    targets = _targets(_picture((30, 30, 230, 230)), face=4.0)
    inside = ((GRID[:, :2] > 30) & (GRID[:, :2] < 230)).all(dim=1)
    small = inside & (GRID[:, 2] < 100)
    assert (targets.faces[0, small] == 0).all()
    assert (targets.faces[0, inside & ~small] > 0.9).all()
    assert (targets.boxes[0, inside & ~small] != 0.25).any(dim=1).all()
    assert (targets.faces[0, ~inside] > 0.9).all()


def test_targets_refuse_another_number_of_pictures() -> None:
    with pytest.raises(InputError, match="targets_of: outputs must be of 2 mosaics, got 1"):
        targets_of(_outputs(len(GRID)), [_picture()] * 2, GRID, SETTINGS)  # type: ignore[arg-type]


def test_the_loss_worked_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])
    targets = Targets(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2, 4), torch.zeros(1, 2, 10))
    outputs = logits, torch.full((1, 2, 4), 1.0), torch.full((1, 2, 10), 0.04)
    # Scores: 2 anchors × 2 · ½² · log 2. Boxes: 4 · (1 - 0.05) / 4. Points: 10 · 0.04²/0.2 / 5.
    expected = np.log(2) + 0.95 + 0.016
    assert distillation_loss(outputs, targets).item() == pytest.approx(expected, rel=1e-6)


def test_the_loss_vanishes_where_the_student_agrees() -> None:
    outputs = torch.tensor([[[0.0, 40.0], [40.0, 0.0]]]), torch.ones(1, 2, 4), torch.ones(1, 2, 10)
    targets = Targets(torch.tensor([[1.0, 0.0]]), outputs[1], outputs[2])
    assert distillation_loss(outputs, targets).item() == pytest.approx(0, abs=1e-6)


# Scores


class _Oracle(Detector):
    """Reports what it is told, in place of looking."""

    def __init__(self, *answers: tuple[Detection, ...]) -> None:
        self.answers = list(answers)

    def detect(self, images, *, min_score=None):  # type: ignore[no-untyped-def]
        return [self.answers.pop(0) for _ in images]


def _detection(*, shift: float = 0.0, points: float = 0.0) -> Detection:
    faces = _photograph().faces
    box = tuple(float(value) + shift for value in faces.boxes[0])
    return Detection(box, 0.9, faces.landmarks[0].reshape(5, 2) + np.float32(points))  # type: ignore[arg-type]


def test_scores_worked_by_hand() -> None:
    doubtful = replace(
        _photograph(), faces=replace(_photograph().faces, scores=np.array([0.5], np.float32))
    )
    photographs = [_photograph(), _photograph(), _photograph(), doubtful]
    oracle = _Oracle(
        (_detection(points=3.0), _detection(shift=200)),  # found, and one too many
        (_detection(shift=40),),  # overlaps by less than a half: missed, and a false one
        (),  # missed
        (_detection(),),  # the teacher was unsure
    )
    scores = score_photographs(oracle, photographs)
    assert (scores.photographs, scores.faces) == (4, 3)
    assert scores.recall == pytest.approx(1 / 3)
    # Each point lies 3 · √2 off, the eyes 40 apart.
    assert scores.landmark_error == pytest.approx(3 * 2**0.5 / 40)
    assert scores.false_faces == 2 / 4 and scores.unconfirmed_faces == 3 / 4


def test_scores_of_nothing() -> None:
    scores = score_photographs(_Oracle(), [])
    assert scores.recall is None and scores.landmark_error is None and scores.false_faces == 0


def test_small_faces_are_placed_where_they_are_looked_for() -> None:
    class Finder(Detector):
        def __init__(self) -> None:
            pass

        def detect(self, images, *, min_score=None):  # type: ignore[no-untyped-def]
            """Read the dots: each red one is a left eye, 20 left of the middle at full size."""
            found = []
            for image in images:
                for top in range(0, 510, 170):
                    for left in range(0, 510, 170):
                        cell = image[top : top + 170, left : left + 170].astype(int)
                        if not cell.any():
                            continue
                        scale = np.argmin(cell.any(axis=2)[0]) / 200 or 170 / 200
                        corner = np.array([left, top])
                        box = np.array([60, 50, 140, 150]) * scale + np.tile(corner, 2)
                        points = (np.array(POINTS) + 0.5) * scale + corner
                        found.append(Detection(tuple(box), 0.9, points.astype(np.float32)))
            return [tuple(found)]

    photographs = [_photograph()] * 11 + [_photograph(score=0.5)]
    scores = score_small_faces(Finder(), photographs)
    assert (scores.photographs, scores.faces) == (2, 11)
    assert scores.recall == 1 and scores.landmark_error < 0.05 and scores.false_faces == 0


# Training


def test_training_writes_a_detector_that_loads(options: DetectorOptions) -> None:
    path = train_detector(options)
    state, metadata = weights.read(path)
    assert metadata["kind"] == "detector"
    assert metadata["architecture"] == "retinaface-mobilenet0.25"
    assert metadata["licence"] and "teacher.safetensors" in metadata["provenance"]
    names = {"held_out", "held_out_small_faces", "held_out_turned"}
    assert set(metadata["scores"]) == names
    assert {value.dtype for value in state.values() if value.dim() > 1} == {torch.float16}
    assert Detector.load(path).settings == SETTINGS
    lines = (options.folder / "detector.log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
    assert all(np.isfinite(json.loads(line)["loss"]) for line in lines)
    assert not (options.folder / "detector.checkpoint.pt").exists()


class _KilledError(Exception):
    pass


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    options: DetectorOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, _ = weights.read(train_detector(options))
    cut = replace(options, work=tmp_path / "work", output=tmp_path / "cut.safetensors")
    update, calls = DetectorTraining._update, []

    def dies_in_the_fourth_step(*arguments: object) -> float:
        calls.append(None)
        if len(calls) == 4:
            raise _KilledError
        return update(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(DetectorTraining, "_update", dies_in_the_fourth_step)
        with pytest.raises(_KilledError):
            train_detector(cut)
    assert not cut.output.exists()
    resumed, _ = weights.read(train_detector(cut))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_without_sums_is_continued(options: DetectorOptions) -> None:
    """Such as older trainings wrote; they had their options in another order, too."""
    teacher = Detector.load(options.teacher)
    begun = DetectorTraining(options, teacher)
    run = begun.run([_photograph()])
    next(run)
    begun.save()
    state = torch.load(begun.path, weights_only=True)
    del state["sums"]
    described = json.loads(state["options"])
    state["options"] = json.dumps(dict(reversed(described.items())))
    torch.save(state, begun.path)
    resumed = DetectorTraining(options, teacher)
    resumed.resume()
    assert resumed.step == 1
    assert next(resumed.run([_photograph()])) == next(run)
    state["options"] = json.dumps({**described, "seed": options.seed + 1})
    torch.save(state, begun.path)
    with pytest.raises(InputError, match="was made with other options"):
        DetectorTraining(options, teacher).resume()


def test_a_checkpoint_of_other_options_is_refused(options: DetectorOptions) -> None:
    teacher = Detector.load(options.teacher)
    options.folder.mkdir(parents=True, exist_ok=True)
    DetectorTraining(replace(options, steps=1, polish=0), teacher).save()
    with pytest.raises(InputError, match=r"was made with other options .*the file to start again"):
        train_detector(options)


def test_training_lowers_the_loss(options: DetectorOptions) -> None:
    torch.manual_seed(0)
    teacher = Detector.load(options.teacher)
    training = DetectorTraining(
        replace(options, steps=16, polish=0, side=64, learning_rate=0.01), teacher
    )
    losses = list(training.run([_photograph()]))
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_a_run_starts_where_it_is_told(options: DetectorOptions) -> None:
    teacher = Detector.load(options.teacher)
    wanted, _ = weights.read(options.teacher)
    begun = DetectorTraining(replace(options, start="teacher"), teacher).network.state_dict()
    fresh = DetectorTraining(options, teacher).network.state_dict()
    name = "body.stage1.0.0.weight"
    assert torch.equal(begun[name], wanted[name].float())
    assert not torch.equal(fresh[name], wanted[name].float())
    with pytest.raises(InputError, match="start must be teacher or scratch, got 'afresh'"):
        replace(options, start="afresh")


def test_what_is_written_keeps_a_share_of_the_start(options: DetectorOptions) -> None:
    def network(share: float) -> dict[str, torch.Tensor]:
        training = DetectorTraining(
            replace(options, start="teacher", init_share=share), Detector.load(options.teacher)
        )
        list(training.run([_photograph()]))
        return training.detector().network.state_dict()

    name = "body.stage1.0.0.weight"
    wanted, _ = weights.read(options.teacher)
    start, learnt, mixed = wanted[name].float(), network(0)[name], network(0.7)[name]
    assert not torch.allclose(learnt, start, rtol=0, atol=1e-6)
    torch.testing.assert_close(mixed, 0.7 * start + 0.3 * learnt, rtol=0, atol=1e-7)
    torch.testing.assert_close(network(1)[name], start, rtol=0, atol=0)


def test_the_learning_rate_rises_falls_and_polishes(options: DetectorOptions) -> None:
    schedule = replace(options, steps=150, polish=50, learning_rate=0.3)
    rates = [loop_module._learning_rate(schedule, step) for step in range(200)]
    assert rates[0] == 0 and max(rates) == rates[10] == pytest.approx(0.3)
    assert rates[2] == pytest.approx(0.06)  # a fifth of the way up
    # Half-way down to polishing: half of 14/19 of the cosine.
    assert rates[80] == pytest.approx(0.3 * 0.5 * (1 + np.cos(np.pi * 7 / 19)))
    assert 0.04 < rates[149] < 0.06 and rates[150] == pytest.approx(0.1)
    assert rates[175] == pytest.approx(0.05) and rates[199] < 1e-3


def test_training_refuses_an_archive_without_photographs_to_learn_from(
    options: DetectorOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_held_out", lambda name: True)
    with pytest.raises(InputError, match=r"train_detector: every photograph of .* is held out"):
        train_detector(options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "DetectorOptions: steps must be at least 1, got 0"),
        ({"batch": -1}, "DetectorOptions: batch must be at least 1, got -1"),
        ({"polish": -1}, "DetectorOptions: polish must be at least 0, got -1"),
        ({"side": 100}, "DetectorOptions: side must be a multiple of 32, at least 64, got 100"),
        ({"early_side": 32}, "DetectorOptions: early_side must be a multiple of 32"),
        ({"early": -2}, "DetectorOptions: early must be at least 0, got -2"),
        ({"average": -0.1}, "DetectorOptions: average must be at least 0 and below 1"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DetectorOptions(Path("a"), Path("b"), Path("c"), **changes)  # type: ignore[arg-type]


def test_the_command_line_reaches_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    taken: list[DetectorOptions] = []
    devices: list[str] = []

    def train(options: DetectorOptions, *, device: str, workers: int) -> None:
        assert workers == 0
        taken.append(options)
        devices.append(device)

    monkeypatch.setattr(module, "train_detector", train)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    paths = ["--photographs", "a.tar", "--teacher", "t.pth", "--output", "o.safetensors"]
    assert command.run(parser.parse_args(paths)) == 0
    assert command.run(parser.parse_args([*paths, "--work", "w", "--steps", "7"])) == 0
    expected = DetectorOptions(Path("a.tar"), Path("t.pth"), Path("o.safetensors"))
    assert taken == [expected, replace(expected, work=Path("w"), steps=7)]
    assert devices == ["cpu", "cpu"]  # of "auto", as in all commands
