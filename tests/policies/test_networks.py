"""The torch modules: published sizes, torch's own LSTM, drawing from the caller's generator alone."""

import numpy as np
import pytest
import torch
from torch import nn

from poise.policies.network_document import expected_tensors
from poise.policies.networks import ConvEncoder, LSTMCore, PolicyNetwork, initialize_, linear_layers, mlp
from poise.spec import ActionTerm, ObsTerm, Spec

NATURE = [[32, 8, 4], [64, 4, 2], [64, 3, 1]]
FIRST = [[16, 8, 4], [32, 4, 2]]


def atari(choices: int) -> Spec:
    camera = ObsTerm("screen", (84, 84, 1), "camera", dtype="uint8", history=4)
    return Spec({"camera": (camera,)}, (ActionTerm("joystick", "discrete", n=choices),), control_dt=1 / 15)


def q_network(layers, hidden) -> dict:
    conv = {"group": "camera", "layers": layers, "activation": "relu"}
    return {"kind": "mlp", "groups": [], "conv": conv, "hidden": [hidden], "activation": "relu", "head": "argmax"}


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("layers", "hidden", "choices", "published"),
    [(NATURE, 512, 4, 1_686_180), (NATURE, 512, 6, 1_687_206), (NATURE, 512, 18, 1_693_362), (FIRST, 256, 4, 677_172)],
)
def test_the_deep_q_networks_have_their_published_sizes(layers, hidden, choices, published):
    spec, document = atari(choices), q_network(layers, hidden)
    network = PolicyNetwork(spec, document)
    assert count(network) == published
    assert {k: tuple(t.shape) for k, t in network.tensors().items()} == expected_tensors(spec, document)
    frames = torch.randint(0, 256, (2, 84, 84, 4), dtype=torch.uint8)
    assert network(None, frames)[0].shape == (2, choices)


