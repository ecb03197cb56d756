"""Multi-domain interaction: stitch the region maps, align them with the face map, add both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pcnn.ops import stitch_regions, warp_add


class Interaction(nn.Module):
    """Fuses the face map with the five region maps (Tian et al. 2025).

    map_size: (height, width) of stage 4's output, on which the registration is computed.
    channels: of that output.
    """

    def __init__(self, map_size: tuple[int, int], channels: int) -> None:
        super().__init__()
        last = nn.Linear(32, 6)
        self.localisation = nn.Sequential(
            nn.Linear(channels * map_size[0] * map_size[1], 32), nn.ReLU(), last
        )
        # Registration starts as the identity (Jaderberg et al. 2015). Otherwise early training
        # reads a random place of the stitched map.
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, face: Tensor, regions: Sequence[Tensor], stage4: nn.Module) -> Tensor:
        """Fused map (B, C, H, W) of the face map (B, C, H, W) and five region maps (B, C, ·, ·)."""
        stitched = stitch_regions(regions, (face.shape[2], face.shape[3]))
        deep = stage4(stitched)  # (B, channels, ⌈H / 2⌉, ⌈W / 2⌉)
        theta = self.localisation(deep.flatten(1)).view(-1, 2, 3)
        return warp_add(stitched, theta, face)
