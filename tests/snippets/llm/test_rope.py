"""RoPE: rotations against complex numbers; frequencies and rotated queries against transformers; a cache."""

import importlib
import inspect
import json
import math

import matplotlib.image
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, GPTNeoXConfig, LlamaConfig, PhiConfig, SmolLM3Config, modeling_rope_utils
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.glm import modeling_glm as glm
from transformers.models.gptj import modeling_gptj as gptj
from transformers.models.llama import modeling_llama as llama
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.llama4.configuration_llama4 import Llama4TextConfig
from transformers.models.phi.modeling_phi import PhiAttention, PhiRotaryEmbedding

from snippets.llm import rope

SINGLE = torch.float32
DIM, TRAINED = 16, 64  # features of a head; the length that the stretched models were trained for
LLAMA = "transformers.models.llama.modeling_llama.LlamaRotaryEmbedding"
APPLY = "transformers.models.llama.modeling_llama.apply_rotary_pos_emb"
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.5, "high_freq_factor": 5.0, "original_max_position_embeddings": 512}
YARN = {"factor": 8.0, "original_max_position_embeddings": 512}


def plain(length):
    return rope.inverse_frequencies(DIM, 5000.0), 1.0


# rope_parameters of transformers, and the same (theta, magnitude) by this module, for a text of some length
SCALINGS = {
    "default": ({}, plain),
    "linear": ({"factor": 3.0}, lambda length: (rope.linear(plain(0)[0], 3.0), 1.0)),
    "dynamic": ({"factor": 1.0}, lambda length: (rope.dynamic_ntk(DIM, length, TRAINED, 1.0, 5000.0), 1.0)),
    "dynamic steeper": ({"factor": 2.5}, lambda length: (rope.dynamic_ntk(DIM, length, TRAINED, 2.5, 5000.0), 1.0)),
    "yarn": (YARN, lambda length: (rope.yarn(DIM, 8.0, 512, 5000.0), rope.yarn_magnitude(8.0))),
    "yarn narrower": (
        YARN | {"beta_fast": 9.0, "beta_slow": 2.0},
        lambda length: (rope.yarn(DIM, 8.0, 512, 5000.0, 9.0, 2.0), rope.yarn_magnitude(8.0)),
    ),
    "llama3": (LLAMA3, lambda length: (rope.by_parts(plain(0)[0], 8.0, 512, 1.5, 5.0), 1.0)),
}


def made(name: str) -> LlamaConfig:
    parameters = {"rope_type": name.split()[0], "rope_theta": 5000.0} | SCALINGS[name][0]
    return LlamaConfig(
        hidden_size=3 * DIM,
        num_attention_heads=3,
        max_position_embeddings=4096 if "original_max_position_embeddings" in parameters else TRAINED,
        rope_parameters=parameters,
    )


CONFIGS = {name: made(name) for name in SCALINGS}  # here, where nothing watches shapes: it takes a while
WRITTEN = {name: one.to_json_string() for name, one in CONFIGS.items()}  # a folder's config.json


@pytest.fixture
def double(monkeypatch):
    """transformers computes frequencies, angles and cosines in float32; here its own lines do so in float64."""
    monkeypatch.setattr(torch, "float", torch.float64)
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(SINGLE)


@pytest.fixture
def batch():
    """Queries and keys (2, 3, 7, 10) and their angles (7, 5), in float64; no two sizes are equal."""
    query, key = torch.randn(2, 2, 3, 7, 10, dtype=torch.float64)
    return query, key, rope.angles(torch.tensor([0, 1, 2, 50, 700, 4000, 90_000]), rope.inverse_frequencies(10))


# rotation


@pytest.mark.equation("rope-theta", of=rope.inverse_frequencies)
def test_frequencies_fall_from_1_in_even_ratios(formula):
    names = {r"\theta_i": rope.inverse_frequencies(10), "b": 10_000, "i": torch.arange(5), "d": 10}
    formula("rope-theta").holds(names, relations=2)
    theta = rope.inverse_frequencies(8, 100.0)
    assert theta.tolist() == pytest.approx([1.0, 100**-0.25, 0.1, 100**-0.75], abs=1e-15)  # i from 0, not 1
    assert rope.inverse_frequencies(10)[1] == pytest.approx(10_000 ** (-2 / 10))
    angle = rope.angles(torch.tensor([0, 3, 7]), theta)
    assert angle.tolist() == [pytest.approx([m * t for t in theta.tolist()]) for m in (0, 3, 7)]
    assert rope.angles(torch.tensor([3]), theta.float()).dtype == torch.float32


def placed(rotate, x, m):
    """Vectors x (..., 10) turned as those of position m."""
    angle = rope.angles(torch.tensor([m]), rope.inverse_frequencies(10))
    return rotate(x.reshape(1, 1, -1, 10).transpose(1, 2), angle).transpose(1, 2).reshape(x.shape)


