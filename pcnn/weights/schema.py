"""Rules for metadata of files: types and ranges, with errors that name the field."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias

from pcnn.errors import WeightsError

# A function of a value and its field's name; it raises RuleError for an invalid value.
Rule: TypeAlias = Callable[[Any, str], None]

# pcnn's files have a few kilobytes of metadata, nested four deep.
_MOST_CHARACTERS, _MOST_NESTED = 1 << 20, 32
_MOST_TEXT = 10_000
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
# Shortens values for messages.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


class RuleError(ValueError):
    """A value breaks a rule; the message names its field. `keep_to` makes a WeightsError of it."""


def broken(name: str, wanted: str, value: object) -> RuleError:
    """The error for an invalid field: what it must be, and its value."""
    return RuleError(f"{name} must be {wanted}, got {shown(value)}")


def shown(value: object) -> str:
    """A file's value, shortened for a message."""
    return _SHORT.repr(value)


def keep_to(rule: Rule, metadata: object, subject: str) -> None:
    """Raise WeightsError, naming subject and field, if the metadata break the rule."""
    try:
        rule(metadata, "")
    except RuleError as error:
        raise WeightsError(f"{subject}: its contents do not fit together ({error})") from error


def parse_metadata(text: str, subject: str, rule: Rule | None = None) -> Any:
    """Parse and check metadata. Raises WeightsError, naming subject and field."""
    try:
        metadata = parse(text)
    except RuleError as error:
        raise WeightsError(f"{subject}: its contents do not fit together ({error})") from error
    if rule is not None:
        keep_to(rule, metadata, subject)
    return metadata


def parse(text: str) -> Any:
    """Parse strict JSON. Raises RuleError: the text is no JSON, too long or too deeply nested."""
    if len(text) > _MOST_CHARACTERS:
        raise broken("the metadata", f"at most {_MOST_CHARACTERS:,} characters", len(text))
    if _depth(text) > _MOST_NESTED:
        raise broken("the metadata", f"nested at most {_MOST_NESTED} deep", _depth(text))
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise broken("the metadata", f"JSON ({error})", text) from error


def anything(value: Any, name: str) -> None:
    """Any value of JSON, with finite numbers."""
    if isinstance(value, Mapping):
        mapping(anything)(value, name)
    elif isinstance(value, list | tuple):
        for place, entry in enumerate(value):
            anything(entry, f"{name}[{place}]")
    elif not (value is None or isinstance(value, bool | str)):
        number()(value, name)


def text(value: Any, name: str) -> None:
    """Text that can be displayed."""
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
    """A list of `least`…`most` entries, or of `least` if `most` is None. different: no repeats."""
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
    """An object of arbitrary names, whose values follow one rule."""
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
    """An object with required and optional names. closed: other names are errors.

    Otherwise other names may have any value of JSON, because a newer version may write more.
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
    except OverflowError:  # an integer larger than all floats
        return False


def _showable(value: str) -> bool:
    """Whether a text has no surrogates, which terminals and files refuse."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _depth(text: str) -> int:
    """The nesting depth of brackets."""
    deepest = depth = 0
    for character in _QUOTED.sub("", text):
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number of JSON")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is repeated")
    return found
