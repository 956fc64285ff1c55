"""Recurrent units against the plainest computation of the same formulas: one sequence, one frame at a time."""

import pytest
import torch
from torch import Tensor

from returnn_lite.errors import ConfigError
from returnn_lite.rec.cells import UNITS, Cell, make_cell, resolve_unit

D, H = 3, 4
LENGTHS = torch.tensor([5, 2, 0, 6])
T, B = 6, 4

CASES = [
    ("nativelstm2", {}),
    ("nativelstm", {}),
    ("nativelstmlowmem", {}),
    ("vanillalstm", {}),
    ("standardlstm", {}),
    ("standardlstm", {"forget_bias": 2.0, "use_peepholes": True, "cell_clip": 0.3}),
    ("standardlstm", {"activation": "relu"}),
    ("standardlstm", {"num_proj": H}),
    ("standardlstm", {"num_proj": H, "proj_clip": 0.1}),
    ("basiclstm", {"forget_bias": 0.5}),
    ("zoneoutlstm", {}),
    ("zoneoutlstm", {"zoneout_factor_cell": 0.2, "zoneout_factor_output": 0.3}),
    ("zoneoutlstm", {"zoneout_factor_cell": 0.2, "zoneout_factor_output": 0.3, "use_zoneout_output": True}),
    ("gru", {}),
    ("gru", {"activation": "relu"}),
    ("basicrnn", {}),
    ("basicrnn", {"activation": "sigmoid"}),
    ("rhn", {"depth": 3}),
    ("layernormvariantslstm", {}),
    ("layernormvariantslstm", {"cell_norm": False, "hidden_norm": True}),
    ("layernormvariantslstm", {"global_norm": False, "cell_norm": False, "forget_bias": 1.0}),
    ("layernormvariantslstm", {"global_norm": False, "global_norm_joined": True, "variance_epsilon": 1e-6}),
    ("layernormvariantslstm", {"global_norm": False, "per_gate_norm": True, "cell_norm_in_output": False}),
    ("layernormvariantslstm", {"global_norm": False, "with_concat": True, "activation": "relu"}),
    ("layernormvariantslstm", {"global_norm": False, "with_concat": True, "global_norm_joined": True}),
    ("layernormvariantslstm", {"global_norm": False, "with_concat": True, "per_gate_norm": True}),
]


def case_id(value: object) -> str:
    return ",".join(f"{k}={v}" for k, v in value.items()) or "-" if isinstance(value, dict) else str(value)


all_cases = pytest.mark.parametrize(("unit", "opts"), CASES, ids=case_id)


# --- the plain formulas: parameters, x (D,), state -> output, state ---------------------------------------------------


def naive_native(p, x, state, opts):
    w = torch.cat([p["W"], p["W_re"]]) if "W_re" in p else p["W"]
    a, i, f, o = (torch.cat([x, state["h"]]) @ w + p["b"]).split(H)
    c = f.sigmoid() * state["c"] + i.sigmoid() * a.tanh()
    h = o.sigmoid() * c.tanh()
    return h, {"c": c, "h": h}


def naive_standard(p, x, state, opts, scope="lstm_cell"):
    p = {name.removeprefix(f"{scope}/"): value for name, value in p.items()}
    act = torch.relu if opts.get("activation") == "relu" else torch.tanh
    i, j, f, o = (torch.cat([x, state["h"]]) @ p["kernel"] + p["bias"]).split(H)
    if opts.get("use_peepholes"):
        i, f = i + p["w_i_diag"] * state["c"], f + p["w_f_diag"] * state["c"]
    c = (f + opts.get("forget_bias", 1.0)).sigmoid() * state["c"] + i.sigmoid() * act(j)
    if "cell_clip" in opts:
        c = c.clamp(-opts["cell_clip"], opts["cell_clip"])
    if opts.get("use_peepholes"):
        o = o + p["w_o_diag"] * c
    h = o.sigmoid() * act(c)
    if "num_proj" in opts:
        h = h @ p["projection/kernel"]
        limit = opts.get("proj_clip", 1e9)
        h = h.clamp(-limit, limit)
    return h, {"c": c, "h": h}


