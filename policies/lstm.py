"""One recurrent layer, a step or a sequence at a time, with a hand-written backward pass through the sequence.

    i, f, g, o = W_ih x + W_hh h + b;   c <- σ(f) c + σ(i) tanh(g);   h <- σ(o) tanh(c)

Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; equal to torch.nn.LSTM with one bias. An
episode that starts inside a sequence forgets what came before, which torch's own sequences cannot do but by cutting
them up. All that does not wait for the step before is one product over the sequence; tests/policies/test_networks.py
holds both passes against autograd through single steps.

Legend: N worlds, T time, I inputs, H units.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LSTMState = tuple[Tensor, Tensor]  # h and c, (N, H) each


class LSTMCore(nn.Module):
    """The layer and its weights, which are zero until `initialize_` draws them."""

    def __init__(self, inputs: int, size: int):
        super().__init__()
        self.size = size
        self.weight_ih = nn.Parameter(torch.zeros(4 * size, inputs))  # gates in torch's order i, f, g, o
        self.weight_hh = nn.Parameter(torch.zeros(4 * size, size))
        self.bias = nn.Parameter(torch.zeros(4 * size))

    def initial_state(self, n: int) -> LSTMState:
        """What is remembered at the start of an episode: nothing, in zeros (n, H)."""
        zeros = self.bias.new_zeros(n, self.size)
        return zeros, zeros.clone()

    def forward(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """One step: the output (N, H) for x (N, I), and the next state."""
        h, c = state
        gates = torch.addmm(self.bias, x, self.weight_ih.T)
        i, f, g, o = torch.addmm(gates, h, self.weight_hh.T).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)

    def sequence(self, x: Tensor, state: LSTMState, starts: Tensor) -> tuple[Tensor, LSTMState]:
        """T steps: outputs (N, T, H) for x (N, T, I), and the state after the last.

        starts: (N, T), true where x is the first of an episode, so that what came before is forgotten.
        """
        weight_ih, weight_hh, bias = (_output_first(w) for w in (self.weight_ih, self.weight_hh, self.bias))
        inputs = nn.functional.linear(x.transpose(0, 1), weight_ih, bias)  # (T, N, 4H)
        outputs, h, c = _Sequence.apply(inputs, weight_hh, *state, starts)  # type: ignore[misc]
        return outputs.transpose(0, 1), (h, c)

    def tensors(self) -> dict[str, Tensor]:
        """The weights under the names of the policy file; the tensors themselves, no copies."""
        return {f"lstm.{name}": tensor.detach() for name, tensor in self.named_parameters()}


def _output_first(weight: Tensor) -> Tensor:
    """Rows in the order o, i, f, g: the three sigmoids lie side by side, and so do the three gates of the cell."""
    i, f, g, o = weight.chunk(4)
    return torch.cat([o, i, f, g])


class _Sequence(torch.autograd.Function):
    """(inputs (T, N, 4H) of the gates o, i, f, g; W_hh; h, c; starts (N, T)) -> outputs (T, N, H), last h, last c."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight_hh: Tensor, h: Tensor, c: Tensor, starts: Tensor) -> Any:
        steps, n, size = inputs.shape[0], inputs.shape[1], h.shape[1]
        keep = (~starts.T).to(inputs.dtype).unsqueeze(-1)  # (T, N, 1)
        # on the CPU most steps are known to start nothing; a GPU is not asked
        resets = starts.any(0).tolist() if starts.device.type == "cpu" else [True] * steps
        gates, weight = torch.empty_like(inputs), weight_hh.T.contiguous()
        cells, tanh_cells, outputs = (inputs.new_empty(steps, n, size) for _ in range(3))
        h_before, c_before = h, c
        o, i, f, g = (part.unbind() for part in gates.chunk(4, -1))
        sigmoids = gates[..., : 3 * size].unbind()
        for t, (gate, cell, tanh_cell, output) in enumerate(zip(gates, cells, tanh_cells, outputs, strict=True)):
            if resets[t]:
                h, c = h * keep[t], c * keep[t]
            torch.addmm(inputs[t], h, weight, out=gate)
            sigmoids[t].sigmoid_()
            g[t].tanh_()
            torch.mul(f[t], c, out=cell).addcmul_(i[t], g[t])
            torch.tanh(cell, out=tanh_cell)
            h, c = torch.mul(o[t], tanh_cell, out=output), cell
        h_before = torch.cat([h_before.unsqueeze(0), outputs[:-1]]).mul_(keep)  # (T, N, H), what each step went on from
        c_before = torch.cat([c_before.unsqueeze(0), cells[:-1]]).mul_(keep)
        ctx.save_for_backward(weight_hh, gates, tanh_cells, h_before, c_before, keep)
        ctx.resets = resets
        return outputs, h.clone(), c.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        d_outputs, dh, dc = grads
        weight_hh, gates, tanh_cells, h_before, c_before, keep = ctx.saved_tensors
        steps, n, size = tanh_cells.shape
        o, i, f, g = gates.chunk(4, -1)
        to_cell = (o * (1.0 - tanh_cells.square())).unbind()  # dh/dc
        to_output = (tanh_cells * o * (1.0 - o)).unbind()  # dh/d(gate o before its sigmoid)
        to_gates = torch.stack([g * i * (1.0 - i), c_before * f * (1.0 - f), i * (1.0 - g.square())], 2).unbind()
        d_gates = torch.empty_like(gates)
        d_output_gate = d_gates[..., :size].unbind()
        d_cell_gates = d_gates.view(steps, n, 4, size)[:, :, 1:].unbind()  # T x (N, 3, H)
        for t in reversed(range(steps)):
            dh = dh + d_outputs[t]
            dc = torch.addcmul(dc, dh, to_cell[t])
            torch.mul(dh, to_output[t], out=d_output_gate[t])
            torch.mul(dc.unsqueeze(1), to_gates[t], out=d_cell_gates[t])
            dh, dc = d_gates[t] @ weight_hh, dc * f[t]
            if ctx.resets[t]:
                dh, dc = dh * keep[t], dc * keep[t]
        return d_gates, d_gates.flatten(0, 1).T @ h_before.flatten(0, 1), dh, dc, None
