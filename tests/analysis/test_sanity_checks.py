"""The sanity checks of heat maps: shares, rank correlation and randomised networks."""

from __future__ import annotations

import pytest
import torch
from planted_networks import CONFIG, answer, faces, network_that_sees

from pcnn.analysis.sanity_checks import cascade, heat_shares, randomised, rank_correlation
from pcnn.errors import InputError
from pcnn.networks.regions import VIEWS
from pcnn.recognition.explanations import heat_maps


def test_heat_shares_by_hand() -> None:
    """At 20 pixels: eyes 10 × 10, cheeks 3 × 10, mouth 7 × 20; one heat of 3, one of 1."""
    heat = torch.zeros(1, 20, 20)
    heat[0, 12, 19], heat[0, 13, 0] = 3, 1
    shares = heat_shares(heat, CONFIG.layout)
    assert shares.tolist() == [[0, 0, 0, 0.75, 0.25]]


def test_rank_correlation_by_hand() -> None:
    """Ranks 1, 2½, 2½, 4 against 1, 3, 2, 4: 4.5 / √(4.5 · 5); the order alone counts."""
    maps = torch.tensor([[[1.0, 2], [2, 9]], [[1, 2], [3, 4]], [[1, 2], [3, 4]]])
    others = torch.tensor([[[0.0, 5], [3, 9]], [[1, 2], [3, 99]], [[0, -1], [-2, -3]]])
    expected = torch.tensor([4.5 / 22.5**0.5, 1, -1], dtype=torch.float64)
    torch.testing.assert_close(rank_correlation(maps, others), expected)
    with pytest.raises(InputError) as error:
        rank_correlation(maps, others[:2])
    assert str(error.value) == "rank_correlation: others must be (3, 2, 2), got (2, 2, 2)"


def test_randomising_changes_the_parts_named_and_no_others() -> None:
    network = network_that_sees(*VIEWS)
    fresh = randomised(network, ["layer4", "conv1"], seed=3)
    before, after = network.state_dict(), fresh.state_dict()
    changed = {
        name for name in before if name.endswith("weight") and not before[name].equal(after[name])
    }
    assert {name.split(".")[0] for name in changed} == {"layer4", "trunks"}
    trunks = {name.split(".")[1:3][1] for name in changed if name.startswith("trunks")}
    assert trunks <= {"conv1", "bn1"} and "conv1" in trunks
    again = randomised(network, ["layer4", "conv1"], seed=3).state_dict()
    assert all(torch.equal(after[name], again[name]) for name in after)
    with pytest.raises(InputError, match=r"randomised: parts must be of expression_head.*got body"):
        randomised(network, ["body"], seed=0)


def test_all_of_the_cascade_leaves_no_weight_as_it_was() -> None:
    network = network_that_sees(*VIEWS)
    fresh = randomised(network, cascade(network), seed=3).state_dict()
    same = {
        name
        for name, value in network.state_dict().items()
        if value.dim() == 4 and torch.equal(value, fresh[name])
    }
    assert not same and not torch.equal(
        network.expression_head.weight, fresh["expression_head.weight"]
    )


def test_a_randomised_network_has_another_map() -> None:
    """Adebayo et al. 2018: else the map would show the picture, not the reasons."""
    network = network_that_sees(*VIEWS)
    face = faces(4)
    chosen = answer(network, face)
    before = heat_maps(network, network.cut(face), chosen, steps=2)
    other = randomised(network, cascade(network), seed=5)
    after = heat_maps(other, network.cut(face), chosen, steps=2)
    assert rank_correlation(before, before).min() == pytest.approx(1)
    assert abs(float(rank_correlation(before, after).mean())) < 0.3
