"""Rules for what a file says of itself: types, ranges, and a complaint that names the field."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias

from pcnn.errors import WeightsError

# Raises RuleError where a value does not keep to it. Called with the value and the field's name.
Rule: TypeAlias = Callable[[Any, str], None]

# A file of ours has a few kilobytes of metadata, nested four deep.
_MOST_CHARACTERS, _MOST_NESTED = 1 << 20, 32
_MOST_TEXT = 10_000
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
# Cuts what stands in a file to a length that a message can hold.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


class RuleError(ValueError):
    """A value breaks a rule; the message names its field. `keep_to` makes a WeightsError of it."""


def broken(name: str, wanted: str, value: object) -> RuleError:
    """The error that says what a field must be and what stood there."""
    return RuleError(f"{name} must be {wanted}, got {shown(value)}")


def shown(value: object) -> str:
    """What stands in a file, cut to a length that a message can hold."""
    return _SHORT.repr(value)


def keep_to(rule: Rule, metadata: object, subject: str) -> None:
    """Raise WeightsError, naming subject and field, unless the metadata keep to the rule."""
    try:
        rule(metadata, "")
    except RuleError as error:
        raise WeightsError(f"{subject}: its contents do not fit together ({error})") from error


def parse_metadata(text: str, subject: str, rule: Rule | None = None) -> Any:
    """What metadata say. Raises WeightsError, naming subject and field: as parse and keep_to."""
    try:
        metadata = parse(text)
    except RuleError as error:
        raise WeightsError(f"{subject}: its contents do not fit together ({error})") from error
    if rule is not None:
        keep_to(rule, metadata, subject)
    return metadata


def parse(text: str) -> Any:
    """JSON as its standard has it. Raises RuleError: it is none, or too long or deep to be ours."""
    if len(text) > _MOST_CHARACTERS:
        raise broken("the metadata", f"at most {_MOST_CHARACTERS:,} characters", len(text))
    if _depth(text) > _MOST_NESTED:
        raise broken("the metadata", f"nested at most {_MOST_NESTED} deep", _depth(text))
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise broken("the metadata", f"JSON ({error})", text) from error


def anything(value: Any, name: str) -> None:
    """Whatever JSON can hold, with finite numbers."""
    if isinstance(value, Mapping):
        mapping(anything)(value, name)
    elif isinstance(value, list | tuple):
        for place, entry in enumerate(value):
            anything(entry, f"{name}[{place}]")
    elif not (value is None or isinstance(value, bool | str)):
        number()(value, name)


def text(value: Any, name: str) -> None:
    """Text that can be shown."""
    if not (isinstance(value, str) and len(value) <= _MOST_TEXT and _showable(value)):
        raise broken(name, "text", value)


def label(value: Any, name: str) -> None:
    """A name of a class: one line, not empty."""
    if not (isinstance(value, str) and value.isprintable() and value.strip()):
        raise broken(name, "a name", value)


def truth(value: Any, name: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise broken(name, "true or false", value)


def number(least: float = -math.inf, most: float = math.inf) -> Rule:
    """A finite number in a range, its ends included."""
    wanted = "a finite number" if math.isinf(least) else f"a number in {least:g}…{most:g}"

    def rule(value: Any, name: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise broken(name, wanted, value)
        if not least <= value <= most:
            raise broken(name, wanted, value)

    return rule


def whole(least: int, most: int) -> Rule:
    """A whole number in a range, its ends included."""

    def rule(value: Any, name: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise broken(name, f"a whole number in {least}…{most}", value)

    return rule


def one_of(*choices: Hashable) -> Rule:
    """One of some values."""

    def rule(value: Any, name: str) -> None:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise broken(name, " or ".join(map(str, choices)), value)

    return rule


def null_or(other: Rule) -> Rule:
    """Null, or what another rule allows."""

    def rule(value: Any, name: str) -> None:
        if value is not None:
            other(value, name)

    return rule


def row(entry: Rule, least: int, most: int | None = None, *, different: bool = False) -> Rule:
    """A list of so many entries, `least` if `most` is None. different: no two of them alike."""
    most = least if most is None else most
    wanted = f"a list of {least}" + (f"…{most}" if most > least else "")

    def rule(value: Any, name: str) -> None:
        if not isinstance(value, list | tuple) or not least <= len(value) <= most:
            raise broken(name, wanted, value)
        for place, one in enumerate(value):
            entry(one, f"{name}[{place}]")
        if different and len(set(value)) < len(value):
            raise broken(name, "a list of different entries", value)

    return rule


def mapping(entry: Rule, least: int = 0, most: int = 1000) -> Rule:
    """Names, chosen by whoever wrote the file, each with a value of one kind."""
    count = str(least) if most == least else f"{least}…{most}"

    def rule(value: Any, name: str) -> None:
        if not isinstance(value, Mapping) or not least <= len(value) <= most:
            raise broken(name or "the metadata", f"an object of {count} names", value)
        for key, one in value.items():
            text(key, f"a name in {name}")
            entry(one, _within(name, key))

    return rule


def record(
    fields: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None, *, closed: bool = False
) -> Rule:
    """Names that a file must have and may have. closed: it has no others.

    Others are only held to be what JSON can hold: a newer version may write more.
    """
    known = {**fields, **(optional or {})}

    def rule(value: Any, name: str) -> None:
        if not isinstance(value, Mapping):
            raise broken(name or "the metadata", "an object", value)
        missing = [key for key in fields if key not in value]
        if missing:
            raise RuleError(f"{_within(name, missing[0])} is missing")
        for key, one in value.items():
            if key not in known and closed:
                raise broken(name or "the metadata", f"of {', '.join(known)} alone", {key: one})
            known.get(key, anything)(one, _within(name, key))

    return rule


def _within(name: str, key: str) -> str:
    key = shown(key)[1:-1]
    return f"{name}.{key}" if name else key


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floating ones
        return False


def _showable(value: str) -> bool:
    """Whether it has no halves of characters, which no terminal and no file takes."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _depth(text: str) -> int:
    """How deep brackets are nested."""
    deepest = depth = 0
    for character in _QUOTED.sub("", text):
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found
