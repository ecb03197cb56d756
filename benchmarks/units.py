"""Whether feature maps answer to facial units: the figures and pictures of docs/deconvnet.md.

    python benchmarks/units.py [--weights NAME_OR_PATH] [--data FOLDER] [--most N]
                               [--permutations N] [--json FILE] [--page FILE] [--images FOLDER]

The packaged network against untrained ones of its shape, whose batch norms have seen the same
faces: on whole faces, and on chimeras, in which the eyes', cheeks' and mouth's units are
independent of each other. Then whether the maps of the face's trunk, which could look anywhere,
project to the part of the face whose units they answer to. Faces of FER+ valid, drawn by seed;
units by the prototypes. Writes figures as JSON, tables into the page, and the pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from shared import put_into_page

from pcnn import weights
from pcnn.analysis.deconvnet import (
    STAGES,
    FeatureMap,
    feature_maps,
    maximal_responses,
    project,
    project_top,
    trunks_of,
)
from pcnn.analysis.deconvnet_pictures import draw_mosaic
from pcnn.analysis.unit_charts import draw_heat
from pcnn.analysis.units import Sensitivity, measure, untrained_like
from pcnn.commands import deconvnet as deconvnet_command
from pcnn.datasets.action_units import PARTS, UNITS, UnitFaces, balanced, chimeras, from_prototypes
from pcnn.datasets.loading import load_faces
from pcnn.faces.alignment import suited_faces
from pcnn.faces.views import face_views
from pcnn.networks.pcnn import PCNN
from pcnn.results.style import stack
from pcnn.weights.expression import ExpressionWeights

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data" / "ferplus"
UNTRAINED = 2  # networks
TOP = 3  # faces whose projections say where a map looks
SHUFFLES = 10_000
OWN = {"left_eye": "eyes", "right_eye": "eyes", "mouth": "mouth"}
OWN |= {"left_cheek": "cheeks", "right_cheek": "cheeks"}
MARK = "<!-- {} of benchmarks/units.py -->"

Array = NDArray[Any]


def main() -> int:
    """Measure, print, write; returns the exit status."""
    arguments = _arguments()
    began = time.perf_counter()
    loaded = weights.load_expression(arguments.weights)
    network = loaded.network
    if not isinstance(network, PCNN):
        raise SystemExit(f"{arguments.weights} has no regions: give weights of a PCNN")
    faces = balanced(load_faces(arguments.data, "valid"), arguments.most)
    pixels, size = suited_faces(loaded, faces.faces)
    faces = dataclasses.replace(faces, faces=pixels)
    sets = {"whole": from_prototypes(faces)}
    sets["chimeras"] = chimeras(sets["whole"], network.config.layout)
    networks = {"trained": network}
    for seed in range(UNTRAINED):
        fresh = untrained_like(network, faces.faces, native_size=size, seed=seed)
        networks[f"untrained {seed}"] = fresh
    found: dict[str, dict[str, Sensitivity]] = {}
    record: dict[str, Any] = {
        "weights_sha256": weights.sha256(loaded.path),
        "faces": len(faces),
        "alike": sets["whole"].alike,
        "networks": {},
    }
    for name, each in networks.items():
        _say(name)
        responses = {
            kind: maximal_responses(each, labelled.faces, native_size=size)
            for kind, labelled in sets.items()
        }
        found[name] = {
            kind: measure(
                feature_maps(each), responses[kind], sets[kind], permutations=arguments.permutations
            )
            for kind in sets
        }
        told: dict[str, Any] = {kind: _summary(one) for kind, one in found[name].items()}
        told["place"] = {
            stage: _place(each, sets["whole"], responses["whole"], found[name]["chimeras"], stage)
            for stage in ("layer2", "layer3")
        }
        record["networks"][name] = told
    record["units"] = found["trained"]["chimeras"].to_dict()["units"]
    for unit in record["units"].values():
        unit["answering"] = len(unit["maps"])
        unit["maps"] = unit["maps"][:3]
    record["seconds"] = round(time.perf_counter() - began)
    arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    text = _tables(record)
    print(text)
    put_into_page(arguments.page, text, MARK.format("begin"), MARK.format("end"))
    _draw(arguments.images, loaded, networks, found, (pixels, size))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--weights", default="pcnn-ferplus-only", help="a name or a path")
    add("--data", type=Path, default=DATA)
    add("--most", type=int, default=100, help="faces of each expression")
    add("--permutations", type=int, default=1000)
    add("--json", type=Path, default=ROOT / "benchmarks" / "units.json")
    add("--page", type=Path, default=ROOT / "docs" / "deconvnet.md")
    add("--images", type=Path, default=ROOT / "docs" / "images")
    return parser.parse_args()


def _say(text: str) -> None:
    Console(stderr=True).print(text, highlight=False)


# --- figures ---


def _summary(found: Sensitivity) -> dict[str, Any]:
    """Of each stage of each trunk: maps, those with a unit, their parts, how far they tell."""
    own, largest = found.own_units(), found.distances.max(1)
    told: dict[str, Any] = {}
    for stage in STAGES:
        for trunk in dict.fromkeys(each.trunk for each in found.maps):
            rows = [i for i, each in enumerate(found.maps) if each[:2] == (trunk, stage)]
            units = [own[row] for row in rows if own[row]]
            told[f"{trunk}/{stage}"] = {
                "maps": len(rows),
                "detectors": len(units),
                "parts": {part: sum(_share(each, part) for each in units) for part in PARTS},
                "median_largest_distance": float(np.median(largest[rows])),
                "largest_distance": float(largest[rows].max()),
            }
    return told


def _share(units: tuple[int, ...], part: str) -> float:
    """How many of these units, which the same faces show, belong to the part: 0…1."""
    return float(np.mean([UNITS[unit][1] == part for unit in units]))


def _place(
    network: PCNN, whole: UnitFaces, responses: torch.Tensor, found: Sensitivity, stage: str
) -> dict[str, Any]:
    """Whether the face trunk's maps project to the part of the face whose units they answer to.

    Of each map the energy of its projections from its strongest faces that falls on the mouth,
    of that on eyes and mouth (per pixel); and how much more its largest distance is for a unit
    of the mouth than for one of the eyes. Their rank correlation over all maps of the stage.
    """
    rows = [i for i, each in enumerate(found.maps) if each[:2] == ("face", stage)]
    top = responses[:, rows].topk(TOP, 0).indices.T.reshape(-1)  # map by map
    channels = torch.tensor([found.maps[row].channel for row in rows]).repeat_interleave(TOP)
    energy = []
    for some, own in zip(top.split(64), channels.split(64), strict=True):
        views = face_views(network, whole.faces[some], network.config.size)
        pixels = project(trunks_of(network)["face"], views[0], stage, own).pixels
        energy.append(pixels.square().sum((1, 3)))  # (B, S)
    lines = torch.cat(energy).view(len(rows), TOP, -1)
    lines = (lines / lines.sum(2, keepdim=True).clamp(min=1e-12)).mean(1).numpy()
    boxes = network.config.layout.boxes(network.config.size)
    mouth = lines[:, boxes["mouth"].top :].mean(1)
    eyes = lines[:, : boxes["left_eye"].bottom].mean(1)
    looks = mouth / (mouth + eyes)
    distances = {
        part: found.distances[rows][:, [UNITS[unit][1] == part for unit in found.units]].max(1)
        for part in ("eyes", "mouth")
    }
    own = found.own_units()
    parts = [UNITS[own[row][0]][1] if own[row] else None for row in rows]
    correlation, p = _rank_correlation(looks, distances["mouth"] - distances["eyes"])
    return {
        "correlation": correlation,
        "p": p,
        "mouth_share": {
            part: (float(looks[[each == part for each in parts]].mean()), parts.count(part))
            for part in ("eyes", "mouth")
            if part in parts
        },
    }


def _rank_correlation(first: Array, second: Array) -> tuple[float, float]:
    """Spearman's, and how often shuffling gives as large a one (of either sign)."""
    ranks = [each.argsort().argsort().astype(float) for each in (first, second)]
    observed = float(np.corrcoef(*ranks)[0, 1])
    draw = np.random.default_rng(0)
    chance = [np.corrcoef(draw.permutation(ranks[0]), ranks[1])[0, 1] for _ in range(SHUFFLES)]
    beaten = sum(abs(each) >= abs(observed) - 1e-12 for each in chance)
    return observed, (1 + beaten) / (1 + SHUFFLES)


