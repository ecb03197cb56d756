"""What a notebook shows of a prediction: the annotated picture, and a table of its faces."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from pcnn.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from pcnn.results.values import Prediction

_LONGEST = 1024  # pixels of a shown picture's longer side
_RUNNERS_UP = 2


def png(picture: Image) -> bytes:
    """A picture as PNG, shrunk so that its longer side has at most 1,024 pixels."""
    shown = picture.copy()
    shown.thumbnail((_LONGEST, _LONGEST))
    stream = io.BytesIO()
    shown.save(stream, "PNG")
    return stream.getvalue()


def prediction_png(prediction: Prediction) -> bytes | None:
    """The annotated picture as PNG; None where `source` names no file that can be read."""
    try:
        return png(prediction.draw())
    except InputError:
        return None


def prediction_html(prediction: Prediction) -> str:
    """The annotated picture, where its file is still there, above a table of the faces."""
    content = prediction_png(prediction)
    caption = escape(prediction.source or "picture")
    size = f"{prediction.width} × {prediction.height}"
    parts = [f"<p>{caption}, {size}</p>", _table(prediction)]
    if content is not None:
        data = base64.b64encode(content).decode("ascii")
        parts.insert(0, f'<img alt="{caption}" src="data:image/png;base64,{data}">')
    return "\n".join(parts)


def _table(prediction: Prediction) -> str:
    """The faces as an HTML table, or that there is none."""
    if not prediction.faces:
        return "<p>no face found</p>"
    heads = ("face", "expression", "confidence", "then", "box x1 y1 x2 y2")
    lines = [heads, *(_cells(prediction, index) for index in range(len(prediction.faces)))]
    kinds = ["th", *("td" for _ in prediction.faces)]
    rows = (
        "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in line) + "</tr>"
        for kind, line in zip(kinds, lines, strict=True)
    )
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _cells(prediction: Prediction, index: int) -> tuple[str, ...]:
    """One face's line of the table, as the command line's."""
    face = prediction.faces[index]
    others = sorted(
        ((score, name) for name, score in face.scores.items() if name != face.label),
        key=lambda other: -other[0],
    )
    then = ", ".join(f"{name} {score:.0%}" for score, name in others[:_RUNNERS_UP])
    box = " ".join(f"{edge:.0f}" for edge in face.box)
    return str(index + 1), face.label, f"{face.confidence:.1%}", then, box
