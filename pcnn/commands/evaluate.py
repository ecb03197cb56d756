"""`pcnn-evaluate`: score an expression network on a data set and write the report."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

from pcnn.commands.shared import add_data, count, data_options, load_weights, positive, run_command
from pcnn.errors import InputError
from pcnn.version import __version__

_LATENCY_RUNS = 20
_LABELS = "labels for FER+ faces, read by the weights' own heads for them, if any [votes]"
# Options that the report records under "data".
_DATA_OPTIONS = (
    *("split", "layout", "protocol", "labels", "duplicates", "numbering"),
    *("images", "skip_missing", "skip_damaged"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--data", required=True, metavar="PATH", help="a data set, see docs/data.md")
    add_data(parser)
    add("--protocol", choices=("argmax", "majority"), default="argmax", help="[%(default)s]")
    add("--labels", choices=("votes", "fer2013"), help=_LABELS)
    add("--duplicates", action="store_true", help="keep near-copies of faces of other splits")
    add("--weights", metavar="NAME|FILE", help="expression weights (default: packaged)")
    add("-o", "--output", type=Path, metavar="DIR", help="write report, tables and pictures there")
    add("--json", action="store_true", help="print the report as JSON instead of tables")
    add("--compare-mirror", action="store_true", help="score with and without the mirrored face")
    add("--as-they-are", action="store_true", help="never align faces (default: weights decide)")
    add("--bootstrap", type=count, default=2000, metavar="N", help="resamplings [%(default)s]")
    add("--batch-size", type=positive, default=64, metavar="N", help="faces per pass [%(default)s]")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … [%(default)s]")
    add("--no-latency", action="store_true", help="do not time single faces")


def main(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-evaluate`; argv, exit status, SystemExit: see shared.run_command."""
    text = "Score an expression network on labelled faces (needs pcnn[train])."
    return run_command("pcnn-evaluate", text, add_arguments, run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status.

    Raises InputError, WeightsError, OSError: nothing could be scored or written.
    """
    from pcnn.datasets.loading import FaceOptions, open_faces
    from pcnn.devices import choose_device
    from pcnn.evaluation.cost import measure_cost
    from pcnn.evaluation.evaluate import evaluate
    from pcnn.evaluation.report import show, write_files
    from pcnn.weights.files import WeightsFile, locate, sha256
    from pcnn.weights.known import DEFAULT_WEIGHTS

    _prepare(arguments.output)
    name = arguments.weights or DEFAULT_WEIGHTS
    # Labels of the data for which the weights have heads are read by these heads.
    heads = WeightsFile(locate(name, kind="expression")).metadata.get("labels") or {}
    own = arguments.labels if arguments.labels in heads else None
    loaded = load_weights(arguments, name, own)
    loaded.network.to(choose_device(arguments.device, "--device"))
    own_options = data_options(arguments)
    split, layout = own_options.pop("split"), own_options.pop("layout")
    options = FaceOptions(
        grey=loaded.network.config.channels == 1,
        protocol=arguments.protocol,
        labels=arguments.labels,
        duplicates=arguments.duplicates,
        **own_options,
    )
    faces = open_faces(arguments.data, split, layout=layout, options=options)
    evaluation = evaluate(
        loaded,
        faces,
        batch_size=arguments.batch_size,
        compare_mirror=arguments.compare_mirror,
        bootstrap=arguments.bootstrap,
    )
    cost = measure_cost(loaded.network, runs=0 if arguments.no_latency else _LATENCY_RUNS)
    report = {
        "pcnn": __version__,
        "weights": {"name": str(name), "sha256": sha256(loaded.path), "labels": own},
        "data": {
            "path": str(arguments.data),
            **{key: getattr(arguments, key) for key in _DATA_OPTIONS},
        },
        "bootstrap": arguments.bootstrap,
        **evaluation.to_dict(),
        "cost": cost.to_dict(),
    }
    if arguments.output:
        write_files(evaluation.scores, report, arguments.output)
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        split = f", {arguments.split}" if arguments.split else ""
        kind = "labels of FER2013" if arguments.labels == "fer2013" else arguments.protocol
        kind += ", by heads of their own" if own else ""
        show(evaluation, cost, f"{name} on {Path(arguments.data).name}{split} ({kind})")
    return 0


def _prepare(output: Path | None) -> None:
    """Check for missing packages before the work starts, and make the output folder."""
    for library, package in (("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")):
        if importlib.util.find_spec(library) is None and (output or library == "sklearn"):
            raise InputError(f"{package} must be installed: pip install 'pcnn[train]'")
    if output:
        output.mkdir(parents=True, exist_ok=True)
