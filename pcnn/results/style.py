"""What drawn pictures share."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of equal width below each other; at least one."""
    whole = Image.new("RGB", (pictures[0].width, sum(each.height for each in pictures)))
    top = 0
    for each in pictures:
        whole.paste(each, (0, top))
        top += each.height
    return whole