def pairs(x):
    """Neighbours as complex numbers."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())


@pytest.mark.equation("rope-complex", of=rope.rotate_complex)
@pytest.mark.equation("rope-real", of=rope.rotate_pairs)
@pytest.mark.equation("rope-relative", of=rope.rotate_complex)
@pytest.mark.equation("rope-order", of=(rope.rotate_halves, rope.rotate_pairs, rope.halves_order))
def test_rotations_are_their_formulas(formula):
    q, k = torch.randn(2, 3, 10, dtype=torch.float64)
    m, n, theta = 50, 13, rope.inverse_frequencies(10)
    names = {"(R_m x)_i": pairs(placed(rope.rotate_complex, q, m)), "x_i": pairs(q), r"\theta_i": theta}
    words = r"x_i \text{ now the } i\text{-th pair, as a complex number.}"
    formula("rope-complex").holds(names | {"m": m, "i": 1j}, apart=words)
    ours = placed(rope.rotate_pairs, q, m)
    for i in range(1, 5):  # theta_0 = 1 does not count
        names = {"x'_{2i}": ours[0, 2 * i], "x'_{2i+1}": ours[0, 2 * i + 1], "m": m, r"\theta_i": theta[i]}
        formula("rope-real").holds(names | {"x_{2i}": q[0, 2 * i], "x_{2i+1}": q[0, 2 * i + 1]})
    names = {
        "R_m q": placed(rope.rotate_complex, q[0], m),
        "R_n k": placed(rope.rotate_complex, k[0], n),
        "R_{m-n} q": placed(rope.rotate_complex, q[0], m - n),
        "k": k[0],
        "q_i": pairs(q[0]),
        r"\bar k_i": pairs(k[0]).conj(),
    }
    sums = {r"\operatorname{Re}": torch.real, r"\sum_i": torch.sum}
    formula("rope-relative").holds(names | sums | {"m": m, "n": n, "i": 1j, r"\theta_i": theta}, relations=2)
    order = rope.halves_order(10)
    halves = {r"R^{\text{halves}}_m x_\pi": placed(rope.rotate_halves, q[:, order], m)}
    formula("rope-order").holds(halves | {r"(R^{\text{pairs}}_m x)_\pi": placed(rope.rotate_pairs, q, m)[:, order]})


def test_complex_and_real_rotation_are_the_matrix_of_the_paper(batch):
    x, _, angle = batch
    expected = torch.empty_like(x)
    for m in range(7):
        for i in range(5):
            z = torch.complex(x[:, :, m, 2 * i], x[:, :, m, 2 * i + 1]) * torch.exp(1j * angle[m, i])
            expected[:, :, m, 2 * i], expected[:, :, m, 2 * i + 1] = z.real, z.imag
    torch.testing.assert_close(rope.rotate_complex(x, angle), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(rope.rotate_pairs(x, angle), expected, rtol=0, atol=1e-12)
    assert (rope.rotate_pairs(x, -angle) - expected).abs().max() > 0.1  # the other way round
    assert (rope.rotate_halves(x, angle) - expected).abs().max() > 0.1  # the other layout


ROTATIONS = [rope.rotate_complex, rope.rotate_pairs, rope.rotate_halves, rope.rotate_partial]


@pytest.mark.parametrize(
    "rotate", [pytest.param(one, marks=pytest.mark.equation("rope-norm", of=one)) for one in ROTATIONS]
)
def test_rotation_keeps_lengths_and_the_first_position(batch, rotate, formula):
    x, _, angle = batch
    moved = rotate(x, angle)
    torch.testing.assert_close(moved.norm(dim=-1), x.norm(dim=-1), rtol=1e-12, atol=0)
    torch.testing.assert_close(moved[:, :, 0], x[:, :, 0])  # position 0 is not turned
    formula("rope-norm").holds(
        {"R_m x": moved[:, :, 3], "x": x[:, :, 3], "R_0 x": placed(rotate, x[:, :, 3], 0)}, relations=2
    )
    assert (moved - x)[:, :, 1:].abs().amax(dim=(0, 1, 3)).min() > 0.1  # every other one is


@pytest.mark.parametrize("rotate", [rope.rotate_complex, rope.rotate_pairs, rope.rotate_halves])
def test_scores_depend_on_the_offset_only(rotate):
    """To 1e-10 at positions up to 4,096 and to 1e-7 up to a million, in float64."""
    theta = rope.inverse_frequencies(64)
    query, key = torch.randn(2, 5, 3, 1, 64, dtype=torch.float64)

    def score(m, n, theta=theta):
        turned = [rotate(x, rope.angles(torch.tensor([at]), theta)) for x, at in ((query, m), (key, n))]
        return (turned[0] * turned[1]).sum(dim=-1)

    for largest, tolerance in ((4096, 1e-10), (10**6, 1e-7)):
        for offset in (0, 1, 17, 2048):
            near = score(offset, 0)
            for n in (1, 100, largest // 3, largest - offset):
                assert (score(n + offset, n) - near).abs().max() < tolerance
    z = [torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) for x in (query, key)]
    closed = (z[0] * z[1].conj() * torch.exp(1j * 17 * theta)).sum(dim=-1).real  # offset m - n = 17
    if rotate is not rope.rotate_halves:
        torch.testing.assert_close(score(1017, 1000), closed, rtol=0, atol=1e-10)
    assert (score(1017, 1000) - score(1018, 1000)).abs().max() > 0.1  # it does depend on the offset
    assert (score(1017, 1000) - score(1000, 1017)).abs().max() > 0.1  # and on its sign
    single = (score(10**6, 10**6 - 17, theta.float()) - score(17, 0)).abs().max()
    assert single > 1e-3  # float32 does not hold the bar


def test_layouts_are_equal_after_reordering_features(batch):
    x, _, angle = batch
    order = rope.halves_order(10)
    assert order.tolist() == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    torch.testing.assert_close(rope.rotate_halves(x[..., order], angle), rope.rotate_pairs(x, angle)[..., order])
    assert (rope.rotate_halves(x, angle) - rope.rotate_pairs(x, angle)).abs().max() > 0.1


def test_layouts_give_the_same_scores_after_permuting_weight_rows():
    """Attention of a checkpoint in Meta's layout equals transformers' kind of attention on its permuted rows."""
    x = torch.randn(2, 7, 11, dtype=torch.float64)
    to_query, to_key = torch.randn(2, 30, 11, dtype=torch.float64)  # three heads of ten
    angle = rope.angles(torch.arange(7), rope.inverse_frequencies(10))

    def scores(to_query, to_key, rotate):
        query, key = ((x @ w.T).unflatten(-1, (3, 10)).transpose(1, 2) for w in (to_query, to_key))
        return rotate(query, angle) @ rotate(key, angle).transpose(2, 3)

    meta = scores(to_query, to_key, rope.rotate_pairs)
    moved = [rope.pairs_to_halves(w, 3) for w in (to_query, to_key)]
    torch.testing.assert_close(scores(*moved, rope.rotate_halves), meta)
    assert (scores(to_query, to_key, rope.rotate_halves) - meta).abs().max() > 0.1  # rows as they were
    assert (scores(moved[0], to_key, rope.rotate_halves) - meta).abs().max() > 0.1  # keys forgotten
    for w, m in zip((to_query, to_key), moved, strict=True):
        assert torch.equal(rope.halves_to_pairs(m, 3), w) and not torch.equal(m, w)
        bias = rope.pairs_to_halves(w[:, :1], 3)[:, 0]
        assert torch.equal(bias, m[:, 0])
        # the usual one-liner of conversion scripts
        assert torch.equal(m, w.view(3, 5, 2, 11).transpose(1, 2).reshape(30, 11))


def test_partial_rotation_equals_phi(agrees):
    """A Phi model of transformers turns the first part of each head's features only."""
    shape = PhiConfig(
        hidden_size=30,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=32,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.4},
    )
    shape._attn_implementation = "eager"
    attention, x = PhiAttention(shape, layer_idx=0).double(), torch.randn(2, 7, 30, dtype=torch.float64)
    cos, sin = PhiRotaryEmbedding(shape)(x, torch.arange(7)[None])
    causal = torch.full((7, 7), -math.inf, dtype=torch.float64).triu(1)[None, None]
    with torch.no_grad():
        theirs, _ = attention(x, (cos, sin), causal)
        heads = [f(x).unflatten(-1, (3, 10)).transpose(1, 2) for f in (attention.q_proj, attention.k_proj)]
        value = attention.v_proj(x).unflatten(-1, (3, 10)).transpose(1, 2)

        def ours(rotate, theta):
            turned = [rotate(h, rope.angles(torch.arange(7), theta)) for h in heads]
            mixed = F.scaled_dot_product_attention(*turned, value, is_causal=True)
            return attention.dense(mixed.transpose(1, 2).flatten(2))

        agrees(
            ours(rope.rotate_partial, rope.inverse_frequencies(4)),
            theirs,
            "transformers.models.phi.modeling_phi.PhiAttention",
            1e-6,
        )
        assert (ours(rope.rotate_halves, rope.inverse_frequencies(10)) - theirs).abs().max() > 1e-3
    x = torch.randn(2, 3, 7, 10)
    turned = rope.rotate_partial(x, rope.angles(torch.arange(7), rope.inverse_frequencies(4)))
    assert torch.equal(turned[..., 4:], x[..., 4:]) and not torch.equal(turned[..., :4], x[..., :4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_angles_are_cast_last(dtype):
    """At position 3,000 only rounding of the features is lost: angles, cosines and sines come from float64."""
    x, angle = torch.randn(2, 3, 1, 10), rope.angles(torch.tensor([3001]), rope.inverse_frequencies(10))
    exact = rope.rotate_halves(x.to(dtype).double(), angle)
    for rotate in (rope.rotate_halves, rope.rotate_pairs):
        turned = rotate(x.to(dtype), angle)
        assert turned.dtype == dtype
    assert (rope.rotate_halves(x.to(dtype), angle) - exact).abs().max() < 8 * torch.finfo(dtype).eps
    early = rope.angles(torch.tensor([3001]).to(torch.bfloat16), rope.inverse_frequencies(10))
    assert (rope.rotate_halves(x.to(dtype).double(), early) - exact).abs().max() > 0.1  # 3001 is 3008 in bfloat16


# parity of frequencies and rotations, for each way of stretching


@pytest.mark.parametrize("name", SCALINGS)
def test_transformers_as_it_is(name, agrees):
    """Its frequencies are float32: they agree with ours to 1e-6, and so do rotated queries and keys."""
    theirs, length = LlamaRotaryEmbedding(CONFIGS[name]), 4096
    query, key = torch.randn(2, 2, 3, length, DIM)
    cos, sin = theirs(query, torch.arange(length)[None])  # dynamic: this call sets its frequencies
    theta, magnitude = SCALINGS[name][1](length)
    agrees(theta.log(), theirs.inv_freq.log(), LLAMA, 1e-6)
    assert theirs.attention_scaling == pytest.approx(magnitude, abs=1e-12)
    ours, other = torch.stack([query, key]).flatten(0, 1), torch.cat(apply_rotary_pos_emb(query, key, cos, sin))
    angle = rope.angles(torch.arange(length), torch.tensor(theirs.inv_freq.tolist()))  # their frequencies, our rotation
    agrees(magnitude * rope.rotate_halves(ours, angle), other, APPLY, 1e-6)
    near = magnitude * rope.rotate_halves(ours[:, :, :8], rope.angles(torch.arange(8), theta))
    torch.testing.assert_close(near, other[:, :, :8], rtol=0, atol=3e-6)  # our own: 8 times the rounding of theirs
    slower = 1.001 * theta
    assert (theirs.inv_freq / slower - 1).abs().max() > 1e-4  # negative control


@pytest.mark.parametrize("length", [1, 64, 65, 4096])
@pytest.mark.parametrize("name", SCALINGS)
def test_transformers_in_float64(name, length, double, agrees):
    """The same lines of transformers in double precision: 1e-10 at all positions, with our own frequencies."""
    theirs, positions = LlamaRotaryEmbedding(CONFIGS[name]), torch.arange(length)
    query, key = torch.randn(2, 2, 3, length, DIM, dtype=torch.float64)
    cos, sin = theirs(query, positions[None])
    theta, magnitude = SCALINGS[name][1](length)
    agrees(theta, theirs.inv_freq, f"{LLAMA}", 1e-12)
    ours, other = torch.stack([query, key]).flatten(0, 1), torch.cat(apply_rotary_pos_emb(query, key, cos, sin))
    turned = magnitude * rope.rotate_halves(ours, rope.angles(positions, theta))
    agrees(turned, other, APPLY, 1e-10)
    late = magnitude * rope.rotate_halves(ours, rope.angles(positions + 1, theta))
    assert (late - other).abs().max() > 0.1  # negative control: positions counted from 1


def test_negative_controls_of_stretching(double):
    """What papers, memory and other code have instead, each rejected by the same comparison."""
    theirs = {name: LlamaRotaryEmbedding(CONFIGS[name]) for name in SCALINGS}
    for module in theirs.values():
        module(torch.zeros(1, dtype=torch.float64), torch.arange(300)[None])
    theta = plain(0)[0]
    wrong = {
        "linear": rope.linear(theta, 3.1),
        "dynamic": rope.inverse_frequencies(DIM, 5000.0 * 300 / TRAINED),  # exponent 1 in place of d / (d - 2)
        "dynamic steeper": rope.dynamic_ntk(DIM, 300, TRAINED, 1.0, 5000.0),  # the papers' factor
        "yarn": rope.by_parts(theta, 8.0, 512, 1.0, 32.0),  # the paper's ramp
        "yarn narrower": rope.yarn(DIM, 8.0, 512, 5000.0),
        "llama3": rope.by_parts(theta, 8.0, 512, 1.0, 5.0),
    }
    for name, other in wrong.items():
        assert (theirs[name].inv_freq / other - 1).abs().max() > 1e-2, name


@pytest.mark.claim("rope-dynamic-memory")
def test_dynamic_scaling_of_transformers_remembers_the_longest_text(double):
    """Between the trained length and the longest one seen it keeps the frequencies of the longest; ours forget."""
    theirs, x = LlamaRotaryEmbedding(CONFIGS["dynamic"]), torch.zeros(1, dtype=torch.float64)
    for length, as_for in ((300, 300), (100, 300), (400, 400), (40, 40), (100, 100)):
        theirs(x, torch.arange(length)[None])
        expected = rope.dynamic_ntk(DIM, as_for, TRAINED, 1.0, 5000.0)
        torch.testing.assert_close(theirs.inv_freq, expected, rtol=1e-12, atol=0)
    source = inspect.getsource(llama.LlamaAttention.forward)  # keys are turned first, and then kept
    assert source.index("apply_rotary_pos_emb(") < source.index("past_key_values.update(")


@pytest.mark.equation("rope-linear", of=rope.linear)
@pytest.mark.equation("rope-ntk", of=rope.ntk_aware)
@pytest.mark.equation("rope-dynamic", of=rope.dynamic_ntk)
@pytest.mark.equation("rope-parts", of=rope.by_parts)
@pytest.mark.equation("rope-yarn", of=rope.yarn)
@pytest.mark.equation("rope-temperature", of=rope.yarn_magnitude)
def test_stretching_is_its_formulas(formula):
    """Of 32 pairs, trained on 4,096 positions, some are in each part; the text of `dynamic` is shorter or longer."""
    theta, i, s = rope.inverse_frequencies(64), torch.arange(32), 8.0
    formula("rope-linear").holds({r"\theta'_i": rope.linear(theta, s), r"\theta_i": theta, "s": s})
    slower = {r"\theta'_i": rope.ntk_aware(64, s), "b'": 10_000 * 8 ** (64 / 62)}
    formula("rope-ntk").holds(slower | {"b": 10_000, "s": s, "d": 64, "i": i}, relations=2)
    lengths = torch.tensor([30, 64, 100, 700])
    slowest = torch.stack([rope.dynamic_ntk(64, length, 64, 2.5)[-1] for length in lengths.tolist()])
    formula("rope-dynamic").holds({r"s(\ell)": theta[-1] / slowest, "f": 2.5, r"\ell": lengths, "L": 64})
    turns = 4096 * theta / (2 * math.pi)
    keep = ((turns - 1.5) / (32 - 1.5)).clamp(0, 1)
    names = {r"\theta'_i": rope.by_parts(theta, s, 4096, 1.5, 32.0), r"\gamma_i": keep, r"\theta_i": theta, "s": s}
    formula("rope-parts").holds(names | {"r_i": turns, r"\alpha": 1.5, r"\beta": 32}, relations=2)
    index = {r: 64 * math.log(4096 / (2 * math.pi * r)) / (2 * math.log(10_000)) for r in (1.5, 32)}
    first, last = math.floor(index[32]), math.ceil(index[1.5])
    names = {r"\theta'_i": rope.yarn(64, s, 4096, slow=1.5), r"\rho_i": ((i - first) / (last - first)).clamp(0, 1)}
    names |= {r"\theta_i": theta, "s": s, "i": i, r"i(\alpha)": index[1.5], r"i(\beta)": index[32]}
    formula("rope-yarn").holds(names, tolerance=1e-7, relations=2)
    formula("rope-temperature").holds({"t": rope.yarn_magnitude(s) ** -2, "s": s})


def test_interpolation_squeezes_positions():
    theta, positions = rope.inverse_frequencies(10), torch.arange(7)
    squeezed = rope.angles(positions / 4.0, theta)
    torch.testing.assert_close(rope.angles(positions, rope.linear(theta, 4.0)), squeezed)
    assert torch.equal(rope.linear(theta, 1.0), theta)


def test_ntk_keeps_the_fastest_pair_and_divides_the_slowest():
    theta, slower = rope.inverse_frequencies(10), rope.ntk_aware(10, 8.0)
    ratio = theta / slower
    assert ratio[0] == 1 and ratio[-1] == pytest.approx(8.0, rel=1e-12)
    assert torch.allclose(ratio[1:] / ratio[:-1], (ratio[1] / ratio[0]).expand(4))  # evenly in between
    torch.testing.assert_close(slower, rope.inverse_frequencies(10, 10_000 * 8 ** (10 / 8)), rtol=1e-14, atol=0)


def test_parts_by_turns():
    """Pairs above `high` turns stay, pairs below `low` are interpolated, the share between is even in turns."""
    theta = 2 * math.pi * torch.tensor([40.0, 33.0, 32.0, 16.5, 2.0, 1.0, 0.3], dtype=torch.float64) / 512
    kept = (rope.by_parts(theta, 8.0, 512, 1.0, 32.0) / theta - 1 / 8) / (1 - 1 / 8)
    assert kept.tolist() == pytest.approx([1, 1, 1, 0.5, 1 / 31, 0, 0], abs=1e-12)
    torch.testing.assert_close(rope.by_parts(theta, 1.0, 512, 1.0, 32.0), theta)


def test_yarn_ramp_is_even_in_the_index():
    """First and last pair of the ramp, found by counting turns; between them equal steps."""
    theta, trained = rope.inverse_frequencies(64), 4096
    turns = trained * theta / (2 * math.pi)
    first = int((turns >= 32).sum()) - 1  # floor: the last pair that still has 32 turns
    last = int((turns > 1).sum())  # ceil: the first pair that has at most one
    kept = (rope.yarn(64, 8.0, trained) / theta - 1 / 8) / (1 - 1 / 8)
    assert 0 < first < last < 31
    assert kept[first].item() == pytest.approx(1) and kept[last].item() == pytest.approx(0, abs=1e-12)
    steps = kept[first:last] - kept[first + 1 : last + 1]
    torch.testing.assert_close(steps, torch.full_like(steps, 1 / (last - first)))
    assert kept[: first + 1].min() > 1 - 1e-12 and kept[last:].max() < 1e-12
    at_once = rope.yarn(8, 8.0, 6, base=1e6, fast=2.0, slow=1.0)  # both ends at pair 0 or below: no division by 0
    assert at_once.isfinite().all()


def test_magnitude_of_queries_and_keys_is_a_temperature_of_scores(batch):
    query, key, _ = batch
    value, theta, magnitude = torch.randn_like(query), rope.inverse_frequencies(10), rope.yarn_magnitude(8.0)
    assert magnitude == pytest.approx(0.1 * math.log(8) + 1) and rope.yarn_magnitude(1.0) == 1
    turned = [rope.rotate_halves(x, rope.angles(torch.arange(7), theta)) for x in (query, key)]
    scaled = F.scaled_dot_product_attention(*turned, value, is_causal=True, scale=magnitude**2 / math.sqrt(10))
    torch.testing.assert_close(rope.Rope(theta, magnitude)(query, key, value), scaled)
    assert (rope.Rope(theta)(query, key, value) - scaled).abs().max() > 1e-3


# long-range decay


@pytest.mark.equation("rope-decay", of=rope.decay_bound)
def test_decay_is_a_bound_of_scores(formula):
    """Summation by parts: |sum h_j e^(i m theta_j)| <= max |h_j+1 - h_j| sum |S_j|, with nothing after the last h."""
    theta, distances = rope.inverse_frequencies(20), torch.tensor([0, 1, 5, 30, 200, 1000, 5000])
    partial = [[abs(sum(complex(math.cos(m * t), math.sin(m * t)) for t in theta[:j].tolist())) for j in range(1, 11)]
               for m in distances.tolist()]  # fmt: skip
    expected = torch.tensor(partial, dtype=torch.float64).mean(dim=1)
    torch.testing.assert_close(rope.decay_bound(distances, theta), expected)
    assert rope.decay_bound(distances, theta)[0] == 5.5  # at distance 0: the mean of 1, …, 10
    query, key = torch.randn(2, 40, 1, 1, 20, dtype=torch.float64)
    h = [torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())[:, 0, 0] for x in (query, key)]
    h = h[0] * h[1].conj()
    steps = (torch.cat([h[:, 1:], 0 * h[:, :1]], dim=1) - h).abs().amax(dim=1)
    turns = torch.exp(1j * 30 * theta).cumsum(0)  # S_1 to S_10 at distance 30
    names = {
        r"\sum_i": torch.sum,
        "q_i": h[0],
        r"\bar k_i": torch.full((10,), 1.2),
        "i": 1j,
        "m": 30,
        r"\theta_i": theta,
        r"\max_i": torch.max,
        "h_{i+1}": 1.2 * torch.cat([h[0, 1:], 0 * h[0, :1]]),
        "h_i": 1.2 * h[0],
        "d": 20,
        "S_j": lambda j: turns[j - 1],
    }
    formula("rope-decay").holds(names)
    assert rope.decay_bound(distances, theta)[3] == pytest.approx(turns.abs().mean().item())
    for m, bound in zip(distances.tolist(), rope.decay_bound(distances, theta), strict=True):
        turned = [rope.rotate_pairs(x, rope.angles(torch.tensor([at]), theta)) for x, at in ((query, m), (key, 0))]
        score = (turned[0] * turned[1]).sum(dim=-1)[:, 0, 0].abs()
        assert (score <= steps * 10 * bound + 1e-12).all()
        assert not (score <= 0.02 * steps * 10 * bound).all()  # far smaller, it would be none


@pytest.mark.equation("rope-mean-cosine", of=rope.mean_cosine)
def test_mean_cosine_is_the_score_of_equal_ones(formula):
    theta, distances = rope.inverse_frequencies(20), torch.tensor([0, 1, 5, 30, 200, 1000, 5000])
    names = {"c(m)": rope.mean_cosine(distances, theta), "d": 20, "m": distances}
    formula("rope-mean-cosine").holds(names | {r"\theta_i": lambda i: theta[i], "i": range(10)})
    ones = torch.ones(1, 1, 7, 20, dtype=torch.float64)
    score = (rope.rotate_pairs(ones, rope.angles(distances, theta)) * ones).sum(dim=-1)[0, 0] / 20
    torch.testing.assert_close(rope.mean_cosine(distances, theta), score)
    far = rope.mean_cosine(torch.arange(1000, 4000), theta)
    assert far.mean() < 0.5 and far.abs().max() < 1 and rope.mean_cosine(distances, theta)[0] == 1


# attention


@pytest.mark.equation("rope-attention", of=rope.Rope)
def test_attention_is_a_softmax_over_turned_past_keys(batch, formula):
    query, key, _ = batch
    value, theta = torch.randn(2, 3, 7, 10, dtype=torch.float64), rope.inverse_frequencies(10)
    ours = rope.Rope(theta)(query, key, value)
    m, q, k, v = 4, query[1, 2, 4], key[1, 2], value[1, 2]
    names = {
        "o_m": ours[1, 2, m],
        "R_{m-n} q_m": lambda n: placed(rope.rotate_halves, q, m - n),
        "R_{m-j} q_m": lambda j: placed(rope.rotate_halves, q, m - j),
        "k_n": lambda n: k[n],
        "k_j": lambda j: k[j],
        "v_n": lambda n: v[n],
    }
    formula("rope-attention").holds(names | {"d": 10, "m": m, "n": range(7), "j": range(7)})
    for m in range(7):
        scores = []
        for n in range(m + 1):
            turned = rope.rotate_halves(query[:, :, m : m + 1], rope.angles(torch.tensor([m - n]), theta))
            scores.append((turned[:, :, 0] * key[:, :, n]).sum(dim=-1) / math.sqrt(10))
        weights = torch.stack(scores, dim=-1).softmax(dim=-1)
        torch.testing.assert_close(ours[:, :, m], (weights[..., None] * value[:, :, : m + 1]).sum(dim=2))


@pytest.mark.parametrize("new", [1, 3])
def test_a_cache_continues_at_its_own_position(batch, new):
    """The last queries alone, told how many keys came before, see what they saw in the whole text."""
    query, key, _ = batch
    value, attend = torch.randn_like(query), rope.Rope(rope.inverse_frequencies(10))
    whole = attend(query, key, value)
    torch.testing.assert_close(attend(query[:, :, -new:], key, value, cached=7 - new), whole[:, :, -new:])
    late = rope.rotate_halves(query[:, :, -new:], rope.angles(torch.arange(new), attend.theta))  # counted from 0 again
    keys = rope.rotate_halves(key, rope.angles(torch.arange(7), attend.theta))
    mask = torch.ones(new, 7, dtype=torch.bool).tril(7 - new)
    wrong = F.scaled_dot_product_attention(late, keys, value, attn_mask=mask)
    assert (wrong - whole[:, :, -new:]).abs().max() > 0.01  # negative control


def test_a_text_moved_as_a_whole_changes_nothing(batch):
    """All positions 1,000 higher: the same attention, since only differences count."""
    query, key, _ = batch
    value, theta = torch.randn_like(query), rope.inverse_frequencies(10)
    angle = rope.angles(torch.arange(1000, 1007), theta)
    turned = [rope.rotate_halves(x, angle) for x in (query, key)]
    moved = F.scaled_dot_product_attention(*turned, value, is_causal=True)
    torch.testing.assert_close(rope.Rope(theta)(query, key, value), moved)


@pytest.mark.equation("rope-alibi", of=rope.Alibi)
def test_alibi_is_its_formula(formula):
    """Scores are read off the weights of keys, against that of the first key: a softmax forgets a constant."""
    query, key = torch.randn(2, 1, 4, 7, 10, dtype=torch.float64)
    weights = rope.Alibi(4)(query, key, torch.eye(7).double().expand(1, 4, 7, 7))[0]
    h, m, n = 3, 5, torch.arange(6)
    product = key[0, h - 1, :6] @ query[0, h - 1, m]
    first = product[0] / math.sqrt(10) - 2 ** (-8 * h / 4) * m
    score = first + (weights[h - 1, m, :6] / weights[h - 1, m, 0]).log()
    names = {r"\text{score}_{mn}": score, r"\langle q_m, k_n \rangle": product}
    formula("rope-alibi").holds({"d": 10, "h": h, "H": 4, "m": m, "n": n} | names, tolerance=1e-6)


@pytest.mark.parametrize("heads", [4, 8])
def test_alibi_equals_bloom(heads, agrees):
    query, key, value = torch.randn(3, 2, heads, 7, 10, dtype=torch.float64)
    bias = build_alibi_tensor(torch.ones(2, 7), heads, torch.float64).view(2, heads, 1, 7)
    causal = torch.full((7, 7), -math.inf, dtype=torch.float64).triu(1)
    theirs = (query @ key.transpose(2, 3) / math.sqrt(10) + bias + causal).softmax(dim=-1) @ value
    ours = rope.Alibi(heads)(query, key, value)
    agrees(ours, theirs, "transformers.models.bloom.modeling_bloom.build_alibi_tensor", 1e-6)
    unbiased = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert (unbiased - theirs).abs().max() > 0.01


# the model


def positions(width: int) -> dict[str, nn.Module]:
    return {
        "rope": rope.Rope(rope.inverse_frequencies(width // 2)),
        "learnt": rope.Learnt(torch.randn(9, width)),
        "alibi": rope.Alibi(2),
    }


@pytest.mark.parametrize("name", ["rope", "learnt", "alibi"])
def test_decoder_looks_back_only_and_knows_order(name):
    model = rope.Decoder(positions(12)[name], width=12, num_heads=2, num_layers=5).eval()
    codes = torch.randint(256, (4, 7))
    changed = codes.clone()
    changed[:, 5] = (codes[:, 5] + 1) % 256
    swapped = codes[:, [1, 0, 2, 3, 4, 5, 6]]
    swapped[:, 1] = (swapped[:, 1] + 7) % 256
    with torch.no_grad():
        before, after = model(codes), model(changed)
        torch.testing.assert_close(before[:, :5], after[:, :5])
        assert (before - after)[:, 5:].abs().amax(dim=(0, 2)).min() > 1e-4
        assert before.shape == (4, 7, 256)
        assert (model(codes[:, [1, 0, 2, 3, 4, 5, 6]]) - before)[:, -1].abs().max() > 1e-6  # order matters
    assert len(model.blocks) == 5 and model.blocks[0].num_heads == 2


def test_without_positions_the_first_layer_sees_a_bag():
    """Of one layer, the last byte's logits do not depend on the order of those before, unless positions are told."""
    blind = rope.Decoder(rope.Rope(torch.zeros(3)), width=12, num_heads=2, num_layers=1)  # nothing turns
    codes = torch.randint(256, (4, 7))
    torch.testing.assert_close(blind(codes)[:, -1], blind(codes[:, [2, 0, 1, 5, 4, 3, 6]])[:, -1])


def test_block_equals_torch(agrees):
    """With frequencies of 0 nothing turns: a pre-norm layer of PyTorch, with a causal mask."""
    block, theirs = rope.Block(12, 2), nn.TransformerEncoderLayer(12, 2, 48, 0.0, "gelu", 1e-5, True, True)
    for p in block.parameters():
        p.data += 0.3 * torch.randn_like(p)
    attention = theirs.self_attn
    attention.in_proj_weight, attention.in_proj_bias = block.to_qkv.weight, block.to_qkv.bias
    attention.out_proj, theirs.norm1, theirs.norm2 = block.to_out, block.norm_1, block.norm_2
    theirs.linear1, theirs.linear2 = block.mlp[0], block.mlp[2]
    x, mask = torch.randn(5, 7, 12), nn.Transformer.generate_square_subsequent_mask(7)
    out = theirs(x, src_mask=mask, is_causal=True)
    agrees(block(x, rope.Rope(torch.zeros(3))), out, "torch.nn.TransformerEncoderLayer", 1e-5)
    assert (block(x, rope.Rope(rope.inverse_frequencies(6))) - out).abs().max() > 1e-3


def test_learnt_rows_are_added_in_order():
    table, x = torch.randn(9, 12), torch.randn(2, 7, 12)
    torch.testing.assert_close(rope.Learnt(table).embed(x), x + table[None, :7])


def test_learnt_table_has_an_end():
    model = rope.Decoder(rope.Learnt(torch.randn(9, 12)), width=12, num_heads=2)
    assert model(torch.zeros(1, 9, dtype=torch.long)).shape == (1, 9, 256)
    with pytest.raises(ValueError, match="at most 9 positions is expected, given 10|at most 9 positions are"):
        model(torch.zeros(1, 10, dtype=torch.long))


def test_initial_loss_is_that_of_chance():
    codes = torch.randint(256, (4, 33))
    loss = rope.loss_by_position(rope.Decoder(positions(64)["rope"], 64, 2).eval(), codes, 16)
    assert abs(loss.mean().item() - math.log(256)) < 0.3


def test_training_learns_and_repeats():
    codes = torch.arange(40).repeat(30)

    def trained(steps, seed=0):
        torch.manual_seed(1)
        return rope.train(rope.Decoder(positions(12)["rope"], 12, 2), codes, steps, length=11, rate=5e-3, seed=seed)

    passage = rope.passages(codes, count=3, length=22)
    losses = [rope.loss_by_position(trained(steps), passage, 11).mean() for steps in (2, 40, 40)]
    assert losses[1] < 0.8 * losses[0] and losses[1] == losses[2]
    assert not trained(2).training
    assert (trained(2, seed=1).head.weight - trained(2).head.weight).abs().max() > 1e-5  # other windows


def test_passages_are_spread_and_cut_without_loss():
    codes = torch.arange(1000)
    passage = rope.passages(codes, count=3, length=24)
    assert passage.shape == (3, 25) and passage[:, 0].tolist() == [0, 487, 975] and passage[-1, -1] == 999
    assert (passage[:, 1:] - passage[:, :-1] == 1).all()

    class Next(nn.Module):
        """Certain that each byte is followed by its successor, but for the last position of a window."""

        def forward(self, codes):
            logits = 100.0 * F.one_hot((codes + 1) % 256, 256)
            logits[:, -1] = 0
            return logits

    loss = rope.loss_by_position(Next(), torch.arange(25).repeat(3, 1), 8)
    assert loss.tolist() == pytest.approx([0] * 7 + [math.log(256)])
    seen = []
    rope.loss_by_position(lambda codes: seen.append(codes) or torch.zeros(*codes.shape, 256), passage[:1] % 256, 8)
    assert torch.equal(seen[0], torch.arange(24).view(3, 8))  # each byte of the passage is read once


# configurations


@pytest.mark.parametrize("length", [40, 4096])
@pytest.mark.parametrize("name", SCALINGS)
def test_load_rope_reads_what_transformers_writes(name, length, tmp_path, double, agrees):
    (tmp_path / "config.json").write_text(WRITTEN[name])
    theirs = LlamaRotaryEmbedding(CONFIGS[name])
    theirs(torch.zeros(1, dtype=torch.float64), torch.arange(length)[None])
    ours = rope.load_rope(tmp_path, length)
    agrees(ours.theta, theirs.inv_freq, LLAMA, 1e-12)
    assert ours.magnitude == pytest.approx(theirs.attention_scaling)


def test_load_rope_reads_older_files(tmp_path):
    old = {"hidden_size": 48, "num_attention_heads": 3, "max_position_embeddings": 64, "rope_theta": 5000.0}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(old | {"rope_scaling": {"type": "linear", "factor": 3.0}}))
    assert torch.equal(rope.load_rope(tmp_path, 64).theta, rope.linear(plain(0)[0], 3.0))
    file.write_text(json.dumps(old | {"rope_scaling": None, "head_dim": 10}))
    assert torch.equal(rope.load_rope(tmp_path, 64).theta, rope.inverse_frequencies(10, 5000.0))
    old.pop("rope_theta")
    file.write_text(json.dumps(old))
    assert torch.equal(rope.load_rope(tmp_path, 64).theta, rope.inverse_frequencies(16))
    file.write_text(json.dumps(old | {"rope_parameters": YARN | {"rope_type": "yarn", "attention_factor": 1.25}}))
    assert rope.load_rope(tmp_path, 64).magnitude == 1.25


LAYERED = {"full_attention": {"rope_theta": 1e6, "rope_type": "default"}, "sliding_attention": {"rope_theta": 1e4}}


@pytest.mark.parametrize(
    "given",
    [{"rope_parameters": {"rope_type": "longrope"}}, {"rope_parameters": {"rope_type": "yarn", "mscale": 1.0}}]
    + [{"rope_parameters": {"partial_rotary_factor": 0.5}}, {"partial_rotary_factor": 0.4}, {"rotary_pct": 0.25}]
    + [{"rotary_dim": 32}, {"model_type": "gptj"}, {"rope_parameters": LAYERED}]
    + [{"rope_scaling": {"rope_type": "yarn", "truncate": False}}],
    ids=str,
)
def test_load_rope_refuses_what_it_does_not_know(tmp_path, given):
    shape = {"hidden_size": 48, "num_attention_heads": 3, "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(shape | given))
    with pytest.raises(ValueError, match="expected, given") as error:
        rope.load_rope(tmp_path, 64)
    assert "\n" not in str(error.value)


NEW = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 2.0, "original_max_position_embeddings": 16}
SETTINGS = {
    "no factor: from the lengths": {"rope_parameters": NEW | {"factor": None}},
    "the first length at the top": {"original_max_position_embeddings": 8, "rope_parameters": NEW},
    "the first length at the top, llama3": {
        "original_max_position_embeddings": 24,
        "rope_theta": 500.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    },
    "the old name beside the new one": {"rope_scaling": {"type": "linear", "factor": 3.0}, "rope_parameters": NEW},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_load_rope_reads_odd_files_as_transformers_does(name, tmp_path, double, agrees):
    shape = {"hidden_size": 48, "num_attention_heads": 3, "max_position_embeddings": 64, "vocab_size": 5}
    (tmp_path / "config.json").write_text(json.dumps(shape | SETTINGS[name]))
    theirs = LlamaRotaryEmbedding(LlamaConfig.from_pretrained(tmp_path))
    ours = rope.load_rope(tmp_path, 64)
    agrees(ours.theta, theirs.inv_freq, LLAMA, 1e-12)
    assert ours.magnitude == pytest.approx(theirs.attention_scaling)


def test_llama_1_names_its_length_otherwise(tmp_path):
    shape = {"hidden_size": 48, "num_attention_heads": 3, "max_sequence_length": 64}
    (tmp_path / "config.json").write_text(json.dumps(shape | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}))
    wanted = rope.dynamic_ntk(16, 100, 64, 2.0)
    assert torch.equal(rope.load_rope(tmp_path, 100).theta, wanted)
    with pytest.raises(ValueError, match="a length is expected for rope_type dynamic"):
        rope.stretched(shape | {"rope_scaling": {"type": "dynamic", "factor": 2.0}})


@pytest.mark.claim("rope-models")
@pytest.mark.parametrize("kind", rope.FULL)
def test_library_kinds_of_models_that_turn_all_of_a_head(kind, tmp_path, double):
    """What load_rope accepts by name has Llama's frequencies in transformers, of heads of its own size too."""
    shape = {"hidden_size": 48, "num_attention_heads": 3, "head_dim": 10, "vocab_size": 5}
    config = AutoConfig.for_model(kind, **shape, rope_parameters={"rope_type": "default", "rope_theta": 700.0})
    config.save_pretrained(tmp_path)
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    (theirs,) = (value for name, value in vars(module).items() if name.endswith("RotaryEmbedding"))
    torch.testing.assert_close(rope.load_rope(tmp_path, 64).theta, theirs(config).inv_freq, rtol=1e-12, atol=0)


def test_main_prints_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rope, "TRAIN_STEPS", 2)
    monkeypatch.setattr(rope, "text", lambda held_out=False: torch.arange(3000) % 256)
    monkeypatch.setattr(rope, "passages", lambda codes, count, every=rope.passages: every(codes, 2))
    rope.main()
    assert matplotlib.image.imread(tmp_path / "lengths.png").ndim == 3
    out = capsys.readouterr().out
    assert out.count("nats a byte") == 4 and "lengths.png" in out


# wrong input

X, ANGLE, THETA = torch.zeros(2, 3, 7, 10), torch.zeros(7, 5), torch.zeros(5)
CODES = torch.zeros(50, dtype=torch.long)
DECODER = rope.Decoder(rope.Alibi(2), 12, 2)
WRONG = {
    "odd dim": lambda: rope.inverse_frequencies(7),
    "no dim": lambda: rope.inverse_frequencies(0),
    "base": lambda: rope.inverse_frequencies(8, 1.0),
    "positions": lambda: rope.angles(torch.zeros(2, 7), THETA),
    "integer theta": lambda: rope.angles(torch.arange(7), THETA.long()),
    "complex": lambda: rope.rotate_complex(X, ANGLE[:, :4]),
    "pairs": lambda: rope.rotate_pairs(X[0], ANGLE),
    "halves": lambda: rope.rotate_halves(X, ANGLE[:6]),
    "integers": lambda: rope.rotate_halves(X.long(), ANGLE),
    "partial": lambda: rope.rotate_partial(X, torch.zeros(7, 6)),
    "rows": lambda: rope.pairs_to_halves(torch.zeros(30, 4), 4),
    "no heads": lambda: rope.pairs_to_halves(torch.zeros(30, 4), 0),
    "rows back": lambda: rope.halves_to_pairs(torch.zeros(30), 3),
    "factor": lambda: rope.linear(THETA, 0.5),
    "trained": lambda: rope.by_parts(THETA, 2.0, 0, 1.0, 4.0),
    "one pair": lambda: rope.ntk_aware(2, 8.0),
    "ntk factor": lambda: rope.ntk_aware(8, 0.5),
    "dynamic": lambda: rope.dynamic_ntk(8, 100, 0),
    "low and high": lambda: rope.by_parts(THETA, 2.0, 64, 4.0, 4.0),
    "fast and slow": lambda: rope.yarn(8, 2.0, 64, fast=1.0, slow=1.0),
    "yarn factor": lambda: rope.yarn(8, 0.5, 64),
    "magnitude": lambda: rope.yarn_magnitude(0.5),
    "cached": lambda: rope.Rope(THETA)(X, X, X, cached=2),
    "theta's type": lambda: rope.Rope(THETA).to(torch.bfloat16)(X, X, X),
    "width": lambda: rope.Decoder(rope.Alibi(5), 12, 5),
    "codes": lambda: DECODER(CODES),
    "float codes": lambda: DECODER(torch.zeros(2, 7)),
    "steps": lambda: rope.train(DECODER, CODES, 0, length=9),
    "short": lambda: rope.train(DECODER, CODES, 1, length=50),
    "passages": lambda: rope.passages(CODES, 2, length=25),
    "no passage": lambda: rope.passages(CODES, 0, length=25),
    "cut": lambda: rope.loss_by_position(DECODER, CODES[None], 25),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused(name):
    with pytest.raises(ValueError, match="expected"):
        WRONG[name]()


# what the page says about other models of transformers, and about angles that were never met


@pytest.mark.claim("rope-partial-kinds")
def test_library_shares_of_a_head_that_turn():
    """GPT-NeoX a quarter, Phi-1 a half (transformers' defaults for them); two fifths are for Phi-2's file to say."""
    assert GPTNeoXConfig().rope_parameters["partial_rotary_factor"] == 0.25
    assert PhiConfig().rope_parameters["partial_rotary_factor"] == 0.5


@pytest.mark.claim("rope-layout-kinds")
@pytest.mark.parametrize("rotate", [gptj.rotate_every_two, glm.rotate_half])
def test_library_gptj_and_glm_pair_neighbours(rotate):
    """Llama pairs the halves."""
    x = torch.arange(8.0).view(1, 1, 1, 8)
    assert rotate(x).flatten().tolist() == [-1, 0, -3, 2, -5, 4, -7, 6]
    assert llama.rotate_half(x).flatten().tolist() == [-4, -5, -6, -7, 0, 1, 2, 3]


def test_pairs_that_go_round_in_128_positions():
    for base, count in ((10_000, 6), (100, 11), (25, 15), (24, 16)):
        assert (128 * rope.inverse_frequencies(32, base) >= 2 * math.pi).sum() == count


@pytest.mark.claim("rope-ntk-angles")
def test_first_unknown_angles_of_ntk_aware_scaling():
    """Of the pairs that do not go round in 128 positions, 6 to 14 meet one before 1,024, at 128 * 8**(i / 15)."""
    known, theta = 128 * rope.inverse_frequencies(32), rope.ntk_aware(32, 8.0)
    first = known / theta
    short = known < 2 * math.pi
    assert short.nonzero().flatten().tolist() == list(range(6, 16))
    torch.testing.assert_close(first, 128 * 8 ** (torch.arange(16, dtype=torch.float64) / 15))
    assert (first[6:15] < 1023).all() and first[15] > 1023.9
    assert round(first[6].item()) == 294 and round(first[14].item()) == 891


@pytest.mark.claim("rope-bag")
def test_without_positions_two_layers_see_some_order():
    """One layer sees a bag (the test above of the same model); a second one reads what the first mixed."""
    codes = torch.tensor([[3, 1, 4, 1, 5, 9, 2]])
    shuffled = codes[:, [2, 0, 1, 5, 4, 3, 6]]
    moved = []
    for layers in (1, 2):
        torch.manual_seed(0)
        blind = rope.Decoder(rope.Rope(torch.zeros(3)), width=12, num_heads=2, num_layers=layers).double()
        blind.embedding.weight.data *= 50  # so that attention is not even
        moved.append((blind(codes) - blind(shuffled))[:, -1].abs().max().item())
    assert moved[0] < 1e-10 and moved[1] > 1e-3


@pytest.mark.claim("rope-alibi-heads")
def test_library_slopes_for_other_numbers_of_heads():
    """Bloom's, which are the paper's code: six heads have the slopes of four, and every second one of eight."""

    def slopes(heads):
        return build_alibi_tensor(torch.ones(1, 2), heads, torch.float64).view(heads, 2)[:, 1].tolist()

    assert slopes(6) == pytest.approx(slopes(4) + slopes(8)[::2][:2])
    assert slopes(4) == pytest.approx([2 ** (-8 * h / 4) for h in (1, 2, 3, 4)])


@pytest.mark.claim("rope-partial-temperature")
def test_library_enlarges_only_the_features_that_turn():
    scaling = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 8.0, "original_max_position_embeddings": 16}
    shape = PhiConfig(
        hidden_size=30,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=128,
        rope_parameters=scaling | {"partial_rotary_factor": 0.4},
    )
    shape._attn_implementation = "eager"
    attention, x = PhiAttention(shape, layer_idx=0).double(), torch.randn(2, 7, 30, dtype=torch.float64)
    cos, sin = (one.double() for one in PhiRotaryEmbedding(shape)(x, torch.arange(7)[None]))
    assert cos.shape[-1] == 4 and cos[0, 0].tolist() == pytest.approx(4 * [rope.yarn_magnitude(8.0)])
    causal = torch.full((7, 7), -math.inf, dtype=torch.float64).triu(1)[None, None]
    with torch.no_grad():
        theirs, _ = attention(x, (cos, sin), causal)
        query, key, value = (
            f(x).unflatten(-1, (3, 10)).transpose(1, 2) for f in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        angle = rope.angles(torch.arange(7), rope.yarn(4, 8.0, 16))

        def ours(rest):
            turned = [rope.rotate_partial(x, angle) for x in (query, key)]
            grown = [torch.cat([x[..., :4] * rope.yarn_magnitude(8.0), x[..., 4:] * rest], dim=-1) for x in turned]
            mixed = F.scaled_dot_product_attention(*grown, value, is_causal=True)
            return attention.dense(mixed.transpose(1, 2).flatten(2))

        torch.testing.assert_close(ours(1.0), theirs, rtol=0, atol=1e-6)
        assert (ours(rope.yarn_magnitude(8.0)) - theirs).abs().max() > 1e-3


@pytest.mark.claim("rope-yarn-limit")
def test_library_yarn_may_end_its_ramp_beyond_the_last_pair(double):
    """With base 20 every pair of 16 features goes round in 512 positions, and none is divided by the whole factor."""
    parameters = {"rope_type": "yarn", "rope_theta": 20.0, "beta_fast": 200.0} | YARN
    shape = {"hidden_size": 3 * DIM, "num_attention_heads": 3, "max_position_embeddings": 4096}
    theirs = LlamaRotaryEmbedding(LlamaConfig(**shape, rope_parameters=parameters)).inv_freq
    theta = rope.inverse_frequencies(DIM, 20.0)
    torch.testing.assert_close(rope.yarn(DIM, 8.0, 512, 20.0, fast=200.0), theirs, rtol=1e-12, atol=0)
    assert 512 * theta[-1] > 2 * math.pi and 1.5 < (theta / theirs).max() < 7


@pytest.mark.claim("rope-nope")
def test_library_leaves_every_fourth_layer_without_rotation():
    for config in (Llama4TextConfig(), SmolLM3Config()):
        assert config.no_rope_layers == [int((layer + 1) % 4 != 0) for layer in range(config.num_hidden_layers)]


@pytest.mark.claim("rope-longrope")
def test_library_longrope_has_two_lists_of_factors(tmp_path):
    """Eight pairs, each divided by its own factor; our loader refuses."""
    short, long = [1.0 + 0.1 * i for i in range(8)], [2.0 + i for i in range(8)]
    parameters = {"rope_type": "longrope", "rope_theta": 5000.0, "short_factor": short, "long_factor": long}
    parameters |= {"original_max_position_embeddings": 64, "factor": 4.0}
    shape = {"hidden_size": 3 * DIM, "num_attention_heads": 3, "max_position_embeddings": 256}
    config = LlamaConfig(**shape, rope_parameters=parameters)
    for length, factors in ((64, short), (65, long)):
        theirs, _ = modeling_rope_utils.ROPE_INIT_FUNCTIONS["longrope"](config, "cpu", seq_len=length)
        torch.testing.assert_close(theirs.double(), plain(0)[0] / torch.tensor(factors), rtol=1e-5, atol=0)
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="given longrope"):
        rope.load_rope(tmp_path, 64)


@pytest.mark.claim("rope-unrelated")
def test_unrelated_scores_are_as_large_far_away():
    """The mean square of scores of independent queries and keys of 32 features is 32 at any distance."""
    query, key = torch.randn(2, 1, 40_000, 1, 32, dtype=torch.float64)
    for distance in (0, 1, 30, 1000):
        turned = rope.rotate_halves(query, rope.angles(torch.tensor([distance]), rope.inverse_frequencies(32)))
        assert (turned * key).sum(dim=-1).pow(2).mean().item() == pytest.approx(32, rel=0.05)


@pytest.mark.claim("rope-dynamic-factor")
def test_library_factor_makes_dynamic_scaling_steeper(double):
    """With factor 2 and twice the trained length it stretches by 3, where the papers stretch by 2."""
    shape = {"hidden_size": 3 * DIM, "num_attention_heads": 3, "max_position_embeddings": TRAINED}
    parameters = {"rope_type": "dynamic", "rope_theta": 5000.0, "factor": 2.0}
    theirs = LlamaRotaryEmbedding(LlamaConfig(**shape, rope_parameters=parameters))
    theirs(torch.zeros(1, dtype=torch.float64), torch.arange(2 * TRAINED)[None])
    torch.testing.assert_close(rope.ntk_aware(DIM, 3.0, 5000.0), theirs.inv_freq, rtol=1e-12, atol=0)
    assert (rope.dynamic_ntk(DIM, 2 * TRAINED, TRAINED, 1.0, 5000.0) / theirs.inv_freq - 1).abs().max() > 0.1


@pytest.mark.claim("rope-llama3")
def test_library_llama_3_is_by_parts(double):
    """The settings of Llama 3.1 8B: heads of 128 features, base 500,000, 8,192 positions, factor 8."""
    names = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    parameters = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0} | names
    shape = {"hidden_size": 256, "num_attention_heads": 2, "max_position_embeddings": 131_072}
    theirs = LlamaRotaryEmbedding(LlamaConfig(**shape, rope_parameters=parameters)).inv_freq
    theta = rope.inverse_frequencies(128, 500_000.0)
    torch.testing.assert_close(rope.by_parts(theta, 8.0, 8192, 1.0, 4.0), theirs, rtol=1e-12, atol=0)
    assert (rope.by_parts(theta, 8.0, 8192, 1.0, 32.0) / theirs - 1).abs().max() > 0.1


