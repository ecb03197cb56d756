"""Batches of pictures: one picture or many, with errors in their places."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from PIL import Image

from pcnn.devices import own_settings
from pcnn.errors import InputError
from pcnn.images.loading import load_image
from pcnn.recognition.threads import in_order, worker_count
from pcnn.results.values import Face, Prediction

# Bounds the pixels (three bytes each) that a thread holds: large pictures of a batch are processed
# in groups that end when they reach this number.
_PIXELS_AT_ONCE = 24_000_000
# The least size of a batch when a list is divided; a single picture costs more than in a batch.
_FEWEST = 4

OnError = Literal["raise", "return"]
_Result = TypeVar("_Result")
_Batch: TypeAlias = list[tuple[int, Any]]  # pictures and their numbers


class Picture:
    """A loaded picture: its pixels (H, W, 3) uint8, and its path if it is a file.

    name: the name in messages of a picture without a file name.
    Raises InputError: the picture cannot be read.
    """

    def __init__(self, image: Any, bgr: bool, name: str) -> None:
        self.pixels = load_image(image, bgr=bgr, name=name)
        self.source = os.fspath(image) if isinstance(image, (str, os.PathLike)) else None

    def predicted(self, faces: Sequence[Face]) -> Prediction:
        """The result of a picture with these faces."""
        height, width = self.pixels.shape[:2]
        return Prediction(tuple(faces), source=self.source, width=width, height=height)


@own_settings()
def process_each(  # noqa: PLR0913
    images: Any,
    process: Callable[[list[Picture]], list[_Result]],
    *,
    step: int,
    device: torch.device,
    bgr: bool,
    on_error: OnError,
) -> Any:
    """Process one picture, or each picture of a list, tuple or iterator.

    process: function from 1…step pictures to as many results. With many pictures, several threads
        call it at the same time.
    step: pictures in a batch. device: the device on which `process` computes.
    bgr, on_error: as for `Recognizer.predict`.
    Returns a result for one picture; for a list, a list in its order with errors in their places;
        for an iterator, an iterator that reads a few batches ahead.
    Raises InputError: a picture cannot be read, unless on_error is "return"; from an iterator in
    its place, after the results before it.
    """
    if on_error not in ("raise", "return"):
        raise InputError(f"Recognizer: on_error must be 'raise' or 'return', got {on_error!r}")
    many = isinstance(images, (list, tuple))
    given = _or_raise if on_error == "raise" else iter
    # An open file is one picture, although it is also an iterator.
    if not many and (hasattr(images, "read") or not isinstance(images, Iterator)):
        (single,) = given([_read(images, bgr, "image")])
        return process([single])[0] if isinstance(single, Picture) else single

    def work_together(read: list[Picture | InputError]) -> list[_Result | InputError]:
        pictures = [item for item in read if isinstance(item, Picture)]
        done = iter(process(pictures) if pictures else [])
        return [item if isinstance(item, InputError) else next(done) for item in read]

    @own_settings()
    def work(batch: _Batch) -> list[_Result | InputError]:
        each = (_read(image, bgr, f"images[{i}]") for i, image in batch)
        # map keeps no picture alive while the next ones are read.
        return list(itertools.chain.from_iterable(map(work_together, _within_memory(each))))

    workers = worker_count(device)
    if many:
        step = min(step, max(_FEWEST, -(-len(images) // workers)))
    if many and len(images) <= step:
        return list(given(work(list(enumerate(images)))))
    source = _loaded(images, bgr=bgr, one_by_one=not many)
    results = _chained(_batches(source, step), work, given, workers)
    return list(results) if many else results


def _or_raise(results: Iterable[Any]) -> Iterator[Any]:
    """The results; an error is raised in its place, after those before it."""
    for result in results:
        if isinstance(result, InputError):
            raise result
        yield result


def _loaded(images: Iterable[Any], *, bgr: bool, one_by_one: bool) -> Iterator[Any]:
    """The images; those that may change before they are read as Pictures or errors.

    PIL decodes an image when it is first used, which threads must not do at the same time.
    one_by_one: from an iterator, which may give the same array or object for each picture, as
        cameras do.
    """
    for number, image in enumerate(images):
        is_lazy = isinstance(image, Image.Image)
        if not is_lazy and (not one_by_one or isinstance(image, (str, os.PathLike, bytes))):
            yield image
            continue
        read = _read(image, bgr, f"images[{number}]")
        if not is_lazy and not hasattr(image, "read") and isinstance(read, Picture):
            read.pixels = read.pixels.copy()  # an array's or tensor's, whose memory it shares
        yield read


def _batches(images: Iterable[Any], step: int) -> Iterator[_Batch]:
    batch: _Batch = []
    try:
        for numbered in enumerate(images):
            batch.append(numbered)
            if len(batch) == step:
                yield batch
                batch = []
    except Exception:  # from the caller's iterator; earlier pictures are still processed
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _within_memory(read: Iterable[Picture | InputError]) -> Iterator[list[Picture | InputError]]:
    """The pictures in lists; each list ends when it reaches _PIXELS_AT_ONCE."""
    group: list[Picture | InputError] = []
    pixels = 0
    for item in read:
        group.append(item)
        pixels += 0 if isinstance(item, InputError) else item.pixels.size // 3
        if pixels >= _PIXELS_AT_ONCE:
            yield group
            group, pixels = [], 0
    if group:
        yield group


def _chained(
    batches: Iterator[_Batch],
    work: Callable[[_Batch], list[_Result]],
    given: Callable[[list[_Result]], Iterator[_Result]],
    workers: int,
) -> Iterator[_Result]:
    for results in in_order(batches, work, workers=workers):
        yield from given(results)


def _read(image: Any, bgr: bool, name: str) -> Picture | InputError:
    if isinstance(image, (Picture, InputError)):
        return image
    try:
        return Picture(image, bgr, name)
    except InputError as error:
        return error
