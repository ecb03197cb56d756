"""The package's exceptions, a check of shapes, and words for messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def counted(count: int, noun: str) -> str:
    """A number with its noun for a message: 1 face, 2 faces, 1,000 classes."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def in_words(error: Exception) -> str:
    """The words of an error of Python's, for a message of ours: a missing key by its name."""
    if isinstance(error, KeyError) and error.args:
        return f"{error.args[0]} is missing"
    return str(error) or type(error).__name__


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


def check_shape(function: str, name: str, tensor: Tensor, expected: Sequence[int | None]) -> None:
    """Raise InputError unless `tensor` has the `expected` shape; None stands for any size."""
    if tensor.dim() != len(expected) or any(
        want is not None and want != got for want, got in zip(expected, tensor.shape, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise InputError(f"{function}: {name} must be ({wanted}), got {tuple(tensor.shape)}")
