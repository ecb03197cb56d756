"""Triplets of faces, in which two have the most similar expressions: reading and scoring."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pcnn.disk import as_path
from pcnn.errors import InputError, counted
from pcnn.images.loading import load_image
from pcnn.representation import Brief
from pcnn.terminal import track

# Columns before the annotations: three times (URL, left, right, top, bottom), then the kind.
_CROP_COLUMNS = 5
_KIND = 3 * _CROP_COLUMNS
_KINDS = ("ONE_CLASS_TRIPLET", "TWO_CLASS_TRIPLET", "THREE_CLASS_TRIPLET")
# The least agreement: three of five annotators.
_AGREEMENT = 0.6
_TRIPLETS_AT_ONCE = 4096  # whose vectors are in memory


class Crop(NamedTuple):
    """A face in a picture. left, right: fractions of the width; top, bottom: of the height."""

    url: str
    left: float
    right: float
    top: float
    bottom: float

    @property
    def file_name(self) -> str:
        """The last part of the URL, which is the picture's expected file name."""
        return unquote(urlsplit(self.url).path.rsplit("/", 1)[-1])

    def cut(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The face cut from pixels (H, W, 3): clipped to the picture, at least one pixel."""
        height, width = pixels.shape[:2]
        rows = _span(self.top, self.bottom, height)
        columns = _span(self.left, self.right, width)
        return pixels[rows, columns]


def _span(begin: float, end: float, length: int) -> slice:
    first = round(min(max(begin * length, 0), length - 1))
    return slice(first, max(first + 1, round(min(end * length, length))))


@dataclass(frozen=True, eq=False, repr=False)
class Triplets(Brief):
    """Triplets of faces, and the odd face of each in the judgement of annotators.

    crops: the faces, each once. members: (T, 3) int64, indices into `crops`.
    odd: (T,) int64, 0…2: the odd face for most annotators. agreement: (T,) float64, the share of
        these annotators. kinds: T of Google's names, such as "ONE_CLASS_TRIPLET", for the number
        of expression labels among the three faces.
    """

    crops: tuple[Crop, ...]
    members: NDArray[np.int64]
    odd: NDArray[np.int64]
    agreement: NDArray[np.float64]
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.odd)


class TripletScore(NamedTuple):
    """The result of triplet_accuracy: number of triplets, accuracy 0…1, its 95 % interval."""

    triplets: int
    accuracy: float
    low: float
    high: float


def read_triplets(path: str | Path, *, min_agreement: float = _AGREEMENT) -> Triplets:
    """Read triplets from a file of Google's Facial Expression Comparison data.

    path: `faceexp-comparison-data-….csv`, without a header. A line has three times URL, left,
        right, top, bottom (fractions of the picture), then the kind of triplet. Then come pairs of
        an annotator's name and the number, 1…3, of the odd face.
    min_agreement: 0…1; triplets with less agreement are left out.
    Raises InputError: the file cannot be read, a line has another form, or no triplet is left.
    Source: Vemulapalli and Agarwala, A Compact Embedding for Facial Expression Similarity, CVPR
    2019.

    >>> faces = [f"http://host/{name}.jpg,0,1,0,1" for name in "abc"]
    >>> line = ",".join((*faces, "ONE_CLASS_TRIPLET", "ann,3", "ben,3", "cid,1"))
    >>> _ = Path("triplets.csv").write_text(line)
    >>> read_triplets("triplets.csv").odd.tolist()
    [2]
    """
    places: dict[Crop, int] = {}
    members, odd, agreement, kinds = [], [], [], []
    for number, line in _lines(as_path("read_triplets: path", path)):
        try:
            crops, kind, votes = _parse(line)
        except ValueError as error:
            raise InputError(f"read_triplets: {path}, line {number}: {error}") from error
        answer, count = votes.most_common(1)[0]
        if count / votes.total() < min_agreement:
            continue
        members.append([places.setdefault(crop, len(places)) for crop in crops])
        odd.append(answer - 1)
        agreement.append(count / votes.total())
        kinds.append(kind)
    if not members:
        raise InputError(
            f"read_triplets: {path} holds no triplet on which {min_agreement:.0%} agree"
        )
    return Triplets(
        crops=tuple(places),
        members=np.array(members, np.int64),
        odd=np.array(odd, np.int64),
        agreement=np.array(agreement, np.float64),
        kinds=tuple(kinds),
    )


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each line that is not empty."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            # Google's files have blanks after the commas.
            for number, line in enumerate(csv.reader(file, skipinitialspace=True), 1):
                if line:
                    yield number, line
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"read_triplets: cannot read {path} ({error})") from error


def _parse(line: Sequence[str]) -> tuple[list[Crop], str, Counter[int]]:
    """Three faces, the kind, and odd face → number of votes. Raises ValueError: another layout."""
    fields = [field.strip() for field in line]
    while fields and not fields[-1]:
        fields.pop()  # empty fields of missing annotators
    if len(fields) < _KIND + 3 or len(fields) % 2 != 0:
        raise ValueError(
            f"expected 15 columns of three faces, the kind and pairs of annotator and answer, "
            f"got {counted(len(fields), 'column')}"
        )
    crops = []
    for start in range(0, _KIND, _CROP_COLUMNS):
        url, *edges = fields[start : start + _CROP_COLUMNS]
        left, right, top, bottom = map(float, edges)
        if not (left < right and top < bottom and np.isfinite((left, right, top, bottom)).all()):
            raise ValueError(f"a face must lie left < right, top < bottom, got {edges}")
        crops.append(Crop(url, left, right, top, bottom))
        crops[-1].file_name  # noqa: B018 - a ValueError for what is no URL
    if fields[_KIND] not in _KINDS:
        raise ValueError(f"the kind must be one of {', '.join(_KINDS)}, got {fields[_KIND]!r}")
    answers = fields[_KIND + 2 :: 2]
    if not set(answers) <= {"1", "2", "3"}:
        raise ValueError(f"answers must be 1, 2 or 3, got {', '.join(answers)}")
    return crops, fields[_KIND], Counter(map(int, answers))


def embed_triplets(
    triplets: Triplets,
    folder: str | Path,
    embed_crops: Callable[[list[NDArray[np.uint8]]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Embed the faces of triplets, from pictures in a folder.

    folder: searched, with its subfolders, for files named like the last part of the URLs.
        Nothing is downloaded.
    embed_crops: function from pictures of faces to (N, D), such as `Recognizer.embed_crops`.
    Returns (crops, D). Rows of missing or unreadable pictures are NaN; `triplet_accuracy`
    ignores them. Shows its progress on a terminal.
    Raises InputError: no picture can be used.

    >>> face = "http://host/astronaut.png,0.3,0.6,0.1,0.4"
    >>> _ = Path("one.csv").write_text(f"{face},{face},{face},ONE_CLASS_TRIPLET,ann,1")
    >>> embed_triplets(read_triplets("one.csv"), "docs/images", recognizer.embed_crops).shape
    (1, 1280)
    """
    files = {
        path.name: path
        for path in sorted(as_path("embed_triplets: folder", folder).rglob("*"))
        if path.is_file()
    }
    by_file: dict[str, list[int]] = defaultdict(list)
    for place, crop in enumerate(triplets.crops):
        by_file[crop.file_name].append(place)
    found: dict[int, NDArray[np.float32]] = {}
    for name, places in track(by_file.items(), "pictures", total=len(by_file)):
        try:
            pixels = load_image(files[name])
        except (KeyError, InputError):
            continue
        faces = [triplets.crops[place].cut(pixels) for place in places]
        found.update(zip(places, embed_crops(faces), strict=True))
    if not found:
        raise InputError(f"embed_triplets: {folder} holds no picture of these triplets")
    features = np.full((len(triplets.crops), len(next(iter(found.values())))), np.nan, np.float32)
    features[list(found)] = list(found.values())
    return features


def triplet_accuracy(
    features: ArrayLike,
    members: ArrayLike,
    odd: ArrayLike,
    *,
    bootstrap: int = 2000,
    seed: int = 0,
) -> TripletScore:
    """The share of triplets whose most similar pair, for annotators, is also the nearest pair.

    A triplet is right if the distance of the pair is below both distances to the odd face. A tie
    is wrong. Chance is a third. Source: Vemulapalli and Agarwala 2019.
    features: (N, D); triplets with a row that is not finite are left out.
    members: (T, 3), rows of `features`. odd: (T,), 0…2.
    bootstrap: number of resamplings of the triplets, for the interval; 0 gives NaN. seed: of the
        resamplings. The interval ignores that triplets may share faces.
    Raises InputError: wrong shapes or values, or no triplet is left.

    >>> features = [[0.0], [0.1], [5.0]]
    >>> triplet_accuracy(features, members=[[0, 1, 2]], odd=[2]).accuracy
    1.0
    """
    vectors = np.asarray(features, np.float64)
    rows, strangers = np.asarray(members), np.asarray(odd)
    if (
        vectors.ndim != 2
        or rows.ndim != 2
        or rows.shape[1] != 3
        or strangers.shape != rows.shape[:1]
    ):
        raise InputError(
            "triplet_accuracy: features, members and odd must be (N, D), (T, 3) and (T,), "
            f"got {vectors.shape}, {rows.shape} and {strangers.shape}"
        )
    if rows.size and (rows.min() < 0 or rows.max() >= len(vectors)):
        raise InputError(f"triplet_accuracy: members must lie in 0…{len(vectors) - 1}")
    if not np.isin(strangers, (0, 1, 2)).all():
        raise InputError("triplet_accuracy: odd must be 0, 1 or 2")
    finite = np.asarray(np.isfinite(vectors).all(axis=1))
    known = finite[rows].all(axis=1)
    if not known.any():
        raise InputError("triplet_accuracy: there must be a triplet with all three vectors")
    rows, strangers = rows[known], strangers[known]
    parts = range(0, len(rows), _TRIPLETS_AT_ONCE)
    apart = np.concatenate([_apart(vectors[rows[at : at + _TRIPLETS_AT_ONCE]]) for at in parts])
    each = np.arange(len(apart))
    pair = apart[each, strangers]
    others = np.minimum(apart[each, (strangers + 1) % 3], apart[each, (strangers + 2) % 3])
    right = pair < others
    low, high = interval(right, bootstrap, seed)
    return TripletScore(len(right), float(right.mean()), low, high)


def _apart(three: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances (T, 3) in triplets of vectors (T, 3, D): in column i those of the other two."""
    pairs = ((1, 2), (2, 0), (0, 1))
    return np.stack([np.linalg.norm(three[:, i] - three[:, j], axis=1) for i, j in pairs], 1)


def interval(values: ArrayLike, rounds: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The bootstrap 95 % interval of the mean of (N,) values (Efron 1979); NaN for 0 rounds."""
    drawn = np.asarray(values, np.float64)
    if rounds == 0:
        return float("nan"), float("nan")
    draw = np.random.default_rng(seed)
    means = [drawn[draw.integers(0, len(drawn), len(drawn))].mean() for _ in range(rounds)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
