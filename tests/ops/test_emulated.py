"""The CUDA kernels, run on the CPU: every test of the ops goes through them.

What only a GPU can show is in test_cuda.py. Here the C++ compiler compiles the kernels' own
sources (emulated_cuda), and they take the place of the CPU code: their walk over the output, their
choice of packs and their grids are held to the same examples and properties.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import emulated_cuda
import pytest
import torch
from ops import test_crop, test_decode_faces, test_interaction, test_landmark_crop
from ops.test_interaction import DTYPES, LAYOUTS, random_map, region_maps

from pcnn import ops
from pcnn.ops import modules, native

pytestmark = pytest.mark.skipif(
    shutil.which(emulated_cuda.COMPILER) is None, reason="needs a C++ compiler"
)
CPU = native._C  # before a fixture here puts the kernels in its place


def _tests(module: ModuleType) -> dict[str, Callable[..., None]]:
    return {name: value for name, value in vars(module).items() if name.startswith("test_")}


for _module in (test_crop, test_decode_faces, test_landmark_crop, test_interaction):
    globals().update(_tests(_module))
# Of the CPU code alone: the kernels copy no view out of another.
del test_a_face_s_regions_are_its_own_pixels  # noqa: F821
del test_regions_and_their_mirror_images_are_copies  # noqa: F821


@pytest.fixture(scope="module")
def emulated() -> ModuleType:
    pytest.importorskip("pybind11")
    return emulated_cuda.load()


@pytest.fixture(scope="module", autouse=True)
def kernels(emulated: ModuleType) -> Iterator[None]:
    """The kernels serve tensors on the CPU; the number of threads passes for the device's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_C", emulated)
        yield


@pytest.fixture(autouse=True)
def implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tests' own modules this chooses between two; here there is one."""
    monkeypatch.setattr(ops, "_implementation", native)


def test_two_files_are_two_modules(emulated: ModuleType, tmp_path: Path) -> None:
    """As two kinds of GPUs in one machine need."""
    other = shutil.copy(str(emulated.__file__), tmp_path)
    assert modules.load(Path(other)).__file__ == other
    assert modules.load(Path(other)) is not emulated


@pytest.mark.skipif(CPU is None, reason="needs the compiled CPU ops")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_to_the_cpu_code_to_the_last_bit(
    dtype: torch.dtype, layout: str, monkeypatch: pytest.MonkeyPatch, emulated: ModuleType
) -> None:
    """Both call the same arithmetic, without fused multiply-adds."""
    theta = torch.eye(2, 3) + torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(8))
    for channels in (1, 24, 67):
        regions = region_maps(3, channels, (3, 4, 2, 3), (4, 9), dtype, layout)
        face = random_map((3, channels, 11, 9), dtype, layout, seed=7)
        results = []
        for module in (emulated, CPU):
            monkeypatch.setattr(native, "_C", module)
            stitched = ops.stitch_regions(regions, (11, 9))
            results.append((stitched, ops.warp_add(stitched, theta, face)))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])


@pytest.mark.skipif(CPU is None, reason="needs the compiled CPU ops")
@pytest.mark.parametrize("dtype", DTYPES)
def test_landmark_crop_equal_to_the_cpu_code(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, emulated: ModuleType
) -> None:
    """A box outside of the first is no copy of its pixels, so each is computed by both."""
    generator = torch.Generator().manual_seed(4)
    image = torch.randint(0, 256, (60, 70, 3), dtype=torch.uint8, generator=generator)
    template = test_landmark_crop.template_of(30)
    landmarks = torch.tensor(template) + 3 * torch.randn(4, 5, 2, generator=generator)
    landmarks[3, 2, 1] = math.nan
    results = []
    for module in (emulated, CPU):
        monkeypatch.setattr(native, "_C", module)
        options = {"mean": (0.4,), "std": (0.2,), "footprint": 1.6, "mirror": True, "dtype": dtype}
        boxes = [(0, 0, 30, 30), (-4, 3, 20, 31)]
        results.append(ops.landmark_crop(image, landmarks, template, boxes, **options))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.skipif(CPU is None, reason="needs the compiled CPU ops")
def test_decode_faces_equal_to_the_cpu_code(
    monkeypatch: pytest.MonkeyPatch, emulated: ModuleType
) -> None:
    predictions, anchors = test_decode_faces.random_case(3, 900, 5, 400.0)
    results = []
    for module in (emulated, CPU):
        monkeypatch.setattr(native, "_C", module)
        options = {"variances": (0.1, 0.2), "min_score": 0.1, "iou": 0.3, "most": 500}
        results.append(ops.decode_faces(predictions, anchors, hint_side=70.0, **options))
    assert results[0][:, 0, 0].min() > 100 and torch.equal(*results)


