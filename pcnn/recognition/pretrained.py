"""A recognizer by the name of its weights, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcnn.errors import InputError
from pcnn.recognition.recognizer import Recognizer
from pcnn.weights.hub import fetch


def from_pretrained(
    weights: str | Path,
    *,
    revision: str | None = None,
    sha256: str | None = None,
    recognizer_options: Mapping[str, Any] | None = None,
) -> Recognizer:
    """A Recognizer with weights from the package, a file, a folder or the Hugging Face hub.

    weights: a name ("pcnn-ferplus", "small"), a weights file, a folder as `push_to_hub` lays it
        out, or a repository of the hub, "owner/name". A repository is kept in that package's cache.
    revision: a repository's branch, tag or commit; None is its main branch.
    sha256: what the weights file must have; None takes what the repository says of itself.
    recognizer_options: other arguments of `Recognizer` by name.
    Raises WeightsError: no such weights, a download that failed, or a file that is not what its
    `config.json` says; InputError: options that name weights; else as Recognizer.

    >>> from pcnn import from_pretrained
    >>> from_pretrained("small").predict("docs/images/astronaut.png").faces[0].label
    'happiness'
    """
    options = dict(recognizer_options or {})
    if "weights" in options:
        raise InputError("from_pretrained: recognizer_options must not name weights, got 'weights'")
    return Recognizer(fetch(weights, revision=revision, checksum=sha256), **options)
