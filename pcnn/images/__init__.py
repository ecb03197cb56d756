"""Loading of pictures from any source as (H, W, 3) uint8 RGB.

Names are imported at their first use, so commands can check paths without NumPy and Pillow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcnn.images.loading import load_image

__all__ = ["load_image"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'pcnn.images' has no attribute {name!r}")
    return getattr(import_module("pcnn.images.loading"), name)
