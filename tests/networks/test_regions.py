import pytest
import torch

from pcnn.errors import InputError
from pcnn.networks.regions import VIEWS, Box, RegionLayout, ViewFormat, normalise


def test_papers_own_case() -> None:
    """At 224: 112×112, 112×112, 33×112, 33×112, 79×224 (Tian et al. 2025)."""
    boxes = RegionLayout().boxes(224)
    assert tuple(boxes) == VIEWS
    assert boxes["left_eye"] == Box(0, 0, 112, 112)
    assert boxes["right_eye"] == Box(0, 112, 112, 224)
    assert boxes["left_cheek"] == Box(112, 0, 145, 112)
    assert boxes["right_cheek"] == Box(112, 112, 145, 224)
    assert boxes["mouth"] == Box(145, 0, 224, 224)


@pytest.mark.parametrize("size", [7, 48, 64, 96, 97, 112, 224])
def test_regions_tile_the_face(size: int) -> None:
    boxes = RegionLayout().boxes(size)
    covered = [[0] * size for _ in range(size)]
    for name in VIEWS[1:]:
        for row in range(boxes[name].top, boxes[name].bottom):
            for column in range(boxes[name].left, boxes[name].right):
                covered[row][column] += 1
    assert all(count == 1 for row in covered for count in row)


def test_a_size_without_room_is_refused() -> None:
    with pytest.raises(InputError) as error:
        RegionLayout().boxes(3)
    assert str(error.value) == (
        "RegionLayout.boxes: size 3 leaves no pixel for left_cheek; use a larger size"
    )


def test_levels_are_what_views_of_0_to_255_hold() -> None:
    faces = torch.tensor([0.0, 51, 255]).repeat(1, 3, 3, 1)
    for channels in (1, 3):
        view = ViewFormat.levels(3, channels)
        assert (view.size, view.channels) == (3, channels)
        torch.testing.assert_close(normalise(faces[:, :channels] / 255, view), faces[:, :channels])


def test_a_format_of_two_colours_is_refused() -> None:
    with pytest.raises(InputError) as error:
        ViewFormat(48, mean=(0.5, 0.5), std=(0.25,))
    assert str(error.value) == (
        "ViewFormat: mean and std must be one (grey) or three (RGB) numbers, "
        "got (0.5, 0.5) and (0.25,)"
    )