def naive_basic(p, x, state, opts):
    return naive_standard(p, x, state, opts, "basic_lstm_cell")


def naive_zoneout(p, x, state, opts):
    y, new = naive_standard(p, x, state, {})
    for key, name in (("c", "cell"), ("h", "output")):
        z = opts.get(f"zoneout_factor_{name}", 0.0)
        new[key] = (1 - z) * new[key] + z * state[key]
    return new["h"] if opts.get("use_zoneout_output") else y, new


def naive_gru(p, x, state, opts):
    h = state["var"]
    gates = torch.cat([x, h]) @ p["gru_cell/gates/kernel"] + p["gru_cell/gates/bias"]
    r, u = gates.sigmoid().split(H)
    n = torch.cat([x, r * h]) @ p["gru_cell/candidate/kernel"] + p["gru_cell/candidate/bias"]
    h = u * h + (1 - u) * getattr(torch, opts.get("activation", "tanh"))(n)
    return h, {"var": h}


def naive_rnn(p, x, state, opts):
    sums = torch.cat([x, state["var"]]) @ p["basic_rnn_cell/kernel"] + p["basic_rnn_cell/bias"]
    h = getattr(torch, opts.get("activation", "tanh"))(sums)
    return h, {"var": h}


def naive_rhn(p, x, state, opts):
    s = state["var"]
    for depth in range(opts["depth"]):
        g = s @ p[f"rhn_cell/depth_{depth}/W"]
        if depth == 0:
            g = g + x @ p["W"] + p["b"]
        h, t = g.split(H)
        s = s + t.sigmoid() * (h.tanh() - s)
    return s, {"var": s}


def naive_layer_norm(p, x, state, opts):
    def norm(name, value):
        eps = opts.get("variance_epsilon", 1e-12)
        normed = (value - value.mean()) / (value.var(unbiased=False) + eps).sqrt()
        return normed * p[f"gamma_{name}"] + p.get(f"beta_{name}", 0.0)

    global_norm, per_gate = opts.get("global_norm", True), opts.get("per_gate_norm", False)
    act = torch.relu if opts.get("activation") == "relu" else torch.tanh
    if opts.get("with_concat"):
        g = torch.cat([x, state["h"]]) @ p["W_ff_re"]
    else:
        below, re = x @ p["W_ff"], state["h"] @ p["W_re"]
        g = norm("input_below", below) + norm("state_below", re) if global_norm else below + re
    g = g + p.get("bias_ff", p.get("bias_ff_re", 0.0))
    if opts.get("global_norm_joined"):
        g = norm("lstm_in", g)
    i, j, f, o = (norm(f"{k}_gate", v) if per_gate else v for k, v in zip("ijfo", g.split(H), strict=True))
    c = c_out = f.sigmoid() * state["c"] + i.sigmoid() * act(j)
    if opts.get("cell_norm", True):
        c = norm("new_c", c)
        c_out = c if opts.get("cell_norm_in_output", True) else c_out
    h = o.sigmoid() * act(c_out)
    if opts.get("hidden_norm"):
        h = norm("new_h", h)
    return h, {"c": c, "h": h}


NAIVE = {
    "basiclstm": naive_basic,
    "basicrnn": naive_rnn,
    "gru": naive_gru,
    "layernormvariantslstm": naive_layer_norm,
    "nativelstm": naive_native,
    "nativelstm2": naive_native,
    "nativelstmlowmem": naive_native,
    "rhn": naive_rhn,
    "standardlstm": naive_standard,
    "vanillalstm": naive_native,
    "zoneoutlstm": naive_zoneout,
}


