"""Changes of inputs: of bytes, text, JSON, and of what lies within archives and checksums."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias

from hostile import VALUES, places, removed, replaced

# Longer inputs are cut: what matters shows in small ones.
MOST_BYTES = 1 << 17

Change: TypeAlias = Callable[[Random, bytes, Sequence[bytes]], bytes]

_PNG = b"\x89PNG\r\n\x1a\n"
_WORDS = (
    *(b"", b"\0", b"-1", b"0", b"1e999", b"nan", b"Infinity", b"9" * 400, b"9" * 5000),
    *(b"0x" + b"f" * 5000, b"null", b"true", b"[]", b"{}", b"[" * 2000, b'{"a":' * 2000),
    *(b'"', b"'", b",", b"\n", b"\r", b" = ", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3", b"\\ud800"),
    *(b"../../x", b"/dev/zero", b"\xe2\x80\xa8", b"\xd9\xa3", b"1" + b"0" * 30, b"2.5", b"|O"),
)
# Pieces of pickles: calls that must never happen, and what runs out of memory or of nesting.
_PICKLES = (
    b"cposix\nsystem\n(S'touch canary'\ntR.",
    b'cbuiltins\nexec\n(S\'open("canary", "w")\'\ntR.',
    b"c__builtin__\neval\n(S'1'\ntR.",
    b"cos\nsystem\n\x94\x8c\x05touch\x85R",
    *(b"(" * 500, b"]" * 500, b"\x80\x02", b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"."),
    *(b"\x8b\x7f\xff\xff\xff", b"T\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f", b"e", b"u", b"R", b"b"),
)
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_BITS = ("<H", ">H", "<I", ">I", "<Q", ">Q")


def mutate(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A changed input. others: inputs of the same kind, parts of which may be taken."""
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5))):
        content = chance.choice(_fitting(content))(chance, content, others)[:MOST_BYTES]
    return content


def _fitting(content: bytes) -> list[Change]:
    """The changes for an input; those of its own structure come as often as those of bytes."""
    if content[:2] == b"PK":
        return [_zip] * 4 + _BYTES[:2]
    if content.startswith(_PNG):
        return [_png] * 4 + _BYTES
    if content[8:9] == b"{" and content[4:8] == bytes(4):
        return [_safetensors] * 8 + _BYTES
    if content[:1] in b"{[" and content[:1]:
        return [_json] * 4 + _BYTES + _LINES
    if content[:1] == b"\x80":
        return [_insert_pickle] * 2 + _BYTES
    return _BYTES + (_LINES if _is_text(content) else [])


def _is_text(content: bytes) -> bool:
    return all(byte >= 32 or byte in (9, 10, 13) for byte in content[:64])


def _place(chance: Random, content: bytes) -> int:
    return chance.randrange(len(content) + 1)


