"""Loading of labelled faces from data sets in their published layouts."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pcnn.datasets.ferplus import FER2013_TREE, SHEETS_TREE, read_fer2013, read_sheets, sheet_splits
from pcnn.datasets.labels import FacePictures, FaceSet, Picture, one_hot
from pcnn.datasets.layouts import (
    FOLDERS_TREE,
    LIST_TREE,
    RAFDB_TREE,
    Listing,
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

__all__ = ["FaceOptions", "FaceSet", "load_faces", "load_ferplus", "open_faces"]

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
class FaceOptions:
    """The options of load_faces with their defaults; they are explained there."""

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
    options = FaceOptions(
        side, grey, protocol, labels, duplicates, numbering, images, missing, on_error
    )
    path, found = _find(path, split, layout, options)
    return _fit(found, options) if isinstance(found, FaceSet) else _read(found, path, options)


@own_settings()
def open_faces(
    path: str | Path,
    split: str | None = None,
    *,
    layout: str = "auto",
    options: FaceOptions | None = None,
) -> FaceSet | FacePictures:
    """As load_faces, but pictures that differ in size keep their sizes.

    options: without `side`, so that nothing is resized. None means the defaults.
    Returns a FaceSet if all pictures have one size. Otherwise FacePictures, in the same order:
    their files are read once now, to find unreadable ones, and again when they are needed.
    Raises InputError: as load_faces, or `side` is given.
    """
    options = options or FaceOptions()
    if options.side is not None:
        raise InputError("open_faces: faces keep their sizes: omit side, or use load_faces")
    path, found = _find(path, split, layout, options)
    if isinstance(found, FaceSet):
        return _fit(found, options)
    return _open(found, path, options)


def _find(
    path: str | Path, split: str | None, layout: str, options: FaceOptions
) -> tuple[Path, FaceSet | Listing]:
    """The path, and the faces, or the pictures where each is a file of its own.

    Raises InputError: as load_faces, except for what is wrong with such pictures.
    """
    path = as_path("load_faces: path", path)
    if layout not in ("auto", *_TREES):
        raise InputError(f"load_faces: layout must be auto, {', '.join(_TREES)}, got {layout!r}")
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected\n{_expected(layout)}")
    layout = _recognise(path) if layout == "auto" else layout
    _check(options, layout)
    protocol, labels = options.protocol, options.labels
    if layout == "sheets":
        duplicates = options.duplicates
        return path, read_sheets(
            path, split, protocol=protocol, labels=labels, duplicates=duplicates
        )
    if layout == "fer2013":
        return path, read_fer2013(path, split, protocol=protocol, labels=labels)
    if layout == "rafdb":
        return path, list_rafdb(path, split)
    if layout == "folders":
        return path, list_folders(path, split, options.numbering)
    if split is not None:
        raise InputError(f"load_faces: a list has no splits: omit split={split!r}")
    return path, read_list(path, options.images, options.numbering)


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


def _check(options: FaceOptions, layout: str) -> None:
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


def _fit(faces: FaceSet, options: FaceOptions) -> FaceSet:
    """Resize and convert grey faces as the options require."""
    if options.side in (None, faces.faces.shape[1]) and options.grey:
        return faces
    pixels, _ = _read_pictures(list(faces.faces.numpy()), options)
    return dataclasses.replace(faces, faces=pixels)


def _read(listing: Listing, path: Path, options: FaceOptions) -> FaceSet:
    """Read the faces of a listing; missing and unreadable ones as the options say."""
    _tell_missing(listing, path, options)
    pixels, broken = _read_pictures(listing.pictures, options)
    listing = _without(listing, broken, path)
    return FaceSet(
        pixels, one_hot(listing.labels, listing.classes), tuple(listing.names), listing.classes
    )


def _open(listing: Listing, path: Path, options: FaceOptions) -> FaceSet | FacePictures:
    """The faces of a listing, see open_faces. Pixels are held only while all have one size."""
    _tell_missing(listing, path, options)
    faces: list[Image.Image] = []
    sizes: set[tuple[int, int]] = set()
    broken: dict[int, InputError] = {}
    for face in _each(listing.pictures, options, broken):
        sizes.add(face.size)
        faces.append(face)
        if len(sizes) > 1:
            faces.clear()
    listing = _without(listing, broken, path)
    votes, names = one_hot(listing.labels, listing.classes), tuple(listing.names)
    if len(sizes) == 1:
        return FaceSet(_stacked(faces), votes, names, listing.classes)
    return FacePictures(tuple(listing.pictures), votes, names, listing.classes)


def _tell_missing(listing: Listing, path: Path, options: FaceOptions) -> None:
    """Warn of missing pictures, or raise InputError, as the options say."""
    missing = listing.missing
    if missing:
        pictures = counted(len(listing.names) + len(missing), "picture")
        named = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        text = f"load_faces: {len(missing)} of {pictures} of {path} missing: {named}"
        if options.missing == "raise":
            raise InputError(f"{text}; use missing='skip' to skip them")
        warnings.warn(text, stacklevel=5)  # own_settings is one of the frames


def _without(listing: Listing, broken: Mapping[int, InputError], path: Path) -> Listing:
    """The listing without broken pictures, of which it warns.

    Raises InputError: there is no other picture.
    """
    if broken:
        pictures = counted(len(listing.names) + len(listing.missing), "picture")
        first = next(iter(broken.values()))
        text = f"{len(broken)} of {pictures} of {path} cannot be read; the first: {first}"
        warnings.warn(f"load_faces: {text}", stacklevel=5)
    whole = [index for index in range(len(listing.names)) if index not in broken]
    if not whole:
        raise InputError(f"load_faces: {path} holds no picture that can be read")
    return listing.subset(whole)


def _read_pictures(
    pictures: Sequence[Picture], options: FaceOptions
) -> tuple[Tensor, dict[int, InputError]]:
    """Readable pictures in one size, and index → error of the others."""
    side = options.side
    faces: list[Image.Image] = []
    broken: dict[int, InputError] = {}
    for face in _each(pictures, options, broken):
        if side is None and faces and face.size != faces[0].size:
            side = _GREY_SIDE if options.grey else _RGB_SIDE
            faces = [_resize(each, side) for each in faces]
        faces.append(face if side is None else _resize(face, side))
    return _stacked(faces), broken


def _each(
    pictures: Sequence[Picture], options: FaceOptions, broken: dict[int, InputError]
) -> Iterator[Image.Image]:
    """Each face, grey or RGB. broken: takes the errors of skipped pictures by their index."""
    for index, picture in enumerate(track(pictures, "reading faces", shown=len(pictures) >= _LONG)):
        try:
            face = Image.fromarray(load_image(picture))
        except InputError as error:
            if options.on_error == "raise":
                raise
            broken[index] = error
            continue
        yield face.convert("L") if options.grey else face


def _stacked(faces: Sequence[Image.Image]) -> Tensor:
    """Faces of one size, (N, H, W) or (N, H, W, 3) uint8."""
    pixels = np.stack([np.asarray(face) for face in faces]) if faces else np.empty((0, 1, 1))
    return torch.from_numpy(pixels.astype(np.uint8, copy=False))


def _resize(face: Image.Image, side: int) -> Image.Image:
    """Resize to side × side pixels, bilinear and antialiased."""
    if face.size == (side, side):
        return face
    return face.resize((side, side), Image.Resampling.BILINEAR)
