"""Whether explanations can be believed: the checks of docs/explain.md, on FER+ valid.

    python benchmarks/explanations.py [--weights NAME_OR_PATH] [--data FOLDER] [--faces N]
                                      [--map-faces N] [--cascade-faces N] [--json FILE]

Regions: `explain` calls that region decisive whose hiding costs the answer most. Hiding is done
by a flat fill, so the call is checked by another way of hiding, a blur, and against regions that
were decisive for other faces. Heat: the region that holds most of it is hidden; the hottest
pixels are hidden; and the network is randomised from the top (Adebayo et al. 2018).
Faces are drawn by seed, argmax-8, without duplicates. Intervals are bootstrapped over faces.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from pcnn import weights
from pcnn.analysis import sanity_checks
from pcnn.datasets.loading import load_ferplus
from pcnn.faces.alignment import suited_faces
from pcnn.faces.resampling import resample, to_planes
from pcnn.networks.pcnn import PCNN
from pcnn.networks.regions import REGIONS, normalise
from pcnn.recognition import explanations
from pcnn.weights.expression import ExpressionWeights

DATA = Path(__file__).parent.parent.parent / "shared" / "data" / "ferplus"
BATCH = 8
BLUR = 1 / 8  # of the face's side
SMOOTH = 1 / 24  # of the face's side, as in explanations.heat_maps
DELETED = (0.05, 0.1, 0.2, 0.35)  # shares of the face's pixels
Array = NDArray[np.float64]
# A network, faces (B, C, S, S), one class for each (B,) → maps of 0…1 (B, S, S).
HeatKind: TypeAlias = Callable[[PCNN, Tensor, Tensor], Tensor]


def drawn_faces(folder: Path, loaded: ExpressionWeights, count: int, seed: int) -> Tensor:
    """Normalised faces of FER+ valid, (N, C, S, S); count: so many of them, 0 for all."""
    config = loaded.network.config
    valid = load_ferplus(folder, "valid")
    order = np.random.default_rng(seed).permutation(len(valid))
    chosen = valid.subset(order[: count or None].tolist())
    faces, _ = suited_faces(loaded, chosen.faces)
    return normalise(resample(to_planes(faces, config.channels), config.size), config)


def probability(loaded: ExpressionWeights, logits: Tensor, classes: Tensor) -> Tensor:
    """(B, classes) → the calibrated probability of one class each, (B,)."""
    scores = (logits / loaded.temperature).softmax(1)
    return scores.gather(1, classes[:, None])[:, 0]


def blurred_regions(network: PCNN, face: Tensor) -> dict[str, Tensor]:
    """Region name → logits with the region blurred beyond recognition, in its view and the face's.

    face: (B, C, S, S).
    """
    smooth = torch.stack([explanations.blur(c, BLUR * face.shape[-1]) for c in face.unbind(1)], 1)
    boxes = network.config.layout.boxes(face.shape[-1])
    answers = {}
    for name in REGIONS:
        changed, box = face.clone(), boxes[name]
        rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
        changed[:, :, rows, columns] = smooth[:, :, rows, columns]
        answers[name] = network.forward_views(network.cut(changed))[0]
    return answers


@torch.no_grad()
def measure_regions(loaded: ExpressionWeights, faces: Tensor) -> tuple[Tensor, Array, Array]:
    """Answers (N,), and what each hiding takes from them: flat (N, 5) and blurred (N, 5)."""
    network = loaded.network
    answers, flat, blurred = [], [], []
    for face in watched(faces.split(BATCH), "regions"):
        views = network.cut(face)
        logits, _ = network.forward_views(views)
        chosen = logits.argmax(1)
        whole = probability(loaded, logits, chosen)
        grey = explanations.without_regions(
            lambda some: network.forward_views(some)[0], views, network.config.layout
        )
        for drops, hidden in (
            (flat, grey),
            (blurred, blurred_regions(network, face)),
        ):
            left = [probability(loaded, hidden[name], chosen) for name in REGIONS]
            drops.append(whole[:, None] - torch.stack(left, 1))
        answers.append(chosen)
    return torch.cat(answers), *(torch.cat(drops).double().numpy() for drops in (flat, blurred))


def measure_deletion(
    loaded: ExpressionWeights,
    faces: Tensor,
    answers: Tensor,
    heat: Tensor,
    shares: Sequence[float] = DELETED,
) -> Array:
    """What hiding the hottest pixels takes from the answer: (N, shares).

    heat: (N, S, S), ≥ 0. Of a map that is hot in less than a share, all that is hot is hidden.
    """
    columns = []
    for share in shares:
        bound = heat.flatten(1).quantile(1 - share, 1)[:, None, None]
        kept = faces * ((heat < bound) | (heat <= 0))[:, None]
        columns.append(answer_probability(loaded, kept, answers))
    whole = answer_probability(loaded, faces, answers)
    return (whole[:, None] - torch.stack(columns, 1)).double().numpy()


def random_spots(faces: Tensor) -> Tensor:
    """(N, S, S) of 0…1, the same at every call, to be hidden in place of what is hot."""
    draw = torch.Generator().manual_seed(0)
    spots = torch.rand((len(faces), *faces.shape[2:]), generator=draw)
    # As smooth as the heat: single pixels would be another, easier comparison.
    return explanations.blur(spots, SMOOTH * faces.shape[-1])


@torch.no_grad()
def answer_probability(loaded: ExpressionWeights, faces: Tensor, answers: Tensor) -> Tensor:
    """(N,) the probability of each answer."""
    parts = zip(faces.split(BATCH), answers.split(BATCH), strict=True)
    return torch.cat([probability(loaded, loaded.network(face)[0], own) for face, own in parts])


def shipped_heat(network: PCNN, faces: Tensor, answers: Tensor) -> Tensor:
    """(N, S, S): what `Recognizer.explain` shows."""
    return explanations.heat_maps(network, network.cut(faces), answers)


def measure_heat(
    network: PCNN, faces: Tensor, answers: Tensor, title: str, kind: HeatKind = shipped_heat
) -> Tensor:
    """(N, S, S), batch by batch."""
    parts = list(zip(faces.split(BATCH), answers.split(BATCH), strict=True))
    return torch.cat([kind(network, face, own) for face, own in watched(parts, title)])


def compare(drops: Array, called: NDArray[np.int64]) -> dict[str, Any]:
    """Drops (N, 5) in the region called (N,), in the other four, and in one called for another."""
    rows = np.arange(len(drops))
    own = drops[rows, called]
    others = (drops.sum(1) - own) / 4
    elsewhere = drops[rows, np.roll(called, 1)]  # the order is random
    return {
        "called": mean_interval(own),
        "others": mean_interval(others),
        "difference": mean_interval(own - others),
        "called_for_another_face": mean_interval(elsewhere),
        "difference_from_another_face": mean_interval(own - elsewhere),
        "largest": mean_interval((own >= drops.max(1)).astype(np.float64)),
    }


def mean_interval(values: Array, rounds: int = 2000) -> list[float]:
    """Mean, and the bootstrap's 95 % interval of it."""
    draw = np.random.default_rng(0)
    means = [values[draw.integers(0, len(values), len(values))].mean() for _ in range(rounds)]
    return [float(values.mean()), *(float(each) for each in np.percentile(means, [2.5, 97.5]))]


