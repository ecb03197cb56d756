"""The landmark network's training: what it learns, and a run that goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from motion import taught_faces
from taught import write_taught_data

from pcnn.commands.train import main
from pcnn.errors import InputError
from pcnn.faces.geometry import similarity
from pcnn.networks.landmarks import LandmarkConfig
from pcnn.training.landmarks import loop
from pcnn.training.landmarks.loop import LandmarkTraining
from pcnn.training.landmarks.options import LandmarkOptions, fingerprint
from pcnn.training.landmarks.run import _mean_difference, _with_landmarks
from pcnn.training.teacher_answers import TEMPLATE, TaughtFaces
from pcnn.weights.landmarks import load_landmarks, write_landmarks


def _five(faces: TaughtFaces) -> TaughtFaces:
    nothing = torch.empty(len(faces), 0)
    return replace(faces, points=faces.landmarks, movements=nothing, names=())


GROUPS = (_five(taught_faces(40)), _five(taught_faces(30, side=60, channels=3)))


def _options(folder: Path, **changes: object) -> LandmarkOptions:
    paths = (Path("data"), Path("labels"), Path("photographs"), folder / "l.safetensors")
    options = LandmarkOptions(*paths, steps=4, batch=6)
    return replace(options, **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks for small views."""
    monkeypatch.setattr(loop, "LandmarkConfig", lambda: LandmarkConfig(size=32))


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = LandmarkTraining(_options(tmp_path / "whole"), GROUPS)
    losses = list(whole.run())
    assert len(losses) == 4 and min(losses) > 0
    stopped = LandmarkTraining(_options(tmp_path / "cut"), GROUPS)
    run = stopped.run()
    next(run), next(run)
    stopped.save()
    resumed = LandmarkTraining(_options(tmp_path / "cut"), GROUPS)
    resumed.resume()
    assert resumed.step == 2
    assert list(resumed.run()) == losses[2:]
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, resumed.average.state_dict()[name]), name


def test_a_resumed_training_logs_as_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcnn.training.weight_average.LOG_EVERY", 3)
    whole = LandmarkTraining(_options(tmp_path / "whole", steps=6), GROUPS)
    means = [whole.mean_losses({"distance": own}) for own in whole.run()]
    assert [i for i, own in enumerate(means) if own] == [2, 5]
    stopped = LandmarkTraining(_options(tmp_path / "cut", steps=6), GROUPS)
    run = stopped.run()
    for _ in range(2):
        stopped.mean_losses({"distance": next(run)})
    stopped.save()
    resumed = LandmarkTraining(_options(tmp_path / "cut", steps=6), GROUPS)
    resumed.resume()
    assert [resumed.mean_losses({"distance": own}) for own in resumed.run()] == means[2:]


def test_it_learns_where_points_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Dots at the landmarks, on grey: wherever the view puts them, the network must follow.
    pictures = torch.full((64, 60, 60, 1), 90, dtype=torch.uint8)
    faces = taught_faces(64, side=60)
    for picture, five in zip(pictures, faces.landmarks.round().long().tolist(), strict=True):
        for x, y in five:
            picture[y - 2 : y + 2, x - 2 : x + 2] = 255
    five = faces.landmarks.round()
    monkeypatch.setattr("pcnn.training.view_augmentation.degraded", lambda views, _: views)
    group = _five(replace(faces, pictures=pictures, landmarks=five))
    options = _options(tmp_path, steps=150, batch=32, photographs_share=0.0, learning_rate=4e-3)
    losses = list(LandmarkTraining(options, (group, group)).run())
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_it_goes_on_from_weights_of_its_kind(tmp_path: Path) -> None:
    first = LandmarkTraining(_options(tmp_path), GROUPS)
    list(first.run())
    write_landmarks(tmp_path / "first.safetensors", first.average, TEMPLATE, {})
    start = str(tmp_path / "first.safetensors")
    second = LandmarkTraining(_options(tmp_path, init=start), GROUPS)
    for name, value in load_landmarks(start).network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value), name
    with pytest.raises(InputError, match=r"^LandmarkOptions: init must have views of 32 pixels"):
        LandmarkTraining(_options(tmp_path, init="landmarks"), GROUPS)


def test_some_faces_are_over_exposed(tmp_path: Path) -> None:
    def bright(exposure: float) -> list[float]:
        training = LandmarkTraining(_options(tmp_path, exposure=exposure, batch=64), GROUPS)
        views, _ = training._batch()
        return views.mean((1, 2, 3)).tolist()

    plain, exposed = bright(1.0), bright(8.0)
    changed = [own > was + 0.1 for own, was in zip(exposed, plain, strict=True)]
    assert 2 <= sum(changed) <= 24  # about 0.15 of 64, some of them by factors near 1


