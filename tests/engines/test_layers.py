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

from pcnn.engines.layers import Layers, Maps, can_run
from pcnn.errors import InputError, NativeError
from pcnn.ops.native import layers_class

CSRC = Path(__file__).parents[2] / "csrc"
SETS = [name for name in ("AVX-512", "AVX2", "NEON") if layers_class(name)]

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
    layers = Layers(only=instructions)
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
    layers = Layers(only=instructions)
    view, out = _network(layers)
    maps = _random(batch, 3, *size, seed=5)
    for found, expected in zip(layers.run([(view, maps)], out), _plain(maps), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("instructions", SETS)
def test_answers_depend_on_neither_threads_nor_batch(
    instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = Layers(only=instructions)
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


def test_bfloat16_multiplies_rounded_numbers() -> None:
    """To the last bit as float32 does, if the numbers need no rounding and the sums are exact."""
    if not can_run(torch.zeros(1), torch.bfloat16):
        pytest.skip("no instructions for bfloat16")
    numbers = torch.Generator().manual_seed(0)
    maps = torch.randint(-8, 9, (2, 7, 9, 9), generator=numbers).float()
    weight = torch.randint(-8, 9, (5, 7, 3, 3), generator=numbers).float()
    rounded = weight + 2**-12  # 8 bits are left of 1 + 2⁻¹²
    expected = F.conv2d(maps, weight, torch.zeros(5), padding=1)
    for exact in (False, True):
        layers = Layers(torch.bfloat16)
        source = layers.maps(7)
        folded = rounded, torch.zeros(5)
        out = layers.convolution(source, folded, padding=1, leak=None, exact=exact)
        [found] = layers.run([(source, maps)], [out])
        large = weight.abs() >= 1  # smaller numbers have room for 2⁻¹²
        if not exact and bool(large.all()):
            assert torch.equal(found, expected)
        assert (found - expected).abs().max() < 0.2
        assert exact == bool((found != expected).any()) or not bool(large.all())


def test_what_does_not_fit_is_refused() -> None:
    layers = Layers()
    source, other = layers.maps(4), layers.maps(3)
    weight, bias = torch.zeros(4, 4, 3, 3), torch.zeros(4)
    with pytest.raises(InputError, match="weights for 4 of 4 channels, maps of 4 and 3"):
        layers.convolution(source, (weight, bias), out=other)
    with pytest.raises(ValueError, match="channels outside the maps"):
        layers.convolution(source, (weight, bias), out=other._replace(channels=4))
    with pytest.raises(ValueError, match="reads its output"):
        layers.convolution(source, (weight, bias), out=source)
    with pytest.raises(ValueError, match="other channels"):
        layers.convolution(source, (weight, bias), onto=other)
    with pytest.raises(ValueError, match="wrong kernel, stride or padding"):
        layers.convolution(source, (weight, bias), padding=3)
    out = layers.convolution(source, (weight, bias), padding=0)
    with pytest.raises(ValueError, match="without pixels"):
        layers.run([(source, torch.zeros(1, 4, 2, 2))], [out])
    with pytest.raises(ValueError, match="without an input"):
        layers.run([(other, torch.zeros(1, 3, 8, 8))], [out])
    with pytest.raises(NativeError, match="no compiled code for this processor"):
        Layers(only="MMX")


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
    subprocess.run([compiler, *flags, *sources, "-o", program], check=True, timeout=300)
    subprocess.run([*run, program, instructions, "1e-6"], check=True, timeout=300)
