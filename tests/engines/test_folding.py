"""Fused residual blocks: their arithmetic and their ways back, with a substitute for cuDNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.engines import folding
from pcnn.engines.classifier import prepare
from pcnn.engines.folding import fuse_residuals, gives_the_same, split_head, with_fused_blocks
from pcnn.networks.pcnn import PCNN, FaceNet, ModelConfig

# Sums of some hundred products of order 1 in another order, through twenty layers.
SAME = {"rtol": 1e-4, "atol": 1e-4}


class Cudnn:
    """Computes what cuDNN would, on the CPU, and notes the shapes of the results."""

    def __init__(self, fault: Exception | float | None = None) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.fault = fault

    def __call__(  # noqa: PLR0913, PLR0917 - as PyTorch's own function
        self,
        maps: Tensor,
        weight: Tensor,
        shortcut: Tensor,
        alpha: float,
        bias: Tensor,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> Tensor:
        if isinstance(self.fault, Exception):
            raise self.fault
        assert maps.dtype == weight.dtype == shortcut.dtype == bias.dtype
        for given in (maps, weight, shortcut):
            assert given.is_contiguous(memory_format=torch.channels_last)
        assert len({each.data_ptr() for each in (maps, weight, shortcut)}) == 3
        found = F.conv2d(maps, weight, bias, stride, padding, dilation, groups)
        assert found.shape == shortcut.shape
        self.shapes.append(tuple(found.shape))
        return (found + alpha * shortcut).relu() + (self.fault or 0.0)


def body_of(kind: type[PCNN] | type[FaceNet], seed: int = 0) -> PCNN | FaceNet:
    """A network with norms that do something, folded, as `prepare` makes it for a GPU."""
    torch.manual_seed(seed)
    network = kind(ModelConfig(size=64, mean=(0.5,), std=(0.25,), width=8)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    body, _ = split_head(network)
    return body.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def views_of(body: PCNN | FaceNet, faces: int) -> list[Tensor]:
    face = torch.randn(faces, 1, 64, 64, generator=torch.Generator().manual_seed(faces))
    return body.cut(face.contiguous(memory_format=torch.channels_last))


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> Cudnn:
    substitute = Cudnn()
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", substitute)
    return substitute


@pytest.mark.parametrize(("kind", "blocks"), [(PCNN, 6 * 6 + 2 * 2), (FaceNet, 6 + 2)])
@torch.no_grad()
def test_fused_blocks_compute_the_same(
    kind: type[PCNN] | type[FaceNet], blocks: int, cudnn: Cudnn
) -> None:
    body = body_of(kind)
    twin = with_fused_blocks(body)
    for faces in (1, 3):
        views = views_of(body, faces)
        before = [view.clone() for view in views]
        expected, regions = body.forward_views(views)
        cudnn.shapes.clear()
        found, own = twin.forward_views(views)
        assert len(cudnn.shapes) == blocks and all(shape[0] == faces for shape in cudnn.shapes)
        torch.testing.assert_close(found, expected, **SAME)
        for name in regions:
            torch.testing.assert_close(own[name], regions[name], **SAME)
        assert all(map(torch.equal, views, before))
    assert gives_the_same(twin, body)


@torch.no_grad()
def test_weights_are_shared_and_the_given_network_stays(cudnn: Cudnn) -> None:
    body = body_of(PCNN)
    known = {id(own) for own in body.parameters()}
    twin = with_fused_blocks(body)
    assert {id(own) for own in twin.parameters()} == known
    body.forward_views(views_of(body, 1))
    assert not cudnn.shapes  # its own blocks are plain


@torch.no_grad()
def test_what_cudnn_refuses_is_computed_plainly(cudnn: Cudnn) -> None:
    """Also if it refuses later, a number of faces that the probe did not have."""
    body = body_of(PCNN)
    twin = with_fused_blocks(body)
    expected = body.forward_views(views_of(body, 2))[0]
    torch.testing.assert_close(twin.forward_views(views_of(body, 2))[0], expected, **SAME)
    cudnn.fault = RuntimeError("GET was unable to find an engine to execute this computation")
    assert torch.equal(twin.forward_views(views_of(body, 2))[0], expected)
    assert gives_the_same(twin, body)
    cudnn.fault = None
    cudnn.shapes.clear()
    assert torch.equal(twin.forward_views(views_of(body, 2))[0], expected)
    assert not cudnn.shapes  # it is not asked again


@pytest.mark.parametrize("fault", [0.5, torch.nan])
def test_wrong_results_are_found_by_the_probe(cudnn: Cudnn, fault: float) -> None:
    body = body_of(FaceNet)
    cudnn.fault = fault
    assert not gives_the_same(with_fused_blocks(body), body)


def test_lacking_memory_is_no_refusal(cudnn: Cudnn) -> None:
    body = body_of(FaceNet)
    twin = with_fused_blocks(body)
    cudnn.fault = torch.OutOfMemoryError("out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        twin.forward_views(views_of(body, 1))
    cudnn.fault = None
    twin.forward_views(views_of(body, 1))
    assert len(cudnn.shapes) == 8


def test_only_resnets_on_gpus_are_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(body: PCNN | FaceNet) -> PCNN | FaceNet:
        raise AssertionError("not asked for")

    monkeypatch.setattr(folding, "with_fused_blocks", refuse)
    body = body_of(FaceNet)
    assert fuse_residuals(body) is body
    mobile, _ = split_head(FaceNet(ModelConfig(size=64, width=8, backbone="mobilenet")).eval())
    assert fuse_residuals(mobile) is mobile


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_cudnn_on_a_gpu(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    body = body_of(PCNN).to("cuda", dtype)
    twin = fuse_residuals(body)
    assert twin is not body, "the probe found cuDNN's results too far from the plain ones"
    assert all(block._usable for block in twin.modules() if hasattr(block, "_usable"))
    for faces in (1, 2, 7, 64):
        views = [view.to("cuda", dtype) for view in views_of(body, faces)]
        found, expected = twin.forward_views(views)[0], body.forward_views(views)[0]
        torch.testing.assert_close(
            found, expected, rtol=0.03, atol=0.03 * float(expected.abs().max())
        )
    assert all(block._usable for block in twin.modules() if hasattr(block, "_usable"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_prepared_network_uses_them_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    plain: Callable[..., Tensor] = torch.cudnn_convolution_add_relu

    def counted(*arguments: object) -> Tensor:
        calls.append(1)
        return plain(*arguments)

    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", counted)
    network = PCNN(ModelConfig(size=64, mean=(0.5,), std=(0.25,), width=8)).eval().cuda()
    prepared = prepare(network)
    calls.clear()
    with torch.inference_mode():
        prepared.forward_views([view.cuda() for view in views_of(network, 1)])
    assert len(calls) == 6 * 6 + 2 * 2
