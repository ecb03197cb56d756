"""Films without end, ended by Ctrl-C: what there is of them is whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cli
import pytest
from films import PEOPLE, face, scene, write_film

from pcnn import Recognizer

COUNT = 60


@pytest.fixture(scope="module")
def film(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of one person, in a container that can be read from a pipe."""
    picture = face(shared_data / "lfw" / "lfw_faces.tar", PEOPLE[0], 120)
    frames = [scene([(picture, 90 + step, 100)], size=(256, 200)) for step in range(COUNT)]
    return write_film(tmp_path_factory.mktemp("films") / "endless.mkv", frames)


@pytest.mark.parametrize(("kind", "end"), [("table", "neutral 100%"), ("json", "\n]")])
def test_an_interrupted_film_has_its_table_and_its_json(
    kind: str,
    end: str,
    film: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recognizer = Recognizer("small", device="cpu")
    predict_video = recognizer.predict_video

    class Interrupted:
        """A film whose frames end as by Ctrl-C."""

        def __init__(self, *source: object, **options: object) -> None:
            self._film = predict_video(*source, **options)  # type: ignore[arg-type]
            self.info, self.broken = self._film.info, 0

        def __enter__(self) -> Interrupted:
            return self

        def __exit__(self, *_: object) -> None:
            self._film.close()

        def __iter__(self) -> Iterator[object]:
            for frame, _ in zip(self._film, range(5), strict=False):
                yield frame
            raise KeyboardInterrupt

    monkeypatch.setattr("pcnn.commands.predict.load_recognizer", lambda _: recognizer)
    monkeypatch.setattr(recognizer, "predict_video", Interrupted)
    assert cli.predict([str(film), "--format", kind]) == 130
    out = capsys.readouterr().out
    assert "\n".join(line.rstrip() for line in out.splitlines() if line.strip()).endswith(end)
    assert "0:00.3" in out or out.count('"frame"') == 5
