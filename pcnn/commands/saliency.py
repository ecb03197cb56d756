"""`pcnn-saliency`: draw faces, their saliency maps, and the products of both."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pcnn.commands.outputs import save_picture
from pcnn.commands.process import complain
from pcnn.commands.shared import (
    DONE,
    NOTHING_DONE,
    SOME_FAILED,
    load_weights,
    photograph_hint,
    run_command,
)
from pcnn.errors import InputError, counted
from pcnn.images.files import annotated_names, find_images, shown
from pcnn.terminal import track

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

_SIDE, _GAP, _CAPTION = 256, 8, 30  # side of a drawn face, gap and caption height, in pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="picture, folder (searched), or glob pattern")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the drawings")
    add("--model", metavar="MODEL", help="saliency model [the weights', or spectral_residual]")
    add("--faces", action="store_true", help="each picture is one cut-out face")
    add("--as-they-are", action="store_true", help="never align faces (default: weights decide)")
    add("--weights", metavar="NAME|FILE", help="expression weights (default: packaged)")
    add("--detector", metavar="NAME|FILE", help="mobilenet, resnet50 or a checkpoint")


def run(arguments: argparse.Namespace) -> int:
    """Draw all files, report each that fails, and return the exit status.

    arguments: as `pcnn-saliency` parses them. A picture without faces gives no drawing.
    Raises InputError, WeightsError, OSError: no file can be drawn.
    """
    from pcnn.results.style import stack

    files, errors = find_images(arguments.paths)
    for error in errors:
        complain("pcnn-saliency", error, vars(arguments))
    if not files:
        return NOTHING_DONE
    draw = _drawer(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    targets = annotated_names(files, arguments.output, word="saliency", jpeg=False)
    if arguments.faces and (hint := photograph_hint(files)):
        complain("pcnn-saliency", hint, vars(arguments))
    faces, failed = 0, 0
    for file in track(files, "drawing"):
        try:
            rows = draw(file)
            if rows:
                save_picture(stack(rows), targets[file])
        except InputError as error:
            failed += 1
            complain("pcnn-saliency", error, vars(arguments))
            continue
        faces += len(rows)
    if failed == len(files):
        return NOTHING_DONE
    print(
        f"{shown(arguments.output)}: {counted(faces, 'face')} of "
        f"{counted(len(files) - failed, 'picture')}",
        file=sys.stderr,
    )
    return SOME_FAILED if failed or errors else DONE


def main(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-saliency`; argv, exit status, SystemExit: see shared.run_command."""
    text = "Draw the saliency maps of faces, see docs/saliency.md."
    return run_command("pcnn-saliency", text, add_arguments, run, argv)


def draw_row(face: Tensor, saliency: Tensor, name: str) -> Image.Image:
    """Draw a face, its saliency map and the product of both side by side.

    face: (1 or 3, S, S) of 0…1. saliency: (1, S, S) of 0…1, from the model `name`.
    Returns an RGB image of 784 × 294 pixels.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    from pcnn.results.style import GROUND, TEXT, letters

    row = Image.new("RGB", (3 * _SIDE + 2 * _GAP, _SIDE + _GAP + _CAPTION), GROUND)
    draw = ImageDraw.Draw(row)
    titles = ("face", f"saliency: {name}", "their product")
    for place, (title, planes) in enumerate(
        zip(titles, (face, saliency, face * saliency), strict=True)
    ):
        pixels = (255 * planes.clamp(0, 1)).round().byte().expand(3, -1, -1).permute(1, 2, 0)
        tile = Image.fromarray(np.ascontiguousarray(pixels.cpu().numpy()))
        left = place * (_SIDE + _GAP)
        row.paste(tile.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), (left, 0))
        at = (left + _SIDE / 2, _SIDE + (_GAP + _CAPTION) / 2)
        draw.text(at, title, font=letters(17), fill=TEXT, anchor="mm")
    return row


def _drawer(arguments: argparse.Namespace) -> Callable[[Path], Sequence[Image.Image]]:
    """A function that draws a row for each face in a file, as the weights' network sees it.

    torch is imported here, so wrong paths are reported before it is loaded.
    """
    import dataclasses

    import torch

    from pcnn.faces.alignment import transforms_finder
    from pcnn.faces.views import cut_views
    from pcnn.images.loading import load_image
    from pcnn.networks.saliency import DEFAULT_MODEL, find_model, saliency_maps
    from pcnn.weights.known import DEFAULT_WEIGHTS

    loaded = load_weights(arguments, arguments.weights or DEFAULT_WEIGHTS)
    name = arguments.model or loaded.saliency or DEFAULT_MODEL
    find_model(name)
    config = loaded.network.config
    # The network's view without normalisation and saliency.
    count = config.channels
    bare = dataclasses.replace(config, mean=(0.0,) * count, std=(1.0,) * count, saliency=None)
    transforms_of = transforms_finder(loaded, arguments.detector, faces=arguments.faces)

    def draw(file: Path) -> Sequence[Image.Image]:
        pixels = load_image(file)
        (faces,) = cut_views(
            [pixels],
            [transforms_of(pixels)],
            bare,
            native_size=loaded.native_size,
            device=torch.device("cpu"),
            names=("face",),
        )
        maps = saliency_maps(faces.clamp(0, 1), name)
        return [draw_row(face, own, name) for face, own in zip(faces, maps, strict=True)]

    return draw
