"""Times of the packaged expression weights: one face, and each of many, interleaved in one run.

python benchmarks/bench_weights.py --threads 2

Prepared networks on a CPU, from views to logits, with mirror images where the weights use them.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from pcnn.engines.classifier import prepare
from pcnn.weights import SPECS, load_expression

NAMES = [name for name, spec in SPECS.items() if spec.kind == "expression"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--weights", nargs="+", default=NAMES)
    add("--faces", nargs="+", type=int, default=[1, 64])
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=14)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases = {}
    for name in arguments.weights:
        loaded = load_expression(name)
        config, prepared = loaded.network.config, prepare(loaded.network)
        for faces in arguments.faces:
            picture = torch.randn(faces, config.channels, config.size, config.size)
            views = [
                view.contiguous(memory_format=torch.channels_last)
                for view in loaded.network.cut(picture)
            ]
            cases[name, faces] = loaded, prepared, views
    times: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    with torch.inference_mode():
        for _ in range(arguments.rounds):
            for case, (loaded, prepared, views) in cases.items():
                own = []
                for _ in range(6 if case[1] == 1 else 1):
                    began = time.perf_counter()
                    loaded.answer(prepared.forward_views, views)
                    own.append(time.perf_counter() - began)
                times[case].append(min(own))
    print(f"{arguments.threads} threads, ms a face, median of {arguments.rounds} rounds")
    for (name, faces), found in times.items():
        print(f"{name:20} {faces:4} faces {1000 * statistics.median(found) / faces:8.2f}")


if __name__ == "__main__":
    main()
