"""One tidy table of faces for pandas and Arrow: a row a face, columns as in docs/tables.md."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pcnn.errors import InputError, check_texts
from pcnn.images.files import as_unicode
from pcnn.results.frames import LANDMARK_COLUMNS, Frame
from pcnn.results.movements import movement_columns
from pcnn.results.values import Expression, Face, Prediction

# Column → its type in Arrow, in order; float32 columns for each class and each value follow.
COLUMNS: Mapping[str, str] = {
    "source": "string",
    "frame": "int64",
    "time_s": "float64",
    "face": "int32",
    "label": "string",
    "confidence": "float32",
    "x1": "float32",
    "y1": "float32",
    "x2": "float32",
    "y2": "float32",
    "detection_score": "float32",
    "angle": "float32",
    "quality": "float32",
    **dict.fromkeys(LANDMARK_COLUMNS, "float32"),
    "track": "int64",
    "width": "int32",
    "height": "int32",
    "error": "string",
}
# After the classes and values, where movements are read: pose and movements, then the mesh.
MESH = "mesh"
# Raised whenever a column changes its name, type or meaning.
SCHEMA_VERSION = 1

_BOX = ("x1", "y1", "x2", "y2")
# Whole numbers that may be missing, in pandas.
_PANDAS_TYPES = {"int32": "Int32", "int64": "Int64"}

Result: TypeAlias = Prediction | Frame | Expression | InputError


def to_pandas(
    predictions: Result | Iterable[Result],
    *,
    sources: Sequence[str | os.PathLike[str] | None] | None = None,
    classes: Sequence[str] | None = None,
    values: Sequence[str] | None = None,
    movements: Sequence[str] | None = None,
) -> Any:
    """A pandas.DataFrame with a row for each face, see docs/tables.md.

    predictions: what `Recognizer.predict` or `predict_crops` returns, for one picture or many,
        also with on_error="return"; or what `predict_video` does. A picture or frame without
        faces, or a picture that could not be read, has one row in which `face` is missing.
    sources: a name or path for each picture; None takes those of the predictions. Names of files
        that are no Unicode are escaped.
    classes: names of the expressions, in order, as `Recognizer.classes`; None takes those of
        the first face. Without any face there is no column for them.
    values: names of the numbers of a ValueHead, as `Recognizer.value_names`; None takes all that
        any face has.
    movements: names of movements, in the same way, as `Recognizer.movements`.
    Numbers keep every digit. No prediction gives a table without rows.
    Raises InputError: pandas is not installed; predictions that are none; faces of different
        classes; a class that is named like another column; more or fewer sources than predictions.

    >>> from pcnn import Recognizer, to_pandas
    >>> table = to_pandas(Recognizer().predict(["docs/images/astronaut.png"]))
    >>> table.label.tolist()
    ['happiness']
    """
    pandas = needed("pandas", "to_pandas")
    filled, names = _filled("to_pandas", predictions, sources, (classes, values, movements))
    kinds = _types("to_pandas", *names)
    types = {name: _PANDAS_TYPES.get(kind, kind) for name, kind in kinds.items()}
    mesh = {MESH: filled.pop(MESH)} if types.pop(MESH, None) else {}
    columns = {name: pandas.array(filled[name], dtype=types[name]) for name in filled}
    return pandas.DataFrame(
        {
            # Plain NumPy floats with NaN, on which all of pandas and its friends work.
            name: column.to_numpy(types[name].lower(), na_value=float("nan"))
            if types[name] in ("float32", "float64")
            else column
            for name, column in columns.items()
        }
        | mesh
    )


def to_arrow(
    predictions: Result | Iterable[Result],
    *,
    sources: Sequence[str | os.PathLike[str] | None] | None = None,
    classes: Sequence[str] | None = None,
    values: Sequence[str] | None = None,
    movements: Sequence[str] | None = None,
) -> Any:
    """A pyarrow.Table with a row for each face, of the schema `face_schema`.

    predictions, sources, classes, values, movements: as for `to_pandas`.
    Raises InputError: pyarrow is not installed; else as `to_pandas`.

    >>> from pcnn import Recognizer, to_arrow
    >>> to_arrow(Recognizer().predict("docs/images/astronaut.png")).num_rows
    1
    """
    pyarrow = needed("pyarrow", "to_arrow")
    filled, names = _filled("to_arrow", predictions, sources, (classes, values, movements))
    return pyarrow.table(filled, schema=face_schema(*names))


def face_schema(
    classes: Sequence[str], values: Sequence[str] = (), movements: Sequence[str] = ()
) -> Any:
    """The pyarrow.Schema of a table of faces, for these classes, values and movements in order.

    Its metadata `pcnn` is JSON with the schema's version, the classes, and values and movements
    if any.
    Raises InputError: pyarrow is not installed; names that are no texts; a class that is named
        like another column.
    """
    pyarrow = needed("pyarrow", "face_schema")
    for kind, texts in (("classes", classes), ("values", values), ("movements", movements)):
        check_texts(f"face_schema: {kind}", texts)
    types = _types("face_schema", classes, values, movements).items()
    about = {"schema": SCHEMA_VERSION, "classes": list(classes)}
    if values:
        about["values"] = list(values)
    if movements:
        about["movements"] = list(movements)
    points = pyarrow.list_(pyarrow.float32())
    fields = [(name, points if name == MESH else getattr(pyarrow, kind)()) for name, kind in types]
    return pyarrow.schema(fields, metadata={"pcnn": json.dumps(about)})


def needed(package: str, function: str, extra: str = "tables") -> Any:
    """A package of an extra, imported.

    Raises InputError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        raise InputError(
            f"{function}: {name} must be installed: pip install 'pcnn[{extra}]'"
        ) from error


