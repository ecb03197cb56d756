"""Times the native ops against plain PyTorch, side by side in one run.

    python benchmarks/bench_ops.py [--device cuda] [--quick] [--json FILE] [--page docs/ops.md]

Each line gives medians of interleaved repetitions, in microseconds: of the whole call of a
pcnn.ops function (checks, dispatch, memory for the result), of the reference behind the same
checks, and of the reference compiled by torch.compile. "floor" is the time a plain copy needs for
the bytes that the op must read and write at least, as a share of the native time: 100 % would be
a kernel as fast as memory.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from shared import keep, processor, require_native
from torch import Tensor

from pcnn import ops
from pcnn.faces.geometry import face_transforms
from pcnn.networks.anchors import anchor_grid
from pcnn.networks.regions import RegionLayout
from pcnn.ops import native, reference

CHANNELS = 256
# Face size → sizes of the five region maps and the face map (pcnn.regions, stride 16).
MAPS = {
    96: ((3, 3), (3, 3), (1, 3), (1, 3), (3, 6), (6, 6)),
    224: ((7, 7), (7, 7), (3, 7), (3, 7), (5, 14), (14, 14)),
}
# The six views of the network, in pixels.
VIEWS = {
    96: ((96, 96), (48, 48), (48, 48), (14, 48), (14, 48), (34, 96)),
    224: ((224, 224), (112, 112), (112, 112), (33, 112), (33, 112), (79, 224)),
}
NORMALISATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
Call = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """Median microseconds of one case, each way of computing it."""

    name: str
    native: float
    reference: float
    compiled: float | None  # by torch.compile
    floor: float  # share of the native time that a plain copy of the bytes needs, 0…1

    def cells(self) -> tuple[str, ...]:
        """As tables show it."""
        compiled = ("–", "–")
        if self.compiled is not None:
            compiled = (_microseconds(self.compiled), f"{self.compiled / self.native:.1f}")
        ratio = f"{self.reference / self.native:.1f}"
        times = (_microseconds(self.native), _microseconds(self.reference), ratio)
        return (self.name, *times, *compiled, f"{self.floor:.0%}".replace("%", " %"))


def _microseconds(time: float) -> str:
    return f"{time:,.0f}" if time >= 100 else f"{time:.1f}"


HEADINGS = ("", "native, µs", "PyTorch", "ratio", "compiled", "ratio", "floor")


def main() -> None:
    options = _parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    require_native(device)
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} CPU threads")
    print(native.describe())
    if device.type == "cpu":
        print(f"starting and joining a thread: {start_of_a_thread():.0f} µs (from Python)")
    rate = copy_rate(device)
    print(f"a plain copy moves {rate / 1e9:.1f} GB/s (read and written)\n")
    name = processor() if device.type == "cpu" else torch.cuda.get_device_name(device)
    cases: list[Case] = []
    record: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "copied_bytes_per_second": rate,
    }
    print(_line(HEADINGS))
    with torch.inference_mode():
        for kind in (crops, landmark_crops, detections, interactions):
            for case in kind(device, rate, options.quick):
                print(_line(case.cells()), flush=True)
                cases.append(case)
                # A later case may fail, or the time run out.
                record["microseconds"] = [asdict(case) for case in cases]
                keep(record, "", "bench_ops", json_to=options.json, page=None)
        ratios = {str(faces): by_transforms(device, faces) for faces in (1, 16)}
    print("\ntransforms from the host, crop_regions and flips, against landmark_crop:")
    print(", ".join(f"{faces} face(s): {ratio:.2f}" for faces, ratio in ratios.items()))
    record["crop_regions_to_landmark_crop"] = ratios
    text = _as_markdown(record, cases)
    keep(record, text, "bench_ops", json_to=options.json, page=options.page)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the native ops against plain PyTorch.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="few repetitions, no torch.compile")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument(
        "--page", type=Path, help="put the table into this page, where it is marked"
    )
    return parser.parse_args()


def _line(cells: Sequence[str]) -> str:
    first, *others = cells
    return f"{first:44}" + "".join(f"{cell:>11}" for cell in others)


def _as_markdown(record: dict[str, object], cases: Sequence[Case]) -> str:
    threads = "one thread" if record["threads"] == 1 else f"{record['threads']} threads"
    about = f"{record['date']}, {record['device']}, {threads}, torch {record['torch']}."
    rows = [HEADINGS, ("---",) * len(HEADINGS), *(case.cells() for case in cases)]
    lines = [f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows]
    return "\n".join((about, "", *lines))


def crops(device: torch.device, rate: float, quick: bool) -> Iterator[Case]:
    """One face, or several, out of a photograph."""
    image = photograph(device)
    cases = [(96, 200, 1), (224, 200, 1), (224, 600, 1), (224, 200, 16)]
    for side, pixels, faces in cases:
        sizes = VIEWS[side]
        scale = pixels / side  # of image pixels in a view pixel; the face is turned by 0.2 rad
        transform = torch.tensor([[0.98, -0.2, 40.3], [0.2, 0.98, 25.8]])
        transform = transform * torch.tensor([scale, scale, 10.0])
        transforms = transform.expand(faces, len(sizes), 2, 3).contiguous().to(device)

        def crop(
            image: Tensor = image,
            transforms: Tensor = transforms,
            sizes: Sequence[tuple[int, int]] = sizes,
        ) -> object:
            return ops.crop_regions(image, transforms, sizes, **NORMALISATION)

        written = 4 * 3 * faces * sum(height * width for height, width in sizes)
        read = 3 * faces * min(pixels * pixels, image.shape[0] * image.shape[1])
        face = "a face" if faces == 1 else f"{faces} faces"
        name = f"crop {face} of {pixels} px to {side}"
        # The number of taps depends on the data: the reference cannot be compiled.
        floor = (written + read) / rate
        yield measured(name, crop, device, floor, quick, compilable=False)


# The places of the landmarks of FER+, as fractions of the face's side.
TEMPLATE = np.array([[0.33, 0.38], [0.67, 0.37], [0.5, 0.59], [0.37, 0.75], [0.64, 0.74]])


def landmark_crops(device: torch.device, rate: float, quick: bool) -> Iterator[Case]:
    """The same out of a photograph with landmarks, and with mirror images."""
    for side, pixels, faces in [(96, 200, 1), (224, 200, 16)]:
        image, landmarks = photograph(device), np.stack(landmarks_of(faces, pixels))
        points, template = torch.from_numpy(landmarks).to(device), (TEMPLATE * side).tolist()
        boxes = list(RegionLayout().boxes(side).values())

        def crop(
            image: Tensor = image,
            points: Tensor = points,
            template: Sequence[Sequence[float]] = template,
            boxes: Sequence[tuple[int, int, int, int]] = boxes,
        ) -> object:
            return ops.landmark_crop(image, points, template, boxes, mirror=True, **NORMALISATION)

        written = 2 * 4 * 3 * faces * sum(height * width for height, width in VIEWS[side])
        face = "a face" if faces == 1 else f"{faces} faces"
        name = f"{face} of {pixels} px to {side} by landmarks"
        floor = (written + 3 * faces * pixels * pixels) / rate
        yield measured(name, crop, device, floor, quick, compilable=False)


def detections(device: torch.device, rate: float, quick: bool) -> Iterator[Case]:
    """Predictions of a picture of 640 × 480, of which 60 or 300 are candidates."""
    sizes, steps = ((16, 32), (64, 128), (256, 512)), (8, 16, 32)
    anchors = anchor_grid(480, 640, min_sizes=sizes, steps=steps, device=device)
    for batch, candidates in ((1, 60), (1, 300), (8, 60)):
        generator = torch.Generator().manual_seed(5)
        predictions = torch.randn((batch, len(anchors), 15), generator=generator)
        chosen = torch.randperm(len(anchors), generator=generator)[:candidates]
        predictions[..., 0] -= 20
        predictions[:, chosen, 0] += 20
        predictions = predictions.to(device)

        def decode(predictions: Tensor = predictions) -> object:
            options = {"variances": (0.1, 0.2), "iou": 0.4, "most": 2000}
            return ops.decode_faces(predictions, anchors, min_score=0.1, **options)

        # A logit of each anchor is read, in lines of 64 bytes, and the result is written.
        floor = batch * (64 * len(anchors) + 4 * 2001 * 15) / rate
        pictures = "a picture" if batch == 1 else f"{batch} pictures"
        name = f"faces of {pictures}, {candidates} candidates"
        yield measured(name, decode, device, floor, quick, compilable=False)


def by_transforms(device: torch.device, faces: int) -> float:
    """The time of landmark_crop's work without it, over that of landmark_crop; size 96.

    Both begin with landmarks on the host. Without it the transforms of six views are composed
    there, and the views' mirror images are made of the views.
    """
    image, landmarks, layout = photograph(device), landmarks_of(faces, 120), RegionLayout()
    boxes, template = list(layout.boxes(96).values()), (TEMPLATE * 96).tolist()

    def without() -> object:
        transforms = torch.from_numpy(face_transforms(landmarks, TEMPLATE, 96, layout))
        views = ops.crop_regions(image, transforms.to(device), VIEWS[96], **NORMALISATION)
        return [*views, *(view.flip(3) for view in views)]

    def directly() -> object:
        points = torch.from_numpy(np.stack(landmarks)).to(device)
        return ops.landmark_crop(image, points, template, boxes, mirror=True, **NORMALISATION)

    slow, quick = medians([without, directly], device, 2.0)
    return slow / quick


def photograph(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (1080, 1920, 3), dtype=torch.uint8, generator=generator)
    return pixels.to(device)


def landmarks_of(faces: int, pixels: int) -> list[np.ndarray]:
    """Landmarks (5, 2) of faces of so many pixels, turned by 0.2 rad."""
    turn = np.array([[0.98, -0.2], [0.2, 0.98]])
    every = TEMPLATE @ turn.T * pixels + (400, 260)
    return [(every + 10 * face).astype(np.float32) for face in range(faces)]


def interactions(device: torch.device, rate: float, quick: bool) -> Iterator[Case]:
    """stitch_regions and warp_add, as the network calls them one after the other."""
    batches = (1, 32) if device.type == "cpu" else (1, 8, 64, 1024)
    for side, sizes in MAPS.items():
        for batch in batches:
            generator = torch.Generator().manual_seed(4)
            maps = [
                torch.randn((batch, CHANNELS, *size), generator=generator)
                .to(device)
                .contiguous(memory_format=torch.channels_last)
                for size in sizes
            ]
            *regions, face = maps
            theta = torch.eye(2, 3) + 0.1 * torch.randn((batch, 2, 3), generator=generator)
            theta = theta.to(device)

            def pair(
                regions: Sequence[Tensor] = regions, face: Tensor = face, theta: Tensor = theta
            ) -> object:
                stitched = ops.stitch_regions(regions, (face.shape[2], face.shape[3]))
                return ops.warp_add(stitched, theta, face)

            # Regions and face are read, the stitched map is written and read, the sum is written.
            elements = sum(region.numel() for region in regions) + 4 * face.numel()
            name = f"stitch and warp, size {side}, batch {batch}"
            yield measured(name, pair, device, 4 * elements / rate, quick)


def measured(  # noqa: PLR0913, PLR0917
    name: str, call: Call, device: torch.device, floor: float, quick: bool, compilable: bool = True
) -> Case:
    """A case's medians; floor: the seconds that a plain copy of its bytes needs."""

    def by(implementation: object, function: Call) -> Call:
        def run() -> object:
            ops._implementation = implementation
            return function()

        return run

    calls = [by(native, call), by(reference, call)]
    if compilable and not quick:
        torch.compiler.reset()
        ops._implementation = reference
        compiled = torch.compile(call, fullgraph=True)
        try:
            compiled()
        except Exception as error:  # no compiler here; the others are timed
            print(f"{name}: not compiled ({error})")
        else:
            calls.append(by(reference, compiled))
    times = medians(calls, device, 0.5 if quick else 3.0)
    ops._implementation = native
    compiled_time = 1e6 * times[2] if len(times) > 2 else None
    return Case(name, 1e6 * times[0], 1e6 * times[1], compiled_time, floor / times[0])


def medians(calls: Sequence[Call], device: torch.device, seconds: float) -> list[float]:
    """Median time of each call, the calls taking turns for about `seconds` in all."""
    for call in calls:
        for _ in range(5):
            call()
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 11:
        for call, taken in zip(calls, times, strict=True):
            taken.append(one_time(call, device))
    return [statistics.median(taken) for taken in times]


def one_time(call: Call, device: torch.device) -> float:
    if device.type == "cpu":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(10):
        call()
    torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / 10


def copy_rate(device: torch.device) -> float:
    """Bytes read and written a second by a plain copy too large for the caches."""
    source = torch.ones(64 * 2**20 if device.type == "cpu" else 2**30, dtype=torch.uint8)
    source = source.to(device)
    target = torch.empty_like(source)
    taken = medians([lambda: target.copy_(source)], device, 0.5)[0]
    return 2 * source.numel() / taken


def start_of_a_thread() -> float:
    """Median microseconds to start a thread that does nothing and to wait for its end."""
    taken = []
    for _ in range(300):
        start = time.perf_counter()
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        taken.append(time.perf_counter() - start)
    return 1e6 * statistics.median(taken)


if __name__ == "__main__":
    main()
