"""Loading of labelled faces from data sets in their published layouts."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pcnn.datasets.ferplus import FER2013_TREE, SHEETS_TREE, read_fer2013, read_sheets, sheet_splits
from pcnn.datasets.labels import FaceSet, one_hot
from pcnn.datasets.layouts import (
    FOLDERS_TREE,
    LIST_TREE,
    RAFDB_TREE,
    Listing,
    Picture,
    holds_classes,
    holds_splits,
    list_folders,
    list_rafdb,
    rafdb_list,
    read_list,
)
from pcnn.devices import own_settings
from pcnn.disk import as_path
from pcnn.errors import InputError, check_count, counted
from pcnn.images.loading import load_image
from pcnn.terminal import track

__all__ = ["FaceSet", "load_faces", "load_ferplus"]

_TREES = {
    "sheets": SHEETS_TREE,
    "fer2013": FER2013_TREE,
    "rafdb": RAFDB_TREE,
    "folders": FOLDERS_TREE,
    "list": LIST_TREE,
}
# Option → its layouts. Other options are for all layouts.
_CONCERNED = {
    "protocol": ("sheets", "fer2013"),
    "labels": ("sheets", "fer2013"),
    "duplicates": ("sheets",),
    "numbering": ("folders", "list"),
    "images": ("list",),
    "missing": ("rafdb", "list"),
    "on_error": ("rafdb", "folders", "list"),
}
_CHOICES = {
    "protocol": ("argmax", "majority"),
    "labels": (None, "votes", "fer2013"),
    "missing": ("raise", "skip"),
    "on_error": ("raise", "skip"),
}
# The side of faces if pictures differ in size: FER2013's for grey, PCNN's input for RGB.
_GREY_SIDE, _RGB_SIDE = 48, 224
_LONG = 1000  # pictures from which a progress bar is shown


@dataclass(frozen=True)
class _Options:
    """The options of load_faces with their defaults."""

    side: int | None = None
    grey: bool = True
    protocol: str = "argmax"
    labels: str | None = None
    duplicates: bool = False
    numbering: Mapping[int, str] | None = None
    images: str | Path | FaceSet | None = None
    missing: str = "raise"
    on_error: str = "raise"


@own_settings()
def load_faces(  # noqa: PLR0913 - the one entry to all layouts, each of which has its options
    path: str | Path,
    split: str | None = None,
    *,
    layout: str = "auto",
    side: int | None = None,
    grey: bool = True,
    protocol: str = "argmax",
    labels: str | None = None,
    duplicates: bool = False,
    numbering: Mapping[int, str] | None = None,
    images: str | Path | FaceSet | None = None,
    missing: str = "raise",
    on_error: str = "raise",
) -> FaceSet:
    """Load the faces of a data set on this machine; docs/data.md shows the layouts.

    path: a folder, or the file of layouts "fer2013" (the table) and "list".
    split: "train", "valid", "test" or another name in the data set; None without splits.
    layout: "sheets", "fer2013", "rafdb", "folders", "list"; "auto" recognises it.
    side: the side of the square faces, in pixels. None keeps the size if it is the same for all
        pictures. Otherwise faces become 48 × 48 (grey) or 224 × 224 (RGB).
    grey: True gives luma (N, H, W); False gives RGB (N, H, W, 3).
    protocol (sheets, fer2013 with FER+): "argmax" keeps faces for which neither `unknown` nor
        `NF` has more votes than every class. "majority" (Barsoum et al. 2016) ignores single
        votes and keeps faces for which one class has more than half of the others.
    labels (sheets, fer2013): "votes" of FER+ for eight classes, or "fer2013", the seven labels
        of FER2013, for all faces. None uses votes if available.
    duplicates (sheets): True keeps near-copies of faces of other splits.
    numbering (folders, list): number → name, for classes given as numbers.
    images (list): the source of the faces: a folder of pictures or contact sheets, or a FaceSet.
    missing (rafdb, list): "skip" leaves out listed pictures that do not exist, with a warning.
    on_error (rafdb, folders, list): "skip" leaves out unreadable pictures, with a warning.
    Classes are in the data set's own order; for folders and lists, in that of FERPLUS_CLASSES.
    Nothing is downloaded.
    Raises InputError: missing files, another layout, an unreadable picture (named in the
        message), or an option of other layouts.

    >>> for folder in ("happy", "sad"):
    ...     Path("faces", folder).mkdir(parents=True)
    ...     portrait = Path("docs/images/astronaut.png").read_bytes()
    ...     _ = Path("faces", folder, "1.png").write_bytes(portrait)
    >>> load_faces("faces", side=48).classes
    ('happiness', 'sadness')
    """
    options = _Options(
        side, grey, protocol, labels, duplicates, numbering, images, missing, on_error
    )
    path = as_path("load_faces: path", path)
    if layout not in ("auto", *_TREES):
        raise InputError(f"load_faces: layout must be auto, {', '.join(_TREES)}, got {layout!r}")
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected\n{_expected(layout)}")
    layout = _recognise(path) if layout == "auto" else layout
    _check(options, layout)
    if layout == "sheets":
        return _fit(
            read_sheets(path, split, protocol=protocol, labels=labels, duplicates=duplicates),
            options,
        )
    if layout == "fer2013":
        return _fit(read_fer2013(path, split, protocol=protocol, labels=labels), options)
    if layout == "rafdb":
        return _read(list_rafdb(path, split), path, options)
    if layout == "folders":
        return _read(list_folders(path, split, numbering), path, options)
    if split is not None:
        raise InputError(f"load_faces: a list has no splits: omit split={split!r}")
    return _read(read_list(path, images, numbering), path, options)


def load_ferplus(folder: str | Path, split: str) -> FaceSet:
    """Load FER+ faces from contact sheets, with the argmax-8 protocol and without duplicates.

    folder: contains `<split>.csv` (columns image, the eight classes, unknown, NF, duplicate) and
        `<split>_00.png …`, sheets with rows of 40 tiles of 48 × 48, in the order of the CSV.
    split: "train" or "valid".
    Left out are faces for which `unknown` or `NF` has more votes than every class, and
    near-copies of faces of other splits. Votes are those for the eight classes, normalised.
    Raises InputError: a file is missing, or sheets and CSV do not fit together.
    """
    return load_faces(folder, split, layout="sheets")


def _recognise(path: Path) -> str:
    """The layout of the data set at `path`. Raises InputError: none fits, or several do."""
    if path.is_file():
        return "fer2013" if path.suffix.lower() == ".csv" else "list"
    signs = {
        "sheets": bool(sheet_splits(path)),
        "fer2013": (path / "fer2013.csv").is_file(),
        "rafdb": rafdb_list(path) is not None,
        "folders": holds_classes(path) or holds_splits(path),
    }
    found = [layout for layout, there in signs.items() if there]
    if not found:
        there = ", ".join(sorted(each.name for each in path.iterdir())[:5]) or "nothing"
        raise InputError(
            f"load_faces: {path} has no known layout (it holds {there}); "
            f"expected\n{_expected('auto')}"
        )
    if len(found) > 1:
        raise InputError(
            f"load_faces: {path} fits several layouts: choose one with layout=: {', '.join(found)}"
        )
    return found[0]


def _expected(layout: str) -> str:
    """The file tree of a layout; for "auto" those of all layouts."""
    if layout in _TREES:
        return _TREES[layout]
    return "\n".join(f"{name}: {tree}" for name, tree in _TREES.items())


def _check(options: _Options, layout: str) -> None:
    """Raise InputError for an invalid value, or an option that the layout does not use."""
    for name, choices in _CHOICES.items():
        value = getattr(options, name)
        if value not in choices:
            known = ", ".join(map(str, choices))
            raise InputError(f"load_faces: {name} must be one of {known}, got {value!r}")
    if options.side is not None:
        check_count("load_faces", "side", options.side)
    if options.labels == "fer2013" and options.protocol != "argmax":
        raise InputError("load_faces: protocol needs votes, but labels='fer2013' has none")
    for option in dataclasses.fields(options):
        concerned = _CONCERNED.get(option.name, (layout,))
        if layout not in concerned and getattr(options, option.name) != option.default:
            raise InputError(
                f"load_faces: {option.name} is only for {' and '.join(concerned)}, got {layout}"
            )


def _fit(faces: FaceSet, options: _Options) -> FaceSet:
    """Resize and convert grey faces as the options require."""
    if options.side in (None, faces.faces.shape[1]) and options.grey:
        return faces
    pixels, _ = _read_pictures(list(faces.faces.numpy()), options)
    return dataclasses.replace(faces, faces=pixels)


def _read(listing: Listing, path: Path, options: _Options) -> FaceSet:
    """Read the faces of a listing; missing and unreadable ones as the options say."""
    missing = listing.missing
    pictures = counted(len(listing.names) + len(missing), "picture")
    if missing:
        named = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        text = f"load_faces: {len(missing)} of {pictures} of {path} missing: {named}"
        if options.missing == "raise":
            raise InputError(f"{text}; use missing='skip' to skip them")
        warnings.warn(text, stacklevel=4)  # own_settings is one of the frames
    pixels, broken = _read_pictures(listing.pictures, options)
    if broken:
        first = next(iter(broken.values()))
        text = f"{len(broken)} of {pictures} of {path} cannot be read; the first: {first}"
        warnings.warn(f"load_faces: {text}", stacklevel=4)
    whole = [index for index in range(len(listing.names)) if index not in broken]
    if not whole:
        raise InputError(f"load_faces: {path} holds no picture that can be read")
    return FaceSet(
        pixels,
        one_hot([listing.labels[index] for index in whole], listing.classes),
        tuple(listing.names[index] for index in whole),
        listing.classes,
    )


def _read_pictures(
    pictures: Sequence[Picture], options: _Options
) -> tuple[Tensor, dict[int, InputError]]:
    """Readable pictures in one size, and index → error of the others."""
    side = options.side
    faces: list[Image.Image] = []
    broken: dict[int, InputError] = {}
    for index, picture in enumerate(track(pictures, "reading faces", shown=len(pictures) >= _LONG)):
        try:
            face = Image.fromarray(load_image(picture))
        except InputError as error:
            if options.on_error == "raise":
                raise
            broken[index] = error
            continue
        face = face.convert("L") if options.grey else face
        if side is None and faces and face.size != faces[0].size:
            side = _GREY_SIDE if options.grey else _RGB_SIDE
            faces = [_resize(each, side) for each in faces]
        faces.append(face if side is None else _resize(face, side))
    pixels = np.stack([np.asarray(face) for face in faces]) if faces else np.empty((0, 1, 1))
    return torch.from_numpy(pixels.astype(np.uint8, copy=False)), broken


def _resize(face: Image.Image, side: int) -> Image.Image:
    """Resize to side × side pixels, bilinear and antialiased."""
    if face.size == (side, side):
        return face
    return face.resize((side, side), Image.Resampling.BILINEAR)
