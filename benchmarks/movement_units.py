"""Which maps answer to units that each face's own movements show: a table of docs/deconvnet.md.

    python benchmarks/movement_units.py [--data FOLDER] [--most N] [--permutations N] [--page FILE]

As `pcnn-units --movements` and `--within` have it: units are those of the quarter of the faces that
shows them most, and the second compares only faces of one expression. The packaged network against
an untrained one of its shape, on the same faces of FER+ valid.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared import DATA, ROOT, keep

from pcnn.analysis.deconvnet import STAGES, feature_maps, maximal_responses
from pcnn.analysis.units import Sensitivity, measure, untrained_like
from pcnn.commands.units import estimated_units
from pcnn.datasets.action_units import UNITS, balanced, from_estimates
from pcnn.datasets.loading import load_faces
from pcnn.faces.alignment import suited_faces
from pcnn.weights.expression import load_expression
from pcnn.weights.files import sha256


def main() -> None:
    """Measure, print, write."""
    arguments = _parse()
    torch.set_num_threads(1)
    loaded = load_expression(arguments.weights)
    faces = balanced(load_faces(arguments.data, "valid"), arguments.most)
    faces, estimates = estimated_units(faces, "cpu")
    pixels, size = suited_faces(loaded, faces.faces)
    labelled = from_estimates(dataclasses.replace(faces, faces=pixels), estimates)
    expressions = faces.votes.argmax(1).numpy()
    record: dict[str, Any] = {
        "weights_sha256": sha256(loaded.path),
        "faces": len(faces),
        "units_left_out": list(labelled.left_out),
        "tied_to_expressions": _tied(labelled.present, expressions, labelled.units),
        "networks": {},
    }
    networks = {
        "trained": loaded.network,
        "untrained": untrained_like(loaded.network, pixels, native_size=size),
    }
    for name, network in networks.items():
        responses = maximal_responses(network, pixels, native_size=size)
        record["networks"][name] = {
            kind: _summary(
                measure(
                    feature_maps(network),
                    responses,
                    labelled,
                    permutations=arguments.permutations,
                    groups=groups,
                )
            )
            for kind, groups in (("all", None), ("within", expressions))
        }
    text = _as_markdown(record)
    print(text)
    keep(record, text, "movement_units", json_to=arguments.json, page=arguments.page)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--weights", default="pcnn-ferplus-only", help="a name or a path [%(default)s]")
    add("--data", type=Path, default=DATA)
    add("--most", type=int, default=100, help="faces of each expression [%(default)s]")
    add("--permutations", type=int, default=1000)
    add("--json", type=Path, help="write the figures to this file as well")
    add("--page", type=Path, default=ROOT / "docs" / "deconvnet.md")
    return parser.parse_args()


def _tied(present: Any, expressions: Any, units: tuple[int, ...]) -> dict[str, float]:
    """Unit → the share of its variance that the expression explains."""
    shares = {}
    for unit, column in zip(units, present.T.astype(float), strict=True):
        means = {each: column[expressions == each].mean() for each in np.unique(expressions)}
        explained = np.array([means[each] for each in expressions])
        shares[str(unit)] = float(explained.var() / column.var())
    return shares


def _summary(found: Sensitivity) -> dict[str, Any]:
    """Detectors in each stage of each trunk, and for each unit how many and which best."""
    own = found.own_units()
    stages = {}
    for trunk in dict.fromkeys(each.trunk for each in found.maps):
        for stage in STAGES:
            rows = [i for i, each in enumerate(found.maps) if each[:2] == (trunk, stage)]
            stages[f"{trunk}/{stage}"] = [sum(bool(own[row]) for row in rows), len(rows)]
    face = [i for i, each in enumerate(found.maps) if each[:2] == ("face", "layer3")]
    parts = [UNITS[own[row][0]][1] for row in face if own[row]]
    units = {}
    for column, unit in enumerate(found.units):
        best = found.most_sensitive(unit, len(found.maps))
        units[str(unit)] = {
            "maps": len(best),
            "best": [
                [str(each), float(found.distances[found.maps.index(each), column])]
                for each in best[:2]
            ],
        }
    return {
        "stages": stages,
        "face_parts": {part: parts.count(part) for part in dict.fromkeys(parts)},
        "units": units,
        "largest": float(np.abs(found.distances[np.isfinite(found.distances)]).max()),
    }


def _as_markdown(record: dict[str, Any]) -> str:
    trained, untrained = (record["networks"][name] for name in ("trained", "untrained"))
    left = ", ".join(map(str, record["units_left_out"])) or "none"
    lines = [
        f"Weights {record['weights_sha256'][:8]}, {record['faces']} faces of FER+ valid. Units "
        f"left out: {left}. Maps that answer to a unit, trained / untrained:",
        "",
        "| trunk | faces | conv1 | layer1 | layer2 | layer3 | of |",
        "|---|---|---|---|---|---|---|",
    ]
    trunks = list(dict.fromkeys(key.split("/")[0] for key in trained["all"]["stages"]))
    for trunk in trunks:
        for kind, shown in (("all", "all"), ("within", "of one expression")):
            cells, counts = [], []
            for stage in STAGES:
                ours, of = trained[kind]["stages"][f"{trunk}/{stage}"]
                theirs, _ = untrained[kind]["stages"][f"{trunk}/{stage}"]
                cells.append(f"**{ours}** / {theirs}")
                counts.append(str(of))
            name = trunk.replace("_", " ")
            lines.append(f"| {name} | {shown} | {' | '.join(cells)} | {', '.join(counts)} |")
    lines += [
        "",
        "Units within one expression: what share of the unit the expression explains, how many "
        "maps answer, trained / untrained, and the two most sensitive:",
        "",
        "| unit | part | explained | maps | most sensitive |",
        "|---|---|---|---|---|",
    ]
    for unit, each in trained["within"]["units"].items():
        name, part = UNITS[int(unit)]
        best = ", ".join(f"{own} ({distance:.2f})" for own, distance in each["best"]) or "–"
        count = f"**{each['maps']}** / {untrained['within']['units'][unit]['maps']}"
        tied = f"{100 * record['tied_to_expressions'][unit]:.0f} %"
        lines.append(f"| {unit} {name} | {part} | {tied} | {count} | {best} |")
    parts = ", ".join(f"{n} of the {part}" for part, n in trained["within"]["face_parts"].items())
    lines += ["", f"Within one expression, the face trunk's layer3 maps have units: {parts}."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
