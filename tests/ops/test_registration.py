"""The ops as PyTorch operators: torch.library's own checks, torch.compile, torch.export."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from pcnn import ops
from pcnn.ops import reference

pytestmark = [
    # torch's own code warns of itself while it compiles and exports.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]

IMAGE = torch.randint(0, 256, (20, 30, 3), dtype=torch.uint8)
TEMPLATE = [(1.0, 1.0), (5.0, 1.0), (3.0, 3.0), (1.0, 5.0), (5.0, 5.0)]
LANDMARKS = torch.tensor(TEMPLATE) * 2 + torch.tensor([[[3.0, 1.0]], [[4.5, 2.0]]])
TRANSFORMS = torch.tensor([[1.3, 0.2, 4.0], [-0.3, 1.6, 2.0]]).repeat(2, 2, 1, 1)


def maps(dtype: torch.dtype = torch.float32, grad: bool = False) -> list[Tensor]:
    sizes = [(3, 3), (3, 3), (1, 3), (1, 3), (3, 6), (6, 6)]
    generator = torch.Generator().manual_seed(2)
    made = [torch.randn((2, 8, *size), generator=generator).to(dtype) for size in sizes]
    return [
        tensor.contiguous(memory_format=torch.channels_last).requires_grad_(grad) for tensor in made
    ]


def theta(grad: bool = False) -> Tensor:
    return torch.tensor([[[0.9, 0.1, 0.1], [-0.1, 1.1, 0.0]]]).repeat(2, 1, 1).requires_grad_(grad)


def fuse(regions: list[Tensor], theta: Tensor, face: Tensor) -> Tensor:
    return ops.warp_add(ops.stitch_regions(regions, (face.shape[2], face.shape[3])), theta, face)


class Fuse(nn.Module):
    def forward(self, theta: Tensor, face: Tensor, *regions: Tensor) -> Tensor:
        return fuse(list(regions), theta, face)


class Crop(nn.Module):
    def forward(self, image: Tensor, transforms: Tensor) -> list[Tensor]:
        return ops.crop_regions(image, transforms, [(5, 7), (3, 3)], mean=(0.5,), std=(0.2,))


class Decode(nn.Module):
    def forward(self, predictions: Tensor, anchors: Tensor) -> Tensor:
        options = {"variances": (0.1, 0.2), "min_score": 0.5, "iou": 0.4, "most": 7}
        return ops.decode_faces(predictions, anchors, **options)


class LandmarkCrop(nn.Module):
    def forward(self, image: Tensor, landmarks: Tensor) -> list[Tensor]:
        boxes = [(0, 0, 6, 6), (1, 0, 3, 5)]
        options = {"mean": (0.5,), "std": (0.2,), "mirror": True}
        return ops.landmark_crop(image, landmarks, TEMPLATE, boxes, **options)


def test_whoever_follows_a_computation_sees_the_ops() -> None:
    """Where nobody does, in inference mode, they are called without the dispatcher."""
    *regions, face = maps()
    with torch.inference_mode():
        arguments = (theta(), face, *regions)
        expected = Fuse()(*arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which become constants
            traced = torch.jit.trace(Fuse(), arguments)
        recorded = make_fx(Fuse())(*arguments)
        seen: list[str] = []

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
                seen.append(str(func))
                return func(*args, **(kwargs or {}))

        with Watch():
            assert torch.equal(Fuse()(*arguments), expected)
        with FakeTensorMode() as fake:
            shapes = Fuse()(*map(fake.from_tensor, arguments))
    for name in ("stitch_regions", "warp_add"):
        assert f"pcnn::{name}" in str(traced.inlined_graph)
        assert f"pcnn.{name}" in recorded.code
        assert f"pcnn.{name}.default" in seen
    assert shapes.shape == expected.shape and isinstance(shapes, FakeTensor)


def test_opcheck_crop_regions() -> None:
    for mean, dtype in (([0.5], torch.float32), ([0.4, 0.5, 0.6], torch.bfloat16)):
        arguments = (IMAGE, TRANSFORMS, [5, 3], [7, 3], mean, mean, 1.0, dtype)
        torch.library.opcheck(torch.ops.pcnn.crop_regions.default, arguments)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_opcheck_landmark_crop(dtype: torch.dtype, mirror: bool) -> None:
    template = [value for place in TEMPLATE for value in place]
    given = (IMAGE, LANDMARKS, template, [0, 0, 6, 6, 1, 0, 3, 5])
    for mean in ([0.5], [0.4, 0.5, 0.6]):
        arguments = (*given, mean, mean, 1.0, mirror, dtype)
        torch.library.opcheck(torch.ops.pcnn.landmark_crop.default, arguments)


def test_opcheck_decode_faces() -> None:
    predictions = torch.randn(2, 60, 15, generator=torch.Generator().manual_seed(1))
    arguments = (predictions, 20 + torch.rand(60, 4), [0.1, 0.2], [0.0, 0.5, 0.4, 30.0], 7)
    torch.library.opcheck(torch.ops.pcnn.decode_faces.default, arguments)


@pytest.mark.parametrize("grad", [False, True])
def test_opcheck_stitch_regions(grad: bool) -> None:
    torch.library.opcheck(torch.ops.pcnn.stitch_regions.default, (*maps(grad=grad)[:5], 6, 6))


@pytest.mark.parametrize("grad", [False, True])
def test_opcheck_warp_add(grad: bool) -> None:
    face = maps(grad=grad)[5]
    stitched = (face * 2).detach().requires_grad_(grad)
    torch.library.opcheck(torch.ops.pcnn.warp_add.default, (stitched, theta(grad), face))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_fake_results_are_like_the_real_ones(dtype: torch.dtype) -> None:
    """float64 has no compiled version: there the reference's result must be laid out the same."""
    *regions, face = maps(dtype)
    torch.library.opcheck(
        torch.ops.pcnn.stitch_regions.default, (*regions, 6, 6), test_utils="test_faketensor"
    )
    torch.library.opcheck(
        torch.ops.pcnn.warp_add.default,
        (face, theta().to(dtype), face),
        test_utils="test_faketensor",
    )


