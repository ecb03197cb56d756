"""Units of facial action: who shows them, how far maps tell them apart, what chance finds."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import cli
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pcnn import weights
from pcnn.analysis.deconvnet import FeatureMap, feature_maps, maximal_responses
from pcnn.analysis.unit_charts import draw_heat, unit_table, write_csv
from pcnn.analysis.units import Sensitivity, measure, untrained_like
from pcnn.datasets.action_units import (
    PARTS,
    PROTOTYPES,
    UNITS,
    UnitFaces,
    balanced,
    chimeras,
    from_estimates,
    from_prototypes,
    from_table,
)
from pcnn.datasets.labels import FaceSet, one_hot
from pcnn.errors import InputError
from pcnn.faces.views import face_views
from pcnn.networks.pcnn import FERPLUS_CLASSES, PCNN, FaceNet, ModelConfig
from pcnn.networks.regions import RegionLayout
from pcnn.results.movements import FaceMotion, Pose

GREY = ModelConfig(size=32, mean=(0.5,), std=(0.25,), width=4)
Captured = pytest.CaptureFixture[str]


def face_set(labels: list[str], classes: tuple[str, ...] = FERPLUS_CLASSES) -> FaceSet:
    """Faces of 16 × 16 pixels, each all of its own brightness."""
    count = len(labels)
    tones = torch.arange(count).remainder(256).to(torch.uint8)
    faces = tones.view(-1, 1, 1).expand(-1, 16, 16).contiguous()
    return FaceSet(faces, one_hot(labels, classes), tuple(f"f{i}" for i in range(count)), classes)


def marked(present: NDArray[np.bool_], units: tuple[int, ...]) -> UnitFaces:
    faces = torch.zeros(len(present), 16, 16, dtype=torch.uint8)
    return UnitFaces(faces, units, present)


def named(count: int, trunk: str = "face") -> list[FeatureMap]:
    return [FeatureMap(trunk, "layer3", i) for i in range(count)]


# --- labels ---


def test_prototypes_by_hand() -> None:
    labels = ["happy"] * 10 + ["fear"] * 10 + ["contempt"] * 10 + ["anger"] * 9
    classes = ("anger", "contempt", "fear", "happy")
    found = from_prototypes(face_set(labels, classes))
    assert found.units == (1, 2, 4, 5, 6, 7, 12, 14, 20, 26)
    assert found.left_out == (9, 15, 16, 23)  # nobody's, or anger's nine alone
    shown = {unit: found.present[:, i].astype(int).tolist() for i, unit in enumerate(found.units)}
    assert shown[12] == [1] * 10 + [0] * 10 + [1] * 10 + [0] * 9
    assert shown[6] == [1] * 10 + [0] * 29
    assert shown[4] == [0] * 10 + [1] * 10 + [0] * 10 + [1] * 9
    assert found.alike == [(1, 2, 20, 26), (4, 5, 7)]


def test_prototypes_speak_of_all_classes_and_known_units() -> None:
    assert set(PROTOTYPES) == set(FERPLUS_CLASSES)
    assert {unit for each in PROTOTYPES.values() for unit in each} <= set(UNITS)
    assert {part for _, part in UNITS.values()} == set(PARTS)
    with pytest.raises(InputError, match="no prototype for bored; known are neutral, happiness"):
        from_prototypes(face_set(["bored"], ("bored", "happy")))
    with pytest.raises(InputError, match="no unit is present in at least 10 faces"):
        from_prototypes(face_set(["happiness"] * 12))


def test_a_table(tmp_path: Path) -> None:
    faces = face_set(["neutral"] * 25)
    table = tmp_path / "units.csv"
    lines = [f"f{i},{int(i % 2)},{int(i < 11)},0" for i in range(24)] + ["", "other,1,1,1"]
    table.write_text("\ufeffimage,AU12,au_04,6\n" + "\n".join(lines) + "\n", encoding="utf-8")
    found = from_table(faces, table)
    assert found.units == (4, 12) and found.left_out == (6,)
    assert len(found.faces) == 24  # the last has no line
    assert found.present[:, 0].tolist() == [i < 11 for i in range(24)]
    assert found.present[:, 1].tolist() == [i % 2 == 1 for i in range(24)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header image,AU1,AU2,…, got ''"),
        ("name,AU1\n", "expected a header image,AU1,AU2,…, got 'name,AU1'"),
        ("image,AU1,smile\n", "column 'smile' is not an action unit; known are 1, 2, 4"),
        ("image,AU54\n", "column 'AU54' is not an action unit"),
        ("image,AU1,1\n", "unit 1 has two columns"),
        ("image,AU1\nf0,2\n", "line 2: expected a name and 1 value of 0 or 1, got 'f0,2'"),
        ("image,AU1\nf0,1\nf1\n", "line 3: expected a name and 1 value of 0 or 1, got 'f1'"),
        ("image,AU1\nf0,1\nf0,1\n", "f0 has two lines"),
        ("image,AU1\ng0,1\n", "no line names one of the 20 faces; the first face is f0"),
        (
            "image,AU1\nf0,1\n",
            "present in at least 10 faces and absent in at least 10, of 1 face",
        ),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "units.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=message):
        from_table(face_set(["neutral"] * 20), table)


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        from_table(face_set(["neutral"]), tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a CSV file in UTF-8"):
        from_table(face_set(["neutral"]), tmp_path / "binary.csv")


def test_estimates_mark_the_quarter_that_shows_a_unit_most() -> None:
    faces = face_set(["neutral"] * 40)
    rising = np.arange(40) / 40
    estimates = {26: rising[::-1], 12: rising, 4: np.full(40, 0.5), 1: rising / 100}
    found = from_estimates(faces, estimates)
    assert found.units == (12, 26) and found.left_out == (1, 4)  # those that hardly vary
    assert np.flatnonzero(found.present[:, 0]).tolist() == list(range(30, 40))
    assert np.flatnonzero(found.present[:, 1]).tolist() == list(range(10))
    with pytest.raises(InputError, match="from_estimates: unit 99 is unknown; known are"):
        from_estimates(faces, {99: rising})
    with pytest.raises(InputError, match="from_estimates: no unit is present"):
        from_estimates(faces, {4: np.full(40, 0.5)})


def test_balanced() -> None:
    faces = face_set(["neutral"] * 30 + ["fear"] * 3)
    found = balanced(faces, 5, seed=1)
    assert found.votes.sum(0).tolist() == [5, 0, 0, 0, 0, 0, 3, 0]
    assert found.names == balanced(faces, 5, seed=1).names != balanced(faces, 5, seed=2).names
    with pytest.raises(InputError, match="most must be at least 1, got 0"):
        balanced(faces, 0)


def test_chimeras_are_made_of_whole_parts_and_keep_their_units() -> None:
    """Every face is of one tone, so that it can be recognised; rows 0…7, 8…9, 10…15 are parts."""
    count = 60
    present = np.zeros((count, 3), bool)
    present[:20, 0] = present[10:30, 1] = present[20:40, 2] = True
    labelled = UnitFaces(face_set(["neutral"] * count).faces, (1, 6, 12), present)
    found = chimeras(labelled, RegionLayout(), seed=3)
    assert found.faces.shape == (count, 16, 16)
    for column, (top, bottom) in enumerate(((0, 8), (8, 10), (10, 16))):
        band = found.faces[:, top:bottom].flatten(1)
        assert (band == band[:, :1]).all()
        donors = band[:, 0].tolist()
        assert sorted(donors) == list(range(count))  # each gives each part once
        assert found.present[:, column].tolist() == present[donors, column].tolist()
    parts = found.faces[:, (0, 9, 15), 0]
    assert sum(len(set(row.tolist())) == 3 for row in parts) > 50


# --- distances ---


def test_a_distance_by_hand() -> None:
    """With the unit 5, 7; without 1, 2, 3: 4 apart, pooled variance (2 + 2) / 3."""
    present = np.array([[True], [True], [False], [False], [False]])
    responses = torch.tensor([[5.0, 4], [7, 4], [1, 4], [2, 4], [3, 4]])
    found = measure(named(2), responses, marked(present, (12,)), permutations=50)
    assert found.distances[0, 0] == pytest.approx(4 / (4 / 3) ** 0.5)
    assert found.distances[1, 0] == 0 and found.p_values[1, 0] == 1  # it always responds alike
    assert found.shown.tolist() == [2] and found.faces == 5
    # Exactly two of the ten ways to choose two faces are as extreme: 5, 7 and, the other way, none.
    other = measure(named(2), -responses, marked(present, (12,)), permutations=50)
    assert other.distances[0, 0] == pytest.approx(-found.distances[0, 0])
    scaled = measure(named(2), 1000 * responses + 3, marked(present, (12,)), permutations=50)
    np.testing.assert_allclose(scaled.distances, found.distances, atol=1e-9)


def test_a_p_value_by_hand() -> None:
    """One map, one unit in 2 of 5 faces: of the ten ways to deal it out one is as extreme."""
    present = np.array([[True], [True], [False], [False], [False]])
    responses = torch.tensor([[5.0], [7], [1], [2], [3]])
    found = measure(named(1), responses, marked(present, (12,)), permutations=4000, seed=1)
    assert found.p_values[0, 0] == pytest.approx(0.1, abs=0.02)


def planted(seed: int = 0) -> tuple[UnitFaces, Tensor]:
    """300 faces, 4 units, 40 maps of noise: map 7 detects unit 12, map 9 less so, map 11 answers
    to its absence; units 2 and 26 are shown by the same faces, and map 20 detects them."""
    draw = np.random.default_rng(seed)
    present = draw.random((300, 4)) < (0.3, 0.3, 0.05, 0.3)
    present[:, 3] = present[:, 0]
    responses = draw.normal(5, 2, (300, 40))
    responses[:, 7] += 4 * present[:, 1]
    responses[:, 9] += 2 * present[:, 1]
    responses[:, 11] -= 3 * present[:, 1]
    responses[:, 20] += 3 * present[:, 0]
    return marked(present, (2, 12, 16, 26)), torch.from_numpy(responses)


def test_planted_detectors_are_found_and_nothing_else() -> None:
    labelled, responses = planted()
    found = measure(named(40), responses, labelled, permutations=500)
    assert [each.channel for each in found.most_sensitive(12)] == [7, 9]
    assert [each.channel for each in found.most_sensitive(12, 1)] == [7]
    assert found.distances[7, 1] == pytest.approx(2, abs=0.4)
    assert found.significant[11, 1] and found.distances[11, 1] < -1
    own = found.own_units()
    assert own[7] == own[9] == (12,)
    assert own[20] == (2, 26) and labelled.alike == [(2, 26)]
    assert own[11] == () and sum(map(bool, own)) == 3
    assert found.significant.sum() == 5
    with pytest.raises(InputError, match="unit must be one of 2, 12, 16, 26, got 4"):
        found.most_sensitive(4)


def test_chance_finds_something_in_one_of_twenty_sets_only() -> None:
    """60 sets of noise: 160 maps and units each would alone give eight findings at 5 %."""
    false = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        labelled = marked(draw.random((50, 4)) < 0.3, (1, 2, 4, 5))
        responses = torch.from_numpy(draw.exponential(1, (50, 40)))
        false += measure(named(40), responses, labelled, permutations=99).significant.any()
    assert 1 <= false <= 9  # of Binomial(60, 0.05): less or more in 5 and 0.2 % of tries; seeded


def test_shuffled_labels_find_nothing() -> None:
    """But for one time in twenty."""
    labelled, responses = planted()
    found = 0
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(300)
        shuffled = marked(labelled.present[order], labelled.units)
        measured = measure(named(40), responses, shuffled, permutations=99)
        found += measured.significant.any()
    assert found <= 5  # of Binomial(20, 0.05), 99.9 %


def test_within_groups_an_expression_s_share_is_no_finding() -> None:
    """A map that follows the expression alone is found without groups, and not within them."""
    draw = np.random.default_rng(3)
    groups = np.repeat(np.arange(4), 60)
    tends = np.array([0.1, 0.4, 0.6, 0.9])[groups]
    present = draw.random((240, 1)) < tends[:, None]
    noise = draw.normal(size=(240, 2))
    follows = noise[:, 0] + 4 * groups  # the expression, and nothing else
    detects = noise[:, 1] + 4 * groups + 1.5 * present[:, 0]
    responses = torch.from_numpy(np.stack((follows, detects), 1))
    labelled = marked(present, (12,))
    plain = measure(named(2), responses, labelled, permutations=500)
    within = measure(named(2), responses, labelled, permutations=500, groups=groups)
    assert plain.significant.tolist() == [[True], [True]]
    assert within.significant.tolist() == [[False], [True]]
    assert within.distances[1, 0] == pytest.approx(1.5, abs=0.3)
    alone = measure(named(2), responses, labelled, permutations=500, groups=np.zeros(240, int))
    np.testing.assert_allclose(alone.distances, plain.distances, rtol=1e-9)
    np.testing.assert_array_equal(alone.p_values, plain.p_values)


def test_a_unit_that_tells_groups_apart_is_no_finding_within_them() -> None:
    groups = np.repeat([0, 1], 30)
    responses = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 3)))
    found = measure(named(3), responses, marked(groups[:, None] == 1, (6,)), groups=groups)
    assert not found.distances.any() and (found.p_values == 1).all()


def test_what_cannot_be_measured() -> None:
    labelled, responses = planted()
    with pytest.raises(InputError, match=r"responses must be \(300, 3\), got \(300, 40\)"):
        measure(named(3), responses, labelled)
    with pytest.raises(InputError, match="permutations must be at least 1, got 0"):
        measure(named(40), responses, labelled, permutations=0)
    nobody = marked(np.zeros((300, 1), bool), (4,))
    with pytest.raises(InputError, match="of at least 3; got 300 faces, unsuitable: 4"):
        measure(named(40), responses, nobody)


def test_an_untrained_network() -> None:
    """Its norms are settled on the faces, its weights are the seed's, the original's untouched."""
    network = FaceNet(GREY).eval()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    faces = torch.randint(0, 256, (70, 16, 16), dtype=torch.uint8)
    state = torch.get_rng_state()
    fresh = untrained_like(network, faces, native_size=16, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    again = untrained_like(network, faces, native_size=16, seed=4)
    other = untrained_like(network, faces, native_size=16, seed=5)
    weight = "trunk.layer2.0.conv1.weight"
    assert isinstance(fresh, FaceNet) and not fresh.training
    assert torch.equal(fresh.state_dict()[weight], again.state_dict()[weight])
    assert not torch.equal(fresh.state_dict()[weight], other.state_dict()[weight])
    assert not torch.equal(fresh.state_dict()[weight], network.state_dict()[weight])
    assert all(torch.equal(before[name], each) for name, each in network.state_dict().items())
    (views,) = face_views(network, faces, 16)
    found = fresh.trunk.bn1(fresh.trunk.conv1(views))
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(4), atol=0.1, rtol=0)
    torch.testing.assert_close(found.std((0, 2, 3)), torch.ones(4), atol=0.1, rtol=0)


# --- a network ---


def drawn_faces(count: int = 120) -> FaceSet:
    """Faces of noise; happy ones have a bright bar at the mouth, surprised ones one at the eyes
    and, as the prototype of surprise has a unit of the mouth, too, a dark one at the mouth."""
    draw = np.random.default_rng(0)
    labels = [("neutral", "happiness", "surprise")[i % 3] for i in range(count)]
    pixels = draw.integers(100, 156, (count, 16, 16)).astype(np.uint8)
    for face, label in zip(pixels, labels, strict=True):
        if label == "happiness":
            face[12:14, 4:12] = 255
        if label == "surprise":
            face[4:6] = 255
            face[12:14, 4:12] = 0
    names = tuple(f"f{i}" for i in range(count))
    return FaceSet(torch.from_numpy(pixels), one_hot(labels, FERPLUS_CLASSES), names)


@pytest.fixture(scope="module")
def network() -> PCNN:
    """Untrained: random filters see a bright bar, too."""
    fresh = untrained_like(PCNN(GREY), drawn_faces().faces, native_size=16, seed=1)
    assert isinstance(fresh, PCNN)
    return fresh


def test_chimeras_take_apart_what_expressions_tie_together(network: PCNN) -> None:
    """In whole faces maps of the mouth answer to units 2 and 26 alike; in chimeras to 26 alone,
    and those of the eyes to 2."""
    whole = from_prototypes(drawn_faces())
    mixed = chimeras(whole, network.config.layout)
    maps = feature_maps(network)
    assert whole.alike == [(1, 2, 5, 26), (6, 12)] and mixed.alike == [(1, 2, 5)]
    found: dict[str, Sensitivity] = {}
    for name, labelled in (("whole", whole), ("mixed", mixed)):
        responses = maximal_responses(network, labelled.faces, native_size=16)
        found[name] = measure(maps, responses, labelled, permutations=99)
    for trunk, part in (("mouth", "mouth"), ("left_eye", "eyes")):
        rows = [i for i, each in enumerate(maps) if each.trunk == trunk]
        parts = {
            name: {UNITS[u][1] for row in rows for u in each.own_units()[row]}
            for name, each in found.items()
        }
        assert parts["mixed"] == {part}
        assert parts["whole"] >= {"eyes", "mouth"}


# --- tables and pictures ---


def test_tables_say_what_was_found(tmp_path: Path) -> None:
    labelled, responses = planted()
    found = measure(named(40), responses, labelled, permutations=200)
    write_csv(found, maps=tmp_path / "maps.csv", units=tmp_path / "units.csv")
    with (tmp_path / "maps.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert [rows[i]["unit"] for i in (0, 7, 20)] == ["", "12", "2 26"]
    assert float(rows[7]["distance_12"]) == pytest.approx(found.distances[7, 1], abs=1e-4)
    assert float(rows[0]["p_12"]) > 0.05 > float(rows[7]["p_12"])
    with (tmp_path / "units.csv").open(newline="") as file:
        lines = [(row["unit"], row["rank"], row["map"]) for row in csv.DictReader(file)]
    assert lines == [
        ("2", "1", "face/layer3/20"),
        ("12", "1", "face/layer3/7"),
        ("12", "2", "face/layer3/9"),
        ("26", "1", "face/layer3/20"),
    ]
    told = json.loads(json.dumps(found.to_dict()))
    assert told["detectors"]["face/layer3/20"] == [2, 26]
    assert [each["map"] for each in told["units"]["12"]["maps"]] == [
        "face/layer3/7",
        "face/layer3/9",
    ]
    columns = [list(column.cells) for column in unit_table(found).columns]
    assert columns[0] == [
        "2 outer brow raiser",
        "12 lip corner puller",
        "16 lower lip depressor",
        "26 jaw drop",
    ]
    assert columns[3] == ["1", "2", "0", "1"] and columns[4][2] == "none"


class Counted(FeatureMap):
    """A map that counts how often maps are compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__eq__(other)

    __hash__ = FeatureMap.__hash__