def _types(
    function: str, classes: Sequence[str], values: Sequence[str], movements: Sequence[str]
) -> dict[str, str]:
    """Every column's type, those of classes, values and movements included."""
    moving = dict.fromkeys(movement_columns(movements), "float32")
    if movements:
        moving[MESH] = "list"
    for kind, names in (("classes", classes), ("values", values)):
        taken = [name for name in names if name in COLUMNS or name in moving]
        if taken:
            raise InputError(
                f"{function}: {kind} must not be named like other columns, got {taken[0]!r}: "
                "fit the head with another name"
            )
    return {**COLUMNS, **dict.fromkeys((*classes, *values), "float32"), **moving}


def _filled(
    function: str,
    predictions: Result | Iterable[Result],
    sources: Sequence[str | os.PathLike[str] | None] | None,
    names: tuple[Sequence[str] | None, ...],
) -> tuple[dict[str, list[Any]], tuple[Sequence[str], ...]]:
    """The columns' contents by name, and the names of classes, values and movements."""
    results = _results(function, predictions)
    if sources is None:
        sources = [getattr(result, "source", None) for result in results]
    for kind, texts in zip(("classes", "values", "movements"), names, strict=True):
        if texts is not None:
            check_texts(f"{function}: {kind}", texts)
    check_texts(f"{function}: sources", sources, sources=True)
    named = [None if source is None else os.fspath(source) for source in sources]
    if len(named) != len(results):
        raise InputError(
            f"{function}: sources must be one for each of {len(results)} predictions, "
            f"got {len(named)}"
        )
    faces = [face for result in results for face in _faces(result)]
    found = (
        tuple(faces[0].scores) if faces else (),
        tuple(dict.fromkeys(name for face in faces for name in face.values)),
        tuple(dict.fromkeys(name for face in faces for name in _movements(face))),
    )
    given = zip(names, found, strict=True)
    known = tuple(own if asked is None else asked for asked, own in given)
    classes = known[0]
    columns: dict[str, list[Any]] = {name: [] for name in _types(function, *known)}
    for source, result in zip(named, results, strict=True):
        # Names that are no Unicode cannot be text in Arrow.
        for row in _rows(source and as_unicode(source), result):
            if row.get("label") is not None and list(row["scores"]) != list(classes):
                raise InputError(
                    f"{function}: predictions must all have the classes {', '.join(classes)}; "
                    f"got {', '.join(row['scores'])}: make one table for each recognizer"
                )
            own = {**row.pop("scores", {}), **row.pop("values", {})}
            for name, column in columns.items():
                column.append(own[name] if name in own else row.get(name))
    return columns, known


def _results(function: str, predictions: Any) -> list[Any]:
    """The results in a list, also a single one. Raises InputError: something else is there."""
    if _is_result(predictions):
        return [predictions]
    if isinstance(predictions, (str, bytes, Mapping)) or not isinstance(predictions, Iterable):
        wrong = [predictions]
    else:
        results = list(predictions)
        wrong = [result for result in results if not _is_result(result)]
        if not wrong:
            return results
    raise InputError(
        f"{function}: predictions must be what Recognizer.predict, predict_crops or predict_video "
        f"returns, got {type(wrong[0]).__name__}"
    )


def _is_result(value: Any) -> bool:
    """Whether a value has faces, as a Prediction or a Frame, is one, or an error in its place."""
    return isinstance(value, (Expression, InputError)) or hasattr(value, "faces")


def _faces(result: Any) -> Sequence[Expression]:
    """The faces of a picture's result; an Expression is one."""
    if isinstance(result, Expression):
        return (result,)
    return () if isinstance(result, InputError) else result.faces


def _movements(face: Expression) -> Iterable[str]:
    """The names of a face's movements, if they were read."""
    return getattr(face, "movements", None) or ()


def _rows(source: str | None, result: Any) -> Iterator[dict[str, Any]]:
    """A row for each face by names, or the one of a picture without; scores as one mapping."""
    common = {
        "source": source,
        "frame": getattr(result, "index", None),
        "time_s": getattr(result, "time", None),
        "width": getattr(result, "width", None),
        "height": getattr(result, "height", None),
    }
    faces = _faces(result)
    if not faces:
        error = str(result) if isinstance(result, InputError) else None
        yield {**common, "error": error}
    for number, face in enumerate(faces, 1):
        yield {**common, "face": number, **_face_values(face)}


def _face_values(face: Expression) -> dict[str, Any]:
    """What one face has; a place only if it was found in a photograph."""
    values = {"label": face.label, "confidence": float(face.confidence)}
    values |= {"scores": face.scores, "values": face.values}
    if isinstance(face, Face):
        values["detection_score"] = float(face.detection_score)
        values["angle"] = face.angle
        values["quality"] = face.quality
        values["track"] = getattr(face, "track", None)
        values.update(zip(_BOX, map(float, face.box), strict=True))
        points = (float(value) for point in face.landmarks for value in point)
        values.update(zip(LANDMARK_COLUMNS, points, strict=True))
        if face.motion is not None:
            pose = face.motion.pose
            values.update({"yaw": pose.yaw, "pitch": pose.pitch, "roll": pose.roll})
            values.update(face.motion.movements)
            values[MESH] = face.motion.mesh.flatten().tolist()
    return values
