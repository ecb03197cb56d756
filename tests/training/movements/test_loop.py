"""The movement network's training: random views keep what is to be seen, and a run that goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from motion import MESH, NAMES, TWINS, taught_faces
from taught import write_taught_data

from pcnn.commands.train import main
from pcnn.errors import InputError
from pcnn.networks.movements import Motion, MovementConfig, mirrored
from pcnn.training import view_augmentation
from pcnn.training.movements.loop import MovementTraining
from pcnn.training.movements.options import MovementOptions
from pcnn.training.teacher_answers import TEMPLATE
from pcnn.training.teacher_options import fingerprint
from pcnn.training.view_augmentation import Placing, degraded, random_views
from pcnn.weights.movements import load_movements, write_movements

CONFIG = MovementConfig(NAMES, points=len(MESH), size=64, width=2)


def test_points_follow_the_random_views(monkeypatch: pytest.MonkeyPatch) -> None:
    # A bright spot at the chin, on black: where the view shows it, the mesh must have its point.
    faces = taught_faces(32, side=96)
    pictures = torch.zeros_like(faces.pictures)
    for picture, (x, y) in zip(pictures, faces.points[:, 5].round().long().tolist(), strict=True):
        picture[y - 2 : y + 2, x - 2 : x + 2] = 255
    middle = faces.points[:, 5:6].round()
    points = torch.cat((faces.points[:, :5], middle, faces.points[:, 6:]), 1)
    faces = replace(faces, pictures=pictures, points=points)
    monkeypatch.setattr(view_augmentation, "degraded", lambda views, _: views)
    generator = torch.Generator().manual_seed(3)
    views, seen = random_views(faces, CONFIG, torch.tensor(TWINS), generator)
    assert views.shape == (32, 3, 64, 64)
    for view, motion in zip(views[:, 0], seen.points, strict=True):
        if not (motion[5] > 0.05).all() or not (motion[5] < 0.95).all():
            continue  # the chin is outside
        y, x = ((view > 0.3).nonzero().float().mean(0) + 0.5) / 64
        torch.testing.assert_close(torch.stack((x, y)), motion[5], atol=0.02, rtol=0)
    # About half of the faces are mirrored: they smile on their other side.
    right = seen.movements[:, 2] > 0.5
    assert 2 <= int(right.sum()) <= 14 and (seen.movements[right, 1] == 0).all()


def test_turned_views_have_other_rolls() -> None:
    faces = taught_faces(64)
    faces = replace(faces, pose=torch.zeros(64, 3))
    generator = torch.Generator().manual_seed(1)
    placing = Placing(turn=15.0)
    views = random_views(faces, CONFIG, torch.tensor(TWINS), generator, placing)[1]
    # The eyes show the roll: in the view the line between them has its angle.
    eyes = views.points[:, 1] - views.points[:, 0]
    angles = torch.rad2deg(torch.atan2(eyes[:, 1], eyes[:, 0]))
    before = faces.points[:, 1] - faces.points[:, 0]
    crooked = torch.rad2deg(torch.atan2(before[:, 1], before[:, 0]))
    off = torch.minimum((angles - views.pose[:, 2] - crooked).abs(),
                        (angles - views.pose[:, 2] + crooked).abs())  # fmt: skip
    assert off.max() < 0.01 and views.pose[:, 2].std() > 3
    assert views.pose[:, :2].abs().max() == 0


def test_degraded_views_stay_levels_and_differ() -> None:
    views = torch.rand(16, 3, 32, 32)
    found = degraded(views, torch.Generator().manual_seed(0))
    assert found.shape == views.shape and found.min() >= 0 and found.max() <= 1
    assert ((found - views).abs().mean((1, 2, 3)) > 0.01).float().mean() > 0.7
    again = degraded(views, torch.Generator().manual_seed(0))
    assert torch.equal(found, again)


def _options(folder: Path, **changes: object) -> MovementOptions:
    paths = (Path("data"), Path("labels"), Path("photographs"), folder / "m.safetensors")
    options = MovementOptions(*paths, init="none", steps=4, batch=6, precision="float32")
    return replace(options, **changes)  # type: ignore[arg-type]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of few channels and small views."""
    module = "pcnn.training.movements.loop.MovementConfig"
    monkeypatch.setattr(
        module, lambda names, points: MovementConfig(names, points=points, size=32, width=2)
    )