def watched(items: Any, title: str) -> Any:
    """The items, with a progress bar on a terminal's stderr."""
    console = Console(stderr=True)
    return track(items, title, console=console, disable=not console.is_terminal)


def shown(values: list[float]) -> str:
    """Mean and interval in percent."""
    mean, low, high = (100 * value for value in values)
    return f"{mean:6.1f} %  ({low:.1f} … {high:.1f})"


def print_comparison(title: str, result: dict[str, Any]) -> None:
    """One comparison as lines of text."""
    print(title)
    print(f"  drop with that region hidden      {shown(result['called'])}")
    print(f"  mean drop of the four others      {shown(result['others'])}")
    print(f"  difference                        {shown(result['difference'])}")
    print(f"  region called for another face    {shown(result['called_for_another_face'])}")
    print(f"  difference                        {shown(result['difference_from_another_face'])}")
    print(f"  its drop is the largest of five   {shown(result['largest'])}  by chance 20 %")


def check_regions(answers: Tensor, flat: Array, blurred: Array) -> dict[str, Any]:
    """Print and return what the hiding of regions says."""
    called = flat.argmax(1)
    shares = {name: float((called == i).mean()) for i, name in enumerate(REGIONS)}
    deciding = float((flat.max(1) >= 0.05).mean())
    print(f"{len(answers)} faces; a region decides (drop of 5 points or more): {deciding:.1%}")
    print("called decisive: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    result = compare(blurred, called)
    print_comparison("decisive by flat fill, checked by blur", result)
    same = compare(flat, called)
    print(f"  by flat fill itself: {shown(same['called'])}, others {shown(same['others'])}")
    return {"called": shares, "deciding": deciding, "blurred": result, "flat": same}


def check_heat(
    loaded: ExpressionWeights, faces: Tensor, answers: Tensor, flat: Array
) -> dict[str, Any]:
    """Print and return what hiding where the heat is does."""
    heat = measure_heat(loaded.network, faces, answers, "heat")
    shares = sanity_checks.heat_shares(heat, loaded.network.config.layout).numpy()
    result = compare(flat, shares.argmax(1))
    print_comparison(f"{len(faces)} faces: region with most heat, hidden by flat fill", result)
    hot, spots = (
        measure_deletion(loaded, faces, answers, order) for order in (heat, random_spots(faces))
    )
    rows = []
    print("hottest pixels hidden, and as many in random spots")
    for i, share in enumerate(DELETED):
        rows.append([share, *(mean_interval(each[:, i]) for each in (hot, spots))])
        print(f"  {share:4.0%} of the face    {shown(rows[-1][1])}    {shown(rows[-1][2])}")
    return {"region_with_most": result, "deletion": rows}


def check_randomised(
    loaded: ExpressionWeights, faces: Tensor, answers: Tensor
) -> list[tuple[str, list[float]]]:
    """Print and return how much of the maps is left when the network is randomised."""
    before = measure_heat(loaded.network, faces, answers, "heat")
    rows = []
    print(f"{len(faces)} faces: rank correlation of the map with that of a network randomised")
    for depth, part in enumerate(sanity_checks.cascade(loaded.network), 1):
        network = sanity_checks.randomised(
            loaded.network, sanity_checks.cascade(loaded.network)[:depth], seed=0
        )
        after = measure_heat(network, faces, answers, f"randomised to {part}")
        values = sanity_checks.rank_correlation(before, after).numpy()
        rows.append((part, mean_interval(values)))
        mean, low, high = rows[-1][1]
        print(f"  from the top to {part:<16} {mean:6.3f}  ({low:.3f} … {high:.3f})", flush=True)
    return rows


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="pcnn-ferplus-only", help="a name or a path")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--faces", type=int, default=400, help="with regions hidden; 0 for all")
    parser.add_argument("--map-faces", type=int, default=100, help="of these, with heat")
    parser.add_argument("--cascade-faces", type=int, default=24, help="of these, randomised")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    loaded = weights.load_expression(arguments.weights)
    if not isinstance(loaded.network, PCNN):
        parser.error(f"{arguments.weights} has no regions: give weights of a PCNN")
    faces = drawn_faces(arguments.data, loaded, arguments.faces, arguments.seed)
    sha256 = weights.sha256(loaded.path)
    print(f"weights {loaded.path.name}, sha256 {sha256[:12]}; FER+ valid, seed {arguments.seed}")
    answers, flat, blurred = measure_regions(loaded, faces)
    record: dict[str, Any] = {"sha256": sha256, "faces": len(faces)}
    record["regions"] = check_regions(answers, flat, blurred)
    some = slice(arguments.map_faces)
    record["heat"] = check_heat(loaded, faces[some], answers[some], flat[some])
    few = slice(arguments.cascade_faces)
    record["randomised"] = check_randomised(loaded, faces[few], answers[few])
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
