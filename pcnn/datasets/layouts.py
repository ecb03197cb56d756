"""Layouts of picture files: lists and folders of labelled pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pcnn.datasets.ferplus import read_tiles, sheet_splits
from pcnn.datasets.labels import RAFDB_CLASSES, FaceSet, Picture, canonical, composed
from pcnn.errors import InputError
from pcnn.images.files import find_images
from pcnn.networks.pcnn import FERPLUS_CLASSES

RAFDB_TREE = """\
folder/
  list_patition_label.txt            or EmoLabel/list_patition_label.txt
  aligned/train_00001_aligned.jpg …  or Image/aligned/…"""
_KNOWN = f"{', '.join(FERPLUS_CLASSES)}, or as data sets spell them"
FOLDERS_TREE = f"""\
folder/
  happiness/any name.jpg …   or train/happiness/…, test/happiness/…
  sadness/…                  (names: {_KNOWN})"""
LIST_TREE = """\
list.txt, with lines such as
  happiness/fer0032226.jpg   or 1/fer0032226.jpg
  1_fer0032226.png 8 0       text after the name is ignored"""

# Usual names of split folders → names of the splits here.
_USUAL = {
    "training": "train",
    "val": "valid",
    "validation": "valid",
    "publictest": "valid",
    "testing": "test",
    "privatetest": "test",
    **{name: name for name in ("train", "valid", "test")},
}
_RAFDB_LIST = "list_patition_label.txt"
_MOST_DIGITS = 9
_FERPLUS_NAME = re.compile(r"fer\d+")

Numbering: TypeAlias = Mapping[int, str]


@dataclass(frozen=True)
class Listing:
    """Labelled faces, with pictures that are not read yet.

    pictures: N files, or arrays (H, W) or (H, W, 3) uint8. labels: N of `classes`. names: N.
    missing: names of listed faces without a picture, not included in the N.
    """

    pictures: Sequence[Picture]
    labels: Sequence[str]
    names: Sequence[str]
    classes: tuple[str, ...]
    missing: Sequence[str] = ()

    def subset(self, indices: Sequence[int]) -> Listing:
        """The faces at `indices`, in this order, and the same missing ones."""
        return Listing(
            pictures=[self.pictures[index] for index in indices],
            labels=[self.labels[index] for index in indices],
            names=[self.names[index] for index in indices],
            classes=self.classes,
            missing=self.missing,
        )


def list_rafdb(folder: Path, split: str | None) -> Listing:
    """The aligned faces of one split of RAF-DB's basic set.

    Raises InputError: a missing file, an unknown split or one without pictures, or lines of another
        form.
    """
    table, aligned = rafdb_list(folder), _rafdb_pictures(folder)
    if table is None or aligned is None:
        lacking = _RAFDB_LIST if table is None else "folder aligned/"
        raise InputError(f"load_faces: {folder} holds no {lacking}; expected\n{RAFDB_TREE}")
    if split not in ("train", "test"):
        raise InputError(f"load_faces: {folder} has splits: choose one with split=: train, test")
    there = {file.name: file for file in aligned.iterdir()}
    found = []
    listed: set[str] = set()
    for place, line in _lines(table):
        match = re.fullmatch(r"((?:train|test)_\d+)\.jpg\s+([1-7])", line)
        if match is None:
            raise InputError(f"{place}: expected train_00001.jpg and a label 1…7, got {line!r}")
        name, number = match.groups()
        listed.add(name.partition("_")[0])
        if name.startswith(split):
            picture = there.get(f"{name}_aligned.jpg", there.get(f"{name}.jpg"))
            found.append((name, RAFDB_CLASSES[int(number) - 1], picture))
    if not found:
        others = f"only of {', '.join(listed)}" if listed else "nor of any other"
        raise InputError(f"load_faces: {table} lists no picture of split {split!r}, {others}")
    return _listing(found, RAFDB_CLASSES)


def rafdb_list(folder: Path) -> Path | None:
    """RAF-DB's list of labels in or below a folder; None without one."""
    places = ("", "EmoLabel", "basic", "basic/EmoLabel")
    return next((f for at in places if (f := folder / at / _RAFDB_LIST).is_file()), None)


def _rafdb_pictures(folder: Path) -> Path | None:
    places = ("aligned", "Image/aligned", "basic/aligned", "basic/Image/aligned")
    return next((f for at in places if (f := folder / at).is_dir()), None)


def list_folders(root: Path, split: str | None, numbering: Numbering | None) -> Listing:
    """The pictures in folders named after expressions, with or without folders of splits.

    The classes are those with a folder in any split, in FER+'s order.
    numbering: names of numbered folders.
    Raises InputError: no such folders or split, a folder with an unknown name, or no pictures.
    """
    splits = _split_folders(root)
    chosen = splits.get(split and _split_name(split))
    if chosen is None:
        raise InputError(f"load_faces: {root} {_no_such_split(splits, split)}")
    labels = {}
    for folder in _folders(chosen):
        label = _meaning(folder.name, numbering)
        if label is None:
            raise InputError(_unknown(f"load_faces: folder {folder}", folder.name))
        labels[folder.name] = label
    files, errors = find_images([chosen])
    if errors:
        raise errors[0]
    below = [(file, labels.get(file.relative_to(chosen).parts[0])) for file in files]
    found = [(file.relative_to(root).as_posix(), label, file) for file, label in below if label]
    if not found:
        others = ", ".join(sorted(name for name, at in splits.items() if name and at != chosen))
        hint = f"; other splits: {others}" if others else ""
        raise InputError(f"load_faces: {chosen}: no picture in its folders of expressions{hint}")
    present = {_meaning(each.name, numbering) for at in splits.values() for each in _folders(at)}
    return _listing(found, tuple(name for name in FERPLUS_CLASSES if name in present))