def compiled(function: Callable[..., object]) -> Callable[..., object]:
    """Through Dynamo and AOTAutograd, without the C++ compiler that Inductor would start."""
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def test_compile_forward_and_backward() -> None:
    leaves = [*maps(grad=True), theta(grad=True)]
    function = compiled(Fuse())
    results = []
    for call in (Fuse(), function):
        fused = call(leaves[6], leaves[5], *leaves[:5])
        assert isinstance(fused, Tensor)
        results.append((fused, *torch.autograd.grad(fused.square().sum(), leaves)))
    for eager, other in zip(*results, strict=True):
        torch.testing.assert_close(eager, other)


def test_compile_crop_regions() -> None:
    function = compiled(Crop())
    expected = reference.crop_regions(
        IMAGE,
        TRANSFORMS,
        [(5, 7), (3, 3)],
        mean=(0.5,),
        std=(0.2,),
        footprint=1.0,
        dtype=torch.float32,
    )
    for view, other in zip(function(IMAGE, TRANSFORMS), expected, strict=True):
        torch.testing.assert_close(view, other, atol=1e-5, rtol=0)


def test_compile_and_export_landmark_crop() -> None:
    expected = LandmarkCrop()(IMAGE, LANDMARKS)
    faces = torch.export.Dim("faces", min=2, max=64)
    program = torch.export.export(
        LandmarkCrop(), (IMAGE, LANDMARKS), dynamic_shapes=({}, {0: faces})
    )
    assert any("landmark_crop" in str(node.target) for node in program.graph.nodes)
    for call in (compiled(LandmarkCrop()), program.module()):
        for view, other in zip(call(IMAGE, LANDMARKS), expected, strict=True):  # type: ignore[arg-type]
            assert torch.equal(view, other)
    views = program.module()(IMAGE, LANDMARKS.repeat(2, 1, 1))
    assert torch.equal(views[3], torch.cat((expected[3], expected[3])))


def test_export_with_a_batch_of_any_size() -> None:
    *regions, face = maps()
    arguments = (theta(), face, *regions)
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = ({0: batch}, {0: batch}, ({0: batch},) * 5)
    program = torch.export.export(Fuse(), arguments, dynamic_shapes=shapes)
    targets = [str(node.target) for node in program.graph.nodes]
    assert "pcnn.stitch_regions.default" in targets
    assert "pcnn.warp_add.default" in targets
    stored = io.BytesIO()
    torch.export.save(program, stored)
    stored.seek(0)
    loaded = torch.export.load(stored).module()
    larger = [torch.cat((tensor, 2 * tensor, tensor)) for tensor in arguments]
    torch.testing.assert_close(loaded(*larger), Fuse()(*larger))


def test_compile_and_export_decode_faces() -> None:
    predictions = torch.randn(2, 60, 15, generator=torch.Generator().manual_seed(1))
    anchors = 20 + torch.rand(60, 4, generator=torch.Generator().manual_seed(2))
    expected = Decode()(predictions, anchors)
    program = torch.export.export(Decode(), (predictions, anchors))
    assert any("decode_faces" in str(node.target) for node in program.graph.nodes)
    for call in (compiled(Decode()), program.module()):
        assert torch.equal(call(predictions, anchors), expected)  # type: ignore[arg-type]


def test_export_crop_regions() -> None:
    program = torch.export.export(Crop(), (IMAGE, TRANSFORMS))
    views = program.module()(IMAGE, TRANSFORMS)
    for view, other in zip(views, Crop()(IMAGE, TRANSFORMS), strict=True):
        torch.testing.assert_close(view, other)


def test_crop_regions_has_no_gradient() -> None:
    views = ops.crop_regions(
        IMAGE, TRANSFORMS.clone().requires_grad_(), [(5, 7), (3, 3)], mean=(0.5,), std=(0.2,)
    )
    assert not any(view.requires_grad for view in views)


def test_autocast_keeps_the_maps_precision() -> None:
    *regions, face = maps(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        for implementation in (ops, reference):
            stitched = implementation.stitch_regions(regions, (6, 6))
            fused = implementation.warp_add(stitched, theta(), face)
            assert stitched.dtype == fused.dtype == torch.bfloat16


def test_without_gradient_in_inference_mode() -> None:
    *regions, face = maps()
    with torch.inference_mode():
        torch.testing.assert_close(
            fuse(regions, theta(), face), fuse(regions, theta(), face).clone()
        )
