"""Faces for a training from your own pictures: found and cut as in prediction, and divided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn.datasets.labels import FaceSet, one_hot
from pcnn.datasets.pictures import read_pictures
from pcnn.errors import InputError
from pcnn.faces.alignment import crop_transforms
from pcnn.faces.detector import Detector
from pcnn.faces.geometry import face_transforms
from pcnn.faces.views import cut_views
from pcnn.images.files import shown
from pcnn.images.loading import load_image
from pcnn.networks.regions import VIEWS, ViewFormat
from pcnn.terminal import track
from pcnn.training.expression.options import ExpressionOptions
from pcnn.training.folds import FOLDS, assign_folds, check_labels, digests_of, united_groups
from pcnn.weights.expression import ExpressionWeights, load_expression
from pcnn.weights.files import is_published
from pcnn.weights.known import DEFAULT_WEIGHTS

_LONG = 16  # pictures from which a progress bar is shown


@dataclass(frozen=True, eq=False)
class OwnFaces:
    """Aligned faces of your own pictures, about a fifth of them held out.

    template, native_size: see ExpressionWeights. problems: a line for each picture or
        folder left out.
    """

    train: FaceSet
    valid: FaceSet
    template: list[list[float]]
    native_size: int
    problems: tuple[str, ...]


def options_for_own(given: Mapping[str, Any], count: int | None = None) -> dict[str, Any]:
    """Keywords of ExpressionOptions for a training from your own pictures, which are few.

    given: what you choose yourself; it stays as it is. count: of faces to learn, of which a batch
        has a quarter at most; None while it is not known.
    """
    chosen: dict[str, Any] = {"aligned": True, "mirror": True}
    if given.get("init"):
        chosen |= {"epochs": 8.0, "learning_rate": 3e-4}
    if count is not None:
        chosen["batch"] = min(ExpressionOptions.batch, max(count // 4, 2))
    return {**chosen, **given}


def own_faces(data: str | Path, options: ExpressionOptions, *, faces: bool = False) -> OwnFaces:
    """Read your own labelled pictures, and find and cut their faces as the trained network will.

    data: a folder with a folder for each label, or a CSV, see datasets.pictures.
    options: `init` gives the template and the detail of faces, if it can predict; else the
        packaged weights do. `seed` decides which faces are held out: about a fifth, more or less
        where the CSV's groups, which stay whole, are large. Copies of a picture stay together.
    faces: True if each picture is one cut-out face. Else the largest face of each is taken.
    Shows its progress on a terminal.
    Raises InputError: another form of data, no labels, too few pictures of a label, or
    groups that cannot be divided.
    """
    pictures = read_pictures(data)
    if not pictures.labels:
        raise InputError(f"{shown(data)}: a network is trained on labels: use pcnn-train head")
    init = options.init if options.init and not is_published(options.init) else None
    base = load_expression(init or DEFAULT_WEIGHTS)
    cutter = _Cutter(base, options, faces=faces)
    cut: list[Tensor] = []
    places: list[int] = []
    problems = list(pictures.problems)
    long = len(pictures.files) >= _LONG
    for at, found in enumerate(track(cutter.cut(pictures.files), "faces", shown=long)):
        if isinstance(found, Tensor):
            cut.append(found)
            places.append(at)
        else:
            problems.append(found)
    labels = [pictures.labels[at] for at in places]
    names = tuple(str(pictures.files[at]) for at in places)
    digests, _ = digests_of([pictures.files[at] for at in places])
    groups = united_groups(
        [pictures.groups[at] for at in places] if pictures.groups else [],
        [digests.get(at, name) for at, name in enumerate(names)],
    )
    classes = tuple(sorted(set(pictures.labels)))
    count = check_labels(
        *(labels, groups, classes),
        subject=shown(data),
        problems=problems,
        notes=pictures.notes,
        faces=faces,
    )
    kinds = np.array([classes.index(label) for label in labels])
    held_out = _held_out(kinds, groups, classes, count, options.seed)
    every = FaceSet(torch.stack(cut), one_hot(labels, classes), names, classes)
    return OwnFaces(
        train=every.subset(np.flatnonzero(~held_out).tolist()),
        valid=every.subset(np.flatnonzero(held_out).tolist()),
        template=[list(point) for point in base.template],
        native_size=base.native_size,
        problems=(*problems, *pictures.notes),
    )


def _held_out(
    kinds: NDArray[np.int64], groups: Sequence[str], classes: Sequence[str], most: int, seed: int
) -> NDArray[np.bool_]:
    """(N,), whether each face is held out: the fold nearest to a fifth that has every label.

    most: the number of folds; fewer where no fold has every label. The other folds have every
    label, too, see assign_folds. Raises InputError: as there.
    """
    for count in range(most, 1, -1):
        folds = assign_folds(kinds, groups, count, seed, classes=classes)
        sizes = np.bincount(folds, minlength=count)
        full = [at for at in range(count) if len(set(kinds[folds == at])) == len(classes)]
        if full:
            break
    chosen = min(full, key=lambda at: abs(sizes[at] - len(kinds) / FOLDS))
    return np.asarray(folds == chosen)


class _Cutter:
    """Cuts the face of pictures as the views of a network that predicts."""

    def __init__(self, base: ExpressionWeights, options: ExpressionOptions, *, faces: bool) -> None:
        channels = 3 if options.colour else 1
        self._base, self._faces = base, faces
        self._detector = Detector.load(options.detector)
        self._levels = ViewFormat.levels(options.size, channels)

    def cut(self, files: Sequence[Path]) -> Iterator[Tensor | str]:
        """For each file its face, (S, S) or (S, S, 3) uint8, or the reason why there is none."""
        for file in files:
            try:
                pixels = load_image(file)
            except InputError as error:
                yield str(error)
                continue
            transforms = self._transforms(pixels)
            if not len(transforms):
                yield f"{shown(file)}: no face found"
                continue
            (views,) = cut_views(
                [pixels],
                [transforms],
                self._levels,
                native_size=self._base.native_size,
                device=torch.device("cpu"),
                names=VIEWS[:1],
            )
            levels = views[0].round().clamp(0, 255).to(torch.uint8)  # (C, S, S)
            yield levels[0] if len(levels) == 1 else levels.permute(1, 2, 0).contiguous()

    def _transforms(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The transforms of the picture's face, (1, 6, 2, 3), or (0, 6, 2, 3) without one."""
        template = self._base.template
        if self._faces:
            return crop_transforms([pixels], template, self._levels, self._detector)[0]
        found = self._detector.detect([pixels])[0]
        largest = sorted(found, key=lambda face: -_area(face.box))[:1]
        points = [face.landmarks for face in largest]
        return face_transforms(points, template, self._levels.size, self._levels.layout)


def _area(box: tuple[float, float, float, float]) -> float:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)
