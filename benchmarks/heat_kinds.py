"""Which kind of heat map says best why a face was read as it was: the choice in docs/explain.md.

    python benchmarks/heat_kinds.py [--faces 24] [--seed 0] [--weights NAME_OR_PATH]
                                    [--data FOLDER] [--json FILE] [--page FILE]

Every kind explains the same number, the log-odds of the network's answer, and is smoothed and
scaled as what ships is. Two tests: what hiding the hottest tenth of the pixels takes from the
answer's calibrated probability, and how much of the map is left when all weights are random
(Adebayo et al. 2018), for each face by random weights of its own. Faces of FER+ valid, drawn by
seed; intervals are bootstrapped over faces. Writes the figures as JSON and their table into the
page.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from explanations import (
    BATCH,
    DATA,
    SMOOTH,
    Array,
    HeatKind,
    drawn_faces,
    mean_interval,
    measure_deletion,
    measure_heat,
    random_spots,
    shipped_heat,
    watched,
)
from shared import processor, put_into_page
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pcnn import weights
from pcnn.analysis import sanity_checks
from pcnn.networks.pcnn import PCNN
from pcnn.networks.saliency import blur
from pcnn.recognition import explanations

ROOT = Path(__file__).parent.parent
HIDDEN = 0.1  # of the face's pixels
SAMPLES = 16  # SmoothGrad's noisy faces
NOISE = 0.15  # its standard deviation, of the face's range; its authors take 0.1 to 0.2
PLACES = 12  # of the occluding window, along each side; it is two places wide
SHIPPED = f"integrated gradients, {explanations.STEPS} steps"


def main() -> int:
    """Measure, print, write; returns the exit status."""
    arguments = _arguments()
    began = time.process_time()
    loaded = weights.load_expression(arguments.weights)
    network = loaded.network
    if not isinstance(network, PCNN):
        raise SystemExit(f"{arguments.weights} has no regions: give weights of a PCNN")
    faces = drawn_faces(arguments.data, loaded, arguments.faces, arguments.seed)
    with torch.no_grad():
        answers = torch.cat([network(face)[0].argmax(1) for face in faces.split(BATCH)])
    heats, seconds = {}, {}
    for name, kind in KINDS.items():
        kind(network, faces[:BATCH], answers[:BATCH])  # whatever is slow only once
        start = time.process_time()
        heats[name] = measure_heat(network, faces, answers, name, kind)
        seconds[name] = (time.process_time() - start) / len(faces)
    orders = {**heats, "random spots": random_spots(faces)}
    drops = {
        name: measure_deletion(loaded, faces, answers, order, (HIDDEN,))[:, 0]
        for name, order in orders.items()
    }
    left = measure_randomised(network, faces, answers, heats)
    record = {
        "weights_sha256": weights.sha256(loaded.path),
        "faces": len(faces),
        "seed": arguments.seed,
        "processor": processor(),
        "kinds": {name: _told(name, drops, left, seconds) for name in orders},
        "hot_in_less": {  # faces
            name: int(((heat > 0).double().mean((1, 2)) < HIDDEN).sum())
            for name, heat in heats.items()
        },
        "seconds": round(time.process_time() - began),
    }
    arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    text = _table(record)
    print(text)
    put_into_page(arguments.page, text, "<!-- benchmarks/heat_kinds.py -->", "<!-- end -->")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--faces", type=int, default=24, help="0 for all")
    add("--seed", type=int, default=0)
    add("--weights", default="pcnn-ferplus-only", help="a name or a path")
    add("--data", type=Path, default=DATA)
    add("--json", type=Path, default=ROOT / "benchmarks" / "heat_kinds.json")
    add("--page", type=Path, default=ROOT / "docs" / "explain.md")
    return parser.parse_args()


def measure_randomised(
    network: PCNN, faces: Tensor, answers: Tensor, heats: dict[str, Tensor]
) -> dict[str, Array]:
    """Kind → rank correlation of each map with that of a random network, (N,).

    A network for each face: any one random network may have likings of its own.
    """
    left: dict[str, list[Tensor]] = {name: [] for name in heats}
    for i in watched(range(len(faces)), "random weights"):
        own = slice(i, i + 1)
        fresh = sanity_checks.randomised(network, sanity_checks.cascade(network), seed=i)
        for name, heat in heats.items():
            after = KINDS[name](fresh, faces[own], answers[own])
            left[name].append(sanity_checks.rank_correlation(heat[own], after))
    return {name: torch.cat(values).double().numpy() for name, values in left.items()}


# --- kinds: each takes a network, faces (B, C, S, S) and a class for each (B,) ---


def log_odds(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
    """(B,): what explanations.attributions takes the gradients of."""
    logits, _ = network(faces)
    others = logits.scatter(1, classes[:, None], -torch.inf).logsumexp(1)
    return logits.gather(1, classes[:, None])[:, 0] - others


def gradients(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
    """Of the log-odds, with respect to the faces, through all six views: (B, C, S, S)."""
    points = faces.clone().requires_grad_()
    return torch.autograd.grad(log_odds(network, points, classes).sum(), points)[0]


def one_step(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
    """Gradient × face, the gradient half way from the hidden face to the face."""
    return explanations.attributions(network, network.cut(faces), classes, steps=1)


def gradient_times_face(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
    """The same with the gradient at the face itself."""
    return (gradients(network, faces, classes) * faces).sum(1)


def absolute_gradient(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
    """Simonyan et al. 2014, section 3.1: of the channels the largest."""
    return gradients(network, faces, classes).abs().amax(1)


def smooth_gradients(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
    """SmoothGrad: the mean gradient of noisy faces, (B, C, S, S). Smilkov et al. 2017."""
    draw = torch.Generator().manual_seed(0)
    spread = NOISE * (faces.amax((1, 2, 3)) - faces.amin((1, 2, 3))).view(-1, 1, 1, 1)
    mean = torch.zeros_like(faces)
    for _ in range(SAMPLES):
        noisy = faces + spread * torch.randn(faces.shape, generator=draw)
        mean += gradients(network, noisy, classes) / SAMPLES
    return mean


def absolute_smooth_gradient(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
    """SmoothGrad as its authors show it."""
    return smooth_gradients(network, faces, classes).abs().amax(1)


def smooth_gradient_times_face(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
    """SmoothGrad × the face without noise (Smilkov et al. 2017, section 2.3)."""
    return (smooth_gradients(network, faces, classes) * faces).sum(1)


def grad_cam_fused(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM of what enters stage 4: the face's map with the regions' added."""
    return _grad_cam(network, faces, classes, lambda fused, _: fused)


