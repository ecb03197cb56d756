"""Embeddings of faces: files, linear heads, triplets."""

from pcnn.embeddings.files import Embeddings, nearest
from pcnn.embeddings.heads import Head
from pcnn.embeddings.triplets import embed_triplets, read_triplets, triplet_accuracy
from pcnn.embeddings.values import ValueHead

__all__ = [
    "Embeddings",
    "Head",
    "ValueHead",
    "embed_triplets",
    "nearest",
    "read_triplets",
    "triplet_accuracy",
]
