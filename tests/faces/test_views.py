"""Views cut by landmarks, by transforms and from reduced pictures, with their mirror images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tolerances import LANDMARKS
from torch import Tensor

from pcnn.faces import views
from pcnn.faces.geometry import AlignedFaces, FacePlaces, transforms_of
from pcnn.faces.views import cut_views
from pcnn.networks.pcnn import ModelConfig
from pcnn.networks.regions import VIEWS

TEMPLATE = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]]
CONFIG = ModelConfig(size=48, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))


def picture(darkness: float = 1.0) -> NDArray[np.uint8]:
    """(300, 320, 3): noise, so that each pixel's place shows."""
    levels = np.random.default_rng(2).integers(0, 256, (300, 320, 3))
    return (levels * darkness).astype(np.uint8)


def faces_of(*sides: float) -> AlignedFaces:
    """Turned faces of so many pixels."""
    turn = np.array([[0.96, -0.28], [0.28, 0.96]])
    own = [np.array(TEMPLATE) @ turn.T * side + (40 + at, 30) for at, side in enumerate(sides)]
    return AlignedFaces.of(own, TEMPLATE)


def cut(
    pictures: Sequence[NDArray[np.uint8]],
    places: Sequence[FacePlaces],
    config: ModelConfig = CONFIG,
    *,
    mirror: bool = False,
    names: Sequence[str] = VIEWS,
) -> list[Tensor]:
    return cut_views(
        pictures,
        places,
        config,
        native_size=48,
        device=torch.device("cpu"),
        names=names,
        mirror=mirror,
    )


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the ops, in the order of their calls."""
    names: list[str] = []
    for name in ("crop_regions", "landmark_crop"):
        op = getattr(views, name)

        def spy(*arguments: object, name: str = name, op: object = op, **options: object) -> object:
            names.append(name)
            return op(*arguments, **options)  # type: ignore[operator]

        monkeypatch.setattr(views, name, spy)
    return names


def test_by_landmarks_and_by_transforms(called: list[str]) -> None:
    faces = faces_of(60, 100)
    by_landmarks = cut([picture(), picture()], [faces, faces_of(80)])
    assert called == ["landmark_crop"] * 2
    transforms = [transforms_of(own, 48, CONFIG.layout) for own in (faces, faces_of(80))]
    by_transforms = cut([picture(), picture()], transforms)
    assert called[2:] == ["crop_regions"] * 2
    for one, other in zip(by_landmarks, by_transforms, strict=True):
        assert len(one) == 3
        torch.testing.assert_close(one, other, atol=LANDMARKS, rtol=0)


def test_a_large_face_is_cut_from_the_reduced_picture(called: list[str]) -> None:
    """Where one is, each face of the picture is cut by its transforms."""
    large = cut([picture()], [faces_of(240, 60)])
    assert called == ["crop_regions"] * 2
    maps = transforms_of(faces_of(240, 60), 48, CONFIG.layout)
    for one, other in zip(large, cut([picture()], [maps]), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("names", [VIEWS, VIEWS[:1]])
@pytest.mark.parametrize("darkness", [1.0, 0.05])  # the light of the second is corrected
@pytest.mark.parametrize("sides", [(60, 90), (240, 60)])
@pytest.mark.parametrize("by", ["landmarks", "transforms"])
def test_mirror_images(
    by: str, sides: tuple[float, ...], darkness: float, names: Sequence[str]
) -> None:
    places: FacePlaces = faces_of(*sides)
    if by == "transforms":
        places = transforms_of(places, 48, CONFIG.layout)
    given = [picture(darkness)], [places]
    alone = cut(*given, names=names)
    both = cut(*given, mirror=True, names=names)
    assert len(both) == 2 * len(alone) == 2 * len(names)
    for view, again, image in zip(alone, both, both[len(names) :], strict=False):
        assert torch.equal(view, again)
        assert torch.equal(view.flip(3), image)
    levels = alone[0] * torch.tensor(CONFIG.std).view(3, 1, 1)
    assert levels.std() > 0.1  # dark faces have got contrast


def test_mirror_images_of_weighed_views() -> None:
    config = ModelConfig(size=48, mean=(0.5,), std=(0.2,), saliency="spectral_residual")
    both = cut([picture()], [faces_of(60)], config, mirror=True)
    for view, image in zip(both[:6], both[6:], strict=True):
        assert torch.equal(view.flip(3), image)


@pytest.mark.parametrize("mirror", [False, True])
def test_no_faces(mirror: bool) -> None:
    nobody = AlignedFaces.of([], TEMPLATE)
    for given in (([], []), ([picture()], [nobody])):
        found = cut(*given, mirror=mirror)  # type: ignore[arg-type]
        sizes = [box.size for box in CONFIG.layout.boxes(48).values()]
        assert [tuple(view.shape) for view in found] == [
            (0, 3, *size) for size in sizes * (1 + mirror)
        ]
    together = cut([picture()] * 2, [nobody, faces_of(60)], mirror=mirror)
    for view, other in zip(together, cut([picture()], [faces_of(60)], mirror=mirror), strict=True):
        assert torch.equal(view, other)
