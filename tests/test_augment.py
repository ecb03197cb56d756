import torch

from pcnn.augment import Augmentation, augment, resample

STILL = Augmentation(rotation_deg=0, scale=0, shift=0, contrast=0, brightness=0, erase=0)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_enlarging_by_two_by_hand() -> None:
    """Half-pixel centres: 0, 1 doubled reads at −¼, ¼, ¾, 1¼, edges replicated."""
    face = torch.tensor([[[[0.0, 1.0]]]]).expand(1, 1, 2, 2)
    torch.testing.assert_close(resample(face, 4)[0, 0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))


def test_nothing_varied_is_the_face_or_its_mirror() -> None:
    faces = torch.rand((16, 1, 12, 12), generator=_generator())
    varied = augment(faces, 12, STILL, _generator(1))
    mirrored = 0
    for before, after in zip(faces, varied, strict=True):
        if torch.allclose(before, after, atol=1e-5):
            continue
        torch.testing.assert_close(before.flip(2), after, atol=1e-5, rtol=0)
        mirrored += 1
    assert 3 <= mirrored <= 13


def test_a_seed_decides_everything() -> None:
    faces = torch.rand((8, 1, 48, 48), generator=_generator())
    first = augment(faces, 64, Augmentation(), _generator(2))
    assert first.shape == (8, 1, 64, 64)
    assert torch.equal(first, augment(faces, 64, Augmentation(), _generator(2)))
    assert not torch.equal(first, augment(faces, 64, Augmentation(), _generator(3)))
    assert first.min() >= 0 and first.max() <= 1


def test_a_turn_keeps_the_middle_and_moves_the_corners() -> None:
    faces = torch.zeros(64, 1, 33, 33)
    faces[:, :, 14:19, 14:19] = 1
    options = Augmentation(rotation_deg=30, scale=0, shift=0, contrast=0, brightness=0, erase=0)
    varied = augment(faces, 33, options, _generator())
    assert varied[:, 0, 16, 16].min() > 0.99
    # A turned square keeps its area.
    torch.testing.assert_close(varied.sum((1, 2, 3)), torch.full((64,), 25.0), rtol=0.1, atol=0)


def test_erasing_covers_part_of_some_faces() -> None:
    faces = torch.rand((200, 1, 20, 20), generator=_generator())
    options = Augmentation(rotation_deg=0, scale=0, shift=0, contrast=0, brightness=0, erase=0.25)
    varied = augment(faces, 20, options, _generator(5))
    untouched = augment(faces, 20, STILL, _generator(5))
    share = (varied != untouched).float().mean((1, 2, 3))
    assert 25 <= (share > 0).sum() <= 75
    assert share.max() <= 0.25