# Candidates are ranked in groups of 8192 (kGroup in csrc/decode_faces.h).
@pytest.mark.skipif(CPU is None, reason="needs the compiled CPU ops")
@pytest.mark.parametrize(
    ("count", "most"),
    [(8191, 40), (8192, 40), (8193, 2048), (8197, 1), (20_000, 2048), (40_000, 2048), (40_000, 3)],
)
@pytest.mark.parametrize("scores", ["random", "tied", "rising"])
def test_more_candidates_than_a_group_has(
    count: int, most: int, scores: str, monkeypatch: pytest.MonkeyPatch, emulated: ModuleType
) -> None:
    """Equal scores leave the choice to the anchors' order; 40,000 anchors take two rounds."""
    predictions, anchors = test_decode_faces.random_case(2, count, 6, 9000.0)
    if scores == "tied":
        predictions[..., 0] = predictions[..., 0].clamp(-0.01, 0.01).round(decimals=2)
    elif scores == "rising":
        predictions[..., 0] = torch.linspace(-9, 9, count)
    predictions[1, ::2, 0] = math.nan  # the images have different numbers of candidates
    options = {"variances": (0.1, 0.2), "min_score": 0.0, "iou": 0.4, "most": most}
    results = []
    for module in (emulated, CPU):
        monkeypatch.setattr(native, "_C", module)
        results.append(ops.decode_faces(predictions, anchors, hint_side=70.0, **options))
    assert 1 <= results[1][:, 0, 0].min() <= most and torch.equal(*results)


def test_more_rows_than_a_grid_has() -> None:
    """65535 blocks are the limit of a grid's second side; the kernels walk on from there."""
    batch = 70_000
    face = torch.arange(batch, dtype=torch.float32).view(batch, 1, 1, 1) + 0.5
    theta = torch.eye(2, 3).expand(batch, 2, 3)
    assert torch.equal(ops.warp_add(face, theta, face), 2 * face)
    mouth = face.expand(batch, 1, 1, 2)
    stitched = ops.stitch_regions([face, face, face, face, mouth], (3, 2))
    assert torch.equal(stitched, face.expand(batch, 1, 3, 2))
    image = torch.arange(256, dtype=torch.uint8).view(1, 256, 1).expand(1, 256, 3)
    transforms = torch.eye(2, 3).repeat(batch, 1, 1, 1)
    transforms[:, 0, 0, 2] = torch.arange(batch) % 256
    (view,) = ops.crop_regions(image, transforms, [(1, 1)], mean=(0.0,), std=(1 / 255,))
    torch.testing.assert_close(view.flatten(), torch.arange(batch) % 256.0, atol=1e-4, rtol=0)
    one = test_decode_faces.predictions_of(0.9).repeat(batch, 1, 1)
    one[::7, 0, 0] = -1
    found = ops.decode_faces(
        one, test_decode_faces.anchors_at(20), **(test_decode_faces.OPTIONS | {"most": 1})
    )
    assert torch.equal(found[:, 0, 0], (torch.arange(batch) % 7 > 0).float())
    square = torch.tensor(test_landmark_crop.SQUARE)
    landmarks = square.repeat(batch, 1, 1)
    landmarks[:, :, 0] += torch.arange(batch)[:, None] % 200
    boxes = [(0, 1, 1, 2)]
    (view,) = ops.landmark_crop(
        image, landmarks, square.tolist(), boxes, mean=(0.0,), std=(1 / 255,)
    )
    torch.testing.assert_close(view.flatten(), torch.arange(batch) % 200 + 1.0, atol=1e-3, rtol=0)


def test_every_way_to_lie_off_a_16_byte_address() -> None:
    """A pack that is read or written off its alignment ends the program, as it would on a GPU."""
    for dtype in DTYPES:
        for shift in range(9):
            memory = torch.full((2 * 4 * 5 * 24 + 9,), math.nan, dtype=dtype)
            place = memory[shift : shift + 960].view(2, 4, 5, 24).permute(0, 3, 1, 2)
            place.copy_(random_map((2, 24, 4, 5), dtype))
            fused = ops.warp_add(place, torch.eye(2, 3).repeat(2, 1, 1), place)
            torch.testing.assert_close(fused, 2 * place, atol=1e-5, rtol=1e-2)
            left, right = place[..., :2], place[..., 2:]
            stitched = ops.stitch_regions([left, right, left, right, place], (12, 5))
            torch.testing.assert_close(stitched, place.repeat(1, 1, 3, 1), atol=1e-5, rtol=1e-2)
