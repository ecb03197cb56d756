"""Resumable jobs: each partition of the output is a file, complete or absent.

The output has a folder `_job`, which readers of Parquet ignore. It contains the plan, so that a
restart recognises the same job, and incomplete files.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from pcnn.disk import whole_file
from pcnn.distributed.datasets import placement, ray_modules
from pcnn.distributed.deaths import MOST_DEATHS, RayWatch, Watch, guarded, left_out
from pcnn.distributed.sources import Partition, open_film, read_partition
from pcnn.errors import InputError
from pcnn.images.files import shown
from pcnn.recognition.recognizer import Recognizer
from pcnn.results.parquet import ParquetReport, parquet_report
from pcnn.results.tables import needed

_JOB = "_job"


@dataclass(frozen=True)
class JobOptions:
    """Options that determine a job's results.

    recognizer: arguments of `Recognizer` by name, as values for JSON.
    crops: True if each picture is a cut-out face. min_score: as for `Recognizer.predict`.
    films: other arguments of `Recognizer.predict_video` by name.
    weights_sha256: of the files of all weights and of the head, with blanks between; a file may
        change under the same name.
    """

    recognizer: Mapping[str, Any] = field(default_factory=dict)
    crops: bool = False
    min_score: float | None = None
    films: Mapping[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""


@dataclass(frozen=True)
class Done:
    """The result of one partition: number of faces, and of unreadable pictures.

    problem: the reason for a missing file; empty otherwise.
    """

    number: int
    faces: int = 0
    failed: int = 0
    problem: str = ""


class PartitionRecognizer:
    """A recognizer in its own process, which writes the files of partitions.

    threads: torch's number of threads in this process; None does not change it.
    watch: leaves pictures out that kill this process again and again; None does not.
    """

    def __init__(
        self,
        output: str,
        options: JobOptions,
        threads: int | None = None,
        watch: Watch | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._watch = watch
        if watch is not None:
            watch.start()
        self._output, self._options = Path(output), options
        self._recognizer = Recognizer(**options.recognizer)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Process Ray's batch with the column `partition`, JSON of Partitions; returns Dones."""
        partitions = [json.loads(text) for text in batch["partition"]]
        done = [self.write(partition_of(each)) for each in partitions]
        return {"done": [json.dumps(asdict(each)) for each in done]}

    def write(self, partition: Partition) -> Done:
        """Read one partition's pictures and write its file, unless it already exists.

        It may be repeated after a crash, or run twice at the same time: the file is renamed when
        it is complete, and both runs write the same rows.
        """
        target = self._output / file_name(partition.number)
        if not target.exists():
            temporary = self._output / _JOB / f"{uuid.uuid4().hex}.parquet"
            try:
                self._read(partition, temporary)
                os.replace(temporary, target)  # noqa: PTH105
            except Exception as error:  # of whatever kind: the other partitions go on
                temporary.unlink(missing_ok=True)
                if self._watch is not None:
                    self._watch.forget()
                plain = isinstance(error, (InputError, OSError))
                kind = "" if plain else f"{file_name(partition.number)}: {type(error).__name__}: "
                return Done(partition.number, problem=f"{kind}{error}")
        return outcome(target, partition.number)

    def _read(self, partition: Partition, target: Path) -> None:
        own = self._recognizer
        with parquet_report(target, own.classes, own.value_names, own.movements) as report:
            if partition.film:
                self._film(partition, report)
            for name, result in guarded(
                *(self._watch, f"partition {partition.number}"),
                read_partition(partition),
                self._predict,
            ):
                report.add(name, result)

    def _film(self, partition: Partition, report: ParquetReport) -> None:
        """The frames of a film; after them its error, if it cannot be read (to the end)."""
        place = f"partition {partition.number}/"
        try:
            if self._watch is not None and self._watch.begin(place) >= MOST_DEATHS:
                raise InputError(left_out(partition.film, "film"))
            options = {**self._options.films, "min_score": self._options.min_score}
            with self._recognizer.predict_video(open_film(partition.film), **options) as frames:
                for frame in frames:
                    report.add_frame(replace(frame, source=partition.film))
        except InputError as error:
            report.fail(partition.film, error)
        if self._watch is not None:
            self._watch.end(place)

    def _predict(self, pictures: Iterator[Any]) -> Iterator[Any]:
        results: Iterator[Any]
        if self._options.crops:
            results = self._recognizer.predict_crops(pictures, on_error="return")
        else:
            results = self._recognizer.predict(
                pictures, min_score=self._options.min_score, on_error="return"
            )
        return results


