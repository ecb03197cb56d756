"""How a face lies in the plane of its picture, read from its landmarks."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterable, Sequence

# Where landmarks lie in an upright face: x and y from the middle between the eyes, in distances
# between the eyes. Measured: the mean over the faces of FER+ train, made symmetric.
UPRIGHT = ((-0.5, 0.0), (0.5, 0.0), (0.0, 0.61), (-0.4, 1.085), (0.4, 1.085))

_NOTHING = 1e-9


def angle_of(landmarks: Iterable[Sequence[float]]) -> float:
    """Degrees clockwise by which a face lies from upright, in (-180, 180].

    landmarks: five (x, y), y downwards: left and right eye, nose, left and right mouth corner.
    The picture turned by as many degrees counterclockwise, as `PIL.Image.rotate(angle)` turns it,
    shows the face upright. The angle is that of the similarity that best takes UPRIGHT to the
    landmarks. Landmarks that all coincide, or are not finite, give 0.

    >>> round(angle_of([(0, -1), (0, 1), (-1.2, 0), (-2.2, -0.8), (-2.2, 0.8)]))
    90
    """
    points = [complex(x, y) for x, y in landmarks]
    places = [complex(x, y) for x, y in UPRIGHT]
    middle = sum(places) / len(places)
    turned = sum(((w - middle).conjugate() * z for w, z in zip(places, points, strict=True)), 0j)
    # Points that coincide leave what rounding leaves.
    if not cmath.isfinite(turned) or abs(turned) <= _NOTHING * max(map(abs, points)):
        return 0.0
    angle = math.degrees(cmath.phase(turned))
    return 180.0 if angle == -180 else angle