def lstm_pair(inputs: int = 3, size: int = 5) -> tuple[LSTMCore, nn.LSTM]:
    core = LSTMCore(inputs, size)
    initialize_(core, torch.Generator().manual_seed(0))
    theirs = nn.LSTM(inputs, size, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(core.weight_ih)
        theirs.weight_hh_l0.copy_(core.weight_hh)
        theirs.bias_ih_l0.copy_(core.bias)
        theirs.bias_hh_l0.zero_()
    return core, theirs


def test_the_lstm_equals_torchs_a_step_and_a_sequence_at_a_time():
    core, theirs = lstm_pair()
    x = torch.randn(4, 7, 3)
    expected, (h, c) = theirs(x)
    outputs, state = core.sequence(x, core.initial_state(4), torch.zeros(4, 7, dtype=torch.bool))
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(state, (h[0], c[0]))
    state = core.initial_state(4)
    for t in range(7):
        output, state = core(x[:, t], state)
        torch.testing.assert_close(output, expected[:, t])


def test_a_sequence_forgets_at_the_start_of_an_episode():
    core, theirs = lstm_pair()
    x, starts = torch.randn(2, 6, 3), torch.zeros(2, 6, dtype=torch.bool)
    starts[0, 4] = starts[1, 0] = True
    before = (torch.randn(2, 5), torch.randn(2, 5))
    outputs, state = core.sequence(x, before, starts)
    fresh, (h, c) = theirs(x[:1, 4:])
    torch.testing.assert_close(outputs[:1, 4:], fresh)
    torch.testing.assert_close((state[0][:1], state[1][:1]), (h[0], c[0]))
    torch.testing.assert_close(outputs[1:], theirs(x[1:])[0])
    carried, _ = theirs(x[:1, :4], (before[0][None, :1], before[1][None, :1]))
    torch.testing.assert_close(outputs[:1, :4], carried)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_sequence_has_the_outputs_and_gradients_of_its_steps(share):
    core = LSTMCore(3, 5).double()
    initialize_(core, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 9, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    starts = torch.rand(6, 9, generator=generator) < share
    h, c = (torch.randn(6, 5, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def stepped():
        state, outputs = (h, c), []
        for t in range(9):
            kept = (~starts[:, t, None]).double()
            output, state = core(x[:, t], (state[0] * kept, state[1] * kept))
            outputs.append(output)
        return torch.stack(outputs, 1), state

    results = []
    for outputs, state in (core.sequence(x, (h, c), starts), stepped()):
        loss = outputs.square().sum() + state[0].sum() + 2.0 * state[1].square().sum()
        results.append((outputs, *state, *torch.autograd.grad(loss, [*core.parameters(), x, h, c])))
    torch.testing.assert_close(results[0], results[1])


def test_pictures_are_scaled_and_flattened_channel_by_channel():
    encoder = ConvEncoder((2, 3, 1), [[2, 1, 1]])
    with torch.no_grad():
        encoder.convolutions[0].weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
        encoder.convolutions[0].bias.zero_()
    picture = torch.arange(6, dtype=torch.uint8).view(1, 2, 3, 1) * 51
    torch.testing.assert_close(encoder(picture), torch.tensor([[0, 0.2, 0.4, 0.6, 0.8, 1, 0, 0.4, 0.8, 1.2, 1.6, 2]]))
    sequence = picture.expand(4, 5, 2, 3, 1)  # any leading axes, and floats from augmentation
    assert encoder(sequence).shape == (4, 5, 12)
    torch.testing.assert_close(encoder(picture.float()), encoder(picture))


def test_the_bottleneck_stays_between_minus_one_and_one():
    encoder = ConvEncoder((8, 8, 3), [[4, 3, 2]], features=6)
    features = encoder(torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8))
    assert features.shape == (5, 6) and features.abs().max() <= 1.0
    torch.testing.assert_close(torch.atanh(features).mean(1), torch.zeros(5), atol=1e-5, rtol=0)  # layer norm


@pytest.mark.parametrize("last_gain", [None, 0.01])
def test_weights_come_from_the_given_generator_alone(last_gain):
    def draw(seed: int, ours: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        network = nn.Sequential(ConvEncoder((8, 8, 3), [[4, 3, 2]], features=6), LSTMCore(6, 4), mlp([4, 8, 2], "tanh"))
        return list(initialize_(network, torch.Generator().manual_seed(ours), last_gain).parameters())

    same, other = draw(2, 0), draw(1, 1)
    assert all(torch.equal(a, b) for a, b in zip(draw(1, 0), same, strict=True))
    drawn = [(a, b) for a, b in zip(same, other, strict=True) if a.ndim > 1]
    assert len(drawn) == 6 and not any(torch.equal(a, b) for a, b in drawn)


def test_orthogonal_weights_have_their_gains():
    network = nn.Sequential(ConvEncoder((8, 8, 3), [[4, 3, 2]]), LSTMCore(36, 6), mlp([6, 8, 2], "tanh"))
    initialize_(network, torch.Generator().manual_seed(0), last_gain=0.01)
    conv, core, layers = network[0].convolutions[0], network[1], linear_layers(network)

    def squares(weight: torch.Tensor) -> np.ndarray:
        flat = weight.detach().flatten(1)
        return np.linalg.svd(flat.numpy(), compute_uv=False) ** 2

    np.testing.assert_allclose(squares(conv.weight), 2.0, rtol=1e-5)
    np.testing.assert_allclose(squares(core.weight_ih), 1.0, rtol=1e-5)
    np.testing.assert_allclose(squares(core.weight_hh), 1.0, rtol=1e-5)
    np.testing.assert_allclose(squares(layers[0].weight), 2.0, rtol=1e-5)
    np.testing.assert_allclose(squares(layers[1].weight), 1e-4, rtol=1e-5)
    assert all((layer.bias == 0).all() for layer in [conv, core, *layers])


def test_layer_norm_stands_between_a_hidden_layer_and_its_activation():
    network = mlp([3, 8, 8, 2], "relu", norm="layer")
    assert [type(m).__name__ for m in network] == [
        "Linear",
        "LayerNorm",
        "ReLU",
        "Linear",
        "LayerNorm",
        "ReLU",
        "Linear",
    ]