def test_no_faces_are_refused(tmp_path: Path) -> None:
    empty = GROUPS[1][torch.arange(0)]
    message = rf"^LandmarkOptions: photographs_share=0\.\d+ needs .*, got {len(GROUPS[0])} and 0$"
    with pytest.raises(InputError, match=message):
        LandmarkTraining(_options(tmp_path), (GROUPS[0], empty))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "LandmarkOptions: steps must be at least 1, got 0"),
        ({"photographs_share": 1.5}, "photographs_share must lie in 0…1, got 1.5"),
        ({"exposure": 0.5}, "exposure must be at least 1, got 0.5"),
        ({"average": 1.0}, "average must be at least 0 and below 1, got 1.0"),
    ],
)
def test_wrong_options(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _options(tmp_path, **changes)


def test_a_checkpoint_with_options_in_their_former_order_is_continued(tmp_path: Path) -> None:
    begun = LandmarkTraining(_options(tmp_path), GROUPS)
    next(begun.run())
    begun.save()
    state = torch.load(begun.path, weights_only=True)
    found = json.loads(state["options"])
    former = [
        "detector",
        "init",
        "exposure",
        "steps",
        "batch",
        "photographs_share",
        "learning_rate",
        "weight_decay",
    ]
    former += ["average", "seed"]
    assert set(former) == set(found) and former != list(found)
    state["options"] = json.dumps({name: found[name] for name in former})
    torch.save(state, begun.path)
    resumed = LandmarkTraining(_options(tmp_path), GROUPS)
    resumed.resume()
    assert resumed.step == 1


def test_paths_are_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    assert fingerprint(_options(tmp_path)) == fingerprint(_options(tmp_path / "other"))
    assert fingerprint(_options(tmp_path)) != fingerprint(_options(tmp_path, seed=1))


def _meshes(faces: TaughtFaces) -> TaughtFaces:
    """The faces with a mesh whose eyes' corners, nose and mouth corners give their landmarks."""
    points = torch.zeros(len(faces), 478, 2)
    for place, own in {33: 0, 133: 0, 362: 1, 263: 1, 1: 2, 61: 3, 291: 4}.items():
        points[:, place] = faces.landmarks[:, own]
    return replace(faces, points=points)


def test_landmarks_are_moved_by_the_mean_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    # The detector puts every landmark a tenth of the view to the right and a twentieth lower, in
    # the face's own directions; one face it does not find.
    faces = _meshes(taught_faces(12))
    offset = np.tile([0.1, 0.05], (5, 1))
    moved = np.array(
        [own + offset @ similarity(TEMPLATE, own)[:, :2].T for own in faces.landmarks.numpy()],
        np.float32,
    )
    found = moved.copy()
    found[3] = np.nan
    monkeypatch.setattr("pcnn.training.landmarks.run.dataset_landmarks", lambda *_: found)
    measured = _mean_difference(faces, None)  # type: ignore[arg-type]
    np.testing.assert_allclose(measured, offset, atol=1e-5)
    taught = _with_landmarks(faces, measured)
    np.testing.assert_allclose(taught.landmarks.numpy(), moved, atol=1e-3)
    assert torch.equal(taught.points, taught.landmarks) and taught.names == ()
    monkeypatch.setattr(
        "pcnn.training.landmarks.run.dataset_landmarks", lambda *_: np.full_like(found, np.nan)
    )
    with pytest.raises(InputError, match="found no face"):
        _mean_difference(faces, None)  # type: ignore[arg-type]


def test_the_command_trains_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learning = write_taught_data(tmp_path)
    places = np.tile(np.array(TEMPLATE, np.float32) * 48, (9, 1, 1))
    monkeypatch.setattr("pcnn.training.landmarks.run.dataset_landmarks", lambda *_: places)
    output = tmp_path / "out" / "l.safetensors"
    words = ["landmarks", str(tmp_path / "sheets"), "--photographs", str(tmp_path / "p.tar")]
    words += ["--teacher-labels", str(tmp_path), "--output", str(output)]
    assert main([*words, "--steps", "50", "--batch", "4"]) == 0
    loaded = load_landmarks(output)
    assert f"9 faces of sheets and {learning} of p.tar" in loaded.metadata["provenance"]
    (line,) = (output.parent / "landmarks.log.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 50
    assert not (output.parent / "landmarks.checkpoint.pt").exists()
