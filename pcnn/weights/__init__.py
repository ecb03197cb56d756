"""Weights files: search, checks, reading, conversion, compression."""

from pcnn.weights.expression import (
    ExpressionWeights,
    load_expression,
    load_learner,
    load_network,
)
from pcnn.weights.files import locate, read, sha256, write
from pcnn.weights.known import SPECS, WeightSpec
from pcnn.weights.upstream import load_upstream

__all__ = [
    "SPECS",
    "ExpressionWeights",
    "WeightSpec",
    "load_expression",
    "load_learner",
    "load_network",
    "load_upstream",
    "locate",
    "read",
    "sha256",
    "write",
]
