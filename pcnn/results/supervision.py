"""Faces as `supervision.Detections`, for that package's annotators, trackers and zones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pcnn.results.tables import needed

if TYPE_CHECKING:
    from pcnn.results.frames import Frame
    from pcnn.results.values import Prediction


def detections_of(prediction: Prediction | Frame) -> Any:
    """See Prediction.to_supervision and Frame.to_supervision."""
    function = f"{type(prediction).__name__}.to_supervision"
    detections = needed("supervision", function, "supervision").Detections
    faces = prediction.faces
    if not faces:
        return detections.empty()
    tracks = [getattr(face, "track", None) for face in faces]
    return detections(
        xyxy=np.array([face.box for face in faces], np.float32),
        confidence=np.array([face.confidence for face in faces], np.float32),
        # Not the label's place: "uncertain" has none.
        class_id=np.array([np.argmax(list(face.scores.values())) for face in faces]),
        tracker_id=None if None in tracks else np.array(tracks),
        data={
            "class_name": np.array([face.label for face in faces]),
            "scores": np.array([list(face.scores.values()) for face in faces], np.float32),
            "landmarks": np.array([face.landmarks for face in faces], np.float32),
            "detection_score": np.array([face.detection_score for face in faces], np.float32),
        },
    )
