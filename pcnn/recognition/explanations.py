"""Explanations of a network's answers: hidden regions and heat maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.errors import InputError, check_count
from pcnn.faces.views import cut_views
from pcnn.networks.ensemble import ExpressionNetwork
from pcnn.networks.regions import REGIONS, VIEWS, RegionLayout
from pcnn.networks.saliency import blur
from pcnn.ops import crop_regions
from pcnn.results.values import Explanation, expression_of
from pcnn.weights.expression import ExpressionWeights
from pcnn.weights.known import DEFAULT_WEIGHTS

PICTURE_SIDE = 400  # side of a drawn face, pixels
STEPS = 8  # gradients for each face
_SMOOTH = 1 / 24  # blur as a fraction of the face's side; finer details of gradients are noise
_FACES_AT_ONCE = 8  # gradients keep every map of the network in memory


@own_settings(gradients=True)
def explain_faces(
    weights: ExpressionWeights,
    pictures: Sequence[NDArray[np.uint8]],
    transforms: Sequence[NDArray[np.float32]],
    device: torch.device,
    *,
    min_confidence: float = 0.0,
) -> list[Explanation]:
    """The explanations of all faces of all pictures, in order, each for its likeliest class.

    weights: with the network on `device`.
    pictures: (H, W, 3) RGB each. transforms: for each picture (faces, 6, 2, 3), see geometry.
    min_confidence: below it a face's label is "uncertain".
    Raises InputError: the network has no regions.
    """
    network = weights.network
    if not network.regions:
        raise InputError(
            "Recognizer.explain: weights must be of a PCNN; these have no regions: use "
            f"{DEFAULT_WEIGHTS}"
        )
    config = network.config
    views = cut_views(
        pictures,
        transforms,
        config,
        native_size=weights.native_size,
        device=device,
        names=network.views,
    )
    squares = [
        square
        for pixels, maps in zip(pictures, transforms, strict=True)
        for square in face_squares(pixels, maps, config.size)
    ]
    explained: list[Explanation] = []
    for start in range(0, len(squares), _FACES_AT_ONCE):
        some = slice(start, start + _FACES_AT_ONCE)
        explained += _explain(
            weights, [view[some] for view in views], squares[some], min_confidence
        )
    return explained


def face_squares(
    pixels: NDArray[np.uint8], transforms: NDArray[np.float32], size: int
) -> NDArray[np.uint8]:
    """The faces of a picture for drawing, at a higher resolution than the network's views.

    pixels: (H, W, 3) RGB. transforms: (faces, 6, 2, 3) for face views of size × size pixels.
    Returns (faces, P, P, 3) RGB, P = PICTURE_SIDE.
    """
    scale = size / PICTURE_SIDE
    face = transforms[:, :1]  # (faces, 1, 2, 3)
    corner = face[..., :2].sum(-1) * (0.5 * scale - 0.5) + face[..., 2]  # pixel (0, 0)
    finer = np.concatenate((face[..., :2] * scale, corner[..., None]), -1)
    (squares,) = crop_regions(
        torch.from_numpy(pixels),
        torch.from_numpy(finer.astype(np.float32)),
        [(PICTURE_SIDE, PICTURE_SIDE)],
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    found: NDArray[np.uint8] = (
        (255 * squares).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    )
    return found


def hide(views: Sequence[Tensor], region: str, layout: RegionLayout) -> list[Tensor]:
    """The views with a region hidden, in the face's view and in its own, if there is one.

    views: one or six, (B, C, h, w) each, normalised. The region is filled with 0, the mean of the
        training faces. The network knows this value: its convolutions pad with it, and random
        erasing in training used it.
    Returns new tensors for the changed views; `views` are not changed.
    Raises InputError: an unknown region.
    """
    if region not in REGIONS:
        raise InputError(f"hide: region must be one of {', '.join(REGIONS)}, got {region!r}")
    box = layout.boxes(views[0].shape[-1])[region]
    hidden = list(views)
    hidden[0] = views[0].clone()
    hidden[0][:, :, box.top : box.bottom, box.left : box.right] = 0
    if len(views) > 1:
        own = VIEWS.index(region)
        hidden[own] = torch.zeros_like(views[own])
    return hidden


@own_settings()
@torch.no_grad()
def without_regions(
    answer: Callable[[Sequence[Tensor]], Tensor], views: Sequence[Tensor], layout: RegionLayout
) -> dict[str, Tensor]:
    """Region name → logits (B, classes) of the face with that region hidden (see hide).

    answer: the logits of views.
    """
    return {name: answer(hide(views, name, layout)) for name in REGIONS}


@own_settings(gradients=True)
def attributions(
    network: ExpressionNetwork, views: Sequence[Tensor], classes: Tensor, *, steps: int = STEPS
) -> Tensor:
    """Integrated gradients: the contribution of each pixel to the log-odds of a class.

    views: those of the network, (B, C, h, w) each, normalised.
    classes: (B,) int64, the class of each face.
    steps: number of gradients for each face, along the straight line from a completely hidden
        face (0 everywhere, see hide) to the face.
    Returns (B, S, S) on the views' device: the contributions of all views, added at their
        places in the face square. With many steps their sum approaches the difference of the
        log-odds of the face and of the hidden face.
    Raises InputError: steps is below 1.
    Source: Sundararajan et al. 2017.
    """
    check_count("attributions", "steps", steps)
    means = [torch.zeros_like(view) for view in views]
    for step in range(steps):
        points = [view * ((step + 0.5) / steps) for view in views]
        for mean, gradient in zip(means, _gradients(network, points, classes), strict=True):
            mean.add_(gradient, alpha=1 / steps)
    parts = [(view * mean).sum(1) for view, mean in zip(views, means, strict=True)]
    face = parts[0]
    boxes = network.config.layout.boxes(face.shape[-1])
    for name, part in zip(VIEWS[1 : len(parts)], parts[1:], strict=True):
        box = boxes[name]
        face[:, box.top : box.bottom, box.left : box.right] += part
    return face


@own_settings(gradients=True)
def heat_maps(
    network: ExpressionNetwork, views: Sequence[Tensor], classes: Tensor, *, steps: int = STEPS
) -> Tensor:
    """Heat maps: the places in each face that support a class.

    views, classes, steps: as for `attributions`. A heat map is their smoothed positive part,
        scaled to a maximum of 1.
    Returns (B, S, S) of 0…1 on the views' device; all 0 for a face without support.
    Raises InputError: as `attributions`.
    """
    added = attributions(network, views, classes, steps=steps)
    heat = blur(added, _SMOOTH * added.shape[-1]).clamp(min=0)
    return heat / heat.amax((1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)


def _explain(
    weights: ExpressionWeights,
    views: Sequence[Tensor],
    squares: Sequence[NDArray[np.uint8]],
    min_confidence: float,
) -> list[Explanation]:
    """Explanations of B faces, from their views (B, C, h, w) and squares for drawing."""
    network = weights.network
    classes, layout = network.config.classes, network.config.layout

    def answer(some: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        return weights.answer(network.forward_views, some)

    with torch.no_grad():
        logits, own = answer(views)
    hidden = without_regions(lambda some: answer(some)[0], views, layout)
    given = weights.probabilities(logits)
    scores = given.cpu()
    regions = {name: weights.probabilities(own[name], name).cpu() for name in REGIONS}
    without = {name: weights.probabilities(answers).tolist() for name, answers in hidden.items()}
    heat = heat_maps(network, views, given.argmax(1), steps=STEPS).cpu().numpy()
    size = network.config.size
    places = {
        name: (box.left / size, box.top / size, box.right / size, box.bottom / size)
        for name, box in layout.boxes(size).items()
        if name in REGIONS
    }
    return [
        Explanation(
            expression=expression_of(
                classes, row, {name: regions[name][i] for name in REGIONS}, min_confidence
            ),
            answer=classes[int(row.argmax())],
            without={name: dict(zip(classes, without[name][i], strict=True)) for name in REGIONS},
            heat=heat[i],
            boxes=places,
            picture=squares[i],
        )
        for i, row in enumerate(scores)
    ]


def _gradients(
    network: ExpressionNetwork, views: Sequence[Tensor], classes: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of the classes' log-odds with respect to each view."""
    # The caller may be in inference mode, where gradients are not available.
    with torch.inference_mode(False), torch.enable_grad():
        leaves = [view.clone().requires_grad_() for view in views]
        logits, _ = network.forward_views(leaves)
        chosen = classes.clone()[:, None]
        others = logits.scatter(1, chosen, -torch.inf).logsumexp(1)
        odds = logits.gather(1, chosen)[:, 0] - others
        return torch.autograd.grad(odds.sum(), leaves)
