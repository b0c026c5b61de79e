"""Adam's step, and numbers too small for it."""

import pytest
import torch

from poise.policies.adam import SMALLEST, adam_, flushed_denormals, zero_moments


@pytest.mark.parametrize("beta_2", [0.999, 0.95])
def test_steps_equal_torchs_adam(beta_2):
    p = torch.randn(7)
    leaf = p.clone().requires_grad_()
    theirs, moments, steps = torch.optim.Adam([leaf], lr=1e-2, betas=(0.9, beta_2)), zero_moments([p]), torch.zeros(())
    for _ in range(5):
        leaf.grad = gradient = torch.randn(7)
        theirs.step()
        adam_([p], [gradient], moments, steps.add_(1), 1e-2, beta_2=beta_2)
    torch.testing.assert_close(p, leaf.detach())


def test_moments_of_a_dead_unit_become_zero_instead_of_lingering_as_denormals():
    p, moments, steps = torch.ones(64), ([torch.full((64,), 2e-38)], [torch.full((64,), 2e-38)]), torch.ones(())
    for _ in range(20):
        adam_([p], [torch.zeros(64)], moments, steps.add_(1), 1e-3)
    assert not moments[0][0].any()


def test_denormals_are_as_before_outside():
    tiny = torch.tensor(1e-40)
    with flushed_denormals():
        assert float(tiny * 1.0) == 0.0
        with flushed_denormals():
            pass
        assert float(tiny * 1.0) == 0.0
    assert float(tiny * 1.0) > 0.0 and SMALLEST * 1.0 > 0.0
