"""What is fuzzed: each target reads bytes as the package would read them from a file."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import io
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from fuzz import seeds
from pcnn.commands.films.resumption import resume
from pcnn.commands.reports import Names
from pcnn.datasets.action_units import from_table
from pcnn.datasets.labels import FERPLUS_CLASSES, FaceSet
from pcnn.datasets.loading import load_faces
from pcnn.distributed import jobs
from pcnn.embeddings import Embeddings, Head, read_triplets
from pcnn.engines.sessions import open_session
from pcnn.faces import alignment
from pcnn.faces.detector import Detector
from pcnn.images import loading as images
from pcnn.training.expression.options import ExpressionOptions
from pcnn.training.expression.recipes import read_recipe
from pcnn.training.photographs import read_photographs
from pcnn.weights.expression import load_expression, load_learner
from pcnn.weights.files import is_published, read_published
from pcnn.weights.hub import fetch
from pcnn.weights.upstream import load_upstream

# Pictures of more pixels are refused here, so that one of them does not take a second.
_MOST_PIXELS = 1_000_000


@dataclass(frozen=True)
class Target:
    """One way in.

    read: reads the bytes, with a folder for files; it may raise documented errors alone.
    seeds: sound inputs, to start from. share: executions in comparison with other targets.
    needs: packages without which it is left out.
    """

    name: str
    read: Callable[[bytes, Path], object]
    seeds: Callable[[], Sequence[bytes]]
    share: int = 4
    needs: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether what it needs is installed."""
        return all(importlib.util.find_spec(name) is not None for name in self.needs)