def naive_sequence(unit, opts, p, x, state, reverse, lengths=LENGTHS):
    """(T, B, D) -> (T, B, H) and the final states (B, H), sequence by sequence."""
    outputs, finals = torch.zeros(T, B, H, dtype=x.dtype), []
    for b, length in enumerate(lengths.tolist()):
        s = {key: value[b] for key, value in state.items()}
        if unit in ("nativelstm", "nativelstmlowmem"):
            s = {"c": s["var"], "h": torch.zeros_like(s["var"])}
        for t in reversed(range(length)) if reverse else range(length):
            out, s = NAIVE[unit](p, x[t, b], s, opts)
            outputs[t, b] = out
        finals.append({"var": s["c"]} if "var" in state and "c" in s else s)
    return outputs, {key: torch.stack([final[key] for final in finals]) for key in state}


# --- helpers ----------------------------------------------------------------------------------------------------------


def build(unit: str, opts: dict, dtype=torch.float64, n_in=D, seed=1, **kwargs) -> tuple[Cell, dict[str, Tensor]]:
    cell = make_cell(unit, H, opts, single_step=False)
    generator = torch.Generator().manual_seed(seed)
    specs = cell.params(n_in, **kwargs)
    values = {s.name: torch.randn(s.shape, generator=generator, dtype=dtype).requires_grad_() for s in specs}
    return cell, values


