"""What the server says of itself: the shapes of its answers, with examples, for OpenAPI."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

DESCRIPTION = """Faces in photographs, and their expressions. Pictures are read, answered and
forgotten: nothing of them is kept or logged."""


class FaceAnswer(BaseModel):
    """One face, as `pcnn-predict` writes it."""

    label: str = Field(description="the likeliest class")
    confidence: float = Field(description="its probability, 0…1")
    scores: dict[str, float] = Field(description="class → calibrated probability; they sum to 1")
    regions: dict[str, dict[str, float]] = Field(description="region → its own scores, if any")
    box: list[float] = Field(description="x1, y1, x2, y2 in pixels of the upright picture")
    detection_score: float
    quality: float | None = Field(default=None, description="how well it can be seen, 0…1")
    angle: float = Field(description="degrees clockwise from upright, in (-180, 180]")
    landmarks: list[list[float]] = Field(
        description="x, y of both eyes, the nose, both mouth corners; left as seen in the picture"
    )
    values: dict[str, float] | None = Field(
        default=None, description="name → number; only with a head of numbers (--head)"
    )
    movements: dict[str, float] | None = Field(
        default=None, description="name → 0…1, in ARKit's names; only with --movements"
    )
    pose: dict[str, float] | None = Field(
        default=None, description="yaw, pitch, roll in degrees; only with --movements"
    )
    mesh: list[list[float]] | None = Field(
        default=None, description="x, y of each point; only with --movements"
    )


class PictureAnswer(BaseModel):
    """One picture, as `pcnn-predict` writes it."""

    source: str | None = Field(description="the file's name; null for a raw body")
    width: int
    height: int
    faces: list[FaceAnswer] = Field(description="by falling detection score")


class PictureError(BaseModel):
    """A picture that cannot be read, in its place among others that can."""

    source: str | None
    error: str


class Reason(BaseModel):
    """Why a request was refused."""

    error: str


class Health(BaseModel):
    """That the server answers, and with which weights."""

    status: str
    version: str
    weights_sha256: str


EXAMPLE: list[dict[str, Any]] = [
    {
        "source": "astronaut.png",
        "width": 512,
        "height": 512,
        "faces": [
            {
                "label": "happiness",
                "confidence": 0.98,
                "scores": {"neutral": 0.015, "happiness": 0.98, "surprise": 0.005},
                "regions": {"mouth": {"neutral": 0.02, "happiness": 0.97, "surprise": 0.01}},
                "box": [174.4, 67.3, 275.2, 199.1],
                "detection_score": 0.999,
                "quality": 0.95,
                "angle": -1.34,
                "landmarks": [
                    [198.3, 120.2],
                    [244.1, 117.9],
                    [221.6, 144.0],
                    [203.0, 164.0],
                    [244.8, 162.1],
                ],
            }
        ],
    }
]

# What is refused, and for what reason, by status.
_REASONS = {
    400: "the client disconnected before the end of its body",
    401: "the token is missing or wrong",
    408: "the body took more than 30 s to arrive",
    413: "more than 32,000,000 bytes: send fewer or smaller pictures",
    422: "astronaut.txt: not a picture in a supported format",
    429: "64 requests are at hand already: try again",
    500: "an error of the server's own",
    503: "no answer within 30 s: try again",
}

_PICTURE = {"schema": {"type": "string", "format": "binary"}}
REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "one picture as the body, or files in a form; its fields may have any name",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "pictures": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                    "required": ["pictures"],
                }
            },
            "image/jpeg": _PICTURE,
            "image/png": _PICTURE,
            "application/octet-stream": _PICTURE,
        },
    }
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of what is refused with these statuses."""
    return {
        status: {
            "model": Reason,
            "description": _REASONS[status],
            "content": {"application/json": {"example": {"error": _REASONS[status]}}},
        }
        for status in statuses
    }