def _file(content: bytes, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _image(content: bytes, folder: Path) -> None:
    with mock.patch.object(images, "MAX_PIXELS", _MOST_PIXELS):
        images.stored_size(content)
        pixels = images.load_image(content)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size


def _expression(content: bytes, folder: Path) -> None:
    path = _file(content, folder, "x.safetensors")
    try:
        load_expression(path)
    finally:
        load_learner(path)


def _detector(content: bytes, folder: Path) -> None:
    Detector.load(_file(content, folder, "x.safetensors"))


def _head(content: bytes, folder: Path) -> None:
    head = Head.load(_file(content, folder, "x.safetensors"))
    assert np.isfinite(head.predict_proba(np.ones((1, head.size), np.float32))).all()


def _published(content: bytes, folder: Path) -> None:
    path = _file(content, folder, "x.safetensors")
    if is_published(path):
        read_published(path)


def _upstream(content: bytes, folder: Path) -> None:
    load_upstream(_file(content, folder, "x.pth"))


def _detector_checkpoint(content: bytes, folder: Path) -> None:
    Detector.load(_file(content, folder, "x.pth"))


def _training(checkpoint: Path | None = None) -> Any:
    from pcnn.training.expression.loop import ExpressionTraining

    faces = torch.arange(8 * 16 * 16).remainder(251).view(8, 16, 16).to(torch.uint8)
    labelled = FaceSet(faces, torch.eye(2).repeat(4, 1), tuple(map(str, range(8))), ("a", "b"))
    options = ExpressionOptions("trunk", "x", "x", size=16, width=1, batch=4, backbone="mobilenet")
    return ExpressionTraining(options, labelled, checkpoint=checkpoint)


def _checkpoints() -> list[bytes]:
    training = _training()
    stream = io.BytesIO()
    state = {
        "options": dataclasses.asdict(training.options),
        "step": 1,
        "learner": training.learner.state_dict(),
        "average": training.average.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "targets": None,
    }
    torch.save(state, stream)
    few = io.BytesIO()
    torch.save({**state, "learner": {}, "average": {}, "optimizer": {}}, few)
    return [few.getvalue(), stream.getvalue()]


def _checkpoint(content: bytes, folder: Path) -> None:
    _training(_file(content, folder, "x.checkpoint"))


def _recipe(content: bytes, folder: Path) -> None:
    options = {"network": "trunk"} | read_recipe(_file(content, folder, "x.toml"))
    ExpressionOptions(data="x", output="x", **options)


@functools.cache
def _faces() -> FaceSet:
    votes = torch.eye(len(FERPLUS_CLASSES))[torch.zeros(22, dtype=torch.long)]
    names = ("a.jpg", "fer0000001", *map(str, range(20)))
    return FaceSet(torch.zeros(22, 4, 4, dtype=torch.uint8), votes, names)


def _sheet_table(content: bytes, folder: Path) -> None:
    _file(content, folder, "train.csv")
    _file(seeds.sheet(), folder, "train_00.png")
    for protocol, labels in (("argmax", None), ("majority", None), ("argmax", "fer2013")):
        found = load_faces(folder, "train", layout="sheets", protocol=protocol, labels=labels)
        _check_votes(found)


def _check_votes(found: FaceSet) -> None:
    """Votes are shares."""
    assert bool((found.votes >= 0).all()) and torch.allclose(found.votes.sum(1), torch.ones(1))


def _fer2013(content: bytes, folder: Path) -> None:
    ours, mark, votes = content.partition(b"==\n")
    table = _file(ours, folder, "fer2013.csv")
    if mark:
        _file(votes, folder, "fer2013new.csv")
    _check_votes(load_faces(table, "train", layout="fer2013"))


def _face_list(content: bytes, folder: Path) -> None:
    path = _file(content, folder, "list.txt")
    numbering = {1: "happiness", 3: "sad"}
    load_faces(path, layout="list", images=_faces(), numbering=numbering, missing="skip")


def _rafdb(content: bytes, folder: Path) -> None:
    _file(content, folder, "list_patition_label.txt")
    (folder / "aligned").mkdir()
    _file(seeds.pictures()[0], folder / "aligned", "train_00001_aligned.jpg")
    load_faces(folder, "train", layout="rafdb", missing="skip")


def _units(content: bytes, folder: Path) -> None:
    from_table(_faces(), _file(content, folder, "x.csv"))


def _triplets(content: bytes, folder: Path) -> None:
    found = read_triplets(_file(content, folder, "x.csv"))
    for crop in found.crops:
        assert crop.cut(np.zeros((4, 4, 3), np.uint8)).size
        assert isinstance(crop.file_name, str)


def _embeddings(suffix: str, content: bytes, folder: Path) -> None:
    found = Embeddings.load(_file(content, folder, f"x{suffix}"))
    assert found.features.dtype == np.float32 and found.boxes.dtype == np.float32
    assert found.face_index.dtype == np.int64
    assert all(isinstance(each, str) for each in (*found.paths, found.weights_sha256))


class _NoDetector(Detector):
    """A Detector that finds nothing, and costs nothing to make."""

    def __init__(self) -> None:
        self.settings = self.network = mock.MagicMock()  # type: ignore[misc]
        self.network.state_dict.return_value = {}


def _landmarks(content: bytes, folder: Path) -> None:
    faces, cached = torch.zeros(2, 8, 8, dtype=torch.uint8), folder / "x.npy"
    cached.write_bytes(content)
    with (
        mock.patch.object(alignment, "landmarks_file", lambda *_: cached),
        mock.patch.object(alignment, "find_landmarks", lambda pictures, _: [None] * len(pictures)),
    ):
        found = alignment.dataset_landmarks(faces, _NoDetector())
    assert found.shape == (2, 5, 2) and found.dtype == np.float32


class _Teacher:
    """A teacher that finds nothing."""

    def detect_upright(self, images: Sequence[object], min_score: float) -> list[tuple[()]]:
        return [()] * len(images)


def _archive(content: bytes, folder: Path) -> None:
    path = _file(content, folder, "x.tar")
    for each in read_photographs(path, _Teacher()):  # type: ignore[arg-type]
        each.pixels()


def _teacher_cache(content: bytes, folder: Path) -> None:
    path, cache = _file(seeds.photograph_archive(), folder, "x.tar"), folder / "x.npz"
    cache.write_bytes(content)
    for each in read_photographs(path, _Teacher(), cache=cache):  # type: ignore[arg-type]
        faces = each.faces
        shapes = (faces.boxes.shape[1:], faces.landmarks.shape[1:], faces.scores.shape[1:])
        assert shapes == ((4,), (10,), ()) and len(faces.boxes) == len(faces.scores)
        assert faces.boxes.dtype == faces.scores.dtype == np.float32


def _teacher_caches() -> list[bytes]:
    from pcnn.training.photographs import _fingerprint

    files = [("a.jpg", seeds.pictures()[0]), ("b.png", seeds.pictures()[5])]
    return seeds.teacher_caches(_fingerprint(files, _Teacher()))  # type: ignore[arg-type]


def _resumed(content: bytes, folder: Path) -> None:
    films = content[:1] == b"1"
    kind = "csv" if content[:1] in b"01" else "jsonl"
    path = _file(content[kind == "csv" :], folder, f"x.{kind}")
    arguments = argparse.Namespace(output=path, format=kind, faces=False)
    found = resume(arguments, Names(("a", "b")), films=films or kind == "jsonl", ended={"f.mp4": 3})
    assert path.stat().st_size == found.size
    for film in found.films:
        list(found.known(film))


def _hub(content: bytes, folder: Path) -> None:
    _file(content, folder, "config.json")
    _file(_tiny_weights(), folder, "x.safetensors")
    fetch(folder)


@functools.cache
def _tiny_weights() -> bytes:
    return seeds.weights_of("trunk")[1]


def _plan(content: bytes, folder: Path) -> None:
    (folder / "_job").mkdir()
    _file(content, folder / "_job", "plan.json")
    jobs.prepare(folder, [], jobs.JobOptions())


def _onnx(content: bytes, folder: Path) -> None:
    path = _file(content, folder, "x.onnx")
    open_session(path, "onnxruntime")


TARGETS = (
    Target("images", _image, seeds.pictures, 16),
    Target("expression", _expression, lambda: seeds.weights_of("trunk", "mobile", "pcnn"), 2),
    Target("detector", _detector, lambda: seeds.weights_of("detector"), 4),
    Target("head", _head, lambda: seeds.weights_of("head"), 8),
    Target("published", _published, seeds.published_files, 4),
    Target("upstream", _upstream, seeds.upstream_checkpoints, 4),
    Target("detector-checkpoint", _detector_checkpoint, seeds.detector_checkpoints, 4),
    Target("training", _checkpoint, _checkpoints, 1, ("kornia", "sklearn")),
    Target("recipes", _recipe, seeds.recipes, 16),
    Target("sheets", _sheet_table, seeds.sheet_tables, 2),
    Target("fer2013", _fer2013, seeds.fer2013_tables, 4),
    Target("lists", _face_list, seeds.face_lists, 8),
    Target("rafdb", _rafdb, seeds.rafdb_lists, 4),
    Target("units", _units, seeds.unit_tables, 8),
    Target("triplets", _triplets, seeds.triplet_tables, 8),
    Target("embeddings", functools.partial(_embeddings, ".npz"), seeds.embeddings, 8),
    Target(
        *("parquet", functools.partial(_embeddings, ".parquet"), seeds.embeddings_parquet, 4),
        needs=("pyarrow",),
    ),
    Target("landmarks", _landmarks, seeds.landmarks, 8),
    Target("archives", _archive, lambda: [seeds.photograph_archive()], 2),
    Target("teacher-cache", _teacher_cache, _teacher_caches, 4),
    Target("resumption", _resumed, seeds.resumed_lines, 16),
    Target("hub", _hub, seeds.hub_configs, 4),
    Target("plans", _plan, seeds.job_plans, 4),
    Target("onnx", _onnx, seeds.onnx_models, 4, ("onnx", "onnxruntime")),
)


def quiet() -> None:
    """Keep warnings about skipped pictures and faces from the terminal."""
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"