# --- tables ---


def _tables(record: dict[str, Any]) -> str:
    networks = record["networks"]
    trunks = list(dict.fromkeys(key.split("/")[0] for key in networks["trained"]["whole"]))
    others = [name for name in networks if name != "trained"]
    lines = [
        f"Weights {record['weights_sha256'][:8]}, {record['faces']} faces of FER+ valid. "
        f"{_summed_up(networks)}",
        "",
    ]
    for kind, title in (("chimeras", "Chimeras"), ("whole", "Whole faces")):
        lines += [
            f"{title}: maps that answer to a unit, trained / untrained ({' / '.join(others)}). "
            "The last column says how many of the trained ones' units lie in the eyes, the cheeks, "
            "the mouth.",
            "",
            "| trunk | conv1 | layer1 | layer2 | layer3 | of | layer3: eyes, cheeks, mouth |",
            "|---|---|---|---|---|---|---|",
        ]
        for trunk in trunks:
            cells = []
            for stage in STAGES:
                key = f"{trunk}/{stage}"
                counts = [str(networks[n][kind][key]["detectors"]) for n in ("trained", *others)]
                cells.append(f"**{counts[0]}** / {' / '.join(counts[1:])}")
            own = networks["trained"][kind]
            of = ", ".join(str(own[f"{trunk}/{stage}"]["maps"]) for stage in STAGES)
            parts = ", ".join(f"{own[f'{trunk}/layer3']['parts'][part]:g}" for part in PARTS)
            name = trunk.replace("_", " ")
            lines.append(f"| {name} | {' | '.join(cells)} | {of} | {parts} |")
        lines.append("")
    lines += [
        "Chimeras, layer3: the largest distance of a map from any unit, median over the maps, and "
        "largest of all, in standard deviations:",
        "",
        "| trunk | trained | untrained |",
        "|---|---|---|",
    ]
    for trunk in trunks:
        cells = []
        for name in ("trained", *others):
            own = networks[name]["chimeras"][f"{trunk}/layer3"]
            cells.append(f"{own['median_largest_distance']:.2f}, {own['largest_distance']:.2f}")
        lines.append(f"| {trunk.replace('_', ' ')} | {cells[0]} | {'; '.join(cells[1:])} |")
    lines += [
        "",
        "The units on chimeras, trained network, all trunks and stages:",
        "",
        "| unit | part | shown by | maps | most sensitive |",
        "|---|---|---|---|---|",
    ]
    for part in PARTS:
        for unit, each in record["units"].items():
            if each["part"] == part:
                best = ", ".join(f"{m['map']} ({m['distance']:.2f})" for m in each["maps"]) or "–"
                cells = (f"{unit} {each['name']}", part, each["faces"], each["answering"], best)
                lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        "Where the maps of the face trunk project to, and what they answer to on chimeras:",
        "",
        "| network | stage | rank correlation | p | of eye and mouth energy on the mouth |",
        "|---|---|---|---|---|",
    ]
    for name, told in networks.items():
        for stage, each in told["place"].items():
            shares = "; ".join(
                f"{count} maps of the {part}: {100 * share:.0f} %"
                for part, (share, count) in each["mouth_share"].items()
            )
            row = (name, stage, f"{each['correlation']:.2f}", f"{each['p']:.4f}", shares or "–")
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _summed_up(networks: dict[str, Any]) -> str:
    """The counts at layer3 in words."""
    counts = {
        name: {
            kind: {key: each for key, each in told[kind].items() if key.endswith("layer3")}
            for kind in ("chimeras", "whole")
        }
        for name, told in networks.items()
    }
    found = {
        name: sum(each["detectors"] for each in told["chimeras"].values())
        for name, told in counts.items()
    }
    maps = sum(each["maps"] for each in counts["trained"]["chimeras"].values())
    face = counts["trained"]["chimeras"]["face/layer3"]
    shares = []
    for part in ("eyes", "mouth"):
        own = [counts["trained"]["whole"][f"{trunk}/layer3"] for trunk in OWN if OWN[trunk] == part]
        share = sum(each["parts"][part] for each in own) / sum(each["detectors"] for each in own)
        shares.append(f"{100 * share:.0f} % of those of the {part}")
    others = " and ".join(str(number) for name, number in found.items() if name != "trained")
    eyes, mouth = (face["parts"][part] for part in ("eyes", "mouth"))
    return (
        f"On chimeras {found['trained']} of the {maps} trained layer3 maps answer to a unit, of "
        f"the untrained {others}. In the face trunk they are {face['detectors']} of "
        f"{face['maps']}, {eyes:g} with a unit of the eyes, {mouth:g} of the mouth. On whole "
        "faces units go together by expression. There a region trunk's layer3 maps have a unit of "
        f"their own part in {' and '.join(shares)}. A tie between parts counts in shares."
    )


