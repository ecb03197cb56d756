"""The package's exceptions, checks of shapes and numbers, and words for messages."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_PACKAGE = __name__.partition(".")[0]
# What may be the name of a function or class before a message: "load_faces: ", "Head.fit: ".
_NAME = re.compile(r"(?:^|(?<=: ))(?P<name>[A-Za-z_]\w*(?:\.\w+)?): ")
# What only a caller in Python can do: " (in Python: pcnn.saliency.register adds more)".
_FOR_PYTHON = re.compile(r" \(in Python: [^()]*(?:\(\)[^()]*)?\)")


def counted(count: int, noun: str) -> str:
    """A number with its noun for a message: 1 face, 2 faces, 1,000 classes."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def in_words(error: Exception) -> str:
    """The words of an error of Python's, for a message of ours: a missing key by its name."""
    if isinstance(error, KeyError) and error.args:
        return f"{error.args[0]} is missing"
    return str(error) or type(error).__name__


def without_names(message: str, *, is_file: Callable[[str], bool] = lambda name: False) -> str:
    """A message of the package for people who do not call it from Python.

    is_file: whether a name is a file's, which stays.
    Returns the message without names of the package's functions and classes, at its beginning and
    after a colon, and without what it says "(in Python: …)".
    """

    def unnamed(match: re.Match[str]) -> str:
        name = match["name"]
        return "" if not is_file(name) and _is_ours(name) else match[0]

    return _FOR_PYTHON.sub("", _NAME.sub(unnamed, message))


def _is_ours(name: str) -> bool:
    """Whether a loaded function, class or method of the package has this name.

    What raised an error is loaded.
    """
    first, _, method = name.partition(".")
    for key, module in list(sys.modules.items()):
        if key.partition(".")[0] != _PACKAGE:
            continue
        found = getattr(module, "__dict__", {}).get(first)
        home = str(getattr(found, "__module__", ""))
        if callable(found) and home.partition(".")[0] == _PACKAGE:
            return not method or hasattr(found, method)
    return False


class InputError(ValueError):
    """A value from the caller cannot be used: a file, an array, an option.

    >>> load_image("missing.jpg")
    Traceback (most recent call last):
        ...
    pcnn.errors.InputError: missing.jpg: no such file
    """


class WeightsError(RuntimeError):
    """A weights file is missing, damaged or of the wrong kind.

    >>> Recognizer("missing.safetensors")
    Traceback (most recent call last):
        ...
    pcnn.errors.WeightsError: missing.safetensors: no such weights file or known name (...)
    """


class NativeError(RuntimeError):
    """The compiled ops were requested but cannot be built, loaded or used.

    >>> issubclass(NativeError, RuntimeError)
    True
    """


def is_number(value: object) -> bool:
    """Whether a value is a number of Python's or NumPy's, no truth value, and not NaN.

    Whole numbers too large for a float are none.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(float(value))
    except OverflowError:
        return False


def is_whole(value: object) -> bool:
    """Whether a value is a whole number of Python's or NumPy's, no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_count(function: str, name: str, value: object) -> None:
    """Raise InputError unless the argument `name` is a whole number of at least 1."""
    if not is_whole(value):
        raise InputError(f"{function}: {name} must be a whole number, got {value!r}")
    if value < 1:  # type: ignore[operator]
        raise InputError(f"{function}: {name} must be at least 1, got {value}")


def check_texts(subject: str, texts: Any, *, sources: bool = False) -> None:
    """Raise InputError unless these are texts in an order, such as a list of them.

    subject: they, at the message's beginning. sources: whether paths and None may stand for texts.
    """
    kinds = (str, os.PathLike, type(None)) if sources else str
    if isinstance(texts, (str, bytes, set, frozenset)) or not isinstance(texts, Collection):
        raise InputError(f"{subject} must be a list of texts, got {texts!r}")
    wrong = [text for text in texts if not isinstance(text, kinds)]
    if wrong:
        raise InputError(f"{subject} must be texts, got {wrong[0]!r}")


def check_types(owner: object, kind: type, *names: str) -> None:
    """Raise InputError unless these attributes of an object are of a type."""
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, kind):
            raise InputError(
                f"{type(owner).__name__}: {name} must be of type {kind.__name__}, "
                f"got {type(value).__name__}"
            )


def check_shape(function: str, name: str, tensor: Tensor, expected: Sequence[int | None]) -> None:
    """Raise InputError unless `tensor` has the `expected` shape; None stands for any size."""
    if not hasattr(tensor, "dim"):
        raise InputError(f"{function}: {name} must be a tensor, got {type(tensor).__name__}")
    if tensor.dim() != len(expected) or any(
        want is not None and want != got for want, got in zip(expected, tensor.shape, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise InputError(f"{function}: {name} must be ({wanted}), got {tuple(tensor.shape)}")
