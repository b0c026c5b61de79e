"""Products by oneDNN are those by torch, in every shape that the perceptrons' passes have."""

import pytest
import torch

from poise.policies import products

ROWS = products.ROWS


@pytest.fixture(autouse=True)
def large_from_anywhere(monkeypatch):
    monkeypatch.setattr(products, "onednn_is_faster", lambda: torch.backends.mkldnn.is_available())
    monkeypatch.setattr(products, "LARGE", 1)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("networks", [1, 2])
@pytest.mark.parametrize("rows", [5, ROWS, 2 * ROWS + 7])
def test_a_layer_is_one_pass_of_product_bias_and_activation(networks, rows):
    x, weight, bias = drawn(1, rows, 6).expand(networks, -1, -1), drawn(networks, 6, 8), drawn(networks, 1, 8)
    for activation in products.FUSED:
        expected = getattr(torch, activation)(torch.bmm(x, weight) + bias)
        out = torch.empty(networks, rows, 8)
        found = products.layer(x, weight, bias, activation, out)
        assert found is out
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(products.layer(x, weight, bias, activation), expected)
    assert products.layer(x, weight, bias, "elu") is None, "what oneDNN does not apply goes the usual way"


@pytest.mark.parametrize("rows", [5, ROWS, 2 * ROWS + 7])
def test_derivatives_sum_over_however_many_rows(rows):
    x, delta, weight = drawn(2, rows, 6), drawn(2, rows, 8), drawn(2, 6, 8)
    gradient = torch.full((2, 6, 8), torch.nan)
    torch.testing.assert_close(products.product(x.mT, delta, gradient), x.mT @ delta, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(products.product(delta, weight.mT), delta @ weight.mT)


def test_small_products_other_types_and_other_cpus_stay_with_torch(monkeypatch):
    x, weight = drawn(1, 40, 6), drawn(1, 6, 8)
    assert products.takes(x, 1) and not products.takes(x.double(), 1)
    assert torch.equal(products.product(x.double(), weight.double()), torch.bmm(x.double(), weight.double()))
    monkeypatch.setattr(products, "LARGE", 40 * 6 * 8 + 1)
    assert torch.equal(products.product(x, weight), torch.bmm(x, weight))
    monkeypatch.setattr(products, "LARGE", 1)
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)
    assert torch.equal(products.product(x, weight), torch.bmm(x, weight))
    assert products.layer(x, weight, drawn(1, 1, 8), "relu") is None
