"""`pcnn-deconvnet`: draw the facial patterns to which feature maps respond."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pcnn.commands.process import complain
from pcnn.commands.shared import add_data, data_options, load_weights, run_command
from pcnn.errors import InputError
from pcnn.terminal import track

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from pcnn.weights.expression import ExpressionWeights

    Square = NDArray[np.uint8]  # (P, P, 3), a whole face
    _Found = tuple[Tensor, Tensor, Tensor, Square]  # strength, place, pixels, face

_MOST = 20  # faces drawn in one column
_LONG = 5  # pictures from which a progress bar is shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="picture, folder (searched), or glob pattern")
    add("--data", metavar="PATH", help="a data set instead of pictures, see docs/data.md")
    add_data(parser)
    add("--map", action="append", metavar="MAP", help="such as mouth/layer3/17; may be repeated")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="the PNG to write")
    add("--faces", action="store_true", help="each picture is one cut-out face")
    add("--as-they-are", action="store_true", help="never align faces (default: weights decide)")
    add("--hide-faces", action="store_true", help="draw the mean face instead of the faces")
    add("--weights", metavar="NAME|FILE", help="weights of one network [pcnn-ferplus-only]")
    add("--detector", metavar="NAME|FILE", help="mobilenet, resnet50 or a checkpoint")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … [%(default)s]")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit status, 1 if a picture could not be read.

    With --map, the picture stacks a mosaic of the nine strongest responses for each map. Without
    it, the picture stacks a drawing for each face: the strongest map of each stage.
    Raises InputError, WeightsError, OSError: arguments that contradict each other, or nothing
    could be drawn or written.
    """
    from pcnn.analysis.deconvnet import parse_map
    from pcnn.devices import choose_device
    from pcnn.results.style import stack
    from pcnn.weights.known import SINGLE_WEIGHTS

    if bool(arguments.paths) == bool(arguments.data):
        raise InputError("give either pictures or --data")
    if not arguments.map and (arguments.data or arguments.hide_faces):
        raise InputError("--data and --hide-faces need --map")
    if arguments.output.suffix.lower() != ".png":
        raise InputError(f"--output must be a .png, got {arguments.output}")
    loaded = load_weights(arguments, arguments.weights or SINGLE_WEIGHTS)
    loaded.network.to(choose_device(arguments.device, "--device"))
    for text in arguments.map or ():  # before any picture is read
        parse_map(text, loaded.network)
    failed = 0
    if arguments.data:
        drawn = _of_data(arguments, loaded)
    else:
        drawn, failed = _of_pictures(arguments, loaded)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    stack(drawn).save(arguments.output)
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-deconvnet`; argv, exit status, SystemExit: see shared.run_command."""
    text = "Draw the facial patterns to which feature maps respond, see docs/deconvnet.md."
    return run_command("pcnn-deconvnet", text, add_arguments, run, argv)


def _of_data(arguments: argparse.Namespace, loaded: ExpressionWeights) -> list[Image]:
    """A mosaic of a data set's faces for each map."""
    from pcnn.analysis.deconvnet import parse_map, project_top
    from pcnn.analysis.deconvnet_pictures import draw_mosaic
    from pcnn.datasets.loading import load_faces
    from pcnn.faces.alignment import suited_faces
    from pcnn.weights.known import DEFAULT_DETECTOR

    network = loaded.network
    grey = network.config.channels == 1
    faces = load_faces(arguments.data, grey=grey, **data_options(arguments)).faces
    detector = arguments.detector or DEFAULT_DETECTOR
    faces, native_size = suited_faces(loaded, faces, detector)
    drawn = []
    for text in arguments.map:
        chosen = parse_map(text, network)
        top, projection = project_top(network, faces, chosen, native_size=native_size)
        drawn.append(
            draw_mosaic(
                chosen,
                [faces[place].numpy() for place in top],
                projection,
                network.config.layout,
                faces=len(faces),
                show_faces=not arguments.hide_faces,
            )
        )
    return drawn


def _of_pictures(
    arguments: argparse.Namespace, loaded: ExpressionWeights
) -> tuple[list[Image], int]:
    """A mosaic of the faces in pictures for each map; without maps one picture for each face.

    Returns the pictures, and how many inputs could not be read, after a message for each.
    Raises InputError: the pictures have no face, or too many for one column.
    """
    import torch

    from pcnn.analysis.deconvnet import Projection, parse_map, project, strongest_maps, trunks_of
    from pcnn.analysis.deconvnet_pictures import draw_face, draw_mosaic

    network, layout = loaded.network, loaded.network.config.layout
    trunks = trunks_of(network)
    maps = [parse_map(text, network) for text in arguments.map or ()]
    drawn: list[Image] = []
    best: list[list[_Found]] = [[] for _ in maps]  # for each map, the nine strongest so far
    count = failed = 0
    for read in _read(arguments, loaded):
        if isinstance(read, InputError):
            failed += 1
            complain("pcnn-deconvnet", read, vars(arguments))
            continue
        views, squares = read
        count += len(squares)
        for chosen, found in zip(maps, best, strict=True):
            view = views[list(trunks).index(chosen.trunk)]
            channels = torch.full((len(view),), chosen.channel)
            back = project(trunks[chosen.trunk], view, chosen.stage, channels)
            found.extend(zip(back.strengths, back.places, back.pixels, squares, strict=True))
            found[:] = sorted(found, key=lambda each: -float(each[0]))[:9]
        if not maps and count > _MOST:
            raise InputError(f"more than {_MOST} faces: choose feature maps with --map")
        for place, square in enumerate(() if maps else squares):
            own = [view[place : place + 1] for view in views]
            drawn.append(draw_face(square, strongest_maps(network, own), layout))
    if not count:
        raise InputError("no face found in the pictures: add --faces if each is a cut-out face")
    for chosen, found in zip(maps, best, strict=True):
        strengths, places, pixels, shown = zip(*found, strict=True)
        together = Projection(torch.stack(pixels), torch.stack(strengths), torch.stack(places))
        hidden = arguments.hide_faces
        drawn.append(
            draw_mosaic(chosen, shown, together, layout, faces=count, show_faces=not hidden)
        )
    return drawn, failed


def _read(
    arguments: argparse.Namespace, loaded: ExpressionWeights
) -> Iterator[tuple[list[Tensor], list[Square]] | InputError]:
    """For each picture, the views of its faces for the trunks, and the squares to draw.

    In place of what cannot be read there is its error; pictures without faces are left out.
    """
    from pcnn.analysis.deconvnet import trunks_of
    from pcnn.faces.alignment import transforms_finder
    from pcnn.faces.views import cut_views
    from pcnn.images.files import find_images
    from pcnn.images.loading import load_image
    from pcnn.recognition.explanations import face_squares

    files, errors = find_images(arguments.paths)
    yield from errors
    network, config = loaded.network, loaded.network.config
    device = next(network.parameters()).device
    transforms_of = transforms_finder(loaded, arguments.detector, faces=arguments.faces)
    for file in track(files, "pictures", shown=len(files) >= _LONG):
        try:
            picture = load_image(file)
        except InputError as error:
            yield error
            continue
        transforms = transforms_of(picture)
        views = cut_views(
            [picture],
            [transforms],
            config,
            native_size=loaded.native_size,
            device=device,
            names=tuple(trunks_of(network)),
        )
        if len(transforms):
            yield views, list(face_squares(picture, transforms, config.size))
