"""Layers of compiled code: each gives what PyTorch gives, in every batch and by any threads."""

from __future__ import annotations

import copy
import math
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pcnn.engines import layers as module
from pcnn.engines.layers import Layers, Maps, can_run
from pcnn.errors import InputError, NativeError

CSRC = Path(__file__).parents[2] / "csrc"
# Those of this processor.
SETS = [name for name in ("AVX-512", "AVX2", "NEON") if module._compiled_class(name)]

pytestmark = pytest.mark.skipif(not SETS, reason="needs compiled ops and AVX2 or a 64-bit ARM")


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _assert_same(found: Tensor, expected: Tensor, terms: int) -> None:
    """Sums of so many products of order 1, and a bias and maps, in another order."""
    torch.testing.assert_close(found, expected, rtol=2**-22, atol=2**-21 * (4 + terms))


def _padded(maps: Tensor, kernel: int, stride: int) -> Tensor:
    """With TensorFlow's padding."""
    sides: list[int] = []
    for size in (maps.shape[3], maps.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(maps, sides)


@settings(max_examples=150)
@given(
    instructions=st.sampled_from(SETS or [""]),
    batch=st.integers(1, 5),
    channels=st.integers(1, 40),
    width=st.integers(1, 70),
    size=st.tuples(st.integers(1, 15), st.integers(1, 15)),
    kernel=st.sampled_from([1, 3, 5, 7]),
    stride=st.integers(1, 3),
    same=st.booleans(),
    depthwise=st.booleans(),
    leak=st.sampled_from([None, 0.0, 0.1]),
    bounded=st.booleans(),
    added=st.booleans(),
    threads=st.integers(1, 3),
)
def test_every_convolution_is_pytorch_s(  # noqa: PLR0913, PLR0917
    instructions: str,
    batch: int,
    channels: int,
    width: int,
    size: tuple[int, int],
    kernel: int,
    stride: int,
    same: bool,
    depthwise: bool,
    leak: float | None,
    bounded: bool,
    added: bool,
    threads: int,
) -> None:
    depthwise = depthwise and channels > 1
    if depthwise:
        kernel, width = 3, channels
    inner = 1 if depthwise else channels
    weight, bias = _random(width, inner, kernel, kernel), _random(width, seed=1)
    maps = _random(batch, channels, *size, seed=2)
    padding = None if same else kernel // 2
    given_maps = _padded(maps, kernel, stride) if same else maps
    groups = channels if depthwise else 1
    expected = F.conv2d(given_maps, weight, bias, stride, padding or 0, 1, groups)
    layers = Layers(instructions=instructions)
    source, onto = layers.maps(channels), None
    inputs = [(source, maps)]
    if added and not depthwise:
        onto = layers.maps(width)
        inputs.append((onto, _random(*expected.shape, seed=3)))
        expected = expected + inputs[1][1]
    if leak is not None:
        expected = F.leaky_relu(expected, leak)
    most = 1.0 if bounded else math.inf
    out = layers.convolution(
        source, (weight, bias), stride=stride, padding=padding, leak=leak, most=most, onto=onto
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        [found] = layers.run(inputs, [out])
    finally:
        torch.set_num_threads(before)
    _assert_same(found, expected.clamp(max=most), inner * kernel**2)


def _network(layers: Layers, seed: int = 0) -> tuple[Maps, list[Maps]]:
    """Layers of every kind, with maps that are needed long after they were made."""

    def folded(width: int, inner: int, kernel: int) -> tuple[Tensor, Tensor]:
        scale = (inner * kernel**2) ** -0.5
        return scale * _random(width, inner, kernel, kernel, seed=seed), _random(width, seed=seed)

    view = layers.maps(3)
    early = layers.max_pool(layers.convolution(view, folded(16, 3, 7), stride=2, padding=3))
    deep = early
    for stride in (1, 2):
        deep = layers.convolution(deep, folded(16, 1, 3), stride=stride, padding=1)
        deep = layers.convolution(deep, folded(16, 16, 1), padding=0)
    wide = layers.convolution(early, folded(16, 16, 1), padding=0)
    layers.add_enlarged(deep, wide)
    joined = layers.maps(24)
    layers.convolution(wide, folded(16, 16, 3), padding=1, out=joined.part(0, 16))
    layers.convolution(wide.part(4, 8), folded(8, 8, 1), padding=0, out=joined.part(16, 8))
    last = layers.convolution(joined, folded(16, 24, 1), padding=0, onto=early)
    return view, [deep, last]


def _plain(view: Tensor, seed: int = 0) -> list[Tensor]:
    """The same as `_network` by PyTorch."""

    def convolve(maps: Tensor, width: int, kernel: int, stride: int = 1, groups: int = 1) -> Tensor:
        inner = maps.shape[1] // groups
        weight = (inner * kernel**2) ** -0.5 * _random(width, inner, kernel, kernel, seed=seed)
        return F.conv2d(maps, weight, _random(width, seed=seed), stride, kernel // 2, 1, groups)

    early = F.max_pool2d(convolve(view, 16, 7, 2).relu(), 3, 2, 1)
    deep = early
    for stride in (1, 2):
        deep = convolve(convolve(deep, 16, 3, stride, 16).relu(), 16, 1).relu()
    wide = convolve(early, 16, 1).relu()
    wide = wide + F.interpolate(deep, size=wide.shape[2:], mode="nearest")
    joined = torch.cat((convolve(wide, 16, 3), convolve(wide[:, 4:12], 8, 1)), 1).relu()
    return [deep, (convolve(joined, 16, 1) + early).relu()]


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("size", [(64, 64), (33, 50), (5, 7)])
@pytest.mark.parametrize("batch", [1, 3, 20])
def test_a_network_of_every_kind_of_layer(
    instructions: str, size: tuple[int, int], batch: int
) -> None:
    layers = Layers(instructions=instructions)
    view, out = _network(layers)
    maps = _random(batch, 3, *size, seed=5)
    for found, expected in zip(layers.run([(view, maps)], out), _plain(maps), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("instructions", SETS)
def test_answers_depend_on_neither_threads_nor_batch(
    instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = Layers(instructions=instructions)
    view, out = _network(layers)
    maps = _random(9, 3, 96, 96, seed=5)
    expected = [
        torch.cat(own)
        for own in zip(*(layers.run([(view, one[None])], out) for one in maps), strict=True)
    ]
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for some in (1, 4, 9):
            for own, found in zip(expected, layers.run([(view, maps[:some])], out), strict=True):
                assert torch.equal(found, own[:some])


def test_no_images() -> None:
    layers = Layers()
    view, out = _network(layers)
    shapes = [tuple(own.shape) for own in layers.run([(view, torch.zeros(0, 3, 32, 32))], out)]
    assert shapes == [(0, 16, 4, 4), (0, 16, 8, 8)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_can_be_copied_and_sent(dtype: torch.dtype) -> None:
    if not can_run(torch.zeros(1), dtype):
        pytest.skip(f"no instructions for {dtype}")
    layers = Layers(dtype)
    view, out = _network(layers)
    inputs = [(view, _random(2, 3, 32, 32))]
    expected = layers.run(inputs, out)
    for twin in (copy.deepcopy(layers), pickle.loads(pickle.dumps(layers))):
        assert all(map(torch.equal, twin.run(inputs, out), expected))


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("size", [(1, 1), (7, 50), (40, 60)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_depthwise_convolution_may_be_computed_within_the_next_layer(
    instructions: str,
    size: tuple[int, int],
    stride: int,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is, unless its maps are asked for, or another layer reads them, too."""
    layers = Layers(instructions=instructions)
    view = layers.maps(5)
    first = layers.convolution(view, (_random(37, 5, 1, 1), _random(37)), padding=0)
    deep = layers.convolution(first, (_random(37, 1, 3, 3, seed=1), _random(37)), stride=stride)
    one = layers.convolution(deep, (_random(70, 37, 1, 1, seed=2), _random(70)), padding=0)
    last = layers.convolution(one, (_random(9, 70, 1, 1, seed=3), _random(9)), padding=0)
    other = layers.convolution(deep, (_random(4, 37, 1, 1, seed=4), _random(4)), padding=0)
    inputs = [(view, _random(3, 5, *size, seed=5))]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    alone = layers.run(inputs, [last])
    apart = layers.run(inputs, [last, deep])
    both = layers.run(inputs, [last, other])
    assert torch.equal(alone[0], apart[0])
    assert torch.equal(alone[0], both[0])
    expected = F.conv2d(inputs[0][1], _random(37, 5, 1, 1), _random(37)).relu()
    padded, weight = _padded(expected, 3, stride), _random(37, 1, 3, 3, seed=1)
    expected = F.conv2d(padded, weight, _random(37), stride=stride, groups=37).relu()
    torch.testing.assert_close(apart[1], expected, rtol=1e-5, atol=1e-4)
    expected = F.conv2d(expected, _random(70, 37, 1, 1, seed=2), _random(70)).relu()
    expected = F.conv2d(expected, _random(9, 70, 1, 1, seed=3), _random(9)).relu()
    torch.testing.assert_close(alone[0], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("threads", [1, 3])
def test_maps_that_change_after_a_depthwise_convolution_are_read_before(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    layers = Layers()
    view = layers.maps(3)
    early, small = (
        layers.convolution(view, (_random(40, 3, 1, 1, seed=seed), _random(40)), padding=0)
        for seed in (1, 2)
    )
    deep = layers.convolution(early, (_random(40, 1, 3, 3, seed=3), _random(40)))
    layers.add_enlarged(small, early)
    last = layers.convolution(deep, (_random(70, 40, 1, 1, seed=4), _random(70)), padding=0)
    inputs = [(view, _random(3, 3, 40, 60, seed=5))]
    both, every = layers.run(inputs, [last, early]), layers.run(inputs, [last, early, deep])
    assert torch.equal(both[0], every[0])


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("channels", [(3, 5), (16, 70), (40, 33), (128, 128)])
@pytest.mark.parametrize("size", [(5, 5), (6, 6), (17, 31), (40, 5)])
@pytest.mark.parametrize("threads", [1, 3])
def test_winograd_s_tiles_are_a_convolution(
    instructions: str,
    channels: tuple[int, int],
    size: tuple[int, int],
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of maps with and without a last, smaller tile; 5 × 5 pixels are too few for tiles.

    The transformations multiply rounding errors by about ten.
    """
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    inner, width = channels
    weight, bias = _random(width, inner, 3, 3), _random(width, seed=1)
    maps, more = _random(3, inner, *size, seed=2), _random(3, width, *size, seed=3)
    layers = Layers(instructions=instructions)
    source, onto, whole = layers.maps(inner + 2), layers.maps(width), layers.maps(width + 2)
    two = weight[:2, :1].expand(2, 2, 3, 3), bias[:2]
    layers.convolution(source.part(0, 2), two, padding=1, out=whole.part(0, 2))
    part, into = source.part(1, inner), whole.part(2, width)
    layers.convolution(
        part, (weight, bias), padding=1, leak=0.1, onto=onto, out=into, winograd=True
    )
    padded = F.pad(maps, (0, 0, 0, 0, 1, 1))  # with a channel before and one after
    [found] = layers.run([(source, padded), (onto, more)], [whole])
    expected = F.leaky_relu(F.conv2d(maps, weight, bias, padding=1) + more, 0.1)
    scale = expected.abs().max()
    torch.testing.assert_close(found[:, 2:] / scale, expected / scale, rtol=0, atol=2e-5)
    plain = F.conv2d(padded[:, :2], *two, padding=1).relu()
    torch.testing.assert_close(found[:, :2], plain, rtol=1e-5, atol=1e-5)


def test_bfloat16_multiplies_rounded_numbers() -> None:
    """To the last bit as float32 does, if the numbers need no rounding and the sums are exact."""
    if not can_run(torch.zeros(1), torch.bfloat16):
        pytest.skip("no instructions for bfloat16")
    numbers = torch.Generator().manual_seed(0)
    maps = torch.randint(-8, 9, (2, 7, 9, 9), generator=numbers).float()
    weight = torch.randint(1, 9, (5, 7, 3, 3), generator=numbers).float()
    weight *= torch.randint(0, 2, weight.shape, generator=numbers) * 2 - 1
    folded = weight + 2**-12, torch.zeros(5)  # which 8 bits cannot tell from weight
    expected = F.conv2d(maps, weight, folded[1], padding=1)
    for exact in (False, True):
        layers = Layers(torch.bfloat16)
        source = layers.maps(7)
        out = layers.convolution(source, folded, padding=1, leak=None, exact=exact)
        [found] = layers.run([(source, maps)], [out])
        assert torch.equal(found, expected) is not exact
        torch.testing.assert_close(found, expected, rtol=0, atol=7 * 9 * 8 * 2**-12)


def test_infinity_and_nan_stay_what_they_are() -> None:
    more = torch.tensor([math.inf, -math.inf, math.nan, -1.0, 1.0]).view(1, 5, 1, 1)
    for instructions in SETS:
        for leak in (0.0, 0.1, None):
            layers = Layers(instructions=instructions)
            source, onto = layers.maps(5), layers.maps(5)
            folded = torch.ones(5, 5, 1, 1), torch.zeros(5)
            out = layers.convolution(source, folded, leak=leak, onto=onto)
            [found] = layers.run([(source, torch.zeros(1, 5, 1, 1)), (onto, more)], [out])
            plain = more if leak is None else F.leaky_relu(more, leak) if leak else more.relu()
            torch.testing.assert_close(found, plain, equal_nan=True, rtol=0, atol=0)
    layers = Layers()
    source = layers.maps(3)
    view = torch.ones(1, 3, 4, 4)
    view[0, 1, 0, 0] = math.nan
    [found] = layers.run([(source, view)], [layers.max_pool(source)])
    expected = F.max_pool2d(view, 3, 2, 1)
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=0, atol=0)


def test_layers_that_do_not_fit_are_refused() -> None:
    layers = Layers()
    source, other, whole = layers.maps(4), layers.maps(3), layers.maps(8)
    weight, bias = torch.zeros(4, 4, 3, 3), torch.zeros(4)
    for folded, out in (
        ((weight, bias), other),
        ((weight, bias[:3]), None),
        ((weight[..., :1], bias), None),
        ((weight[:, :3], bias), None),
    ):
        with pytest.raises(InputError, match=r"Layers: weights .* and . biases"):
            layers.convolution(source, folded, out=out)
    folded = weight, bias
    with pytest.raises(ValueError, match="channels outside the maps"):
        layers.convolution(source, folded, out=other._replace(channels=4))
    with pytest.raises(ValueError, match="reads its output"):
        layers.convolution(source, folded, out=source)
    with pytest.raises(ValueError, match="other channels"):
        layers.convolution(source, folded, onto=other)
    with pytest.raises(ValueError, match="wrong kernel, stride or padding"):
        layers.convolution(source, folded, padding=3)
    with pytest.raises(ValueError, match="Winograd's tiles are for"):
        layers.convolution(source, folded, stride=2, padding=1, winograd=True)
    with pytest.raises(ValueError, match="written once, in their order"):
        layers.convolution(source, folded, out=whole.part(4, 4))
    layers.convolution(source, folded, out=whole.part(0, 4))
    with pytest.raises(ValueError, match="read before all"):
        layers.max_pool(whole)
    with pytest.raises(ValueError, match="written once, in their order"):
        layers.convolution(source, folded, out=whole.part(0, 4))
    with pytest.raises(NativeError, match="the processor lacks MMX"):
        Layers(instructions="MMX")


def test_runs_that_do_not_fit_are_refused() -> None:
    layers = Layers()
    source, other = layers.maps(4), layers.maps(4)
    folded = torch.zeros(4, 4, 3, 3), torch.zeros(4)
    out = layers.convolution(source, folded, padding=0, stride=2)
    layers.add_enlarged(out, layers.convolution(source, folded))
    view = torch.zeros(2, 4, 8, 8)
    for inputs in (
        [(source, view[:, :3])],
        [(source, view[0])],
        [(source, view.to("meta"))],
        [(source, view), (other, view[:1])],
    ):
        with pytest.raises(InputError, match="an input must be"):
            layers.run(inputs, [out])
    with pytest.raises(InputError, match="an output must be whole maps"):
        layers.run([(source, view)], [out.part(0, 2)])
    for inputs, outputs, reason in (
        ([(source, view[:, :, :2, :2])], [out], "without pixels"),
        ([(other, view)], [out], "without an input"),
        ([(source, view)], [out, out], "an output is given twice"),
        ([(source, view), (source, view)], [out], "an input is given twice"),
        ([(source, view), (out, view)], [out], "an input is written by a layer"),
        ([(source, view)], [source], "an output is no maps that layers write"),
    ):
        with pytest.raises(ValueError, match=reason):
            layers.run(inputs, outputs)


def test_types_and_devices_without_layers() -> None:
    assert can_run(torch.zeros(1))
    assert not can_run(torch.zeros(1), torch.float16)
    assert not can_run(torch.zeros(1, dtype=torch.float64))
    assert not can_run(torch.zeros(1, device="meta"))


@pytest.mark.parametrize(
    ("compiler", "run", "instructions"),
    [
        ("g++", [], "AVX2"),
        ("aarch64-linux-gnu-g++", ["qemu-aarch64"], "NEON"),
    ],
)
def test_other_processors(compiler: str, run: list[str], instructions: str, tmp_path: Path) -> None:
    """Random convolutions against plain loops, in C++; for ARM on an emulator."""
    if not all(map(shutil.which, [compiler, *run])) or not CSRC.is_dir():
        pytest.skip(f"needs {' and '.join([compiler, *run])} and the sources")
    if not run and instructions not in SETS:
        pytest.skip(f"this processor has no {instructions}")
    program = tmp_path / "layers"
    sources = [Path(__file__).parents[1] / "native" / "layers.cpp", *CSRC.glob("layers*_cpu.cpp")]
    flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-pthread", "-static", f"-I{CSRC}"]
    flags += ["-DPCNN_WORTH_A_THREAD=1"]  # small maps, too, are shared among threads
    subprocess.run([compiler, *flags, *sources, "-o", program], check=True, timeout=300)
    subprocess.run([*run, program, instructions, "1e-6"], check=True, timeout=300)
