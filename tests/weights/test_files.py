from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pcnn import weights
from pcnn.errors import WeightsError
from pcnn.weights import files
from pcnn.weights.known import SPECS, WeightSpec


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PCNN_WEIGHTS", raising=False)
    return tmp_path / "cache" / "pcnn"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server on this machine that offers tmp_path/published."""
    folder = tmp_path / "published"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def _publish(folder: Path, url: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / "new.bin").write_bytes(content)
    checksum = weights.sha256(folder / "new.bin")
    spec = WeightSpec("detector", "new.bin", checksum, f"{url}/new.bin")
    monkeypatch.setattr(files, "SPECS", {"new": spec})
    return checksum


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.url is None])
def test_packaged_files_are_those_that_were_measured(name: str, cache: Path) -> None:
    path = weights.locate(name)
    assert weights.sha256(path) == SPECS[name].sha256
    assert path.stat().st_size < 100e6
    assert SPECS[name].labels == tuple(weights.read(path)[1].get("labels") or ())


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"x")
    assert weights.locate(tmp_path / "mine.safetensors") == tmp_path / "mine.safetensors"
    with pytest.raises(WeightsError) as error:
        weights.locate("nonsense")
    assert str(error.value) == (
        "nonsense: no such weights file or known name "
        "(pcnn-ferplus, pcnn-ferplus-only, small, mobile, mobilenet, landmarks, movements, "
        "resnet50)"
    )
    with pytest.raises(WeightsError, match=r"known name \(mobilenet, resnet50\)$"):
        weights.locate("nonsense", kind="detector")


def test_the_users_folder_comes_first(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = weights.locate("mobilenet")
    copy = tmp_path / packaged.name
    copy.write_bytes(packaged.read_bytes())
    monkeypatch.setenv("PCNN_WEIGHTS", str(tmp_path))
    assert weights.locate("mobilenet") == copy
    damaged = bytearray(copy.read_bytes())
    damaged[-1] ^= 1
    copy.write_bytes(damaged)
    with pytest.raises(WeightsError, match=r"sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}"):
        weights.locate("mobilenet")


def test_download(
    cache: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = tmp_path / "published"
    _publish(published, server, b"weights" * 1000, monkeypatch)
    assert weights.locate("new") == cache / "new.bin"
    (published / "new.bin").unlink()
    assert weights.locate("new").read_bytes() == b"weights" * 1000  # from the cache
    assert [path.name for path in cache.iterdir()] == ["new.bin"]


def test_a_download_that_is_not_what_was_published(
    cache: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(tmp_path / "published", server, b"weights", monkeypatch)
    (tmp_path / "published" / "new.bin").write_bytes(b"changed")
    with pytest.raises(WeightsError, match=r"^http://127.*: sha256 is"):
        weights.locate("new")
    (tmp_path / "published" / "new.bin").unlink()
    with pytest.raises(WeightsError, match=r"download failed .*; fetch it by other means"):
        weights.locate("new")
    assert list(cache.iterdir()) == []


def test_a_name_without_file_or_url(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SPECS", {"lost": WeightSpec("expression", "lost.bin", "00")})
    with pytest.raises(WeightsError, match=r"lost: lost.bin not found in .*; reinstall pcnn"):
        weights.locate("lost")


def test_read_and_write(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"x": torch.arange(6.0).view(2, 3).t(), "n": torch.tensor(3)}
    weights.write(path, tensors, {"kind": "test", "numbers": [1, 2.5]})
    found, metadata = weights.read(path)
    assert torch.equal(found["x"], tensors["x"]) and torch.equal(found["n"], tensors["n"])
    assert metadata == {"kind": "test", "numbers": [1, 2.5]}
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        weights.read(tmp_path / "absent.safetensors")
    (tmp_path / "text").write_text("hello, this is no weights file")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        weights.read(tmp_path / "text")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        weights.read(tmp_path / "empty")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="not one written by pcnn"):
        weights.read(tmp_path / "foreign.safetensors")


def test_metadata_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    weights.write(path, {"x": torch.zeros(1)}, {"architecture": "pcnn"})
    with pytest.raises(WeightsError, match="its contents do not fit together"):
        weights.load_expression(path)
    weights.write(path, {"x": torch.zeros(1)}, {"architecture": "trunk"})
    with pytest.raises(WeightsError, match="its contents do not fit together"):
        weights.load_expression(path)


def test_a_file_that_is_replaced_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, open_tensors = tmp_path / "x.safetensors", torch.UntypedStorage.from_file
    weights.write(path, {"x": torch.zeros(9)}, {"number": 0})
    numbers = iter((1, 2))

    def replace_first(*words: Any, **options: Any) -> Any:
        number = next(numbers, None)
        if number is not None:
            weights.write(path, {"x": torch.full((9,), float(number))}, {"number": number})
        return open_tensors(*words, **options)

    monkeypatch.setattr(torch.UntypedStorage, "from_file", replace_first)
    tensors, metadata = weights.read(path)
    assert next(numbers, None) is None, "nothing was replaced while the file was opened"
    assert metadata["number"] == 2 and bool((tensors["x"] == 2).all())
