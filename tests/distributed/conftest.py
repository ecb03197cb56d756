"""Photographs for many processes: of people, with bad ones among them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

COUNT = 500


@pytest.fixture(scope="session")
def archive(shared_data: Path) -> tarfile.TarFile:
    return tarfile.open(shared_data / "lfw" / "lfw_faces.tar")


@pytest.fixture(scope="session")
def photographs(archive: tarfile.TarFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 pictures: every twentieth cannot be read, and one more has no face."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(COUNT):
        while True:
            member = archive.next()
            assert member is not None, "the archive has too few photographs"
            if member.isfile():
                break
        stream = archive.extractfile(member)
        assert stream is not None
        content = stream.read()
        if number % 20 == 7:
            content = b"" if number % 40 == 7 else content[: len(content) // 3]
        (folder / f"{number:03d}-{Path(member.name).name}").write_bytes(content)
    blank = io.BytesIO()
    Image.new("RGB", (200, 200), (90, 60, 30)).save(blank, "PNG")
    (folder / "050-blank.png").write_bytes(blank.getvalue())
    return folder