def test_findings_are_told_at_a_cost_linear_in_the_maps(tmp_path: Path) -> None:
    count = 60
    found = Sensitivity(
        maps=tuple(Counted("face", "layer3", number // 2) for number in range(count)),
        units=(1, 2),
        distances=np.arange(1, 2 * count + 1, dtype=float).reshape(count, 2),
        p_values=np.arange(2 * count).reshape(count, 2) / 1e4,
        shown=np.array([5, 6]),
        faces=11,
        permutations=10,
    )
    told = found.to_dict()["units"]
    # Each map has its own numbers, also where two have one name.
    expected = list(range(count))[::-1]
    assert [each["distance"] for each in told["2"]["maps"]] == [2.0 * row + 2 for row in expected]
    assert [each["p"] for each in told["1"]["maps"]] == [2 * row / 1e4 for row in expected]
    write_csv(found, maps=tmp_path / "maps.csv", units=tmp_path / "units.csv")
    with (tmp_path / "units.csv").open(newline="") as file:
        first, second, *others = csv.DictReader(file)
    assert (first["map"], second["map"]) == ("face/layer3/29", "face/layer3/29")
    assert (first["distance"], second["distance"]) == ("119.0000", "117.0000")
    assert len(others) == 16
    assert "face/layer3/29 119.00, face/layer3/29 117.00" in str(
        list(unit_table(found).columns[4].cells)
    )
    assert Counted.compared == 0


def test_heat_marks_chance() -> None:
    """Map 7 comes first in its row, in colour; what chance finds is grey; 11 is blue."""
    labelled, responses = planted()
    maps = named(20) + named(20, "mouth")
    found = measure(maps, responses, labelled, permutations=200)
    picture = np.asarray(draw_heat(found, title="planted")).astype(int)
    grey = (picture == 70).all(2)
    warm = picture[..., 0] - picture[..., 2] > 60
    cold = picture[..., 2] - picture[..., 0] > 40
    legend = picture.shape[0] - 50
    assert grey[:legend].sum() > 50 * warm[:legend].sum() / 4
    cells = 1180 // 40 * 20  # pixels of one map in one row
    assert 0.8 * 4 * cells < warm[:legend].sum() < 1.2 * 4 * cells  # 7, 9, and 20 twice
    assert 0.8 * cells < cold[:legend].sum() < 1.2 * cells
    with pytest.raises(InputError, match="stage must be a stage of the maps, got 'layer2'"):
        draw_heat(found, stage="layer2")


# --- the command ---


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single trunk, its norms settled."""
    network = untrained_like(FaceNet(GREY), drawn_faces().faces, native_size=16, seed=1)
    path = tmp_path_factory.mktemp("weights") / "grey.safetensors"
    metadata = {
        "architecture": "trunk",
        "config": asdict(network.config),
        "template": [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]],
        "native_size": 16,
        "temperature": 1.0,
    }
    weights.write(path, network.state_dict(), metadata)
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    faces = drawn_faces()
    root = tmp_path_factory.mktemp("data")
    for place, face in enumerate(faces.faces):
        folder = root / faces.classes[int(faces.votes[place].argmax())]
        folder.mkdir(exist_ok=True)
        Image.fromarray(face.numpy()).save(folder / f"{place}.png")
    return root


def run(file: Path, folders: Path, *words: object) -> int:
    common = ["--data", str(folders), "--weights", str(file), "--device", "cpu"]
    return cli.units([*common, "--permutations", "99", *map(str, words)])


def test_files_table_and_report(
    file: Path, folders: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "new" / "units"
    assert run(file, folders, "--output", folder) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith(f"{file}: ") and lines[0].endswith(" respond to a unit, 120 faces")
    assert "units 6, 12 mark the same faces, so their distances are equal" in out
    assert "units 1, 2, 5, 26 mark the same faces" in out
    assert "units left out, too rare or too common: 4, 7, 9, 14, 15, 16, 20, 23" in out
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["heat.png", "maps.csv", "report.json", "units.csv"]
    told = json.loads((folder / "report.json").read_text())
    assert told["weights_sha256"] == weights.sha256(file)
    assert told["faces"] == 120 and told["labels"] == "prototypes"
    assert set(told["units"]) == {"1", "2", "5", "6", "12", "26"}


def test_options(file: Path, folders: Path, tmp_path: Path, capsys: Captured) -> None:
    assert run(file, folders, "--json", "--most", 20, "--chimeras", "--untrained") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["faces"] == 60 and told["chimeras"] and told["untrained"]
    names = sorted(str(path.relative_to(folders)) for path in folders.rglob("*.png"))
    table = tmp_path / "units.csv"
    table.write_text("image,AU9\n" + "".join(f"{n},{i % 2}\n" for i, n in enumerate(names)))
    assert run(file, folders, "--json", "--units", table) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["units"]) == {"9"} and told["labels"] == str(table)
    for words, wrong in (
        (("--movements", "--units", table), "are two sources of units"),
        (("--movements", "--within", "--chimeras"), "--within needs whole faces"),
        (("--within",), "--within needs --movements"),
    ):
        with pytest.raises(SystemExit):
            run(file, folders, *words)
        assert wrong in capsys.readouterr().err
    assert run(file, folders, "--units", tmp_path / "none.csv") == 2
    assert capsys.readouterr().err == f"pcnn-units: {tmp_path / 'none.csv'}: no such file\n"
    assert run(file, folders, "--most", 0) == 2
    assert "most must be at least 1, got 0" in capsys.readouterr().err


def test_messages_speak_of_options(
    file: Path, folders: Path, tmp_path: Path, capsys: Captured
) -> None:
    """Numbered folders, whose classes only the user knows."""
    numbered = tmp_path / "numbered"
    for number, name in enumerate(("neutral", "happiness", "surprise")):
        shutil.copytree(folders / name, numbered / str(number))
    assert run(file, numbered) == 2
    said = capsys.readouterr().err
    assert "the number 0 has no name; give --numbering" in said and "numbering=" not in said
    words = ("--numbering", "neutral,happiness,surprise", "--json")
    assert run(file, numbered, *words) == 0
    assert set(json.loads(capsys.readouterr().out)["units"]) == {"1", "2", "5", "6", "12", "26"}


def test_units_from_movements(
    file: Path, folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Of faces with landmarks alone; what the movement network answers is planted."""
    asked: list[int] = []

    def landmarks(faces: Tensor, _: object) -> NDArray[np.float32]:
        found = np.ones((len(faces), 5, 2), np.float32)
        found[::6] = np.nan
        return found

    def planted(_: object, faces: Tensor, found: NDArray[np.float32]) -> list[FaceMotion]:
        assert np.isfinite(found).all() and len(found) == len(faces)
        asked.append(len(faces))
        jaws = np.linspace(0, 1, len(faces))
        mesh = np.zeros((1, 2), np.float32)
        return [FaceMotion({"jawOpen": each}, Pose(0, 0, 0), mesh) for each in jaws.tolist()]

    monkeypatch.setattr("pcnn.faces.alignment.dataset_landmarks", landmarks)
    monkeypatch.setattr("pcnn.recognition.movements.dataset_movements", planted)
    assert run(file, folders, "--movements", "--within", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert asked == [100] and told["faces"] == 100 and told["within"]
    assert told["labels"] == "movements" and told["units"]["26"]["faces"] == 25


def test_the_examples_of_the_page_run(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """With the packaged network, on faces of noise."""
    noise = torch.randint(0, 256, (80, 48, 48), generator=torch.Generator().manual_seed(0))
    given = face_set(10 * list(FERPLUS_CLASSES))
    faces = FaceSet(noise.to(torch.uint8), given.votes, given.names)
    monkeypatch.setattr("pcnn.datasets.load_faces", lambda *_: faces)
    page = (Path(__file__).parent.parent.parent / "docs" / "deconvnet.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    scope: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "deconvnet.md", "exec"), scope)
    assert capsys.readouterr().out.endswith("maps detect a unit\n")