@pytest.mark.claim("rope-bands")
def test_ramps_begin_and_end_where_the_figure_shows(results):
    """128 features, trained on 4,096 positions, stretched by 8; pairs by wavelength."""
    ladder = rope.inverse_frequencies(128)
    wave = 2 * math.pi / ladder
    paper, llama = rope.by_parts(ladder, 8.0, 4096, 1.0, 32.0), rope.by_parts(ladder, 8.0, 4096, 1.0, 4.0)
    library = rope.yarn(128, 8.0, 4096)
    for slower, begins in ((paper, 128), (library, 128), (llama, 1024)):
        ratio = ladder / slower
        assert (ratio[wave < 0.95 * begins] - 1).abs().max() < 1e-12 and (ratio[wave > 1.2 * begins] > 1).all()
        assert (ratio[wave > 1.2 * 4096] - 8).abs().max() < 1e-9 and (ratio[wave < 0.8 * 4096] < 8).all()
    assert (library > paper)[(wave > 140) & (wave < 4096)].all()  # "the library's soon more slowly"
    bands = results("LLM/ROPE")["bands"]
    assert bands["untouched_paper"] == bands["untouched_library"] == (paper == ladder).sum() > 0
    assert bands["apart"] == pytest.approx((library / paper).max().item())


@pytest.mark.claim("rope-bfloat16")
def test_cast_frequencies_are_refused():
    attend = rope.Rope(rope.inverse_frequencies(10)).bfloat16()
    assert attend.theta.dtype == torch.bfloat16  # cast along with the weights
    with pytest.raises(ValueError, match="theta is expected to stay in float64"):
        attend(*torch.zeros(3, 2, 3, 7, 10, dtype=torch.bfloat16))


