"""Ticks against the formulas, whole sequences against ticks."""

from typing import Any

import pytest
import torch

from returnn_lite.ops.frames import Frames
from returnn_lite.ops.lstm import bidirectional_lstm, lstm, lstm_over_gates, rnn_tanh
from returnn_lite.ops.lstm2d import lstm2d, lstm2d_step
from returnn_lite.ops.recurrent import gru_step, lstm_step, normed_lstm_step, rhn_step, zoneout

B, T, D, H = 3, 5, 4, 2
LENGTHS = torch.tensor([5, 3, 0])
PADDING = torch.arange(T)[:, None] >= LENGTHS


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def weights() -> dict[str, torch.Tensor]:
    return {
        "w_x": normal(D, 4 * H),
        "w_h": normal(H, 4 * H),
        "bias": normal(4 * H),
        "h0": normal(B, H),
        "c0": normal(B, H),
    }


def ticks(x: torch.Tensor, p: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs (T, B, H) and the cell behind the last valid frame."""
    h, c, rows = p["h0"], p["c0"], []
    for t in range(T):
        h_new, c_new = lstm_step(x[t] @ p["w_x"] + h @ p["w_h"] + p["bias"], c)
        h, c = (torch.where(PADDING[t, :, None], old, new) for old, new in ((h, h_new), (c, c_new)))
        rows.append(h)
    return torch.stack(rows), c


@pytest.mark.parametrize("given_gates", [False, True])
def test_an_lstm_over_a_sequence_equals_its_ticks(given_gates: bool) -> None:
    x, p = normal(T, B, D), weights()
    expected, cell = ticks(x, p)
    if given_gates:
        gates = x @ p["w_x"] + p["bias"]
        out, last = lstm_over_gates(gates, p["w_h"], p["h0"], p["c0"], padding=PADDING)
    else:
        out, last = lstm(x, **p, padding=PADDING)
    valid = ~PADDING.unsqueeze(2)
    torch.testing.assert_close(out * valid, expected * valid)
    torch.testing.assert_close(last, cell)
    leaves = [x, *p.values()]
    found = torch.autograd.grad((out * valid).sum() + last.sum(), leaves)
    torch.testing.assert_close(found, torch.autograd.grad((expected * valid).sum() + cell.sum(), leaves))


@pytest.mark.parametrize("order", ["ifao", "ifoa", "oafi"])
def test_the_gates_may_stand_in_any_order(order: str) -> None:
    x, p = normal(T, B, D), weights()
    moved = {n: torch.cat([w.chunk(4, -1)["aifo".index(g)] for g in order], -1) for n, w in p.items() if n[-1] != "0"}
    for padding in (None, PADDING):
        found = lstm(x, **{**p, **moved}, padding=padding, order=order)
        torch.testing.assert_close(found, lstm(x, **p, padding=padding))


def both_directions(x: torch.Tensor, p: dict[str, torch.Tensor], order: str) -> torch.Tensor:
    ahead = [p[name] for name in ("w_x", "w_h", "bias")]
    return bidirectional_lstm(x, ahead, [w * 2 for w in ahead], padding=PADDING, order=order)


USES = {
    "lstm": lambda x, p, order: lstm(x, **p, order=order)[0],
    "until the ends": lambda x, p, order: lstm(x, **p, padding=PADDING, order=order)[1],
    "both directions": both_directions,
    "given gates": lambda x, p, order: lstm_over_gates(x @ p["w_x"], p["w_h"], p["h0"], p["c0"])[0],
    "plain": lambda x, p, order: rnn_tanh(x, p["w_x"][:, :H], p["w_h"][:, :H], p["bias"][:H], p["h0"]),
}


@pytest.mark.parametrize("order", ["ifao", "aifo", "oafi"])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_the_form_for_gpus(use: Any, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, p = normal(T, B, D), weights()
    leaves = [x, *p.values()]
    outputs = []
    for on_gpu in (False, True):
        monkeypatch.setattr("returnn_lite.ops.lstm.on_gpu", lambda _, on_gpu=on_gpu: on_gpu)
        out = use(x, p, order)
        outputs.append([out, *torch.autograd.grad(out.sum(), leaves, allow_unused=True)])
    for plain, other in zip(*outputs, strict=True):
        assert (plain is None) == (other is None)
        if plain is not None:
            torch.testing.assert_close(other, plain)


def test_a_plain_rnn() -> None:
    x, w_x, w_h, bias, h = normal(T, B, D), normal(D, H), normal(H, H), normal(H), normal(B, H)
    out = rnn_tanh(x, w_x, w_h, bias, h)
    for t in range(T):
        h = (x[t] @ w_x + h @ w_h + bias).tanh()
        torch.testing.assert_close(out[t], h)


def test_peepholes_and_clipping() -> None:
    gates, c, w_if, w_o = normal(B, 4 * H), normal(B, H), normal(2 * H), normal(H)
    h_new, c_new = lstm_step(gates, c, peepholes=(w_if, w_o), cell_clip=0.5, activation=torch.relu)
    a, i, f, o = gates.chunk(4, 1)
    cell = (f + c * w_if[H:]).sigmoid() * c + (i + c * w_if[:H]).sigmoid() * a.relu()
    cell = cell.clamp(-0.5, 0.5)
    torch.testing.assert_close(c_new, cell)
    torch.testing.assert_close(h_new, (o + cell * w_o).sigmoid() * cell.relu())


@pytest.mark.parametrize("in_output", [True, False])
def test_norms_in_an_lstm(in_output: bool) -> None:
    gates, c = normal(B, 4 * H), normal(B, H)
    h_new, c_new = normed_lstm_step(gates, c)
    torch.testing.assert_close((h_new, c_new), lstm_step(gates, c))
    h, cell = normed_lstm_step(
        gates,
        c,
        cell_norm=lambda x: 2 * x,
        norm_in_output=in_output,
        hidden_norm=lambda x: x + 1,
        dropout=torch.zeros_like,
    )
    f, o = gates.chunk(4, 1)[2:]
    kept = f.sigmoid() * c
    torch.testing.assert_close(cell, 2 * kept)
    torch.testing.assert_close(h, o.sigmoid() * ((2 if in_output else 1) * kept).tanh() + 1)


def test_a_gru() -> None:
    sums, h, gates_h, new_h = normal(B, 3 * H), normal(B, H), normal(H, 2 * H), normal(H, H)
    r, u = (sums[:, : 2 * H] + h @ gates_h).sigmoid().chunk(2, 1)
    n = (sums[:, 2 * H :] + (r * h) @ new_h).tanh()
    torch.testing.assert_close(gru_step(sums, h, gates_h, new_h), u * h + (1 - u) * n)


def test_highway_layers() -> None:
    sums, s, w = normal(B, 2 * H), normal(B, H), [normal(H, 2 * H, seed=i) for i in range(2)]
    mask = torch.tensor([[2.0, 0.0]], dtype=torch.float64).expand(B, H)
    wanted = s
    for i in range(2):
        h, t = ((wanted * mask) @ w[i] + (sums if i == 0 else 0)).chunk(2, 1)
        wanted = wanted + t.sigmoid() * (h.tanh() - wanted)
    torch.testing.assert_close(rhn_step(sums, s, w, mask), wanted)


def test_zoneout() -> None:
    old, new = torch.zeros(100, 100), torch.ones(100, 100)
    generator = torch.Generator().manual_seed(1)
    options: dict[str, Any] = {"generator": generator}
    torch.testing.assert_close(zoneout(old, new, 0.3, training=False, **options), torch.full((100, 100), 0.7))
    found = zoneout(old, new, 0.3, training=True, **options)
    assert set(found.flatten().tolist()) == {0.0, 1.0} and float(found.mean()) == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize("reverse", [False, True])
def test_frames_in_processing_order(reverse: bool) -> None:
    x = normal(T, B, D)
    frames = Frames(LENGTHS, T, reverse=reverse, device=x.device)
    arranged = frames.enter(x)
    for b, n in enumerate(LENGTHS.tolist()):
        rows = x[:n, b].flip(0) if reverse else x[:n, b]
        assert torch.equal(arranged[:n, b], rows) and not arranged[n:, b].any()
    assert torch.equal(frames.enter(x * ~PADDING.unsqueeze(2), zero_padded=True), arranged)
    torch.testing.assert_close(frames.leave(arranged), x * ~PADDING.unsqueeze(2))
    last = frames.last(arranged, torch.full((B, D), 7.0, dtype=torch.float64))
    assert torch.equal(last[1], arranged[2, 1]) and (last[2] == 7).all()


@pytest.mark.parametrize("zero_padded", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradient_of_frames_in_processing_order(reverse: bool, zero_padded: bool) -> None:
    x = normal(T, B, D).detach().masked_fill(PADDING.unsqueeze(2), 0 if zero_padded else float("nan")).requires_grad_()
    frames = Frames(LENGTHS, T, reverse=reverse, device=x.device)
    weights = normal(T, B, D, seed=3)
    seen = frames.enter(x, zero_padded=zero_padded)
    (frames.leave(seen**2) * weights).sum().backward()
    wanted = torch.where(PADDING.unsqueeze(2), 0, 2 * x.detach() * weights)
    assert x.grad is not None and torch.equal(x.grad, wanted)


def test_an_lstm_over_two_axes_cell_by_cell() -> None:
    columns, rows, across, down = normal(B, 3, 5 * H), normal(B, 4, 5 * H), normal(H, 5 * H), normal(H, 5 * H, seed=2)
    h_above, c_above = normal(B, 3, H), normal(B, 3, H, seed=2)
    h, c = lstm2d(columns, rows, across, down, h_above, c_above)
    assert h.shape == c.shape == (B, 4, 3, H)
    nothing = torch.zeros(B, H, dtype=torch.float64)
    for t in range(4):
        for s in range(3):
            left = (h[:, t, s - 1], c[:, t, s - 1]) if s else (nothing, nothing)
            above = (h[:, t - 1, s], c[:, t - 1, s]) if t else (h_above[:, s], c_above[:, s])
            gates = columns[:, s] + rows[:, t] + left[0] @ across + above[0] @ down
            torch.testing.assert_close((h[:, t, s], c[:, t, s]), lstm2d_step(gates, left[1], above[1]))
    gates, left, above = torch.zeros(1, 5), torch.tensor([[2.0]]), torch.tensor([[4.0]])
    assert lstm2d_step(gates, left, above)[1].item() == pytest.approx(0.5 * 3.0)
