"""What Python shows of an object: one short line, however much the object holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

_MOST_VALUES = 10  # that are shown of a tuple or a mapping
_MOST_LABELS = 5
_MOST_CHARACTERS = 120


class Brief:
    """A dataclass whose repr is one short line; it is decorated with `repr=False`.

    Fields with `field(repr=False)` and empty mappings are left out. Arrays and tensors are shown by
    shape and type, what holds many values by their number, floats by four digits.
    """

    def __repr__(self) -> str:
        shown = [
            f"{own.name}={brief(getattr(self, own.name))}"
            for own in dataclasses.fields(self)  # type: ignore[arg-type]
            if own.repr and not _is_empty(getattr(self, own.name))
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def brief(value: Any) -> str:
    """A value as one short line."""
    if _is_single(value):
        return _single(value)
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, (tuple, list)):
        return _several(value)
    if isinstance(value, Brief):
        return repr(value)
    shape, kind = getattr(value, "shape", None), type(value).__name__
    if isinstance(shape, tuple):
        sides = " × ".join(map(str, shape)) or "one"
        return f"<{sides} {str(getattr(value, 'dtype', kind)).removeprefix('torch.')}>"
    return f"<{kind}>"


def _mapping(values: Mapping[Any, Any]) -> str:
    if len(values) > _MOST_VALUES or not all(map(_is_single, values.values())):
        return f"<{len(values)} entries>"
    pairs = (f"{name!r}: {_single(own)}" for name, own in values.items())
    return f"{{{', '.join(pairs)}}}"


def _several(values: tuple[Any, ...] | list[Any]) -> str:
    if len(values) <= _MOST_VALUES and all(map(_is_single, values)):
        return f"({', '.join(map(_single, values))}{',' if len(values) == 1 else ''})"
    found = [str(each.label) for each in values if hasattr(each, "label")]
    more = ", …" if len(found) > _MOST_LABELS else ""
    labels = f": {', '.join(found[:_MOST_LABELS])}{more}" if found else ""
    return f"<{len(values)} {type(values[0]).__name__}{labels}>"


def _is_single(value: Any) -> bool:
    return value is None or isinstance(value, (bool, Real, str, Path))


def _single(value: Any) -> str:
    if isinstance(value, (str, Path)):
        text = str(value)
        return repr(text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…")
    if value is None or isinstance(value, (bool, Integral)):
        return str(value)
    return f"{float(value):.4g}"


def _is_empty(value: Any) -> bool:
    return isinstance(value, Mapping) and not value