@pytest.mark.claim("rope-attention-factor")
def test_library_attention_factor_stands_for_the_root():
    """Cosines grow by it as it is given, so scores by its square."""
    shape = {"hidden_size": 3 * DIM, "num_attention_heads": 3, "max_position_embeddings": 4096}
    parameters = {"rope_type": "yarn", "rope_theta": 5000.0, "attention_factor": 1.25} | YARN
    theirs = LlamaRotaryEmbedding(LlamaConfig(**shape, rope_parameters=parameters))
    cos, _ = theirs(torch.zeros(1), torch.arange(1)[None])
    assert theirs.attention_scaling == 1.25 and cos.unique().tolist() == [1.25]
    assert rope.yarn_magnitude(8.0) != 1.25


# what the page says of faults


@pytest.mark.claim("rope-fault-count")
def test_counting_from_1_is_an_interpolation():
    from_1 = 10_000.0 ** (-2 * torch.arange(1, 17, dtype=torch.float64) / 32)
    torch.testing.assert_close(from_1, rope.linear(rope.inverse_frequencies(32), 10_000 ** (2 / 32)))
    assert round(10_000 ** (2 / 32), 2) == 1.78


@pytest.mark.claim("rope-fault-layout")
def test_scores_in_the_other_layout():
    """Right at distance 0; further away they correlate less and less with the right ones."""
    query, key = torch.randn(2, 1, 20_000, 1, 32, dtype=torch.float64)
    for distance, expected in ((0, 1.0), (1, 0.92), (10, 0.44), (100, 0.27)):
        angle = rope.angles(torch.tensor([distance]), rope.inverse_frequencies(32))
        right, wrong = ((one(query, angle) * key).sum(dim=-1) for one in (rope.rotate_halves, rope.rotate_pairs))
        found = torch.corrcoef(torch.stack([right.flatten(), wrong.flatten()]))[0, 1].item()
        feature = torch.arange(32)
        exact = (angle[0, feature % 16].cos() * angle[0, feature // 2].cos()).mean().item()
        assert found == pytest.approx(exact, abs=0.03) and round(exact, 2) == expected


@pytest.mark.claim("rope-fault-cache")
def test_a_query_at_position_0_takes_the_past_for_the_future():
    """After 100 tokens, the score of the token before is that of a key 99 positions ahead; a whole text is right."""
    query, key = torch.randn(2, 1, 1, 1, 10, dtype=torch.float64)
    theta = rope.inverse_frequencies(10)

    def score(m, n):
        turned = [rope.rotate_halves(x, rope.angles(torch.tensor([at]), theta)) for x, at in ((query, m), (key, n))]
        return (turned[0] * turned[1]).sum().item()

    assert score(0, 99) == pytest.approx(score(1000 - 99, 1000)) and abs(score(0, 99) - score(100, 99)) > 1e-3


@pytest.mark.claim("rope-fault-cast")
def test_numbers_of_bfloat16_are_16_apart(results):
    from_2048 = torch.arange(2048, 4097, dtype=torch.float64)
    held = from_2048.bfloat16().double()
    assert held.unique().diff().unique().tolist() == [16] and (held - from_2048).abs().max() == 8 > 2 * math.pi
    precision = results("LLM/ROPE")["precision"]
    assert precision["bfloat16"]["4095"] > 2 * precision["spread"] > 0


@pytest.mark.claim("rope-fault-exponent")
def test_the_slowest_pair_without_the_exponent():
    for dim, expected in ((128, 7.7), (16, 6.2)):
        ratio = rope.inverse_frequencies(dim)[-1] / rope.inverse_frequencies(dim, 10_000 * 8.0)[-1]
        assert round(ratio.item(), 1) == expected and ratio.item() == pytest.approx(8 ** ((dim - 2) / dim))
