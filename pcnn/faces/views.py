"""Views of faces, as inputs of a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pcnn.devices import own_settings, upload
from pcnn.faces.geometry import AlignedFaces, FacePlaces, picture_transforms, transforms_of
from pcnn.faces.light import even_light, readable
from pcnn.faces.resampling import pixels_tensor, resample, to_pictures, to_planes
from pcnn.faces.shrinking import Source, shrink_face
from pcnn.networks.ensemble import ExpressionNetwork
from pcnn.networks.regions import VIEWS, Box, ViewFormat, normalise
from pcnn.networks.saliency import weigh
from pcnn.ops import crop_regions, landmark_crop


@own_settings()
def cut_views(  # noqa: PLR0913
    pictures: Sequence[NDArray[np.uint8]],
    places: Sequence[FacePlaces],
    config: ViewFormat,
    *,
    native_size: int,
    device: torch.device,
    names: Sequence[str] = VIEWS,
    mirror: bool = False,
) -> list[Tensor]:
    """Cut the views of all faces, normalised and, if the network needs it, weighed by saliency.

    The light of poorly lit faces is corrected (see light).

    pictures: (H, W, 3) each. places: of the faces of each picture, see geometry.FacePlaces.
    native_size: the side in pixels of the network's training faces.
    names: the first names of VIEWS, at least "face".
    mirror: True adds the mirror image of each view.
    Returns the views in the order of VIEWS, each (faces, C, h, w), for all faces of all pictures;
    then their mirror images in the same order. `faces` may be 0.
    """
    boxes = [config.layout.boxes(config.size)[name] for name in names]
    # If the training faces were coarser than the view, the network expects views of equal detail.
    footprint = config.size / native_size
    weighed = config.saliency is not None  # then mirror images are those of weighed views
    crops: list[list[Tensor]] = []
    for pixels, faces in zip(pictures, places, strict=True):
        maps = transforms_of(faces, config.size, config.layout)
        image = pixels_tensor(readable(pixels, maps, config.size))
        wanted = maps[:, : len(names)]
        sources = [shrink_face(Source(image, one, footprint), config.size) for one in wanted]
        shrunk = any(source.pixels is not image for source in sources)
        if sources and not shrunk:  # all faces at once
            sources = [Source(image, wanted, footprint)]
        # What is left of a large picture has another shape, so that landmarks do not fit to it.
        aligned = faces if isinstance(faces, AlignedFaces) and not shrunk else None
        both = mirror and not weighed
        crops += [_cut(source, aligned, config, boxes, device, both) for source in sources]
    if not crops:
        sizes = [box.size for box in boxes] * (2 if mirror else 1)
        return [torch.empty(0, config.channels, *size, device=device) for size in sizes]
    views = (
        crops[0] if len(crops) == 1 else [torch.cat(parts) for parts in zip(*crops, strict=True)]
    )
    views = even_light(views, config)
    if not weighed:
        return views
    views = weigh(views, config)
    return [*views, *(view.flip(3) for view in views)] if mirror else views


def _cut(  # noqa: PLR0913, PLR0917
    source: Source,
    aligned: AlignedFaces | None,
    config: ViewFormat,
    boxes: Sequence[Box],
    device: torch.device,
    mirror: bool,
) -> list[Tensor]:
    """The views of a source's faces, and then their mirror images, as in cut_views.

    aligned: the same faces by their landmarks; None takes the source's transforms.
    """
    image = upload(source.pixels, device)
    if aligned is not None:
        return landmark_crop(
            image,
            upload(torch.from_numpy(aligned.landmarks), device),
            (aligned.template * config.size).tolist(),
            boxes,
            mean=config.mean,
            std=config.std,
            footprint=source.footprint,
            mirror=mirror,
        )
    transforms = torch.from_numpy(source.transforms.reshape(-1, len(boxes), 2, 3))
    views = crop_regions(
        image,
        upload(transforms, device),
        [box.size for box in boxes],
        mean=config.mean,
        std=config.std,
        footprint=source.footprint,
    )
    return [*views, *(view.flip(3) for view in views)] if mirror else views


def cut_faces(
    pictures: Sequence[NDArray[np.uint8]],
    landmarks: Sequence[Sequence[NDArray[np.float32]]],
    template: ArrayLike,
    config: ViewFormat,
    device: torch.device,
) -> Tensor:
    """The whole view of each face alone, aligned by its landmarks, as fine as the picture is.

    pictures: (H, W, 3) each. landmarks: (5, 2) of each face of each picture.
    template: see geometry.AlignedFaces. config: size and normalisation of the views.
    Returns (F, C, S, S) of all faces of all pictures; F may be 0.
    """
    (views,) = cut_views(
        pictures,
        [AlignedFaces.of(own, template) for own in landmarks],
        config,
        native_size=config.size,
        device=device,
        names=VIEWS[:1],
    )
    return views


@own_settings()
def face_views(network: ExpressionNetwork, faces: Tensor, native_size: int) -> list[Tensor]:
    """The views of cut-out faces, as in `Recognizer.predict_crops`.

    faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8, N ≥ 1.
    native_size: see ExpressionWeights. Returns the views in the order of VIEWS, each
    (N, C, h, w), normalised, on the network's device; without regions only the face.
    """
    config = network.config
    height, width = faces.shape[1:3]
    transforms = picture_transforms(width, height, config.size, config.layout)
    return cut_views(
        to_pictures(faces),
        [transforms] * len(faces),
        config,
        native_size=native_size,
        device=next(network.parameters()).device,
        names=network.views,
    )


def network_views(
    network: ExpressionNetwork, faces: Tensor, native_size: int | None
) -> list[Tensor]:
    """The views of a FaceSet's faces, each (B, C, h, w), normalised.

    The views that the network takes, in the order of VIEWS.
    native_size: as in face_views; None takes the views of training.
    """
    config = network.config
    if native_size is None:
        whole = normalise(resample(to_planes(faces, config.channels), config.size), config)
        return weigh(network.cut(whole), config)
    return face_views(network, faces, native_size)
