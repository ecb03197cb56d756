import torch

from pcnn.weights.compression import narrow, widen


def test_int8_by_hand() -> None:
    """Rows of 4,096 with largest weights 1.27 and 2.54: steps of 0.01 and 0.02."""
    weight = torch.zeros(2, 4096)
    weight[0, :3] = torch.tensor([1.27, -0.5, 0.014])
    weight[1, :3] = torch.tensor([-2.54, 0.5, 0.009])
    stored = narrow({"weight": weight, "bias": torch.tensor([0.1, 0.2])}, "int8")
    assert stored["weight"].dtype == torch.int8 and stored["bias"].dtype == torch.float16
    assert stored["weight"][:, :3].tolist() == [[127, -50, 1], [-127, 25, 0]]
    found = widen(stored)
    assert set(found) == {"weight", "bias"}
    torch.testing.assert_close(found["weight"], weight, atol=0.011, rtol=1e-3)


def test_a_row_of_nothing_stays_nothing() -> None:
    found = widen(narrow({"weight": torch.zeros(4, 1024)}, "int8"))
    assert torch.equal(found["weight"], torch.zeros(4, 1024))


def test_half_and_whole_numbers() -> None:
    state = {"weight": torch.randn(70, 70), "count": torch.tensor(7)}
    stored = narrow(state, "half")
    assert stored["weight"].dtype == torch.float16 and stored["count"].dtype == torch.int64
    found = widen(stored)
    assert found["weight"].dtype == torch.float32 and found["count"] == 7
    torch.testing.assert_close(found["weight"], state["weight"], atol=2**-25, rtol=2**-11)


def test_convolutions_keep_their_channels_apart() -> None:
    weight = torch.randn(8, 64, 3, 3) * torch.logspace(-4, 3, 8).view(-1, 1, 1, 1)
    found = widen(narrow({"weight": weight}, "int8"))["weight"]
    error = (found - weight).abs().amax((1, 2, 3)) / weight.abs().amax((1, 2, 3))
    assert error.max() < 0.5 / 127 + 1e-3
