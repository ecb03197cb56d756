"""`pcnn-units`: measure which feature maps respond to which facial action units."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcnn.commands.shared import run_command

if TYPE_CHECKING:
    from pcnn.analysis.units import Sensitivity
    from pcnn.datasets.action_units import UnitFaces
    from pcnn.weights.expression import ExpressionWeights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--data", required=True, metavar="PATH", help="a data set, see docs/data.md")
    add("--split", help="part of the data set, such as valid or test")
    add("--layout", default="auto", help="layout of the data set [%(default)s]")
    add("--units", type=Path, metavar="FILE", help="CSV of units, instead of the prototypes")
    add("--most", type=int, default=100, metavar="N", help="faces per expression [%(default)s]")
    add("--chimeras", action="store_true", help="compose faces of parts of several faces")
    add("--untrained", action="store_true", help="measure an untrained network instead")
    add("--permutations", type=int, default=1000, metavar="N", help="of the test [%(default)s]")
    add("--seed", type=int, default=0, metavar="N", help="of all random choices [%(default)s]")
    add("--output", type=Path, metavar="DIR", help="write tables, report and heat map there")
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
    labelled, native_size = _labelled(arguments, loaded)
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
    return run_command("pcnn-units", text, add_arguments, run, argv)


def _labelled(arguments: argparse.Namespace, loaded: ExpressionWeights) -> tuple[UnitFaces, int]:
    """The faces with their action units, and their `native_size`, see suited_faces."""
    import dataclasses

    from pcnn.datasets.action_units import balanced, chimeras, from_prototypes, from_table
    from pcnn.datasets.loading import load_faces
    from pcnn.faces.alignment import suited_faces

    config = loaded.network.config
    faces = load_faces(
        arguments.data, arguments.split, layout=arguments.layout, grey=config.channels == 1
    )
    faces = balanced(faces, arguments.most, arguments.seed)
    pixels, native_size = suited_faces(loaded, faces.faces)
    faces = dataclasses.replace(faces, faces=pixels)
    labelled = from_table(faces, arguments.units) if arguments.units else from_prototypes(faces)
    if arguments.chimeras:
        labelled = chimeras(labelled, config.layout, arguments.seed)
    return labelled, native_size


def _report(
    arguments: argparse.Namespace, found: Sensitivity, labelled: UnitFaces, sha256: str
) -> dict[str, Any]:
    """The options and results, as values for `json.dumps`."""
    from pcnn.version import __version__

    asked = ("split", "most", "chimeras", "untrained", "permutations", "seed")
    return {
        "pcnn": __version__,
        "weights_sha256": sha256,
        "data": str(arguments.data),
        "labels": str(arguments.units) if arguments.units else "prototypes",
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
