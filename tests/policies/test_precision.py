"""Products in bfloat16: what is rounded, what is not, and where they are refused."""

import pytest
import torch

from poise.errors import UsageError
from poise.policies.precision import bf16_product, bf16_products, chosen_precision, require_bf16
from poise.policies.sac import SAC
from poise.policies.sac_config import SACConfig
from poise.policies.stacked_mlp import Workspace, draw, forward, input_gradient, parameter_gradient
from poise.spec import ActionTerm, ObsTerm, Spec

SPEC = Spec({"state": (ObsTerm("x", (5,)),)}, (ActionTerm("a", "control", low=(-1,), high=(1,)),), control_dt=0.1)
CPU = torch.cpu.get_capabilities()
HAS_BF16, HAS_AMX = bool(CPU.get("avx512_bf16", False)), bool(CPU.get("amx_bf16", False))


def rounded(x: torch.Tensor) -> torch.Tensor:
    return x.bfloat16().double()


@pytest.mark.parametrize("transposed", [False, True])
def test_factors_are_rounded_and_sums_are_not(transposed):
    """Where oneDNN finds nothing to gain, as without AMX, it keeps float32: nearer to the exact product, never further."""
    a, b = torch.randn(2, 64, 256), torch.randn(2, 256, 64)
    if transposed:
        a, b = a.mT.contiguous().mT, b.mT.contiguous().mT
    exact, expected = a.double() @ b.double(), rounded(a) @ rounded(b)
    for out in (None, torch.empty(2, 64, 64)):
        found = bf16_product(a, b, out)
        assert found.dtype == torch.float32 and (out is None or found is out)
        goals = (expected,) if HAS_AMX else (expected, exact) if HAS_BF16 else (exact,)
        nearest = min((found - goal).abs().max() for goal in goals)
        assert nearest < 1e-3 * (expected - exact).abs().max() + 1e-4


def test_what_others_multiply_afterwards_keeps_float32():
    a, b = torch.randn(1, 256, 256), torch.randn(1, 256, 256)
    before = torch.bmm(a, b)
    bf16_product(a, b)
    assert torch.equal(torch.bmm(a, b), before)


def test_a_pass_in_bf16_is_near_the_same_in_fp32_and_leaves_inputs_and_outputs_exact():
    generator = torch.Generator().manual_seed(0)
    params = draw(2, [20, 256, 256, 1], generator)
    x, d_out = torch.randn(64, 20, generator=generator), torch.randn(2, 64, 1, generator=generator)
    found = {}
    for bf16 in (False, True):
        work = Workspace.kept(params, 64, 64, bf16)
        out, hidden = forward(params, x, work)
        gradient = [g.clone() for g in parameter_gradient(params, x, hidden, d_out, work)]
        _, hidden = forward(params, x, work)
        found[bf16] = [out, hidden[0].clone(), *gradient, input_gradient(params, hidden, d_out, 0, work)]
    for exact, rough in zip(found[False], found[True], strict=True):
        assert (exact - rough).norm() <= 0.12 * exact.norm()  # a ReLU near zero may flip
    assert torch.equal(found[False][1], found[True][1]), "the first layer reads observations, which keep float32"


@pytest.mark.parametrize("able", [True, False])
def test_sac_refuses_bf16_where_the_cpu_lacks_it(able, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able})
    config = SACConfig(hidden=(16, 16), batch_size=8, learning_starts=8, precision="bf16")
    if able:
        require_bf16(torch.device("cpu"))
        assert all(work.bf16 for work in SAC(SPEC, config, 1, seed=0).core.work)
    else:
        with pytest.raises(UsageError, match="precision = 'bf16': this CPU has no avx512_bf16; use precision=fp32"):
            SAC(SPEC, config, 1, seed=0)


def test_fp32_is_what_one_gets_without_asking():
    assert not any(work.bf16 for work in SAC(SPEC, SACConfig(), 1, seed=0).core.work)


def test_products_inside_are_rounded_with_their_gradients_and_all_is_as_before_outside():
    w = torch.randn(256, 256, requires_grad=True)
    x, device = torch.randn(64, 256), torch.device("cpu")
    exact = x @ w
    with bf16_products(device):
        rough = x @ w
        gradient = torch.autograd.grad(rough.sum(), w)[0]
    assert (rough - exact).abs().max() < 0.5 and torch.equal(x @ w, exact)
    torch.testing.assert_close(gradient, x.sum(0)[:, None].expand_as(w), atol=0.2, rtol=0)
    if HAS_BF16:
        assert not torch.equal(rough, exact)
    with pytest.raises(ZeroDivisionError), bf16_products(device):
        raise ZeroDivisionError
    assert torch.equal(x @ w, exact)


def test_large_products_are_rounded_on_a_gpu_alone_and_only_where_auto_may_choose(monkeypatch):
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    able = [True]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: able[0])
    assert chosen_precision("auto", gpu, 4096, 512) == "bf16" and chosen_precision("auto", gpu, 256, 256) == "fp32"
    assert chosen_precision("auto", cpu, 4096, 512) == chosen_precision("fp32", gpu, 4096, 512) == "fp32"
    assert chosen_precision("bf16", gpu, 1, 1) == "bf16"
    able[0] = False
    assert chosen_precision("auto", gpu, 4096, 512) == "fp32"
    with pytest.raises(UsageError, match="this GPU has no bfloat16"):
        chosen_precision("bf16", gpu, 4096, 512)