def grad_cam_last(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM of what leaves stage 4, the last map before the mean."""
    return _grad_cam(network, faces, classes, lambda _, last: last)


def _grad_cam(
    network: PCNN,
    faces: Tensor,
    classes: Tensor,
    choose: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Selvaraju et al. 2017, section 3. choose: of what enters and what leaves stage 4."""
    calls = []
    hook = network.layer4.register_forward_hook(
        lambda _, given, made: calls.append((given[0], made))
    )
    try:
        odds = log_odds(network, faces.clone().requires_grad_(), classes)
    finally:
        hook.remove()
    maps = choose(*calls[-1])  # the call before was the registration's
    (slopes,) = torch.autograd.grad(odds.sum(), maps)
    return _enlarged((slopes.mean((2, 3), keepdim=True) * maps).sum(1).detach(), faces.shape[-1])


def guided_gradient(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
    """Guided backpropagation (Springenberg et al. 2015), absolute."""
    with _RectifiedGradients(masked=True):
        return gradients(network, faces, classes).abs().amax(1)


def deconvnet(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
    """What the class projects to as pcnn.deconvnet projects maps, absolute: Zeiler and Fergus 2014.

    pcnn.deconvnet ends at the trunks; above them the same is done to stage 4 and the interaction.
    """
    with _RectifiedGradients(masked=False):
        return gradients(network, faces, classes).abs().amax(1)


class _RectifiedGradients(TorchFunctionMode):
    """Within it every rectifier rectifies the gradient, too.

    masked: and masks it as ever, where the rectifier's input was below 0.
    """

    def __init__(self, *, masked: bool) -> None:
        super().__init__()
        self.masked = masked

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is not F.relu:
            return function(*args, **(kwargs or {}))
        (maps,) = args
        passed = maps.relu()
        if not self.masked:
            passed = maps + (passed - maps).detach()  # the same values, the gradient unmasked
        if passed.requires_grad:
            passed.register_hook(lambda gradient: gradient.clamp(min=0))
        return passed


@torch.no_grad()
def occlusion(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
    """What a window filled with 0 takes from the log-odds (Zeiler and Fergus 2014, section 4.2)."""
    side = faces.shape[-1]
    place = side / PLACES
    windows = [
        slice(max(round((i - 0.5) * place), 0), round((i + 1.5) * place)) for i in range(PLACES)
    ]
    whole = log_odds(network, faces, classes)
    drops = []
    for rows in windows:
        line = []
        for columns in windows:
            hidden = faces.clone()
            hidden[:, :, rows, columns] = 0
            line.append(hidden)
        odds = log_odds(network, torch.cat(line), classes.repeat(PLACES))
        drops.append(whole - odds.view(PLACES, -1))  # (columns, B)
    return _enlarged(torch.stack(drops).permute(2, 0, 1), side)


def _enlarged(maps: Tensor, side: int) -> Tensor:
    """(B, h, w) → (B, side, side), bilinear."""
    return F.interpolate(maps[:, None], (side, side), mode="bilinear")[:, 0]


def smoothed(kind: HeatKind) -> HeatKind:
    """The same kind, smoothed and scaled as explanations.heat_maps does it."""

    def heat_of(network: PCNN, faces: Tensor, classes: Tensor) -> Tensor:
        heat = blur(kind(network, faces, classes), SMOOTH * faces.shape[-1]).clamp(min=0)
        return heat / heat.amax((1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)

    return heat_of


KINDS: dict[str, HeatKind] = {
    SHIPPED: shipped_heat,
    "integrated gradients, 1 step": smoothed(one_step),
    "gradient × face": smoothed(gradient_times_face),
    "absolute gradient": smoothed(absolute_gradient),
    f"SmoothGrad ({SAMPLES}), absolute": smoothed(absolute_smooth_gradient),
    f"SmoothGrad ({SAMPLES}) × face": smoothed(smooth_gradient_times_face),
    "Grad-CAM, stage 4's input": smoothed(grad_cam_fused),
    "Grad-CAM, stage 4's output": smoothed(grad_cam_last),
    "guided backpropagation, absolute": smoothed(guided_gradient),
    "deconvnet, absolute": smoothed(deconvnet),
    f"occlusion, {PLACES} × {PLACES} windows": smoothed(occlusion),
}


# --- figures ---


def _told(
    name: str, drops: dict[str, Array], left: dict[str, Array], seconds: dict[str, float]
) -> dict[str, Any]:
    """One line of the table: means with intervals, and paired differences to what ships."""
    told: dict[str, Any] = {"drop": mean_interval(drops[name])}
    told["drop_difference"] = mean_interval(drops[name] - drops[SHIPPED])
    if name in left:
        told["correlation"] = mean_interval(left[name])
        told["correlation_difference"] = mean_interval(left[name] - left[SHIPPED])
        told["seconds"] = seconds[name]
    return told


def _better_on_both(kinds: dict[str, Any]) -> list[str]:
    """Kinds that take more of the answer and leave less of the map, both beyond the interval."""
    found = []
    for name, told in kinds.items():
        if name in (SHIPPED, "random spots"):
            continue
        _, low, high = told["correlation_difference"]
        nearer_to_none = abs(told["correlation"][0]) < abs(kinds[SHIPPED]["correlation"][0])
        if told["drop_difference"][1] > 0 and nearer_to_none and not low <= 0 <= high:
            found.append(name)
    return found


def _table(record: dict[str, Any]) -> str:
    kinds = record["kinds"]
    better = ", ".join(_better_on_both(kinds)) or "none"
    lines = [
        f"Weights `{record['weights_sha256'][:12]}`, {record['faces']} faces of FER+ valid, seed "
        f"{record['seed']}; drops in points, with 95 % intervals; seconds of processor time a "
        f"face, {BATCH} faces at once, {record['processor']}. "
        f"Better than the first on both tests, beyond the intervals: {better}.",
        "",
        "| kind of map | drop, hottest 10 % hidden | difference to the first "
        "| rank correlation, random weights | seconds |",
        "|---|---|---|---|---|",
    ]
    for name, told in kinds.items():
        drop = _interval(told["drop"], "{:.1f}", 100)
        difference = "" if name == SHIPPED else _interval(told["drop_difference"], "{:+.1f}", 100)
        left, seconds = "", ""
        if "correlation" in told:
            left, seconds = _interval(told["correlation"], "{:.2f}"), f"{told['seconds']:.2f}"
        lines.append(f"| {name} | {drop} | {difference} | {left} | {seconds} |")
    sparse = [f"{name} ({count})" for name, count in record["hot_in_less"].items() if count]
    if sparse:
        note = "Maps that are hot in less than 10 %, of which only that much was hidden"
        lines += ["", f"{note}: {', '.join(sparse)}."]
    return "\n".join(lines)


def _interval(values: list[float], form: str, scale: float = 1) -> str:
    mean, low, high = (form.format(scale * value).replace("-", "−") for value in values)
    return f"{mean} ({low} … {high})"


if __name__ == "__main__":
    raise SystemExit(main())
