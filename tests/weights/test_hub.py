"""Weights in repositories: a local folder, and a hub that is a folder, too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pcnn
from pcnn.errors import InputError, WeightsError
from pcnn.weights import hub
from pcnn.weights.files import locate, read, write
from pcnn.weights.hub import CONFIG, fetch, push_to_hub, write_repository
from pcnn.weights.known import SPECS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_repository("small", tmp_path / "repository")
    return tmp_path / "repository"


class FakeHub:
    """The hub's client as far as it is used, with repositories in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[Any] = []

    def HfApi(self, token: str | None) -> Any:  # noqa: N802
        self.asked.append(token)
        return SimpleNamespace(create_repo=self.create, upload_folder=self.upload)

    def create(self, repository: str, *, private: bool, exist_ok: bool) -> None:
        self.asked.append((repository, private))
        (self.root / repository).mkdir(parents=True, exist_ok=exist_ok)

    def upload(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/{commit_message}")

    def snapshot_download(self, repository: str, *, revision: Any, allow_patterns: Any) -> str:
        self.asked.append((repository, revision, tuple(allow_patterns)))
        if not (self.root / repository).is_dir():
            raise ConnectionError("no route")
        return str(self.root / repository)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(hub, "_hub", lambda _: fake)
    return fake


def change(folder: Path, **values: Any) -> None:
    told = json.loads((folder / CONFIG).read_text())
    told["pcnn"].update(values)
    (folder / CONFIG).write_text(json.dumps(told))


def test_a_folder_says_what_is_in_it(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        CONFIG,
        "pcnn-small.safetensors",
    ]
    told = json.loads((folder / CONFIG).read_text())["pcnn"]
    assert told["sha256"] == SPECS["small"].sha256 and told["size"] == 112
    assert told["architecture"] == "trunk" and told["classes"][1] == "happiness"
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: pcnn\n") and "# pcnn-small" in card


def test_names_files_and_folders(folder: Path, astronaut: Path) -> None:
    assert fetch("small") == locate("small") == fetch(locate("small"))
    assert fetch(folder) == fetch(str(folder)) == folder / "pcnn-small.safetensors"
    recognizer = pcnn.from_pretrained(folder, recognizer_options={"batch_size": 2})
    assert recognizer.weights_sha256 == SPECS["small"].sha256 and recognizer.batch_size == 2
    assert recognizer.predict(astronaut).faces[0].label == "happiness"


def test_there_and_back(fake: FakeHub) -> None:
    address = push_to_hub("small", "me/faces", token="t", message="first")
    assert address == "https://hub/me/faces/commit/first"
    found = fetch("me/faces", revision="v1", checksum=SPECS["small"].sha256.upper())
    assert found.read_bytes() == locate("small").read_bytes()
    assert fake.asked == ["t", ("me/faces", True), ("me/faces", "v1", (CONFIG, "*.safetensors"))]


def test_weights_without_a_card_get_a_plain_one(tmp_path: Path) -> None:
    shutil.copy(locate("small"), tmp_path / "own.safetensors")
    write_repository(tmp_path / "own.safetensors", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# own" in card and "Classes: neutral, happiness" in card


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sha256": "0" * 64}, r"sha256 of pcnn-small\.safetensors is .*, expected 0{64}"),
        ({"classes": ["a", "b"]}, r"config\.json says classes \['a', 'b'\], but"),
        ({"size": 64}, r"config\.json says size 64, but pcnn-small\.safetensors has 112"),
        ({"file": "../pcnn-small.safetensors"}, "which is not beside it"),
        ({"file": "gone.safetensors"}, "names the file 'gone.safetensors'"),
    ],
)
def test_what_is_not_as_told_is_refused(folder: Path, values: dict[str, Any], message: str) -> None:
    shutil.copy(locate("small"), folder.parent / "pcnn-small.safetensors")
    change(folder, **values)
    with pytest.raises(WeightsError, match=message):
        pcnn.from_pretrained(folder)


def test_exchanged_weights_with_a_fitting_config_need_a_checksum(folder: Path) -> None:
    path = folder / "pcnn-small.safetensors"
    tensors, metadata = read(path)
    write(path, tensors, {**metadata, "temperature": 9.0})
    change(folder, sha256=pcnn.weights.sha256(path))
    assert fetch(folder) == path
    with pytest.raises(WeightsError, match="another file"):
        fetch(folder, checksum=SPECS["small"].sha256)


def test_errors(tmp_path: Path, fake: FakeHub) -> None:
    with pytest.raises(WeightsError, match="no weights file or folder, no known name"):
        fetch("nothing")
    with pytest.raises(WeightsError, match=r"no/where: cannot be had from the hub \(no route\)"):
        fetch("no/where")
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        fetch(tmp_path)
    (tmp_path / CONFIG).write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match=r"its config\.json is none of pcnn's"):
        fetch(tmp_path)
    with pytest.raises(WeightsError, match="mobilenet: holds weights of kind detector"):
        fetch("mobilenet")
    with pytest.raises(WeightsError, match="repository must be owner/name, got 'faces'"):
        push_to_hub("small", "faces")
    with pytest.raises(WeightsError, match="no such weights file"):
        push_to_hub("nothing", "me/faces")
    with pytest.raises(InputError, match="must not name weights"):
        pcnn.from_pretrained("small", recognizer_options={"weights": "small"})


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(hub, "importlib", SimpleNamespace(import_module=missing))
    with pytest.raises(WeightsError, match=r"huggingface_hub must be installed: .*pcnn\[hub\]"):
        fetch("no/where")


def test_the_real_client_is_called_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline: the client itself refuses, before any network."""
    import inspect

    client = pytest.importorskip("huggingface_hub", reason="needs pip install 'pcnn[hub]'")
    assert {"revision", "allow_patterns"} <= set(
        inspect.signature(client.snapshot_download).parameters
    )
    assert {"private", "exist_ok"} <= set(inspect.signature(client.HfApi.create_repo).parameters)
    assert {"repo_id", "folder_path", "commit_message"} <= set(
        inspect.signature(client.HfApi.upload_folder).parameters
    )