_PAIR = slice(-6, -3), slice(-3, None)  # three faces of a batch, and their mirror images
GROUPS = (taught_faces(40), taught_faces(30, side=60, channels=3))


@pytest.mark.usefixtures("small")
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = MovementTraining(_options(tmp_path / "whole"), GROUPS)
    losses = list(whole.run())
    assert len(losses) == 4 and all(value > 0 for row in losses for value in row)
    stopped = MovementTraining(_options(tmp_path / "cut"), GROUPS)
    run = stopped.run()
    next(run), next(run)
    stopped.save()
    resumed = MovementTraining(_options(tmp_path / "cut"), GROUPS)
    resumed.resume()
    assert resumed.step == 2
    assert list(resumed.run()) == losses[2:]
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, resumed.average.state_dict()[name]), name


@pytest.mark.usefixtures("small")
def test_a_checkpoint_of_other_options_is_refused(tmp_path: Path) -> None:
    MovementTraining(_options(tmp_path), GROUPS).save()
    other = MovementTraining(_options(tmp_path, learning_rate=1e-3), GROUPS)
    with pytest.raises(InputError, match="made with other options"):
        other.resume()


@pytest.mark.usefixtures("small")
def test_it_learns(tmp_path: Path) -> None:
    # Random pictures can be learnt by heart: the loss of the same faces falls.
    options = _options(tmp_path, steps=40, batch=12, learning_rate=3e-3)
    losses = [row[1] for row in MovementTraining(options, GROUPS).run()]
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


@pytest.mark.usefixtures("small")
def test_mirror_images_join_the_batch(tmp_path: Path) -> None:
    training = MovementTraining(_options(tmp_path, batch=12, symmetry=0.25), GROUPS)
    views, seen = training._batch()
    assert len(views) == 12 + 3
    torch.testing.assert_close(views[-3:], views[-6:-3].flip(3))
    config, twins = training.network.config, training.network.twins
    faces, images = (Motion(*(own[part] for own in seen)) for part in _PAIR)
    for own, expected in zip(images, mirrored(faces, config, twins), strict=True):
        torch.testing.assert_close(own, expected)


@pytest.mark.usefixtures("small")
def test_answers_to_mirror_images_come_to_agree(tmp_path: Path) -> None:
    apart = {}
    for symmetry in (0.0, 0.5):
        options = _options(tmp_path, steps=40, batch=12, learning_rate=3e-3, symmetry=symmetry)
        training = MovementTraining(options, GROUPS)
        list(training.run())
        network = training.network.eval()
        views = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(5))
        with torch.no_grad():
            one, two = network(views), network(views.flip(3))
        turned = mirrored(two, network.config, network.twins)
        apart[symmetry] = float((one.movements - turned.movements).abs().mean())
    assert apart[0.5] < 0.9 * apart[0.0]  # 0.25 to 0.55 of it with four seeds


@pytest.mark.usefixtures("small")
def test_movement_weights_are_trained_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = MovementTraining(_options(tmp_path), GROUPS)
    list(first.run())
    path = tmp_path / "first.safetensors"
    write_movements(path, first.average, TEMPLATE, {"licence": "", "provenance": ""})
    second = MovementTraining(_options(tmp_path, init=str(path), seed=7), GROUPS)
    stored = load_movements(path).network.state_dict()
    begun = second.network.state_dict()
    for name, value in stored.items():
        assert torch.equal(value, begun[name]), name
    monkeypatch.setattr(
        "pcnn.training.movements.loop.MovementConfig",
        lambda names, points: MovementConfig(names, points=points, size=48, width=2),
    )
    with pytest.raises(InputError, match=r"init must have the movements, .*first\.safetensors"):
        MovementTraining(_options(tmp_path, init=str(path)), GROUPS)