# --- pictures ---


def _draw(
    folder: Path,
    loaded: ExpressionWeights,
    networks: dict[str, PCNN],
    found: dict[str, dict[str, Sensitivity]],
    faces: tuple[torch.Tensor, int],
) -> None:
    """All pictures of the page. faces: what suited_faces gave."""
    face = folder / "deconvnet-face.png"
    photo = str(folder / "astronaut.png")
    deconvnet_command.main([photo, "--weights", str(loaded.path), "-o", str(face)])
    with Image.open(face) as drawn:
        _save(drawn.convert("RGB"), face)
    wanted = (("mouth", 12), ("right_eye", 2), ("face", 12), ("face", 2))
    for name, file in (("trained", "trained"), ("untrained 0", "untrained")):
        mosaics = []
        for trunk, unit in wanted if name == "trained" else wanted[:2]:
            chosen = _best(found[name]["chimeras"], trunk, unit)
            mosaics.append(_mosaic(networks[name], chosen, *faces))
        _save(stack(mosaics), folder / f"deconvnet-{file}.png")
    heats = {
        "trained": "Trained, chimeras: layer3 maps and units",
        "untrained 0": "Untrained, chimeras: layer3 maps and units",
    }
    both = [draw_heat(found[name]["chimeras"], title=text) for name, text in heats.items()]
    _save(stack(both), folder / "units-chimeras.png")
    text = "Trained, whole faces: layer3 maps and units"
    _save(draw_heat(found["trained"]["whole"], title=text), folder / "units-whole.png")


def _best(found: Sensitivity, trunk: str, unit: int) -> FeatureMap:
    """The layer3 map of a trunk of the largest distance, by chance or not."""
    column = found.units.index(unit)
    rows = [i for i, each in enumerate(found.maps) if each[:2] == (trunk, "layer3")]
    return found.maps[max(rows, key=lambda row: found.distances[row, column])]


def _mosaic(
    network: PCNN, chosen: FeatureMap, faces: torch.Tensor, native_size: int
) -> Image.Image:
    """Without the faces themselves, which are not ours to publish."""
    top, projection = project_top(network, faces, chosen, native_size=native_size)
    squares = [faces[place].numpy() for place in top]
    layout = network.config.layout
    return draw_mosaic(chosen, squares, projection, layout, faces=len(faces), show_faces=False)


def _save(picture: Image.Image, path: Path) -> None:
    """With 256 colours, which is fewer bytes and looks the same."""
    picture.quantize(256).save(path, optimize=True)
    _say(f"{path}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    raise SystemExit(main())
