"""Recipes: TOML files of training options, stored beside their weights."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from pcnn.errors import InputError
from pcnn.training.expression.augmentation import Augmentation
from pcnn.training.expression.options import ExpressionOptions

_MOST = 2**53  # whole numbers below this are exact as floating ones
_PLACES = ("data", "output")  # places on one machine, not part of a recipe


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The options of a recipe, as keywords for ExpressionOptions.

    A recipe has names of ExpressionOptions, except data and output. The table [augmentation] has
    names of Augmentation. Missing options keep their defaults.
    Raises InputError: the file cannot be read, is not TOML, or has an unknown name or wrong type.
    """
    try:
        import tomllib
    except ImportError as error:  # Python 3.10
        raise InputError("recipes need Python 3.11 or newer; give the options instead") from error
    try:
        options = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"recipe {path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, or nested without end
        raise InputError(f"recipe {path}: is not TOML ({error})") from error
    if "augmentation" in options:
        varied = _checked(path, options["augmentation"], Augmentation, "[augmentation] ")
        options["augmentation"] = Augmentation(**varied)
    return _checked(path, options, ExpressionOptions, "")


def _checked(path: str | Path, table: object, kind: type, place: str) -> dict[str, Any]:
    """The table's values, after a check of names and types against the dataclass `kind`."""
    if not isinstance(table, dict):
        raise InputError(f"recipe {path}: {place.strip()} must be a table, got {table!r}")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in _PLACES}
    checked = {}
    for name, value in table.items():
        if name not in fields:
            known = ", ".join(fields)
            raise InputError(f"recipe {path}: {place}{name} is unknown; options are {known}")
        expected = str(fields[name].type)
        if expected == "float" and type(value) is int and abs(value) < _MOST:
            value = float(value)  # noqa: PLW2901 (TOML's 1 for 1.0)
        if expected == "tuple[str, ...]" and isinstance(value, list):
            value = tuple(value)  # noqa: PLW2901
            if not all(isinstance(each, str) for each in value):
                raise InputError(f"recipe {path}: {place}{name} must be a list of texts")
        if type(value) is int and not abs(value) < _MOST:
            raise InputError(f"recipe {path}: {place}{name} must be less than {_MOST:,}")
        if type(value) is float and not math.isfinite(value):
            raise InputError(f"recipe {path}: {place}{name} must be finite, got {value!r}")
        if type(value).__name__ != expected.partition(" ")[0].partition("[")[0]:
            raise InputError(f"recipe {path}: {place}{name} must be {expected}, got {value!r}")
        checked[name] = value
    return checked
