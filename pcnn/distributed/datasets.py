"""Recognition of datasets of pictures with Ray Data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pcnn.distributed.batches import BatchRecognizer, check_column
from pcnn.distributed.deaths import RayWatch
from pcnn.errors import InputError, check_count, is_number
from pcnn.results.tables import needed


def predict_dataset(  # noqa: PLR0913 - all options of a cluster, by keyword
    dataset: Any,
    *,
    column: str = "bytes",
    source: str = "path",
    recognizer_options: Mapping[str, Any] | None = None,
    min_score: float | None = None,
    batch_size: int = 64,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
) -> Any:
    """The faces of a ray.data.Dataset of pictures, as a Dataset with a row for each face.

    column: "bytes", the contents of picture files (as `ray.data.read_binary_files` gives them),
        or "path", paths or URIs that the workers can read.
    source: the column that names the pictures of "bytes", if it is there.
    recognizer_options: arguments of `Recognizer` by name.
    min_score: as for `Recognizer.predict`.
    batch_size: pictures for a worker at a time.
    concurrency: how many workers, or (least, most); each makes one Recognizer. None is as many as
        fit into the cluster, less one on a CPU, whose core reads the data.
    num_cpus: cores of a worker, and the threads that it computes with. num_gpus: its GPUs.
    Nothing is read before the result is, and then it streams. Columns: see docs/tables.md. A
    picture that cannot be read has a row with its error; a worker that dies is started again. So
    has a picture that kills its workers: see docs/scale.md.
    Raises InputError: ray is not installed; a column or number that cannot be.

    >>> import ray
    >>> from pcnn.distributed import predict_dataset
    >>> pictures = ray.data.read_binary_files("docs/images/astronaut.png", include_paths=True)
    >>> [row] = predict_dataset(pictures, concurrency=1).take()
    >>> row["label"]
    'happiness'
    """
    ray = ray_modules("predict_dataset")
    check_column(column, "predict_dataset")
    check_count("predict_dataset", "batch_size", batch_size)
    where = placement(concurrency, num_cpus=num_cpus, num_gpus=num_gpus)
    return dataset.map_batches(
        BatchRecognizer,
        fn_constructor_kwargs={
            "column": column,
            "source": source,
            "options": dict(recognizer_options or {}),
            "min_score": min_score,
            "threads": max(1, int(num_cpus)),
            "watch": RayWatch(ray),
        },
        batch_format="pyarrow",
        batch_size=batch_size,
        **where,
    )


def placement(
    concurrency: int | tuple[int, int] | None, *, num_cpus: float, num_gpus: float
) -> dict[str, Any]:
    """What `map_batches` must be told to start workers: how many, and what each of them has.

    Raises InputError: a number below 1, or more than the cluster has.
    """
    ray = ray_modules("predict_dataset")
    if not all(is_number(each) and each < math.inf for each in (num_cpus, num_gpus)) or (
        num_cpus <= 0 or num_gpus < 0
    ):
        raise InputError(
            "predict_dataset: num_cpus must be above 0 and num_gpus not below, both finite, "
            f"got {num_cpus!r} and {num_gpus!r}"
        )
    if not ray.is_initialized():
        ray.init()
    resources = ray.cluster_resources()
    fitting = resources.get("CPU", 0) / num_cpus
    if num_gpus:
        fitting = min(fitting, resources.get("GPU", 0) / num_gpus)
    if concurrency is None:
        concurrency = max(1, int(fitting) - (0 if num_gpus else 1))
    least, most = concurrency if isinstance(concurrency, tuple) else (concurrency, concurrency)
    for each in (least, most):
        check_count("predict_dataset", "concurrency", each)
    if least > most:
        raise InputError(
            f"predict_dataset: concurrency must be the least and the most, got {concurrency}"
        )
    if least > fitting:
        raise InputError(
            f"predict_dataset: concurrency must be at most {int(fitting)}, as the cluster has "
            f"{resources.get('CPU', 0):g} cores and {resources.get('GPU', 0):g} GPUs, got {least}"
        )
    pool = ray.data.ActorPoolStrategy(min_size=least, max_size=most)
    return {"compute": pool, "num_cpus": num_cpus, "num_gpus": num_gpus}


def ray_modules(function: str) -> Any:
    """The module `ray`, with `ray.data` imported. Raises InputError: it is not installed."""
    needed("ray.data", function, "ray")
    return needed("ray", function, "ray")
