"""Pictures found in folders, URIs and Parquet, and cut into partitions."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcnn.distributed.sources import (
    NamedPicture,
    open_film,
    open_picture,
    partitions,
    read_partition,
)
from pcnn.errors import InputError
from pcnn.images.loading import load_image

pytestmark = pytest.mark.tables


@pytest.fixture
def folder(tmp_path: Path, astronaut: Path) -> Path:
    """Five pictures: b, a, c below one folder; d in one below it; a hidden one."""
    (tmp_path / "in" / "below").mkdir(parents=True)
    for name in ("b.png", "a.png", "c.PNG", "below/d.png", ".hidden.png"):
        (tmp_path / "in" / name).write_bytes(astronaut.read_bytes())
    return tmp_path / "in"


def names(found: list[tuple[str, ...]], folder: Path) -> list[list[str]]:
    return [[name.removeprefix(str(folder) + "/") for name in each] for each in found]


def test_folders_are_cut_into_partitions_in_order(folder: Path) -> None:
    found, errors = partitions([str(folder), str(folder / "a.png"), "none/*.png"], 3)
    assert [each.number for each in found] == [0, 1]
    listed = names([each.pictures for each in found], folder)
    assert listed == [["a.png", "b.png", "below/d.png"], ["c.PNG"]]
    assert [str(error) for error in errors] == ["none/*.png: no pictures match this pattern"]


def test_a_film_has_a_partition_alone_after_the_pictures(folder: Path) -> None:
    for name in ("a.mp4", "below/b.MKV"):
        (folder / name).write_bytes(b"")
    found, _ = partitions([str(folder)], 9)
    assert [len(each.pictures) for each in found] == [4, 0, 0]
    assert [each.film for each in found] == ["", f"{folder}/a.mp4", f"{folder}/below/b.MKV"]
    remote, _ = partitions([f"file://{folder}"], 9)
    assert [each.film for each in remote[1:]] == [f"file://{each.film}" for each in found[1:]]
    assert len(partitions([str(folder)], 9, films=False)[0]) == 1


def test_uris_are_listed_and_read(folder: Path, astronaut: Path) -> None:
    (one,), errors = partitions([f"file://{folder}"], 10)
    assert not errors
    assert one.pictures == tuple(
        f"file://{folder}/{name}" for name in ("a.png", "b.png", "below/d.png", "c.PNG")
    )
    assert open_picture("a.png") == "a.png"
    remote = open_picture(one.pictures[0])
    assert isinstance(remote, NamedPicture) and remote.read() == astronaut.read_bytes()
    (single,), _ = partitions([one.pictures[1]], 10)
    assert single.pictures == one.pictures[1:2]


@pytest.mark.parametrize("query", ["", "?region=eu-west-1"])
def test_names_of_any_kind_are_found_below_a_uri(
    query: str, tmp_path: Path, astronaut: Path
) -> None:
    folder = tmp_path / "my photos"
    folder.mkdir()
    for name in ("a b.png", "50%.png", "ä#1?.png", "plain (1).png", "a%20b.png"):
        (folder / name).write_bytes(astronaut.read_bytes() + name.encode())
    (one,), errors = partitions([folder.as_uri() + query], 10)
    assert not errors
    read = set()
    for uri in one.pictures:
        (again,), _ = partitions([uri], 1)
        assert again.pictures == (uri,)
        picture = open_picture(uri)
        assert isinstance(picture, NamedPicture)
        read.add(picture.read().removeprefix(astronaut.read_bytes()).decode())
    assert read == {each.name for each in folder.iterdir()}
    assert f"{folder.as_uri()}/plain%20(1).png{query}" in one.pictures


def test_films_and_tables_below_a_uri_with_a_query(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    (folder / "a.mp4").write_bytes(b"")
    found, _ = partitions([f"file://{folder}?a=1"], 9)
    assert [each.film for each in found] == ["", f"file://{folder}/a.mp4?a=1"]
    parquet.write_table(pyarrow.table({"bytes": [b"0"]}), folder / "t.parquet")
    (table,), errors = partitions([f"file://{folder}/t.parquet?a=1"], 9)
    assert table.parquet == f"file://{folder}/t.parquet?a=1" and not errors


def test_parquet_keeps_its_row_groups_whole(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(
        {"bytes": [b"0", b"1", None, b"3", b"4"], "path": ["a", "b", "c", "d", None]}
    )
    path = tmp_path / "pictures.parquet"
    parquet.write_table(table, path, row_group_size=2)
    found, errors = partitions([str(path)], 3)
    assert not errors and [each.row_groups for each in found] == [(0, 1), (2,)]
    read = [list(read_partition(each)) for each in found]
    assert [name for name, _ in read[0]] == ["a", "b", "c", "d"]
    assert [name for name, _ in read[1]] == [None]
    assert read[0][1][1].read() == b"1"
    with pytest.raises(InputError, match=r"c: .*it is null"):
        load_image(read[0][2][1])
    with pytest.raises(InputError, match=r"picture: text, not a picture"):
        load_image(read[1][0][1])
    folder = tmp_path / "many.parquet"
    folder.mkdir()
    path.rename(folder / "x.parquet")
    (folder / "_unfinished.parquet").write_bytes(b"")
    assert [each.row_groups for each in partitions([str(folder)], 3)[0]] == [(0, 1), (2,)]


def test_sources_that_cannot_be_read_are_named(tmp_path: Path, folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "bad.parquet").write_bytes(b"no table")
    parquet.write_table(pyarrow.table({"image": [b""]}), tmp_path / "other.parquet")
    bad = [str(tmp_path / "bad.parquet"), str(tmp_path / "none.parquet"), "nowhere://x/y"]
    found, errors = partitions([*bad, "file:///nowhere/at/all", str(folder)], 10)
    assert len(found) == 1 and len(found[0].pictures) == 4
    for error, part in zip(
        errors,
        ("not a Parquet file that can be read", "no Parquet files there", "cannot be read", "no "),
        strict=True,
    ):
        assert part in str(error)
    (other,), _ = partitions([str(tmp_path / "other.parquet")], 10)
    with pytest.raises(InputError, match=r"must have the column 'bytes'.*got image"):
        list(read_partition(other))


def test_pictures_that_cannot_be_fetched_are_named() -> None:
    with pytest.raises(InputError, match=r"file:///nowhere/a\.mp4: cannot be read"):
        open_film("file:///nowhere/a.mp4")
    missing = open_picture("file:///nowhere/a.png")
    with pytest.raises(InputError, match=r"file:///nowhere/a\.png: the file object cannot be read"):
        load_image(missing)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"picture: .*it is null"):
        load_image(open_picture(None))  # type: ignore[arg-type]