def random(*shape: int, dtype=torch.float64, seed=2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def start_of(cell: Cell, dtype=torch.float64) -> dict[str, Tensor]:
    return {key: random(B, H, dtype=dtype, seed=3 + n) for n, key in enumerate(cell.state_keys)}


def assert_same(got, expected, inputs, tolerance):
    """The tensors of both lists are equal, and so are the gradients of a weighted sum of them."""
    weights = [random(*e.shape, dtype=e.dtype, seed=9).detach() for e in expected]
    grads = []
    for tensors in (got, expected):
        total = sum((t * w).sum() for t, w in zip(tensors, weights, strict=True))
        grads.append(torch.autograd.grad(total, inputs, retain_graph=True, allow_unused=True, materialize_grads=True))
    for a, b in zip([*got, *grads[0]], [*expected, *grads[1]], strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# --- whole sequences --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_state", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@all_cases
def test_sequence_equals_the_plain_computation(unit, opts, reverse, given_state):
    cell, p = build(unit, opts)
    x, start = random(T, B, D), start_of(cell)
    if not given_state:
        start = cell.zero_state(B, "cpu", torch.float64)
    expected, finals = naive_sequence(unit, opts, p, x, start, reverse)
    state = start if given_state else None
    out, final = cell.sequence(p, x, LENGTHS, state, reverse=reverse, need_state=True)
    assert list(final) == list(cell.state_keys)
    inputs = [x, *p.values(), *(start.values() if given_state else [])]
    assert_same([out, *final.values()], [expected, *finals.values()], inputs, 1e-9)
    out, final = cell.sequence(p, x, LENGTHS, state, reverse=reverse)  # a shorter way where no state is asked for
    assert final is None
    assert_same([out], [expected], inputs, 1e-9)


@pytest.mark.parametrize("lengths", [None, torch.full((B,), T)], ids=["none", "full"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@all_cases
def test_sequence_without_padding(unit, opts, reverse, lengths):
    cell, p = build(unit, opts, torch.float32)
    x, start = random(T, B, D, dtype=torch.float32), start_of(cell, torch.float32)
    expected, finals = naive_sequence(unit, opts, p, x, start, reverse, torch.full((B,), T))
    out, final = cell.sequence(p, x, lengths, start, reverse=reverse, need_state=True)
    inputs = [x, *p.values(), *start.values()]
    assert_same([out, *final.values()], [expected, *finals.values()], inputs, 1e-3)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@all_cases
def test_padding_may_hold_anything(unit, opts, reverse):
    cell, p = build(unit, opts)
    padding = torch.arange(T).unsqueeze(1) >= LENGTHS
    clean = random(T, B, D).detach()
    results = []
    for x in (clean, clean.masked_fill(padding.unsqueeze(2), float("nan"))):
        out, final = cell.sequence(p, x, LENGTHS, reverse=reverse, need_state=True)
        assert (out[padding] == 0).all()
        total = out.sum() + sum(value.sum() for value in final.values())
        results.append([out, *final.values(), *torch.autograd.grad(total, list(p.values()))])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@all_cases
def test_ticks_one_by_one_equal_the_sequence(unit, opts):
    cell, p = build(unit, opts)
    x, start = random(T, B, D), start_of(cell)
    weights = cell.begin_sequence(p, False, None, batch=B)
    state, outputs = cell.before_ticks(start), []
    for frame in x.unbind(0):
        out, state = cell.step(weights, cell.project(weights, frame), state)
        outputs.append(out)
    expected, finals = cell.sequence(p, x, None, start, need_state=True)
    got = [torch.stack(outputs), *(state[key] for key in cell.state_keys)]
    assert_same(got, [expected, *finals.values()], [x, *p.values(), *start.values()], 1e-9)


def test_batch_major_memory():
    cell, p = build("nativelstm2", {}, torch.float32)
    x = random(B, T, D, dtype=torch.float32).transpose(0, 1)
    for lengths in (None, LENGTHS):
        expected, _ = cell.sequence(p, x.contiguous(), lengths)
        assert_same([cell.sequence(p, x, lengths)[0]], [expected], list(p.values()), 1e-5)


@pytest.mark.parametrize("shape", [(0, B), (T, 0), (0, 0)], ids=["no frames", "no sequences", "nothing"])
@all_cases
def test_nothing_to_do(unit, opts, shape):
    cell, p = build(unit, opts)
    x = torch.zeros(*shape, D, dtype=torch.float64, requires_grad=True)
    lengths = torch.zeros(shape[1], dtype=torch.int32)
    out, final = cell.sequence(p, x, lengths, reverse=True, training=True, need_state=True)
    assert out.shape == (*shape, H)
    assert {key: tuple(value.shape) for key, value in final.items()} == dict.fromkeys(cell.state_keys, (shape[1], H))
    out.sum().backward()


@all_cases
def test_empty_sequences_only(unit, opts):
    cell, p = build(unit, opts)
    start = start_of(cell)
    out, final = cell.sequence(p, random(T, B, D), torch.zeros(B, dtype=torch.int32), start, need_state=True)
    assert not out.any()
    assert all(torch.equal(final[key], start[key]) for key in start)


def test_output_of_the_state():
    for unit in UNITS:
        cell = make_cell(unit, H, {}, single_step=False)
        state = {key: torch.full((B, H), float(n)) for n, key in enumerate(cell.state_keys)}
        assert cell.output_of_state(state) is state["h" if "h" in state else "var"]


# --- other inputs of the native units ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("unit", ["nativelstm2", "nativelstm"])
def test_label_input_is_a_lookup(unit, reverse):
    cell, p = build(unit, {})
    padding = torch.arange(T).unsqueeze(1) >= LENGTHS
    labels = torch.randint(D, (T, B), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    one_hot = torch.nn.functional.one_hot(labels.long(), D).double()
    start = start_of(cell)
    expected, finals = cell.sequence(p, one_hot, LENGTHS, start, reverse=reverse, need_state=True)
    labels = labels.masked_fill(padding, 99)  # no label
    out, final = cell.sequence(p, labels, LENGTHS, start, reverse=reverse, need_state=True)
    assert_same([out, *final.values()], [expected, *finals.values()], [*p.values(), *start.values()], 1e-9)


def test_label_input_with_sparse_gradient():
    cell, p = build("nativelstm2", {})
    labels = torch.tensor([[0], [2], [0]])
    cell.sequence(p, labels, None, sparse_grad=True)[0].sum().backward()
    assert p["W"].grad.is_sparse
    dense = p["W"].grad.to_dense()
    assert dense[0].any() and not dense[1].any() and dense[2].any()


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
def test_without_input_projection(reverse):
    cell, p = build("nativelstm2", {})
    x, start = random(T, B, D), start_of(cell)
    gates = x @ p["W"] + p["b"]
    expected, finals = cell.sequence(p, x, LENGTHS, start, reverse=reverse, need_state=True)
    bare = {"W_re": p["W_re"]}
    out, final = cell.sequence(bare, gates, LENGTHS, start, reverse=reverse, need_state=True)
    assert_same([out, *final.values()], [expected, *finals.values()], [x, *p.values(), *start.values()], 1e-9)
    out, _ = cell.sequence(bare, gates, LENGTHS, start, reverse=reverse)
    assert_same([out], [expected], [x, *p.values(), *start.values()], 1e-9)
    assert [s.name for s in cell.params(4 * H, input_projection=False)] == ["W_re"]
    with pytest.raises(ConfigError, match=r"must be 16 \(4 \* n_out\), but is 5 instead"):
        cell.params(5, input_projection=False)


@pytest.mark.parametrize("unit", ["standardlstm", "nativelstmlowmem", "vanillalstm", "gru"])
def test_what_only_native_units_can_do(unit):
    cell, p = build(unit, {})
    with pytest.raises(ConfigError, match="must be dense"):
        cell.sequence(p, torch.zeros(T, B, dtype=torch.int64), LENGTHS)
    with pytest.raises(ConfigError, match="input_projection"):
        cell.params(4 * H, input_projection=False)


# --- what is random in training ---------------------------------------------------------------------------------------


def seeded(seed=5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rec_weight_dropout_is_one_mask_per_call():
    opts = {"rec_weight_dropout": 0.5, "rec_weight_dropout_shape": (None, 1)}
    cell, p = build("nativelstm2", opts)
    x = random(T, B, D)
    keep = (torch.rand(H, 1, generator=seeded(), dtype=torch.float64) >= 0.5) / 0.5
    assert 0 < keep.count_nonzero() < H
    expected, _ = cell.sequence({**p, "W_re": p["W_re"] * keep}, x, LENGTHS)
    out, _ = cell.sequence(p, x, LENGTHS, training=True, generator=seeded())
    assert_same([out], [expected], [x, *p.values()], 1e-12)


def test_rhn_dropout_is_one_mask_per_sequence():
    cell, p = build("rhn", {"dropout": 0.5, "depth": 2})
    weights = cell.begin_sequence(p, True, seeded(), batch=B)
    assert sorted(set(weights["mask"].flatten().tolist())) == [0.0, 2.0]
    x, s = random(T, B, D), torch.zeros(B, H, dtype=torch.float64)
    out, _ = cell.sequence(p, x, None, training=True, generator=seeded())
    for t in range(T):
        for depth in range(2):
            g = (s * weights["mask"]) @ p[f"rhn_cell/depth_{depth}/W"]
            h, gate = (g + x[t] @ p["W"] + p["b"] if depth == 0 else g).chunk(2, 1)
            s = s + gate.sigmoid() * (h.tanh() - s)
        torch.testing.assert_close(out[t], s)
    with pytest.raises(ValueError, match="`batch` must be the number of sequences"):
        cell.begin_sequence(p, True, None)


def test_layer_norm_lstm_dropout_of_h_stays_the_same():
    opts = {"dropout_h": 0.5, "global_norm": False}
    cell, p = build("layernormvariantslstm", opts)
    x = random(T, B, D)
    mask = cell.begin_sequence(p, True, seeded(), batch=B)["mask_h"].detach()
    assert 0 < mask.count_nonzero() < mask.numel()
    out, _ = cell.sequence(p, x, None, training=True, generator=seeded())
    for b in range(B):  # a mask on h is a mask on the rows of its matrix
        masked = {**p, "W_re": p["W_re"] * mask[b].unsqueeze(1)}
        expected, _ = build("layernormvariantslstm", {"global_norm": False})[0].sequence(masked, x[:, b : b + 1], None)
        torch.testing.assert_close(out[:, b : b + 1], expected)


def test_layer_norm_lstm_dropout_of_the_cell_input():
    cell, p = build("layernormvariantslstm", {"dropout": 0.5, "global_norm": False, "cell_norm": False})
    weights = cell.begin_sequence(p, True, seeded(), batch=B)
    zero = cell.zero_state(B, "cpu", torch.float64)
    projected = cell.project(weights, random(B, D))
    i, j, _, _ = (random(B, D) @ p["W_ff"] + p["bias_ff"]).split(H, 1)
    ratio = cell.step(weights, projected, zero)[1]["c"] / (i.sigmoid() * j.tanh())
    assert sorted({round(r, 9) for r in ratio.flatten().tolist()}) == [0.0, 2.0]
    assert not torch.equal(cell.step(weights, projected, zero)[0], cell.step(weights, projected, zero)[0])


def test_zoneout_keeps_old_or_takes_new_in_training():
    cell, p = build("zoneoutlstm", {"zoneout_factor_cell": 0.5, "zoneout_factor_output": 0.25})
    state, batch = {key: torch.ones(400, H, dtype=torch.float64) * 9 for key in "ch"}, 400
    x = random(batch, D)
    weights = cell.begin_sequence(p, True, seeded(), batch=batch)
    out, new = cell.step(weights, cell.project(weights, x), state)
    plain, _ = build("standardlstm", {})
    weights = plain.begin_sequence(p, True, None)
    expected, full = plain.step(weights, plain.project(weights, x), state)
    torch.testing.assert_close(out, expected)
    for key, factor in (("c", 0.5), ("h", 0.25)):
        kept = new[key] == 9
        torch.testing.assert_close(new[key][~kept], full[key][~kept])
        assert abs(kept.double().mean().item() - factor) < 0.05


@pytest.mark.parametrize(
    ("unit", "opts"),
    [
        ("nativelstm2", {"rec_weight_dropout": 0.5}),
        ("rhn", {"dropout": 0.5}),
        ("layernormvariantslstm", {"dropout": 0.5, "dropout_h": 0.5}),
    ],
    ids=case_id,
)
def test_dropout_is_for_training_only(unit, opts):
    x = random(T, B, D)
    cell, p = build(unit, opts)
    plain, _ = build(unit, {})
    assert torch.equal(cell.sequence(p, x, LENGTHS)[0], plain.sequence(p, x, LENGTHS)[0])


# --- names, options, parameters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "in_rec", "in_rnn_cell"),
    [
        ("LSTM", "nativelstm2", None),
        ("lstmp", "nativelstm2", None),
        ("NativeLstm2", "nativelstm2", None),
        ("NativeLSTM", "nativelstm", None),
        ("LSTMBlock", "nativelstm2", "standardlstm"),
        ("lstmblockfused", "nativelstm2", "standardlstm"),
        ("CudnnLSTM", "nativelstm2", "standardlstm"),
        ("BasicLSTM", "basiclstm", "basiclstm"),
        ("GRU", "gru", "gru"),
        ("vanillalstm", "vanillalstm", "vanillalstm"),
    ],
)
def test_names_of_units(name, in_rec, in_rnn_cell):
    assert resolve_unit(name, single_step=False) == in_rec
    assert type(make_cell(name, H, None, single_step=False)) is UNITS[in_rec]
    if in_rnn_cell is None:
        with pytest.raises(ConfigError, match="unit: `unit` of an rnn_cell must be one of basiclstm"):
            make_cell(name, H, None, single_step=True)
    else:
        assert type(make_cell(name, H, None, single_step=True)) is UNITS[in_rnn_cell]


@pytest.mark.parametrize(
    ("unit", "opts", "message"),
    [
        ("nativelstm3", {}, r'unit: unknown cell \'nativelstm3\'\. known cells: .*gru.*did you mean "nativelstm'),
        ("grublock", {}, r"unknown cell 'grublock' \(.*gru"),
        ("twodnativelstm", {}, "twod_lstm"),
        ("gru", {"activatoin": "relu"}, r'unit_opts\["activatoin"\]: unknown option; .* did you mean "activation"\?'),
        ("vanillalstm", {"x": 1}, "'vanillalstm' has no options"),
        ("nativelstm2", {"forget_bias": 1.0}, "`forget_bias` must be 0 with a native unit, but is 1.0 instead"),
        ("nativelstm", {"forget_bias": 1.0}, "`forget_bias` must be 0"),
        ("nativelstm2", {"rec_weight_dropout": 1.5}, "`rec_weight_dropout` must be at least 0 and less than 1"),
        ("standardlstm", {"num_proj": H + 1}, r"`num_proj` must be n_out \(4\), but is 5 instead"),
        ("standardlstm", {"activation": "tanhh"}, 'did you mean "tanh"'),
        ("zoneoutlstm", {"zoneout_factor_cell": 2}, "`zoneout_factor_cell` must be between 0 and 1, but is 2 instead"),
        ("layernormvariantslstm", {"global_norm_joined": True}, "both are True"),
        ("layernormvariantslstm", {"per_gate_norm": True}, "both are True"),
        ("layernormvariantslstm", {"with_concat": True}, "both are True"),
    ],
    ids=case_id,
)
def test_errors(unit, opts, message):
    with pytest.raises(ConfigError, match=message):
        make_cell(unit, H, opts, single_step=False)


def params(unit: str, opts: dict | None = None) -> dict[str, tuple]:
    cell = make_cell(unit, H, opts, single_step=False)
    return {spec.name: (spec.shape, spec.init) for spec in cell.params(D)}


def test_parameters():
    native = {"W": ((3, 16), "weights"), "W_re": ((4, 16), "recurrent"), "b": ((16,), "bias")}
    assert params("nativelstm2") == params("nativelstm") == params("vanillalstm") == native
    assert params("nativelstmlowmem") == {"W": ((7, 16), "weights"), "b": ((16,), "bias")}
    standard = {"lstm_cell/kernel": ((7, 16), "default"), "lstm_cell/bias": ((16,), 0.0)}
    assert params("standardlstm") == params("zoneoutlstm") == standard
    more = params("standardlstm", {"use_peepholes": True, "num_proj": H})
    peepholes = {f"lstm_cell/w_{gate}_diag": ((4,), "default") for gate in "fio"}
    assert more == {**standard, **peepholes, "lstm_cell/projection/kernel": ((4, 4), "default")}
    assert params("gru") == {
        "gru_cell/gates/kernel": ((7, 8), "default"),
        "gru_cell/gates/bias": ((8,), 1.0),
        "gru_cell/candidate/kernel": ((7, 4), "default"),
        "gru_cell/candidate/bias": ((4,), 0.0),
    }
    assert params("rhn", {"depth": 1, "transform_bias": -2.0}) == {
        "W": ((3, 8), "default"),
        "b": ((8,), (0.0, -2.0)),
        "rhn_cell/depth_0/W": ((4, 8), "default"),
    }


def test_initial_values_of_the_layer_norm_lstm():
    options = {"norm_gain": 2.0, "norm_shift": 0.5, "forget_bias": 1.0}
    default = params("layernormvariantslstm", options)
    assert default["gamma_input_below"] == default["gamma_state_below"] == ((16,), 2.0)
    assert default["beta_input_below"] == ((16,), 1.5)  # all gates, as in the reference
    assert default["beta_new_c"] == ((4,), 0.5)
    assert "beta_state_below" not in default and "bias_ff" not in default
    gates = params("layernormvariantslstm", {**options, "global_norm": False, "per_gate_norm": True})
    assert [gates[f"beta_{gate}_gate"][1] for gate in "ijfo"] == [0.5, 0.5, 1.5, 0.5]
    bare = params("layernormvariantslstm", {**options, "global_norm": False, "with_concat": True})
    assert bare["bias_ff_re"] == ((16,), (0.0, 0.0, 1.0, 0.0)) and bare["W_ff_re"][0] == (7, 16)
