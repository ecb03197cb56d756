"""Pages of the public names, which autodoc fills from their docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from generators.examples import EXAMPLES

# Module → what it is for. Its public names are those of its `__all__`.
HOMES = {
    "pcnn": "Pictures in, faces and their expressions out.",
    "pcnn.embeddings": "Faces as vectors: files of them, nearest faces, labels of one's own.",
    "pcnn.datasets": "Published data sets of labelled faces, see :doc:`/data`.",
    "pcnn.weights": "Weights files: finding, checking, reading and writing them.",
    "pcnn.engines": "What runs the networks, see :doc:`/export`.",
    "pcnn.distributed": "Recognizers in many processes, see :doc:`/scale`.",
    "pcnn.images": "Reading pictures.",
    "pcnn.ops": "The network's own operations, see :doc:`/ops`.",
}
# Names that are not functions or classes have no docstring of their own.
CONSTANTS = {
    "pcnn.__version__": "The package's version.",
    "pcnn.engines.ENGINES": "The names that ``Recognizer(engine=…)`` takes.",
    "pcnn.engines.PRECISIONS": "The names that ``Recognizer(precision=…)`` takes.",
    "pcnn.weights.SPECS": "Name → :class:`~pcnn.weights.WeightSpec` of the weights known by name.",
}
_BEFORE_EXAMPLES = (
    "In the examples ``recognizer`` is a ``pcnn.Recognizer()``, and the public names of ``pcnn`` "
    "and of the name's own module are imported, as are torch, ``Path``, and NumPy as ``np``."
)


def pages() -> dict[str, str]:
    """File name → text of the page, for each module of HOMES."""
    title = "Functions and classes"
    toctree = [".. toctree::", "", *(f"   {home}" for home in HOMES)]
    index = "\n".join((title, "=" * len(title), "", *toctree)) + "\n"
    own = {f"api/{home}.rst": _page(home, purpose) for home, purpose in HOMES.items()}
    return {"api/index.rst": index, **own}


def _page(home: str, purpose: str) -> str:
    module = import_module(home)
    lines = [home, "=" * len(home), "", purpose, "", _BEFORE_EXAMPLES, ""]
    for name in sorted(module.__all__, key=lambda name: _order(module, name)):
        lines += _entry(home, name, getattr(module, name))
    return "\n".join(lines) + "\n"


def _order(module: ModuleType, name: str) -> tuple[int, str]:
    """Classes first, then functions, then the rest; Recognizer before all."""
    value = getattr(module, name)
    if inspect.isclass(value):
        return (2 if issubclass(value, Exception) else name != "Recognizer"), name
    return (3 if inspect.isroutine(value) else 4), name


def _entry(home: str, name: str, value: object) -> Iterator[str]:
    full = f"{home}.{name}"
    yield from (name, "-" * len(name), "")
    if inspect.isclass(value) and issubclass(value, Exception):
        yield from (f".. autoexception:: {full}", "")
    elif inspect.isclass(value):
        yield from (f".. autoclass:: {full}", "   :members:", "")
        example = EXAMPLES.get(full, "").splitlines()
        yield from (*(f"   {line}" for line in example), "")
    elif inspect.isroutine(value):
        yield from (f".. autofunction:: {full}", "")
    else:
        yield from (f".. py:data:: {full}", "")
        yield from (f"   {CONSTANTS[full]}", "")
        if isinstance(value, tuple):
            yield from (f"   {', '.join(f'``{part}``' for part in value)}", "")
        elif isinstance(value, dict):
            yield from (f"   Names: {', '.join(f'``{part}``' for part in value)}", "")