def prepare(output: Path, partitions: Sequence[Partition], options: JobOptions) -> list[Partition]:
    """The remaining partitions; makes the output's folder and plan if they are missing.

    Raises InputError: the output is a file, or has results of another job with other pictures,
        partitions or options.
    """
    plan = {
        "schema": 1,
        "partitions": len(partitions),
        "sha256": sha256(
            json.dumps([asdict(options), [asdict(each) for each in partitions]]).encode()
        ).hexdigest(),
    }
    try:
        (output / _JOB).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{shown(output)}: must be a folder of Parquet files to write to ({error.strerror})"
        ) from error
    kept = output / _JOB / "plan.json"
    if not kept.exists():
        if any(output.glob("*.parquet")):
            raise InputError(f"{shown(output)}: has other files in it: choose another --output")
        with whole_file(kept) as temporary:
            temporary.write_text(json.dumps(plan) + "\n")
    elif _read_plan(kept) != plan:
        raise InputError(
            f"{shown(output)}: has results of another job, with other pictures or options: choose "
            "another --output, or delete it"
        )
    return [each for each in partitions if not (output / file_name(each.number)).exists()]


def _read_plan(path: Path) -> object:
    """The plan of a job; None for a file that is none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def clear(output: Path) -> None:
    """Delete incomplete files of killed workers, after all partitions are complete."""
    for left in (output / _JOB).glob("*.parquet"):
        left.unlink(missing_ok=True)


def run_on_ray(  # noqa: PLR0913
    output: Path,
    todo: Sequence[Partition],
    options: JobOptions,
    *,
    workers: int | None,
    num_cpus: float,
    num_gpus: float,
) -> Iterator[Done]:
    """Process the partitions on the cluster of Ray, and yield their results when ready.

    workers, num_cpus, num_gpus: as `concurrency`, … of `predict_dataset`; workers=None uses all
        cores.
    Raises InputError: as `placement`.
    """
    ray = ray_modules("pcnn-predict --ray")
    if workers is None:
        kind, share = ("GPU", num_gpus) if num_gpus else ("CPU", num_cpus)
        workers = max(1, int(ray.cluster_resources().get(kind, 0) / share))
    workers = min(workers, len(todo))
    rows = [{"partition": json.dumps(asdict(each))} for each in todo]
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), 2048))
    done = dataset.map_batches(
        PartitionRecognizer,
        fn_constructor_args=(str(output.resolve()), options, max(1, int(num_cpus)), RayWatch(ray)),
        batch_size=1,
        **placement(workers, num_cpus=num_cpus, num_gpus=num_gpus),
    )
    for row in done.iter_rows():
        yield Done(**json.loads(row["done"]))


def outcome(path: Path, number: int) -> Done:
    """The result of a partition, from its file's footer.

    Raises InputError: the file is damaged, or another one.
    """
    parquet = needed("pyarrow.parquet", "pcnn-predict --ray", "ray")
    filled = {"face": 0, "error": 0}
    try:
        about = parquet.read_metadata(path)
        columns = {name: i for i, name in enumerate(about.schema.to_arrow_schema().names)}
        for group in range(about.num_row_groups):
            for name in filled:
                filled[name] += about.row_group(group).column(columns[name]).statistics.num_values
    except Exception as error:  # pyarrow raises many kinds of errors
        raise InputError(
            f"{shown(path)}: is damaged, or no file of this command ({error}): delete it"
        ) from error
    return Done(number, faces=filled["face"], failed=filled["error"])


def file_name(number: int) -> str:
    """The file name of a partition; names sort like numbers, up to a hundred million."""
    return f"faces-{number:08d}.parquet"


def partition_of(fields: Mapping[str, Any]) -> Partition:
    """A Partition from its JSON."""
    return Partition(
        fields["number"],
        tuple(fields["pictures"]),
        fields["parquet"],
        tuple(fields["row_groups"]),
        fields["film"],
    )
