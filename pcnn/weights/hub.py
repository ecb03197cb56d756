"""Weights in repositories of the Hugging Face hub, or in folders of the same layout.

A repository holds the weights file, `config.json`, which names it with its sha256 and says what it
is, and the card `README.md`. Nothing in it is ever run.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcnn.disk import as_path
from pcnn.errors import WeightsError, in_words
from pcnn.weights.expression import ExpressionWeights, load_expression
from pcnn.weights.files import locate, sha256
from pcnn.weights.known import SPECS
from pcnn.weights.schema import label, parse, record

CONFIG = "config.json"
# owner/name, as the hub has them; a path of two parts that exists is taken for the path.
_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
# What config.json must say; others may add to it.
_TOLD = record({"pcnn": record({"file": label, "sha256": label})})
_CARD_HEAD = "---\nlibrary_name: pcnn\npipeline_tag: image-classification\n---\n"


def fetch(weights: str | Path, *, revision: str | None = None, checksum: str | None = None) -> Path:
    """The expression weights file behind a name, a file, a folder or a repository, checked.

    weights: a name of SPECS; a weights file; a folder in a repository's layout; or a
        repository, "owner/name", of which only `config.json` and the weights are downloaded.
    revision: a repository's branch, tag or commit; None is its main branch.
    checksum: the sha256 that the file must have, hexadecimal; None takes what the repository says
        of itself, which finds damage, but no exchange.
    Raises WeightsError: nothing of that name; a download that failed; huggingface_hub is not
    installed; a checksum, architecture or classes other than `config.json` says.
    """
    path = as_path("from_pretrained: weights", weights).expanduser()
    if str(weights) in SPECS or path.is_file():
        found = locate(weights, kind="expression")
    elif path.is_dir():
        found = _checked(path, str(weights))
    elif _REPOSITORY.fullmatch(str(weights)):
        found = _checked(_downloaded(str(weights), revision), str(weights))
    else:
        raise WeightsError(
            f"{weights}: no weights file or folder, no known name ({', '.join(SPECS)}), and no "
            "repository, owner/name"
        )
    if checksum is not None and (own := sha256(found)) != checksum.lower():
        raise WeightsError(f"{weights}: sha256 is {own}, expected {checksum}: another file")
    return found


def push_to_hub(
    weights: str | Path,
    repository: str,
    *,
    private: bool = True,
    token: str | None = None,
    message: str = "Weights of pcnn",
) -> str:
    """Upload expression weights with their card to a repository of the hub, which is made if new.

    weights: a name or a path; a card of the same name with the suffix .md beside it goes along.
    repository: "owner/name". private: whether a new repository is. token: of a user who may write
        there; None takes the one that `hf auth login` keeps. message: of the commit.
    Returns the commit's address.
    Raises WeightsError: no such weights, or the upload failed; huggingface_hub is not installed.

    >>> push_to_hub("small", "no-owner")
    Traceback (most recent call last):
        ...
    pcnn.errors.WeightsError: push_to_hub: repository must be owner/name, got 'no-owner'
    """
    if not isinstance(repository, str) or not _REPOSITORY.fullmatch(repository):
        raise WeightsError(f"push_to_hub: repository must be owner/name, got {repository!r}")
    as_path("push_to_hub: weights", weights)
    hub = _hub("push_to_hub")
    with tempfile.TemporaryDirectory() as folder:
        write_repository(weights, Path(folder))
        try:
            api = hub.HfApi(token=token)
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=message
            )
        except Exception as error:  # of the network, the hub, or its client: many unlike classes
            raise WeightsError(f"{repository}: the upload failed ({error})") from error
    return str(commit.commit_url)


def write_repository(weights: str | Path, folder: Path) -> None:
    """Write what a repository holds into a folder: the weights, `config.json` and a card.

    Raises WeightsError: no such weights, or other ones than of expressions.
    """
    loaded = load_expression(weights)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(loaded.path, folder / loaded.path.name)
    config = {"file": loaded.path.name, "sha256": sha256(loaded.path), **_about(loaded)}
    (folder / CONFIG).write_text(json.dumps({"pcnn": config}, indent=2) + "\n", encoding="utf-8")
    card = loaded.path.with_suffix(".md")
    text = card.read_text(encoding="utf-8") if card.is_file() else _plain_card(loaded)
    (folder / "README.md").write_text(_CARD_HEAD + text, encoding="utf-8")


def _checked(folder: Path, name: str) -> Path:
    """The weights file of a repository's folder, if it is what `config.json` says."""
    try:
        described = parse((folder / CONFIG).read_text(encoding="utf-8"))
        _TOLD(described, "")
        told = described["pcnn"]
        file, expected = str(told["file"]), str(told["sha256"])
        path = folder / file
        beside = Path(file).name == file and path.is_file()
    except FileNotFoundError as error:
        raise WeightsError(f"{name}: has no {CONFIG}, so no weights of pcnn") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{name}: its {CONFIG} is none of pcnn's ({in_words(error)})") from error
    if not beside:
        raise WeightsError(f"{name}: {CONFIG} names the file {file!r}, which is not beside it")
    if (found := sha256(path)) != expected:
        raise WeightsError(
            f"{name}: sha256 of {file} is {found}, expected {expected}; the file is damaged, cut "
            "short or another one: fetch it again, or give its path to use it all the same"
        )
    about = _about(load_expression(path))
    wrong = [key for key, value in about.items() if told.get(key) != value]
    if wrong:
        raise WeightsError(
            f"{name}: {CONFIG} says {wrong[0]} {told.get(wrong[0])!r}, but {file} has "
            f"{about[wrong[0]]!r}"
        )
    return path


def _about(loaded: ExpressionWeights) -> Mapping[str, Any]:
    """What `config.json` says of weights, beside their name and checksum."""
    config = loaded.network.config
    return {
        "architecture": loaded.metadata["architecture"],
        "classes": list(config.classes),
        "size": config.size,
    }


def _plain_card(loaded: ExpressionWeights) -> str:
    """A card for weights that have none."""
    scores = loaded.metadata.get("scores", {})
    lines = [f"- {100 * value:.2f} % on {name}" for name, value in scores.items()]
    classes = ", ".join(loaded.network.config.classes)
    return "\n".join([f"# {loaded.path.stem}", "", f"Classes: {classes}.", *lines, ""])


def _downloaded(repository: str, revision: str | None) -> Path:
    """The folder of the user's cache with a repository's files, fetched if they are not there."""
    hub = _hub("from_pretrained")
    try:
        return Path(
            hub.snapshot_download(
                repository, revision=revision, allow_patterns=[CONFIG, "*.safetensors"]
            )
        )
    except Exception as error:  # of the network, the hub, or its client: many unlike classes
        raise WeightsError(f"{repository}: cannot be had from the hub ({error})") from error


def _hub(function: str) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise WeightsError(
            f"{function}: huggingface_hub must be installed: pip install 'pcnn[hub]'"
        ) from error
