"""Data sets in published layouts, loaded as faces with labels."""

from pcnn.datasets.loading import FaceSet, load_faces

__all__ = ["FaceSet", "load_faces"]
