"""Arrow batches of pictures become batches of faces, as Spark hands them over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcnn import Recognizer, to_arrow
from pcnn.distributed import predict_batches
from pcnn.distributed.batches import BatchRecognizer
from pcnn.errors import InputError
from pcnn.results.tables import COLUMNS, face_schema

pytestmark = pytest.mark.tables
SMALL = {"weights": "small"}


def assert_same(found: Any, expected: Any) -> None:
    """Row by row: words equal, numbers but for what another batch size rounds differently."""
    assert found.schema.names == expected.schema.names
    for name in expected.schema.names:
        one, other = found.column(name).to_pylist(), expected.column(name).to_pylist()
        if expected.schema.field(name).type == "float":
            pairs = [np.array([np.nan if v is None else v for v in each]) for each in (one, other)]
            np.testing.assert_allclose(*pairs, rtol=1e-4, atol=1e-4, err_msg=name)
        else:
            assert one == other, name


@pytest.fixture(scope="module")
def batch(astronaut: Path) -> Any:
    import pyarrow

    contents = [astronaut.read_bytes(), b"", None, b"no picture at all"]
    return pyarrow.record_batch({"bytes": contents, "path": ["a.png", "b.png", "c.png", None]})


def test_batches_of_bytes(batch: Any, astronaut: Path) -> None:
    import pyarrow

    found = pyarrow.Table.from_batches(
        predict_batches(iter([batch, batch]), recognizer_options=SMALL)
    )
    recognizer = Recognizer(**SMALL)
    assert found.schema == face_schema(recognizer.classes) and found.num_rows == 8
    assert found.column("source").to_pylist() == ["a.png", "b.png", "c.png", None] * 2
    errors = found.column("error").to_pylist()[:4]
    assert errors[0] is None and errors[1] == "b.png: the file is empty (0 bytes)"
    assert "c.png" in errors[2] and "it is null" in errors[2]
    assert errors[3] == "picture: text, not a picture"
    expected = to_arrow(recognizer.predict(str(astronaut)), sources=["a.png"])
    assert_same(found.slice(0, 1), expected)


def test_paths(astronaut: Path) -> None:
    import pyarrow

    paths = [str(astronaut), astronaut.resolve().as_uri(), "missing.jpg", None]
    (found,) = predict_batches(
        iter([pyarrow.record_batch({"path": paths})]), column="path", recognizer_options=SMALL
    )
    assert found.column("source").to_pylist() == paths
    assert found.column("label").to_pylist() == ["happiness", "happiness", None, None]
    assert found.column("error").to_pylist()[2] == "missing.jpg: no such file"


def test_a_process_keeps_its_recognizer(batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = BatchRecognizer.__init__

    def counting(self: Any, **options: Any) -> None:
        made.append(1)
        original(self, **options)

    monkeypatch.setattr(BatchRecognizer, "__init__", counting)
    for _ in range(3):
        list(predict_batches(iter([batch.slice(1, 1)]), source="no", recognizer_options=SMALL))
    assert len(made) == 1


def test_errors(batch: Any) -> None:
    with pytest.raises(InputError, match="column must be 'bytes' or 'path', got 'image'"):
        list(predict_batches(iter([]), column="image"))
    other = batch.rename_columns(["image", "path"])
    with pytest.raises(InputError, match="column 'bytes' must be in the data, got image, path"):
        list(predict_batches(iter([other]), recognizer_options=SMALL))


def test_an_empty_batch_has_the_schema(batch: Any) -> None:
    recognize = BatchRecognizer(options=SMALL)
    empty = recognize(batch.slice(0, 0))
    assert empty.num_rows == 0 and empty.schema.names[: len(COLUMNS)] == list(COLUMNS)
