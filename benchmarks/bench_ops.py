"""Times the native ops against plain PyTorch, side by side in one run.

    python benchmarks/bench_ops.py [--device cuda] [--quick]

Each line gives medians of interleaved repetitions, in microseconds: of the whole call of a
pcnn.ops function (checks, dispatch, memory for the result), of the reference behind the same
checks, and of the reference compiled by torch.compile. "floor" is the time a plain copy needs for
the bytes that the op must read and write at least, as a share of the native time: 100 % would be
a kernel as fast as memory.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pcnn import ops
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the native ops against plain PyTorch.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="few repetitions, no torch.compile")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} CPU threads")
    print(native.describe())
    if device.type == "cpu":
        print(f"starting and joining a thread: {start_of_a_thread():.0f} µs (from Python)")
    rate = copy_rate(device)
    print(f"a plain copy moves {rate / 1e9:.1f} GB/s (read and written)\n")
    print(
        f"{'':44}{'native':>10}{'reference':>11}{'ratio':>8}{'compiled':>10}{'ratio':>8}{'floor':>7}"
    )
    with torch.inference_mode():
        crops(device, rate, options.quick)
        interactions(device, rate, options.quick)


def crops(device: torch.device, rate: float, quick: bool) -> None:
    """One face, or several, out of a photograph."""
    generator = torch.Generator().manual_seed(3)
    photograph = torch.randint(0, 256, (1080, 1920, 3), dtype=torch.uint8, generator=generator)
    image = photograph.to(device)
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
        name = f"crop_regions {side}, {faces} face(s) of {pixels} px"
        # The number of taps depends on the data: the reference cannot be compiled.
        report(name, crop, device, (written + read) / rate, quick, compilable=False)


def interactions(device: torch.device, rate: float, quick: bool) -> None:
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
            name = f"stitch_regions + warp_add {side}, batch {batch}"
            report(name, pair, device, 4 * elements / rate, quick)


def report(  # noqa: PLR0913, PLR0917
    name: str, call: Call, device: torch.device, floor: float, quick: bool, compilable: bool = True
) -> None:
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
        compiled()
        calls.append(by(reference, compiled))
    times = medians(calls, device, 0.5 if quick else 3.0)
    ops._implementation = native
    line = f"{name:44}{times[0] * 1e6:10.1f}{times[1] * 1e6:11.1f}{times[1] / times[0]:8.1f}"
    if len(times) > 2:
        line += f"{times[2] * 1e6:10.1f}{times[2] / times[0]:8.1f}"
    else:
        line += f"{'–':>10}{'–':>8}"
    print(f"{line}{floor / times[0]:7.0%}", flush=True)


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
