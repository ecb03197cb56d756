"""`pcnn-export`: write a network as a file that runs without pcnn."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pcnn.commands.shared import positive, run_command

if TYPE_CHECKING:
    from torch import Tensor

    from pcnn.engines.export_graphs import FaceGraph, FileGraph

# The largest numbers of samples that calibrate and check int8.
_FACES, _PHOTOGRAPHS = 600, 150
# Without samples, the numbers of patterns that check the file.
_PATTERNS, _IMAGES = 32, 2
# Height and width of what a detector for any size is checked on.
_ANY_SIZE = 480, 640


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("network", nargs="?", choices=("classifier", "detector"), default="classifier")
    add("--format", choices=("onnx", "openvino", "torch-export"), default="onnx")
    add("-o", "--output", type=Path, metavar="FILE", help="[the weights' name, in this folder]")
    add("--weights", metavar="NAME|FILE", help="weights of the network (default: packaged)")
    add("--int8", action="store_true", help="convolutions in 8 bits; needs --calibrate")
    add("--calibrate", metavar="PATH", help="faces (docs/data.md), or a folder of photographs")
    add("--split", help="part of the faces, such as train")
    add("--layout", default="auto", help="layout of the faces [%(default)s]")
    add("--size", type=_size, default=(640, 640), metavar="W×H|any", help="detector's [640×640]")
    add("--side", type=positive, metavar="N", help="of faces [that of the training faces]")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status.

    Raises InputError, WeightsError, OSError: nothing was written.
    """
    from pcnn.engines.export import FORMATS, export
    from pcnn.errors import InputError
    from pcnn.weights.files import locate, sha256

    if arguments.int8 and not arguments.calibrate:
        raise InputError("--int8 needs --calibrate PATH: pictures that give the value ranges")
    kind = "expression" if arguments.network == "classifier" else "detector"
    graph, source = _classifier(arguments) if kind == "expression" else _detector(arguments)
    path = locate(source, kind=kind)
    graph.metadata = {**graph.metadata, "weights": path.name, "weights_sha256": sha256(path)}
    precision = "int8" if arguments.int8 else "float32"
    name = f"{path.stem}{'.int8' if arguments.int8 else ''}{FORMATS[arguments.format]}"
    target = arguments.output or Path(name)
    samples = _samples(arguments, graph)
    found = export(graph, target, kind=arguments.format, samples=samples, int8=arguments.int8)
    size = sum(p.stat().st_size for p in (target, target.with_suffix(".bin")) if p.is_file())
    print(
        f"{target}: {precision}, {size / 1e6:.1f} MB; compared with torch on {found.samples} "
        f"{'pictures' if arguments.calibrate else 'patterns'}: largest difference of a score "
        f"{found.difference:.1g}, {100 * found.agreement:.1f} % of the answers agree"
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-export`; argv, exit status, SystemExit: see shared.run_command."""
    text = "Write a network as a file that runs without pcnn, see docs/export.md."
    return run_command("pcnn-export", text, add_arguments, run, argv)


def _classifier(arguments: argparse.Namespace) -> tuple[FaceGraph, str]:
    from pcnn.engines.export_graphs import FaceGraph
    from pcnn.weights.expression import load_expression
    from pcnn.weights.known import DEFAULT_WEIGHTS

    source = arguments.weights or DEFAULT_WEIGHTS
    return FaceGraph(load_expression(source), arguments.side), source


def _detector(arguments: argparse.Namespace) -> tuple[FileGraph, str]:
    from pcnn.engines.export_graphs import AnchorsGraph, ImageGraph
    from pcnn.faces.detector import Detector
    from pcnn.weights.known import DEFAULT_DETECTOR

    source = arguments.weights or DEFAULT_DETECTOR
    detector = Detector.load(source)
    if arguments.size is None:
        return AnchorsGraph(detector.network, detector.settings), source
    width, height = arguments.size
    return ImageGraph(detector.network, detector.settings, height, width), source


def _samples(arguments: argparse.Namespace, graph: FileGraph) -> Tensor:
    """Inputs of the graph, uint8: evenly chosen pictures of --calibrate, else patterns."""
    from pcnn.engines.export_graphs import AnchorsGraph

    if isinstance(graph, AnchorsGraph):  # it takes any size, channels last
        return _planes(arguments, graph, (3, *_ANY_SIZE)).permute(0, 2, 3, 1)
    return _planes(arguments, graph, tuple(graph.example[0].shape[1:]))


def _planes(arguments: argparse.Namespace, graph: FileGraph, shape: tuple[int, ...]) -> Tensor:
    """The same, (N, *shape). shape: channels, height, width."""
    from pcnn.engines.portable import patterns

    channels, height, width = shape
    if not arguments.calibrate:
        count = _PATTERNS if arguments.network == "classifier" else _IMAGES
        made = patterns(count, channels, height, width)
        return (made * 64 + 128).clamp(0, 255).byte()
    if arguments.network == "detector":
        return _photographs(arguments.calibrate, height, width)
    from pcnn.datasets.loading import load_faces
    from pcnn.engines.export_graphs import FaceGraph
    from pcnn.faces.alignment import align_faces
    from pcnn.faces.detector import Detector
    from pcnn.weights.known import DEFAULT_DETECTOR

    faces = load_faces(
        *(arguments.calibrate, arguments.split),
        layout=arguments.layout,
        side=height,
        grey=channels == 1,
    )
    chosen = faces.subset(_evenly(len(faces), _FACES)).faces
    if isinstance(graph, FaceGraph) and graph.weights.aligned:  # as the file's users should
        detector = Detector.load(DEFAULT_DETECTOR)
        template, native_size = graph.weights.template, graph.weights.native_size
        chosen = align_faces(chosen, template, height, native_size, detector)
    return chosen[:, None] if channels == 1 else chosen.permute(0, 3, 1, 2)


def _photographs(folder: str, height: int, width: int) -> Tensor:
    """Photographs (N, 3, height, width), shrunk to fit, in the upper left of a grey ground."""
    import torch

    from pcnn.faces.resampling import resized
    from pcnn.images.files import find_images
    from pcnn.images.loading import load_image

    files, errors = find_images([folder])
    if errors:
        raise errors[0]
    placed = []
    for index in _evenly(len(files), _PHOTOGRAPHS):
        pixels = torch.from_numpy(load_image(files[index]).copy())
        scale = min(1.0, height / pixels.shape[0], width / pixels.shape[1])
        rows, columns = (max(1, int(scale * side)) for side in pixels.shape[:2])
        canvas = torch.full((height, width, 3), 128, dtype=torch.uint8)
        canvas[:rows, :columns] = resized(pixels, (rows, columns))
        placed.append(canvas)
    return torch.stack(placed).permute(0, 3, 1, 2)


def _evenly(count: int, most: int) -> list[int]:
    """At most `most` indices of `count`, evenly spread."""
    return [index * count // min(count, most) for index in range(min(count, most))]


def _size(text: str) -> tuple[int, int] | None:
    """Width and height of "640x480" or "640×480"; None of "any"."""
    if text == "any":
        return None
    width, _, height = text.replace("×", "x").partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT or any, got {text!r}")
    return int(width), int(height)