def _no_such_split(splits: Mapping[str | None, Path], split: str | None) -> str:
    if not splits:
        return f"holds no folders of expressions; expected\n{FOLDERS_TREE}"
    if None in splits:
        return f"has no splits: omit split={split!r}"
    return f"has splits: choose one with split=: {', '.join(map(str, splits))}; got {split!r}"


def holds_classes(folder: Path) -> bool:
    """Whether a folder contains folders named after expressions, or numbered folders."""
    return any(each.name.isdecimal() or canonical(each.name) for each in _folders(folder))


def holds_splits(folder: Path) -> bool:
    """Whether a folder contains folders for which holds_classes is true."""
    return any(holds_classes(each) for each in _folders(folder))


def _split_folders(root: Path) -> dict[str | None, Path]:
    """Name of a split → the folder with its classes; None → root if it has the classes itself."""
    splits: dict[str | None, Path] = {}
    if holds_classes(root):
        return {None: root}
    for each in _folders(root):
        if holds_classes(each):
            name = _split_name(each.name)
            splits[each.name if name in splits else name] = each
    return splits


def _split_name(folder: str) -> str:
    """The split of a folder's name."""
    return _USUAL.get(folder.lower(), composed(folder))


def _folders(folder: Path) -> list[Path]:
    """The visible folders in a folder, sorted."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return [each for each in inside if each.is_dir() and not each.name.startswith((".", "__"))]


def read_list(
    path: Path, images: str | Path | FaceSet | None, numbering: Numbering | None
) -> Listing:
    """The faces of a text file in the layout of FER+'s occlusion and pose sets.

    images: the source of the faces: a folder of pictures with these names, a folder of contact
        sheets, or a FaceSet.
    numbering: names of numbered labels. Names of FER+'s faces need none; they use FER+'s order.
    Raises InputError: a missing file, or lines of another form.
    """
    find = _finder(images)
    found = []
    for place, line in _lines(path):
        text, name, file = _split_line(line)
        if not text:
            raise InputError(f"{place}: got {line!r}; expected\n{LIST_TREE}")
        ours = dict(enumerate(FERPLUS_CLASSES)) if _FERPLUS_NAME.fullmatch(name) else None
        label = _meaning(text, numbering or ours)
        if label is None:
            raise InputError(_unknown(place, text))
        found.append((name, label, find(file, name)))
    if not found:
        raise InputError(f"load_faces: {path} lists nothing; expected\n{LIST_TREE}")
    return _listing(found, FERPLUS_CLASSES)


def _split_line(line: str) -> tuple[str, str, str]:
    """Label, name without suffix, and file of `label/file`, `label_file` or `file label`."""
    first, *rest = line.replace("\\", "/").split()
    if "/" in first:
        return Path(first).parent.name, Path(first).stem, first
    label, _, file = first.partition("_")
    if file and (label.isdecimal() or canonical(label)):
        return label, Path(file).stem, file
    return rest[0] if rest else "", Path(first).stem, first


def _finder(images: str | Path | FaceSet | None) -> Callable[[str, str], Picture | None]:
    """A function from (file as listed, name) to the picture, or None without one."""
    if images is None:
        raise InputError(
            "load_faces: a list needs images=: a folder of its pictures, or of contact sheets "
            "(in Python: or a FaceSet)"
        )
    if isinstance(images, FaceSet):
        faces = images.faces.numpy()
        arrays = {Path(name).stem: faces[index] for index, name in enumerate(images.names)}
        return lambda _, name: arrays.get(name)
    folder = Path(images)
    if not folder.is_dir():
        raise InputError(f"load_faces: images must be a folder, got {folder}")
    if sheet_splits(folder):
        tiles = read_tiles(folder)
        return lambda _, name: tiles.get(name)
    files: dict[str, list[Path]] = {}
    for each in find_images([folder])[0]:
        files.setdefault(each.stem, []).append(each)

    def find(file: str, name: str) -> Path | None:
        same = files.get(name, [])
        exact = [each for each in same if each == folder / file]
        if len(same) > 1 and not exact:
            raise InputError(f"load_faces: {name} is ambiguous: {same[0]} or {same[1]}")
        return next(iter(exact or same), None)

    return find


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not blank, each after its place for messages."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"load_faces: cannot read the list {path} ({error})") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"load_faces: {path}, line {number}", line.strip()


def _meaning(text: str, numbering: Numbering | None) -> str | None:
    """The expression of a name, or of a number by `numbering`; None if unknown."""
    if text.isdecimal() and numbering is not None:
        # Python refuses to read numbers of thousands of digits.
        return canonical(numbering.get(int(text), "")) if len(text) <= _MOST_DIGITS else None
    return canonical(text)


def _unknown(place: str, text: str) -> str:
    if text.isdecimal():
        return (
            f"{place}: the number {text} has no name; give numbering={{0: 'neutral', …}} "
            "(in Python: pcnn.datasets.labels has the orders of FER2013, RAF-DB and AffectNet)"
        )
    return f"{place}: {text!r} is not a known expression; known are {_KNOWN}"


def _listing(found: Iterable[tuple[str, str, Picture | None]], classes: tuple[str, ...]) -> Listing:
    """A Listing of (name, label, picture) of each face."""
    found = list(found)
    there = [(name, label, picture) for name, label, picture in found if picture is not None]
    return Listing(
        pictures=[picture for _, _, picture in there],
        labels=[label for _, label, _ in there],
        names=[name for name, _, _ in there],
        classes=classes,
        missing=[name for name, _, picture in found if picture is None],
    )
