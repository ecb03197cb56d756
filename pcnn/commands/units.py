"""`pcnn-units`: measure which feature maps respond to which facial action units."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcnn.commands.shared import add_data, count, data_options, positive, run_command

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pcnn.analysis.units import Sensitivity
    from pcnn.datasets.action_units import UnitFaces
    from pcnn.datasets.labels import FaceSet
    from pcnn.weights.expression import ExpressionWeights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--data", required=True, metavar="PATH", help="a data set, see docs/data.md")
    add_data(parser)
    add("--units", type=Path, metavar="FILE", help="CSV of units, instead of the prototypes")
    add("--movements", action="store_true", help="units from each face's own movements instead")
    add("--within", action="store_true", help="compare only faces of the same expression")
    add("--most", type=int, metavar="N", help="faces per expression [100; all with --movements]")
    add("--chimeras", action="store_true", help="compose faces of parts of several faces")
    add("--untrained", action="store_true", help="measure an untrained network instead")
    add(
        "--permutations", type=positive, default=1000, metavar="N", help="of the test [%(default)s]"
    )
    add("--seed", type=count, default=0, metavar="N", help="of all random choices [%(default)s]")
    add("-o", "--output", type=Path, metavar="DIR", help="write tables, report and heat map there")
    add("--json", action="store_true", help="print the report as JSON instead of the table")
    add("--weights", metavar="NAME|FILE", help="weights of one network [pcnn-ferplus-only]")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … [%(default)s]")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status.

    Raises InputError, WeightsError, OSError: nothing could be measured or written.
    """
    import json

    from pcnn.analysis.deconvnet import feature_maps, maximal_responses
    from pcnn.analysis.units import measure, untrained_like
    from pcnn.devices import choose_device
    from pcnn.weights.expression import load_expression
    from pcnn.weights.files import sha256
    from pcnn.weights.known import SINGLE_WEIGHTS

    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
    name = arguments.weights or SINGLE_WEIGHTS
    loaded = load_expression(name)
    network = loaded.network.to(choose_device(arguments.device, "--device"))
    labelled, native_size, expressions = _labelled(arguments, loaded)
    if arguments.untrained:
        faces, seed = labelled.faces, arguments.seed
        network = untrained_like(network, faces, native_size=native_size, seed=seed)
    responses = maximal_responses(network, labelled.faces, native_size=native_size)
    found = measure(
        feature_maps(network),
        responses,
        labelled,
        permutations=arguments.permutations,
        seed=arguments.seed,
        groups=expressions if arguments.within else None,
    )
    report = _report(arguments, found, labelled, sha256(loaded.path))
    if arguments.output:
        _write_files(found, report, arguments.output)
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        _show(found, labelled, f"{'untrained, like ' if arguments.untrained else ''}{name}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-units`; argv, exit status, SystemExit: see shared.run_command."""
    text = "Measure which feature maps respond to which action units, see docs/deconvnet.md."
    return run_command("pcnn-units", text, add_arguments, run, argv, check=_check)


def _check(arguments: argparse.Namespace) -> str:
    if arguments.movements and arguments.units:
        return "--movements and --units are two sources of units: give one of them"
    if arguments.within and (arguments.chimeras or arguments.units):
        return "--within needs whole faces with their expressions: omit --chimeras and --units"
    if arguments.within and not arguments.movements:
        return "--within needs --movements: prototypes are the same for all faces of an expression"
    return ""


def _labelled(
    arguments: argparse.Namespace, loaded: ExpressionWeights
) -> tuple[UnitFaces, int, NDArray[np.int64]]:
    """The faces with their action units, their `native_size`, and their expressions' numbers.

    See suited_faces for the second. Chimeras and tables have no expressions of their own.
    """
    import dataclasses

    from pcnn.datasets.action_units import (
        balanced,
        chimeras,
        from_estimates,
        from_prototypes,
        from_table,
    )
    from pcnn.datasets.loading import load_faces
    from pcnn.faces.alignment import suited_faces

    config = loaded.network.config
    grey = config.channels == 1
    faces = load_faces(arguments.data, grey=grey, **data_options(arguments))
    usual = len(faces) if arguments.movements else 100
    most = usual if arguments.most is None else arguments.most
    faces = balanced(faces, most, arguments.seed)
    estimates = None
    if arguments.movements:
        faces, estimates = estimated_units(faces, arguments.device)
    pixels, native_size = suited_faces(loaded, faces.faces)
    faces = dataclasses.replace(faces, faces=pixels)
    if estimates is not None:
        labelled = from_estimates(faces, estimates)
    else:
        labelled = from_table(faces, arguments.units) if arguments.units else from_prototypes(faces)
    if arguments.chimeras:
        labelled = chimeras(labelled, config.layout, arguments.seed)
    return labelled, native_size, faces.votes.argmax(1).numpy()


def estimated_units(faces: FaceSet, device: str) -> tuple[FaceSet, dict[int, NDArray[np.float64]]]:
    """The faces with landmarks, and unit → an estimate for each, from their movements."""
    import numpy as np

    from pcnn.devices import choose_device
    from pcnn.faces.alignment import dataset_landmarks
    from pcnn.faces.detector import Detector
    from pcnn.recognition.movements import MovementReader, dataset_movements
    from pcnn.results.movements import action_units
    from pcnn.weights.known import DEFAULT_DETECTOR, DEFAULT_MOVEMENTS

    chosen = choose_device(device, "--device")
    landmarks = dataset_landmarks(faces.faces, Detector.load(DEFAULT_DETECTOR, device=chosen))
    kept = np.flatnonzero(np.isfinite(landmarks).all((1, 2))).tolist()
    faces = faces.subset(kept)
    reader = MovementReader(DEFAULT_MOVEMENTS, chosen)
    found = dataset_movements(reader, faces.faces, landmarks[kept])
    each = [action_units(motion.movements) for motion in found]
    units = each[0] if each else {}
    return faces, {int(name[2:]): np.array([own[name] for own in each]) for name in units}


def _report(
    arguments: argparse.Namespace, found: Sensitivity, labelled: UnitFaces, sha256: str
) -> dict[str, Any]:
    """The options and results, as values for `json.dumps`."""
    from pcnn.version import __version__

    asked = ("split", "most", "chimeras", "within", "untrained", "permutations", "seed")
    source = "movements" if arguments.movements else "prototypes"
    return {
        "pcnn": __version__,
        "weights_sha256": sha256,
        "data": str(arguments.data),
        "labels": str(arguments.units) if arguments.units else source,
        **{name: getattr(arguments, name) for name in asked},
        "units_left_out": list(labelled.left_out),
        **found.to_dict(),
    }


def _write_files(found: Sensitivity, report: dict[str, Any], folder: Path) -> None:
    import json

    from pcnn.analysis.unit_charts import draw_heat, write_csv

    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    write_csv(found, maps=folder / "maps.csv", units=folder / "units.csv")
    draw_heat(found).save(folder / "heat.png")


def _show(found: Sensitivity, labelled: UnitFaces, title: str) -> None:
    """Print the table."""
    import sys

    from rich.console import Console

    from pcnn.analysis.unit_charts import unit_table
    from pcnn.errors import counted

    console = Console(markup=False, emoji=False, highlight=False)
    with console.capture() as captured:  # rich itself would exit on a closed pipe
        if not console.is_terminal:
            console.width = 200  # more than it needs
        own = sum(map(bool, found.own_units()))
        console.print(
            f"{title}: {own} of {len(found.maps)} maps respond to a unit, "
            f"{counted(found.faces, 'face')}",
            unit_table(found),
            sep="\n\n",
            soft_wrap=True,
        )
        for units in labelled.alike:
            text = ", ".join(map(str, units))
            console.print(f"units {text} mark the same faces, so their distances are equal")
        if labelled.left_out:
            text = ", ".join(map(str, labelled.left_out))
            console.print(f"units left out, too rare or too common: {text}")
    sys.stdout.write(captured.get())
    sys.stdout.flush()