@pytest.mark.usefixtures("small")
def test_what_cannot_start(tmp_path: Path) -> None:
    empty = replace(GROUPS[1][torch.arange(0)])
    message = (
        r"^MovementOptions: photographs_share=0\.\d+ needs faces of sheets and of photographs, "
        rf"got {len(GROUPS[0])} and 0$"
    )
    with pytest.raises(InputError, match=message):
        MovementTraining(_options(tmp_path), (GROUPS[0], empty))
    others = replace(GROUPS[1], names=NAMES[::-1]), replace(GROUPS[1], points=torch.zeros(30, 9, 2))
    for other in others:
        with pytest.raises(InputError, match="must have the same movements and points, got 3 and"):
            MovementTraining(_options(tmp_path), (GROUPS[0], other))
    with pytest.raises(InputError, match="init must have the width"):
        MovementTraining(_options(tmp_path, init="mobile"), GROUPS)
    with pytest.raises(InputError, match="init must be a MobileNet without regions"):
        MovementTraining(_options(tmp_path, init="pcnn-ferplus-only"), GROUPS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"photographs_share": 1.5}, "photographs_share must lie in 0…1, got 1.5"),
        ({"average": 1.0}, "average must be at least 0 and below 1, got 1.0"),
        ({"symmetry": -0.5}, "symmetry must lie in 0…1, got -0.5"),
        ({"precision": "half"}, "precision must be float32 or bfloat16, got 'half'"),
    ],
)
def test_wrong_options(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _options(tmp_path, **changes)


def test_a_checkpoint_with_options_in_their_former_order_is_continued(tmp_path: Path) -> None:
    begun = MovementTraining(_options(tmp_path), GROUPS)
    next(begun.run())
    begun.save()
    state = torch.load(begun.path, weights_only=True)
    found = json.loads(state["options"])
    former = ["init", "steps", "batch", "photographs_share", "learning_rate", "weight_decay"]
    former += ["average", "precision", "symmetry", "seed"]
    assert set(former) == set(found) and former != list(found)
    state["options"] = json.dumps({name: found[name] for name in former})
    torch.save(state, begun.path)
    resumed = MovementTraining(_options(tmp_path), GROUPS)
    resumed.resume()
    assert resumed.step == 1


def test_paths_are_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    assert fingerprint(_options(tmp_path)) == fingerprint(_options(tmp_path / "other"))
    assert fingerprint(_options(tmp_path)) != fingerprint(_options(tmp_path, seed=1))


@pytest.mark.usefixtures("small")
def test_the_command_trains_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Most points of these meshes lie in one place, so they have no counterparts.
    monkeypatch.setattr("pcnn.training.movements.loop.twins_of", lambda _: torch.arange(478))
    learning = write_taught_data(tmp_path)
    output = tmp_path / "out" / "m.safetensors"
    words = ["movements", str(tmp_path / "sheets"), "--photographs", str(tmp_path / "p.tar")]
    words += ["--teacher-labels", str(tmp_path), "--output", str(output), "--init", "none"]
    words += ["--steps", "50", "--batch", "4", "--precision", "float32"]
    assert main(words) == 0
    loaded = load_movements(output)
    assert loaded.network.config.movements == NAMES
    assert f"9 faces of sheets and {learning} of p.tar" in loaded.metadata["provenance"]
    (line,) = (output.parent / "movements.log.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 50

    # In the same folder, as the checkpoint of a finished training is gone.
    again = tmp_path / "out" / "again.safetensors"
    assert main([*words, "--init", str(output), "--output", str(again), "--steps", "1"]) == 0
    told = load_movements(again).metadata["provenance"]
    assert '"init": "m.safetensors"' in told and str(tmp_path) not in told
