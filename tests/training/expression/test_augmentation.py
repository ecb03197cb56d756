import dataclasses

import pytest
import torch

from pcnn.errors import InputError
from pcnn.faces.resampling import resample
from pcnn.training.expression.augmentation import Augmentation, Augmenter, over_expose

pytestmark = pytest.mark.train

STILL = Augmentation(rotation_deg=0, scale=0, shift=0, contrast=0, brightness=0, erase=0)


def _faces(count: int, side: int) -> torch.Tensor:
    return torch.rand((count, 1, side, side), generator=torch.Generator().manual_seed(0))


def test_enlarging_by_two_by_hand() -> None:
    """Half-pixel centres: 0, 1 doubled reads at −¼, ¼, ¾, 1¼, edges replicated."""
    face = torch.tensor([[[[0.0, 1.0]]]]).expand(1, 1, 2, 2)
    torch.testing.assert_close(resample(face, 4)[0, 0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))


def test_nothing_varied_is_the_face_or_its_mirror() -> None:
    faces = _faces(16, 12)
    varied = Augmenter(STILL)(faces, 12, 1)
    mirrored = 0
    for before, after in zip(faces, varied, strict=True):
        if torch.allclose(before, after, atol=1e-4):
            continue
        torch.testing.assert_close(before.flip(2), after, atol=1e-4, rtol=0)
        mirrored += 1
    assert 3 <= mirrored <= 13


def test_a_seed_decides_everything_and_nothing_else() -> None:
    faces = _faces(8, 48)
    augment = Augmenter(Augmentation())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = augment(faces, 64, 2)
    assert torch.equal(torch.rand(3), expected)  # the caller's random numbers are left alone
    assert first.shape == (8, 1, 64, 64)
    assert torch.equal(first, augment(faces, 64, 2))
    assert not torch.equal(first, augment(faces, 64, 3))
    assert first.min() >= 0 and first.max() <= 1


def test_a_turn_keeps_the_middle_and_the_area() -> None:
    faces = torch.zeros(64, 1, 33, 33)
    faces[:, :, 14:19, 14:19] = 1
    varied = Augmenter(dataclasses.replace(STILL, rotation_deg=30))(faces, 33, 0)
    assert varied[:, 0, 16, 16].min() > 0.99
    torch.testing.assert_close(varied.sum((1, 2, 3)), torch.full((64,), 25.0), rtol=0.1, atol=0)
    assert not torch.allclose(varied, faces, atol=0.1)


def test_erasing_covers_part_of_some_faces() -> None:
    faces = _faces(200, 20)
    varied = Augmenter(dataclasses.replace(STILL, erase=0.25))(faces, 20, 5)
    grey = (varied == 0.5).float().mean((1, 2, 3))
    assert 25 <= (grey > 0).sum() <= 75
    assert grey.max() <= 0.15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"erase": 2}, "Augmentation: erase must lie in 0…1, got 2"),
        ({"shift": -0.1}, "Augmentation: shift must lie in 0…1, got -0.1"),
        ({"scale": 1.5}, "Augmentation: scale must lie in 0…1, got 1.5"),
        (
            {"gamma": 0.5},
            "Augmentation: gamma, coarsest and exposure must be at least 1, got 0.5, 24 and 1.0",
        ),
        (
            {"coarsest": 0},
            "Augmentation: gamma, coarsest and exposure must be at least 1, got 1.0, 0 and 1.0",
        ),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as error:
        Augmenter(Augmentation(**options))  # type: ignore[arg-type]
    assert str(error.value) == message


def test_blur_noise_and_gamma_leave_faces_in_place() -> None:
    faces = _faces(64, 48)
    blurred = Augmenter(dataclasses.replace(STILL, blur=1.0, coarsest=12))(faces, 48, 0)
    assert blurred.shape == faces.shape
    # The finest detail is gone from most, the mean of each face stays.
    torch.testing.assert_close(blurred.mean((1, 2, 3)), faces.mean((1, 2, 3)), atol=0.02, rtol=0)
    assert (blurred - faces).abs().amax((1, 2, 3)).gt(0.02).float().mean() > 0.5
    grey = torch.full((64, 1, 16, 16), 0.5)
    noisy = Augmenter(dataclasses.replace(STILL, noise=0.1))(grey, 16, 0)
    deviations = noisy.std((1, 2, 3))
    assert deviations.max() < 0.12 and deviations.max() > 0.08 and deviations.min() < 0.03
    lighter = Augmenter(dataclasses.replace(STILL, gamma=2.0))(grey, 16, 0).mean((1, 2, 3))
    assert lighter.min() < 0.35 and lighter.max() > 0.6 and lighter.min() >= 0.25 - 1e-3
    assert lighter.max() <= 0.5**0.5 + 1e-3


def test_exposure_whitens_some_faces_and_leaves_the_others() -> None:
    faces = 0.2 + 0.6 * _faces(200, 12)
    torch.manual_seed(0)
    exposed = over_expose(faces, 4.0)
    changed = (exposed != faces).flatten(1).any(1)
    assert 15 <= int(changed.sum()) <= 45  # 15 % of 200
    assert exposed.min() >= 0 and exposed.max() == 1
    brighter = exposed[changed].mean((1, 2, 3)) > faces[changed].mean((1, 2, 3))
    assert brighter.float().mean() > 0.5  # the others lost a low level, too
    order = faces[changed].flatten(1).argsort(1)
    assert (exposed[changed].flatten(1).gather(1, order).diff(dim=1) >= 0).all()


def test_exposure_of_one_changes_no_face() -> None:
    faces = _faces(16, 12)
    without = Augmenter(STILL)(faces, 12, 3)
    assert torch.equal(Augmenter(dataclasses.replace(STILL, exposure=1.0))(faces, 12, 3), without)
    assert not torch.equal(
        Augmenter(dataclasses.replace(STILL, exposure=4.0))(faces, 12, 3), without
    )
