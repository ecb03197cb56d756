"""What several tests share: where the data lies, and the network's parts in small."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).parent.parent

# A busy machine may take any time over any example. On CI each run draws the same examples.
settings.register_profile("unhurried", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("unhurried")


# Markers of tests that need an extra: its name, and what it brings.
EXTRAS = {
    "train": ("train", ("kornia", "sklearn", "matplotlib")),
    "engines": ("openvino", ("openvino", "onnxruntime", "onnx", "onnxscript")),
    "ray": ("ray", ("ray", "pyarrow", "pandas")),
    "tables": ("tables,supervision", ("pandas", "pyarrow", "supervision")),
    "serve": ("dev", ("fastapi", "uvicorn", "python_multipart", "httpx")),
    "notebooks": ("docs", ("jupytext", "nbclient", "ipykernel")),
    "browser": ("dev", ("fastapi", "uvicorn", "python_multipart", "selenium")),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the packages of an extra where they are not installed."""
    for marker, (extra, needed) in EXTRAS.items():
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        reason = f"needs {', '.join(missing)}: pip install 'pcnn[{extra}]'"
        for item in items:
            if missing and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder ../shared/data beside the checkout; skips, saying so, where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not all((folder / name).is_dir() for name in ("ferplus", "lfw", "teacher")):
        pytest.skip(f"needs the training data in {folder}")
    return folder


@pytest.fixture(scope="session")
def astronaut() -> Path:
    """The portrait of the README's first command: one face, smiling."""
    return ROOT / "docs" / "images" / "astronaut.png"


@pytest.fixture(autouse=True)
def _seed(request: pytest.FixtureRequest) -> None:
    """Each test draws the same random tensors in every run, whichever tests ran before it."""
    torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """Python's own answer to Ctrl-C, also where a shell started pytest in the background.

    There SIGINT is ignored, and every process that the tests start would inherit that.
    """
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and on a busy machine wait long for them."""
    torch.set_num_threads(1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB; skips where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if (
        not shutil.which("mount")
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)