def _flip(chance: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(chance.choice((1, 1, 2, 4))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _set(chance: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    number, kind = chance.choice(_NUMBERS), chance.choice(_BITS)
    packed = struct.pack(kind, number & ((1 << (8 * struct.calcsize(kind))) - 1))
    at = _place(chance, content)
    return content[:at] + packed + content[at + len(packed) :]


def _cut(chance: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    return content[: _place(chance, content)]


def _remove(chance: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(chance, content)
    return content[:at] + content[at + chance.choice((1, 1, 2, 4, 16, 256)) :]


def _repeat(chance: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at, length = _place(chance, content), chance.choice((1, 2, 8, 64))
    return content[:at] + content[at : at + length] * chance.choice((2, 3, 50)) + content[at:]


def _insert(chance: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(chance, content)
    return content[:at] + chance.choice(_WORDS) + content[at + chance.choice((0, 0, 1, 4)) :]


def _insert_pickle(chance: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(chance, content)
    return content[:at] + chance.choice(_PICKLES) + content[at + chance.choice((0, 0, 1, 4)) :]


def _splice(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    other = chance.choice(others) if others else content
    return content[: _place(chance, content)] + other[_place(chance, other) :]


def _line(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A line removed, repeated, moved, or taken from another input."""
    lines = content.split(b"\n")
    at, to = chance.randrange(len(lines)), chance.randrange(len(lines))
    kind = chance.randrange(4)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(to, lines[at])
    elif kind == 2:
        lines[at], lines[to] = lines[to], lines[at]
    elif others:
        lines.insert(to, chance.choice(chance.choice(others).split(b"\n")))
    return b"\n".join(lines)


_SEPARATORS = (b",", b" ", b"/", b"=")


def _field(chance: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """A field between separators replaced, removed or repeated."""
    lines = content.split(b"\n")
    at = chance.randrange(len(lines))
    separator = chance.choice([each for each in _SEPARATORS if each in lines[at]] or [b","])
    fields = lines[at].split(separator)
    place = chance.randrange(len(fields))
    kind = chance.randrange(4)
    if kind == 0:
        del fields[place]
    elif kind == 1:
        fields.insert(place, fields[place])
    else:
        fields[place] = chance.choice(_WORDS)
    lines[at] = separator.join(fields)
    return b"\n".join(lines)


_BYTES: list[Change] = [_flip, _set, _cut, _remove, _repeat, _insert, _splice]
_LINES: list[Change] = [_line, _field, _field]


def _json(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A value within JSON replaced or removed; lines of JSON are changed one at a time."""
    lines = content.split(b"\n")
    at = chance.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except (ValueError, RecursionError):
        return _insert(chance, content, others)
    lines[at] = _changed_json(chance, value).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def _changed_json(chance: Random, value: Any) -> str:
    found = list(places(value))
    if not found or not chance.randrange(20):
        return json.dumps(chance.choice(VALUES))
    place = chance.choice(found)
    kind = chance.randrange(6)
    if kind == 0:
        return json.dumps(removed(value, place))
    other: Any = chance.choice(VALUES)
    if kind == 1:  # what stands elsewhere in it
        other = value
        for key in chance.choice(found):
            other = other[key]
    try:
        return json.dumps(replaced(value, place, other))
    except (ValueError, RecursionError):
        return "{}"


# NaN and infinity in single precision, and NaN in any.
_NO_NUMBERS = (b"\0\0\xc0\x7f", b"\0\0\x80\xff", b"\xff" * 4)


def _safetensors(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A change of the header, of pcnn's metadata in it, or of the numbers."""
    length = int.from_bytes(content[:8], "little")
    header, body = content[8 : 8 + length], content[8 + length :]
    try:
        described = json.loads(header)
        metadata = json.loads(described["__metadata__"]["pcnn"])
    except (ValueError, KeyError, TypeError, RecursionError):
        described = metadata = None
    kind = chance.randrange(8)
    if kind == 0:
        header = chance.choice(_BYTES)(chance, header, others)
    elif kind == 1 and len(body) >= 4:
        at = chance.randrange(len(body) // 4) * 4
        body = body[:at] + chance.choice(_NO_NUMBERS) + body[at + 4 :]
    elif metadata is None:
        header = chance.choice((*_BYTES, *_LINES))(chance, header, others)
    elif kind == 2:
        text = json.dumps(metadata).encode()
        changed = chance.choice(_BYTES)(chance, text, others).decode("utf-8", "replace")
        described["__metadata__"]["pcnn"] = changed
        header = json.dumps(described).encode()
    elif kind == 3:
        header = _changed_json(chance, described).encode("utf-8", "surrogatepass")
    else:
        described["__metadata__"]["pcnn"] = _changed_json(chance, metadata)
        header = json.dumps(described).encode()
    return len(header).to_bytes(8, "little") + header + body


def _png(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A change of one chunk, with its checksum; or a chunk repeated or left out."""
    chunks, at = [], len(_PNG)
    while at + 12 <= len(content) and len(chunks) < 100:
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return _flip(chance, content, others)
    place = chance.randrange(len(chunks))
    name, data = chunks[place]
    kind = chance.randrange(6)
    if kind == 0:
        chunks.insert(chance.randrange(len(chunks)), chunks[place])
    elif kind == 1:
        del chunks[place]
    elif kind == 2:
        chunks[place] = (chance.choice(_CHUNKS), data)
    elif name == b"IDAT" and chance.randrange(2):
        try:
            raw = zlib.decompressobj().decompress(data, MOST_BYTES)
        except zlib.error:
            raw = data
        chunks[place] = (name, zlib.compress(chance.choice(_BYTES)(chance, raw, others), 1))
    else:
        chunks[place] = (name, chance.choice(_BYTES)(chance, data, others))
    joined = bytearray(_PNG)
    for name, data in chunks:
        joined += len(data).to_bytes(4, "big") + name + data
        joined += zlib.crc32(name + data).to_bytes(4, "big")
    return bytes(joined)


_CHUNKS = tuple(
    b"IHDR PLTE IDAT IEND tRNS eXIf iTXt zTXt tEXt iCCP gAMA sRGB pHYs acTL fcTL fdAT".split()
)


def _zip(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A change of one member, with its checksum; of its name, its storage, or the archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:  # whatever an archive that was changed before raises
        return chance.choice(_BYTES)(chance, content, others)
    if not members or len(members) > 200:
        return chance.choice(_BYTES)(chance, content, others)
    at = chance.randrange(len(members))
    if chance.randrange(2):  # the pickle or the description rather than numbers
        at = min(range(len(members)), key=lambda i: not members[i][0].endswith((".pkl", ".npy")))
    name, data = members[at]
    kind = chance.randrange(12)
    if kind == 0:
        del members[at]
    elif kind == 1:
        members[at] = (chance.choice((name[1:], name + "x", "../x", "x/constants.pkl")), data)
    elif kind == 2:
        members[at] = (name, chance.choice(members)[1])
    else:
        change = _insert_pickle if name.endswith(".pkl") and kind < 6 else chance.choice(_BYTES)
        members[at] = (name, change(chance, data, others))
    storage = zipfile.ZIP_DEFLATED if not chance.randrange(8) else zipfile.ZIP_STORED
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", storage) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name or "x"), data, storage)
    return written.getvalue()
