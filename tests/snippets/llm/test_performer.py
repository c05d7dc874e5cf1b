"""Performer: estimates against the exact kernel and closed forms, every form of attention against the masked quadratic
one, both faults of performer-pytorch, and the later models against transformers' code and their own formulas."""

import inspect
import math
import warnings

import performer_pytorch.performer_pytorch as library
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3NextConfig
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer, segment_sum
from transformers.models.qwen3_next.modeling_qwen3_next import (
    Qwen3NextGatedDeltaNet,
    torch_recurrent_gated_delta_rule,
)

from snippets.llm import performer
from tests.formula import Matrix

LIBRARY = "performer_pytorch.performer_pytorch"
B, H, T, D, E, M = 2, 3, 45, 6, 5, 14  # M is no multiple of D, D no power of two


def drawn(seed: int = 0, num_features: int = M, dim: int = D):
    return performer.orthogonal_rows(num_features, dim, torch.Generator().manual_seed(seed)).double()


@pytest.fixture
def omega():
    return drawn()


@pytest.fixture
def features(omega):
    return performer.PositiveFeatures(omega)


@pytest.fixture
def batch():
    """query, key (2, 3, 45, 6), value (2, 3, 45, 5), in float64."""
    torch.manual_seed(1)
    query, key = torch.randn(2, B, H, T, D, dtype=torch.float64)
    return query, key, torch.randn(B, H, T, E, dtype=torch.float64)


def quadratic(features, query, key, value, causal=True):
    """The same attention with its matrix of weights written out."""
    weight = features.query(query) @ features.key(key).transpose(-1, -2)
    weight = weight.tril() if causal else weight
    return (weight / weight.sum(-1, keepdim=True)) @ value


def exact(query, key, value, causal=False):
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal)


# the kernel and its estimate


@pytest.mark.equation("performer-positive", of=performer.positive_features)
@pytest.mark.equation("performer-trigonometric", of=performer.trigonometric_features)
def test_features_are_their_formulas(omega, formula):
    x = torch.randn(4, D, dtype=torch.float64)
    positive, waves = performer.positive_features(x, omega), performer.trigonometric_features(x, omega)
    for r in (0, 5, 13):
        names = {r"\omega_r": omega[r].expand(4, D), "x": x, "m": M}
        formula("performer-positive").holds(names | {r"\phi_r(x)": positive[:, r : r + 1]})
        names |= {r"\phi_{2r-1}(x)": waves[:, r : r + 1], r"\phi_{2r}(x)": waves[:, M + r : M + r + 1]}
        formula("performer-trigonometric").holds(names, relations=2)


DRAWS = 8000


def rows_of(draw, num_features=14):
    """Directions (DRAWS, num_features, 6); draw(count) makes that many rows, in independent blocks of 6."""
    blocks = -(-num_features // 6)
    return draw(DRAWS * 6 * blocks).view(DRAWS, 6 * blocks, 6)[:, :num_features]


def estimates(x, y, rows, features=performer.positive_features):
    """Estimates (draws,) of exp(x y), one for each draw of rows (draws, m, d)."""
    flat = rows.flatten(0, 1)
    terms = features(x, flat) * features(y, flat) * len(flat)
    return terms.unflatten(-1, (-1, len(flat))).sum(dim=0).view(rows.shape[:2]).mean(dim=1)


def off(x, y, rows, features=performer.positive_features):
    """By how many standard errors the mean of the estimates is off."""
    found = estimates(x, y, rows, features)
    return ((found.mean() - torch.exp((x * y).sum())) / (found.std() / len(found) ** 0.5)).abs().item()


def library_rows(count):
    torch.manual_seed(0)
    parts = [library.gaussian_orthogonal_random_matrix(1800, 6).double() for _ in range(-(-count // 1800))]
    return torch.cat(parts)[:count]


ONES = torch.full((6,), 0.35, dtype=torch.float64)


def test_the_estimate_is_unbiased_for_any_number_of_rows():
    """6 is no power of two, 14 no multiple of 6; along the ones and against them, and with another vector."""
    other = torch.linspace(-0.5, 0.7, 6).double()
    rows = rows_of(lambda count: drawn(0, count))
    for sign in (1, -1):
        assert off(sign * ONES, sign * ONES, rows) < 3
        assert off(sign * ONES, other, rows) < 3
        assert off(sign * ONES, other, rows, performer.trigonometric_features) < 3
    few = torch.stack([drawn(seed, 14) for seed in range(400)])  # 14 rows at a time
    assert off(ONES, ONES, few) < 3 and off(-ONES, -ONES, few) < 3


@pytest.mark.claim("performer-biased-qr")
def test_the_librarys_rows_are_biased():
    """Without the signs of R: on one side of the origin the estimate is too large, on the other too small."""
    rows = rows_of(library_rows)
    along, against = estimates(ONES, ONES, rows), estimates(-ONES, -ONES, rows)
    right = math.exp(6 * 0.35**2)
    assert min(off(ONES, ONES, rows), off(-ONES, -ONES, rows)) > 3
    assert (along.mean() - right) * (against.mean() - right) < 0  # one too large, one too small
    assert abs(along.mean() - right) > 0.1 * right
    assert "transcribed from jax to pytorch" in inspect.getsource(library)


@pytest.mark.parametrize(
    "features, variance",
    [
        pytest.param(
            performer.positive_features,
            performer.positive_variance,
            marks=pytest.mark.equation("performer-variance-positive", of=performer.positive_variance),
        ),
        pytest.param(
            performer.trigonometric_features,
            performer.trigonometric_variance,
            marks=pytest.mark.equation("performer-variance-trigonometric", of=performer.trigonometric_variance),
        ),
    ],
)
def test_variance_is_its_closed_form(features, variance, formula):
    """Measured over 200,000 independent directions, one at a time."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 5, dtype=torch.float64) * 0.2
    name = variance.__name__.removesuffix("_variance")
    closed = variance(x, y, 7)[:, None]
    names = {"x": x, "y": y, "m": 7, rf"V_{{\text{{{name[:4].removesuffix('i')}}}}}": closed}
    if name == "positive":
        names |= {r"\mathrm{SM}(x, y)": torch.exp((x * y).sum(-1, keepdim=True))}
    formula(f"performer-variance-{name}").holds(names)
    rows = torch.randn(200_000, 5, dtype=torch.float64)
    for i in range(3):
        first, second = (features(one[i], rows) * len(rows) ** 0.5 for one in (x, y))
        terms = (first * second).unflatten(-1, (-1, len(rows))).sum(dim=0)
        found = terms.var() / 7
        assert found.item() == pytest.approx(closed[i].item(), rel=0.05)
    assert not math.isclose(variance(x, -y, 7)[0].item(), closed[0].item(), rel_tol=0.05)  # negative control


@pytest.mark.claim("performer-near-zero")
def test_positive_features_are_better_near_zero_and_worse_far_from_it():
    """Where the kernel is small (x = -y) positive ones win, where x = y the other ones are exact."""
    x = torch.full((4,), 0.5, dtype=torch.float64)
    apart = performer.positive_variance(x, -x, 8), performer.trigonometric_variance(x, -x, 8)
    assert apart[0] == 0 < apart[1]
    same = performer.positive_variance(x, x, 8), performer.trigonometric_variance(x, x, 8)
    assert same[1] == 0 < same[0]
    relative = performer.positive_variance(x, x, 8) / torch.exp((x * x).sum()) ** 2
    torch.testing.assert_close(relative, (torch.exp(4 * (x * x).sum()) - 1) / 8)


def test_rows_are_orthogonal_and_of_normal_length():
    omega = drawn(num_features=14, dim=6)
    for block in (omega[:6], omega[6:12], omega[12:]):
        product = block @ block.T
        assert (product - product.diag().diag()).abs().max() < 1e-5
    assert (omega[:6] @ omega[6:12].T).abs().max() > 0.1  # blocks are independent
    many = rows_of(lambda count: drawn(0, count))
    lengths = many.square().sum(-1)
    assert lengths.mean().item() == pytest.approx(6, abs=0.1)  # chi squared of 6: mean 6, variance 12
    assert lengths.var().item() == pytest.approx(12, rel=0.05)
    first, theirs = many[:, 0], rows_of(library_rows)[:, 0]
    assert (first.mean(0) / (first.std(0) / DRAWS**0.5)).abs().max() < 4  # no direction more often than its opposite
    assert (theirs.mean(0) / (theirs.std(0) / DRAWS**0.5)).abs().max() > 10  # negative control: the library's


@pytest.mark.claim("performer-orthogonal-exact")
def test_orthogonal_rows_have_less_variance_by_the_papers_gap():
    """Over 8,000 draws of six rows in six dimensions, at x = y, by Theorem 2; its earlier gap is impossible here."""
    short, rows = ONES / 2, rows_of(lambda count: drawn(0, count), 6)
    kernel, alone = torch.exp(short @ short), torch.exp(-(short @ short))
    closed = performer.positive_variance(short, short, 6)
    gap = 2 * 5 / (6 * 8) * (kernel - alone) ** 2
    orthogonal = estimates(short, short, rows).var()
    plain = estimates(short, short, torch.randn(DRAWS, 6, 6, dtype=torch.float64)).var()
    torch.testing.assert_close(plain, closed, rtol=0.1, atol=0)
    assert gap > 0.1 * closed and orthogonal < 1.05 * (closed - gap)  # 5 % for what 8,000 draws leave open
    assert plain > 1.05 * (closed - gap)  # negative control: independent rows
    earlier = (1 - 1 / 6) * 2 / 8 * kernel**2
    assert earlier > closed  # the variance of orthogonal rows would be negative


@pytest.mark.parametrize("given", [(0, 3), (3, 0)])
def test_no_rows_are_refused(given):
    with pytest.raises(ValueError, match="given"):
        performer.orthogonal_rows(*given, torch.Generator())


# features of queries and keys


@pytest.mark.equation("performer-scale", of=(performer.PositiveFeatures.query, performer.PositiveFeatures.key))
def test_stable_features_are_proportional_to_the_plain_ones(omega, features, batch, formula):
    """A factor for each query, one factor for all keys: both cancel."""
    query, key, _ = batch
    ours = features.query(query) / performer.positive_features(query / D**0.25, omega)
    assert (ours / ours[..., :1] - 1).abs().max() < 1e-10  # the same for all features of a query
    theirs = features.key(key) / performer.positive_features(key / D**0.25, omega)
    assert (theirs / theirs.flatten()[0] - 1).abs().max() < 1e-10  # the same for all keys
    assert features.query(query).amax(-1).sub(1).abs().max() < 1e-12
    # the kernel is that of attention: with many rows the estimate is exp(<q, k> / sqrt(d))
    small_q, small_k = 0.2 * query[0, 0, :4], 0.2 * key[0, 0, :4]
    product = (small_q / D**0.25 * (small_k / D**0.25)).sum(-1, keepdim=True)
    names = {"x": small_q / D**0.25, "y": small_k / D**0.25, "q": small_q, "k": small_k, "d": D}
    formula("performer-scale").holds(names, relations=3)
    many = performer.PositiveFeatures(torch.randn(200_000, D, dtype=torch.float64))
    phi_q, phi_k = many.query(small_q[None, None])[0, 0], many.key(small_k[None, None])[0, 0]
    ratio = (phi_q * phi_k).sum(-1) / phi_q.sum(-1)
    plain = performer.positive_features(small_q / D**0.25, many.omega)
    scale = plain.sum(-1) / len(many.omega) ** 0.5
    guess = ratio * scale * torch.exp(many.shift)
    torch.testing.assert_close(guess[:, None], torch.exp(product), rtol=0.02, atol=0)


def test_the_largest_key_does_not_overflow():
    """Exponents of keys are at most 40, whatever the key, in float32 and with heads of 128 features."""
    omega = drawn(3, 256, 128).float()
    features = performer.PositiveFeatures(omega)
    worst = omega * 128**0.25  # keys along the directions themselves have the largest exponents
    phi = features.key(worst[None, None])
    assert phi.isfinite().all() and math.exp(39.9) < phi.max() < math.exp(40.1)
    assert (65_536 * phi.max()).isfinite()  # room for sums over keys
    plain = performer.positive_features(omega, omega)
    assert phi.max() < plain.max()  # the shift did something
    assert performer.PositiveFeatures(0.1 * omega).shift == 0  # and only where it has to


@pytest.mark.claim("performer-long-key")
def test_a_very_long_key_is_overlooked():
    """All its features are 0 in float32, though exact attention looks at nothing else."""
    torch.manual_seed(0)
    features = performer.PositiveFeatures(drawn(0, 32, 64).float())
    query, key, value = torch.randn(1, 1, 1, 64), 0.3 * torch.randn(1, 1, 5, 64), torch.randn(1, 1, 5, 3)
    key[:, :, 2] = 20 * query[:, :, 0]
    assert features.key(key)[0, 0, 2].max() == 0 < features.key(key)[0, 0, 1].min()
    rest = [0, 1, 3, 4]
    ours = performer.linear_attention(features, query, key, value)
    without = performer.linear_attention(features, query, key[:, :, rest], value[:, :, rest])
    torch.testing.assert_close(ours, without)
    torch.testing.assert_close(exact(query, key, value)[0, 0, 0], value[0, 0, 2])


def wide(dim):
    """Directions (256, dim) in float64, and short queries, keys (1, 1, 50, dim) and values (1, 1, 50, 5)."""
    torch.manual_seed(4)
    query, key = 0.3 * torch.randn(2, 1, 1, 50, dim, dtype=torch.float64)
    return drawn(4, 256, dim), query, key, torch.randn(1, 1, 50, 5, dtype=torch.float64)


def by_logarithms(omega, query, key, value):
    """The same means, without an exponential that could overflow or vanish."""
    x, y = (z[0, 0] / omega.shape[1] ** 0.25 for z in (query, key))
    logs = (x @ omega.T)[:, None] + (y @ omega.T)[None] - y.square().sum(-1)[None, :, None] / 2
    return logs.logsumexp(-1).softmax(-1) @ value


@pytest.mark.claim("performer-wide-heads")
def test_wide_heads_are_right_or_refused():
    """With 128 entries float32 is right; from 192 on it is refused, and float64 is right."""
    for dim in (64, 128):
        omega, query, key, value = wide(dim)
        ours = performer.linear_attention(
            performer.PositiveFeatures(omega.float()), query.float(), key.float(), value.float()
        )
        expected = performer.linear_attention(performer.PositiveFeatures(omega), query, key, value)
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(expected, by_logarithms(omega, query, key, value), rtol=1e-10, atol=1e-10)
        assert omega.square().sum(-1).max() > dim
    for dim in (192, 256, 320):
        omega, query, key, value = wide(dim)
        with pytest.raises(ValueError, match="float64 is expected .* given torch.float32"):
            performer.PositiveFeatures(omega.float())
        features = performer.PositiveFeatures(omega)
        ours = performer.linear_attention(features, query, key, value)
        torch.testing.assert_close(ours, by_logarithms(omega, query, key, value), rtol=1e-10, atol=1e-10)
        single = features.key(key).float()  # what float32 could hold of them
        assert single.median() < 1e-35 if dim == 192 else single.max() == 0
        attention = performer.PerformerAttention(features)
        performer.redraw(attention, torch.Generator().manual_seed(5))
        torch.testing.assert_close(features.omega, drawn(5, 256, dim))


# attention against exact attention, the quadratic form and performer-pytorch


@pytest.mark.equation("performer-attention", of=None)
def test_softmax_attention_is_its_equation(batch, formula):
    query, key, value = (x[1, 2, :7] for x in batch)
    names = {"k_j": lambda j: key[j], "v_j": lambda j: value[j], "j": range(7), "d": D}
    for q, ours in zip(query, exact(query, key, value), strict=True):
        formula("performer-attention").holds({"o_i": ours, "q_i": q} | names)


@pytest.mark.equation("performer-linear", of=performer.linear_attention)
def test_linear_attention_is_its_equation(features, batch, formula):
    query, key, value = (x[1:, 2:, :7] for x in batch)
    ours = performer.linear_attention(features, query, key, value)[0, 0]
    phi_q, phi_k = features.query(query)[0, 0], features.key(key)[0, 0]
    names = {r"\phi(k_j)": lambda j: phi_k[j], "v_j": lambda j: value[0, 0, j], "j": range(7)}
    names |= {r"S^\top": Matrix(value[0, 0].T @ phi_k), "z": phi_k.sum(0)}
    for i in range(7):
        given = {"o_i": ours[i], r"\phi(q_i)": phi_q[i]} | names
        formula("performer-linear").holds(given, relations=2)


def test_with_many_features_it_is_softmax_attention(batch):
    """Small queries and keys, 20,000 orthogonal directions: within 2 % of exact attention."""
    query, key, value = batch[0] * 0.5, batch[1] * 0.5, batch[2]
    many = performer.PositiveFeatures(drawn(0, 20_000))
    for causal in (False, True):
        ours = performer.PerformerAttention(many, causal)(query, key, value)
        theirs = exact(query, key, value, causal)
        assert (ours - theirs).norm() / theirs.norm() < 0.02
    unscaled = performer.PerformerAttention(many, False)(query * 2, key * 2, value)  # negative control
    assert (unscaled - exact(query, key, value)).norm() / exact(query, key, value).norm() > 0.1


def test_linear_attention_equals_performer_pytorch(omega, features, batch, agrees):
    """Where the library is right: no causal mask, and its eps set to 0."""
    query, key, value = batch
    theirs = library.linear_attention(
        library.softmax_kernel(query, projection_matrix=omega, is_query=True, eps=0),
        library.softmax_kernel(key, projection_matrix=omega, is_query=False, eps=0),
        value,
    )
    ours = performer.linear_attention(features, query, key, value)
    agrees(ours, theirs, f"{LIBRARY}.linear_attention", 1e-10)
    agrees(ours, quadratic(features, query, key, value, causal=False), "the quadratic form", 1e-10)
    undivided = (features.query(query) @ features.key(key).transpose(-1, -2)) @ value
    assert (undivided - theirs).abs().max() > 1e-3  # negative control


def test_causal_attention_equals_performer_pytorch(omega, features, batch, agrees):
    query, key, value = (x[:, :, :40] for x in batch)
    theirs = library.causal_linear_attention_noncuda(
        library.softmax_kernel(query, projection_matrix=omega, is_query=True, eps=0),
        library.softmax_kernel(key, projection_matrix=omega, is_query=False, eps=0),
        value,
        chunk_size=4,
        eps=0,
    )
    ours = performer.PerformerAttention(features)(query, key, value)
    agrees(ours, theirs, f"{LIBRARY}.causal_linear_attention_noncuda", 1e-10)
    assert (performer.linear_attention(features, query, key, value) - theirs).abs().max() > 1e-3  # negative control


@pytest.mark.claim("performer-library-chunks")
def test_the_librarys_causal_code_stores_a_state_for_each_position(batch):
    """A 128th of the positions at a time: its chunk_size is the number of chunks."""
    stored = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            if function is torch.einsum and args[0] == "...nd,...ne->...nde":
                stored.append(tuple(made.shape))
            return made

    query, key, value = torch.rand(3, 1, 2, 512, 6)
    with Watch():
        library.FastAttention(6, M, causal=True)(query, key, value)
    assert stored == [(1, 2, 4, M, 6)] * 128  # each of 4 positions has a state of M x 6
    assert inspect.signature(library.causal_linear_attention_noncuda).parameters["chunk_size"].default == 128


@pytest.mark.claim("performer-chunks")
def test_chunks_write_their_own_weights_out_and_hold_the_rest_in_the_state(features, batch):
    """The figure: of 12 positions in chunks of 4, what a query sees of earlier chunks is in the state alone."""
    query, key, value = (x[:, :, :12] for x in batch)
    attention = performer.PerformerAttention(features)
    whole, _ = performer.causal_attention(features, query, key, value, attention.empty(value), chunk=4)
    ones = F.pad(value, (0, 1), value=1.0)
    for start in (0, 4, 8):
        own = slice(start, start + 4)
        phi_q, phi_k = features.query(query[:, :, own]), features.key(key)
        weight = (phi_q @ phi_k[:, :, own].transpose(-1, -2)).tril()  # dark
        state = phi_k[:, :, :start].transpose(-1, -2) @ ones[:, :, :start]  # light
        mixed = weight @ ones[:, :, own] + phi_q @ state
        torch.testing.assert_close(whole[:, :, own], mixed[..., :-1] / mixed[..., -1:])
        if start:
            alone = weight @ ones[:, :, own]
            assert (alone[..., :-1] / alone[..., -1:] - whole[:, :, own]).abs().max() > 1e-2  # negative control


@pytest.mark.claim("performer-order")
def test_the_two_orders_take_as_many_multiplications_as_the_caption_says():
    """Counted by PyTorch (two operations each) at a 16th of the length, then by the formula at the full one."""
    n, d, m = 512, 64, 256
    query, key, value = torch.randn(3, 1, 1, n, d)
    features = performer.PositiveFeatures(drawn(0, m, d).float())
    with FlopCounterMode(display=False) as written_out:
        (query @ key.transpose(-1, -2)).softmax(-1) @ value
    with FlopCounterMode(display=False) as sums_first:
        performer.linear_attention(features, query, key, value)
    assert written_out.get_total_flops() == 2 * (2 * n * n * d)
    assert sums_first.get_total_flops() == 2 * (2 * n * m * d + 2 * n * m * (d + 1))
    n = 8192
    assert round(2 * n * n * d / 1e9, 1) == 8.6 and round((2 * n * m * d + 2 * n * m * (d + 1)) / 1e9, 2) == 0.54


@pytest.mark.equation("performer-causal", of=performer.causal_attention)
def test_causal_attention_is_its_equation(features, batch, formula):
    query, key, value = (x[1:, 2:, :9] for x in batch)
    empty = performer.PerformerAttention(features).empty(value)
    ours, _ = performer.causal_attention(features, query, key, value, empty, chunk=4)
    phi_q, phi_k = features.query(query)[0, 0], features.key(key)[0, 0]
    names = {r"\phi(k_j)": lambda j: phi_k[j], "v_j": lambda j: value[0, 0, j], "j": range(9)}
    for i in (0, 4, 8):  # first of all, first of a chunk, last of all
        formula("performer-causal").holds({"o_i": ours[0, 0, i], r"\phi(q_i)": phi_q[i], "i": i} | names)


@pytest.mark.parametrize("chunk", [1, 4, 16, 45, 64])
def test_chunks_equal_the_masked_quadratic_form_forwards_and_backwards(features, batch, chunk, agrees):
    def run(attention):
        tensors = [x.clone().requires_grad_() for x in batch]
        out = attention(*tensors)
        (out * torch.linspace(-1, 1, E).double()).pow(2).sum().backward()
        return [out.detach(), *(x.grad for x in tensors)]

    def chunked(query, key, value):
        empty = performer.PerformerAttention(features).empty(value)
        return performer.causal_attention(features, query, key, value, empty, chunk)[0]

    masked = run(lambda *x: quadratic(features, *x))
    for name, ours, theirs in zip(("output", "query", "key", "value"), run(chunked), masked, strict=True):
        agrees(ours, theirs, f"the masked quadratic form, {name}", 1e-9)
    open_ = run(lambda *x: quadratic(features, *x, causal=False))
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(open_, masked, strict=True))  # negative control


def test_in_float32_they_agree_to_1e_5(batch, agrees):
    features = performer.PositiveFeatures(drawn().float())
    single = [x.float() for x in batch]
    agrees(performer.PerformerAttention(features)(*single), quadratic(features, *single), "the quadratic form", 1e-5)


@pytest.mark.equation("performer-recurrent", of=performer.step)
def test_one_by_one_equals_chunks(features, batch, formula):
    query, key, value = batch
    attention = performer.PerformerAttention(features)
    whole, last = performer.causal_attention(features, query, key, value, attention.empty(value))
    state, means = attention.empty(value), []
    place = state.data_ptr()
    for t in range(T):
        before = state.clone()
        means.append(performer.step(features, *(x[:, :, t : t + 1] for x in batch), state))
        if t == 7:
            phi = features.key(key[:, :, t : t + 1])[0, 0, 0]
            names = {"S_{i-1}": Matrix(before[0, 0, :, :E]), "S_i": Matrix(state[0, 0, :, :E])}
            names |= {r"\phi(k_i)": Matrix(phi[:, None]), r"v_i^\top": Matrix(value[0, 0, t][None])}
            names |= {"z_{i-1}": Matrix(before[0, 0, :, E:]), "z_i": Matrix(state[0, 0, :, E:])}
            formula("performer-recurrent").holds(names, relations=2)
    torch.testing.assert_close(torch.cat(means, dim=2), whole, rtol=0, atol=1e-10)
    torch.testing.assert_close(state, last, rtol=0, atol=1e-10)
    assert state.shape == (B, H, M, E + 1) and state.data_ptr() == place  # the same memory after 45 positions
    # from the state, chunks go on where one by one stopped
    first, half = performer.causal_attention(features, *(x[:, :, :20] for x in batch), attention.empty(value))
    rest, _ = performer.causal_attention(features, *(x[:, :, 20:] for x in batch), half)
    torch.testing.assert_close(torch.cat([first, rest], dim=2), whole, rtol=0, atol=1e-10)
    forgotten, _ = performer.causal_attention(features, *(x[:, :, 20:] for x in batch), attention.empty(value))
    assert (forgotten - whole[:, :, 20:]).abs().max() > 1e-2  # negative control


@pytest.mark.claim("performer-causal-leak")
def test_a_later_key_changes_nothing_before_it(batch):
    """performer-pytorch takes the largest exponent of all keys, future ones too, and adds eps: it leaks."""
    omega = drawn().float()
    query, key, value = (x[:, :, :40].float() for x in batch)
    large = key.clone()
    large[:, :, -1] *= 8
    ours = performer.PerformerAttention(performer.PositiveFeatures(omega))
    before = slice(0, 39)
    assert torch.equal(ours(query, key, value)[:, :, before], ours(query, large, value)[:, :, before])
    assert inspect.signature(library.softmax_kernel).parameters["eps"].default == 1e-4
    last = (ours(query, key, value) - ours(query, large, value))[:, :, -1]
    assert last.abs().max() > 1e-3  # negative control
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = library.FastAttention(D, M, causal=True)
    theirs.projection_matrix.copy_(omega)
    leaked = (theirs(query, key, value) - theirs(query, large, value))[:, :, before].abs().max()
    assert leaked > 0.1
    fixed = library.causal_linear_attention_noncuda  # with eps = 0 in its features the leak is rounding only
    plain = [
        fixed(
            library.softmax_kernel(query, projection_matrix=omega, is_query=True, eps=0),
            library.softmax_kernel(k, projection_matrix=omega, is_query=False, eps=0),
            value,
            eps=0,
        )
        for k in (key, large)
    ]
    assert (plain[0] - plain[1])[:, :, before].abs().max() < 1e-3


@pytest.mark.claim("performer-padding")
def test_padded_keys_do_not_count(features, batch):
    """The library's SelfAttention sets the values of padded keys to 0, but counts their weights."""
    query, key, value = batch
    keep = torch.ones(B, T, dtype=torch.bool)
    keep[1, 30:] = False
    ours = performer.linear_attention(features, query, key, value, keep)
    cut = performer.linear_attention(features, query[1:], key[1:, :, :30], value[1:, :, :30])
    torch.testing.assert_close(ours[1:], cut)
    torch.testing.assert_close(ours[:1], performer.linear_attention(features, query[:1], key[:1], value[:1]))
    values_only = performer.linear_attention(features, query, key, value * keep[:, None, :, None])
    assert (values_only[1:] - cut).norm() / cut.norm() > 0.1
    torch.manual_seed(0)
    theirs = library.SelfAttention(12, heads=2, dim_head=D, nb_features=M).eval()
    x = torch.randn(1, 40, 12)
    mask = torch.ones(1, 40, dtype=torch.bool)
    mask[:, 25:] = False
    masked, short = theirs(x, mask=mask)[:, :25], theirs(x[:, :25])
    assert (masked - short).norm() / short.norm() > 0.1


@pytest.mark.claim("performer-bias")
def test_a_bias_that_falls_with_distance_is_a_decay(features, batch):
    """ALiBi's bias, a slope for each head, against the masked matrix of weights."""
    query, key, value = batch
    slope = torch.tensor([0.5, 0.1, 0.02]).double()
    place = torch.arange(T)
    bias = -slope[:, None, None] * (place[:, None] - place).double()
    phi_q, phi_k = features.query(query), features.key(key)
    mixed = performer.retnet(phi_q, phi_k, F.pad(value, (0, 1), value=1.0), torch.exp(-slope))
    weight = (phi_q @ phi_k.transpose(-1, -2) * bias.exp()).tril()
    expected = weight @ value / weight.sum(-1, keepdim=True)
    torch.testing.assert_close(mixed[..., :-1] / mixed[..., -1:], expected)
    assert (expected - quadratic(features, query, key, value)).abs().max() > 1e-2  # negative control


@pytest.mark.claim("performer-rotary")
def test_turned_after_the_features_weights_become_negative(features, batch):
    def turned(x):
        """Pairs of features, turned by the position times a rate of each pair."""
        angle = torch.arange(x.shape[2]).double()[:, None] / 3.0 ** torch.arange(x.shape[3] // 2)
        even, odd = x[..., ::2], x[..., 1::2]
        return torch.cat([even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()], dim=-1)

    query, key, _ = batch
    before = features.query(turned(query)) @ features.key(turned(key)).transpose(-1, -2)
    after = turned(features.query(query)) @ turned(features.key(key)).transpose(-1, -2)
    assert before.min() > 0 > after.min()
    score = turned(query) @ turned(key).transpose(-1, -2)  # relative: the same at all places of equal distance
    weights = after / before.sum(-1, keepdim=True)  # RoFormer's: only the numerator is turned
    assert weights.isfinite().all() and weights.min() < 0 and (weights.sum(-1) - 1).abs().min() > 1e-3
    same = turned(query[:, :, :1].expand_as(query)) @ turned(key[:, :, :1].expand_as(key)).transpose(-1, -2)
    torch.testing.assert_close(same.diagonal(3, -2, -1), same[..., 0, 3:4].expand(B, H, T - 3))
    assert (score - query @ key.transpose(-1, -2)).abs().max() > 0.1


def test_values_of_one_give_one(features, batch):
    query, key, value = batch
    for causal in (True, False):
        ones = performer.PerformerAttention(features, causal)(query, key, torch.ones_like(value))
        torch.testing.assert_close(ones, torch.ones_like(value))


@pytest.mark.claim("performer-half-sums")
def test_sums_in_bfloat16_stall_and_ours_do_not():
    """bfloat16 has 8 bits: from 256 on, adding less than 1 changes nothing. States stay in the type of omega."""
    total = torch.zeros((), dtype=torch.bfloat16)
    for term in torch.rand(2000, generator=torch.Generator().manual_seed(0)).bfloat16():
        total = total + term
    assert total <= 256
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 2, 3000, 6)
    value = torch.rand(1, 2, 3000, 5)
    attention = performer.PerformerAttention(performer.PositiveFeatures(drawn().float()))
    half = attention(*(x.bfloat16() for x in (query, key, value)))
    assert half.dtype == torch.bfloat16
    assert (half.float() - attention(query, key, value)).abs().max() < 0.02
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = attention(query, key, value)
    assert (mixed.float() - attention(query, key, value)).abs().max() < 0.02
    attention.bfloat16()
    assert attention.empty(value).dtype == torch.bfloat16  # the state follows the directions
    attention.features.float()
    assert attention.empty(value).dtype == torch.float32


def test_redrawing_changes_the_function(features, batch):
    attention = performer.PerformerAttention(features)
    before, names = attention(*batch), attention.state_dict().keys()
    assert "features.omega" in names and "features.shift" in names  # saved with the weights
    performer.redraw(attention, torch.Generator().manual_seed(5))
    assert attention.features.omega.shape == (M, D) and attention.features.omega.dtype == torch.float64
    fresh = performer.PerformerAttention(performer.PositiveFeatures(drawn(5)))
    torch.testing.assert_close(attention(*batch), fresh(*batch))
    wide = performer.PerformerAttention(performer.PositiveFeatures(drawn(1, 20, 128)))
    performer.redraw(wide, torch.Generator().manual_seed(5))
    expected = performer.PositiveFeatures(drawn(5, 20, 128)).shift  # the shift belongs to the new directions
    torch.testing.assert_close(wide.features.shift, expected, rtol=1e-5, atol=0)
    assert expected > 0
    assert (attention(*batch) - before).abs().max() > 1e-2


@pytest.mark.parametrize("shape", [(B, H, T), (B, H, T - 1, E), (B, H + 1, T, E)])
def test_wrong_values_are_refused(features, batch, shape):
    query, key, value = batch
    wrong = torch.zeros(shape).double()
    with pytest.raises(ValueError, match="given"):
        performer.linear_attention(features, query, key, wrong)
    with pytest.raises(ValueError, match="given"):
        empty = performer.PerformerAttention(features).empty(value)
        performer.causal_attention(features, query, key, wrong, empty)


def test_wrong_chunks_are_refused(features, batch):
    query, key, value = batch
    empty = performer.PerformerAttention(features).empty(value)
    with pytest.raises(ValueError, match="given"):
        performer.causal_attention(features, query, key, value, empty, chunk=0)
    with pytest.raises(ValueError, match="given"):
        performer.causal_attention(features, query[:, :, :3], key, value, empty)


# other kernels


@pytest.mark.parametrize("function", [F.relu, torch.exp], ids=["relu", "exp"])
def test_other_kernels_equal_performer_pytorch(omega, batch, function, agrees):
    query, key, value = batch
    ours = performer.KernelFeatures(omega, function)
    theirs = library.generalized_kernel(query, projection_matrix=omega, kernel_fn=function)
    agrees(ours.query(query), theirs, f"{LIBRARY}.generalized_kernel", 1e-10)
    torch.testing.assert_close(ours.key(query), theirs)
    attention = performer.PerformerAttention(ours)
    torch.testing.assert_close(attention(query, key, value), quadratic(ours, query, key, value))
    other = performer.KernelFeatures(omega, function, floor=0.5)
    assert (other.query(query) - theirs).abs().max() > 0.1  # negative control


def test_elu_needs_no_directions(batch):
    query, key, value = batch
    features = performer.elu_features(D).double()
    torch.testing.assert_close(features.query(query), F.elu(query) + 1, rtol=1e-6, atol=1e-6)
    weight = ((F.elu(query) + 1) @ (F.elu(key) + 1).transpose(-1, -2)).tril()
    expected = weight @ value / weight.sum(-1, keepdim=True)
    ours = performer.PerformerAttention(features)(query, key, value)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


# what came after


@pytest.fixture
def rows():
    """query, key (2, 3, 9, 4), value (2, 3, 9, 5) and a gate (2, 3, 9) between 0 and 1, in float64."""
    torch.manual_seed(2)
    query, key = torch.randn(2, 2, 3, 9, 4, dtype=torch.float64)
    return query, key, torch.randn(2, 3, 9, 5, dtype=torch.float64), torch.rand(2, 3, 9, dtype=torch.float64)


@pytest.mark.equation("performer-recurrence", of=performer.recurrence)
def test_the_recurrence_is_its_equation(rows, formula):
    """Of two positions: the first leaves k_1 w_1 v_1 in the state."""
    query, key, value, gate = (x[1:, 2:, :2] for x in rows)
    write = 1.3 - gate
    eye = torch.eye(4, dtype=torch.float64)[None, None]  # queries that read the rows of the state

    def state(length):
        """The state (4, 5) after so many positions."""
        asked = [
            performer.recurrence(
                torch.cat([query[:, :, : length - 1], eye[:, :, r : r + 1]], dim=2),
                *(x[:, :, :length] for x in (key, value, gate, 0.5 * gate, write)),
            )[0, 0, -1]
            for r in range(4)
        ]
        return torch.stack(asked)

    before, after = state(1), state(2)
    a, e, w = gate[0, 0, 1], 0.5 * gate[0, 0, 1], write[0, 0, 1]
    names = {"S_t": Matrix(after), "S_{t-1}": Matrix(before), "a_t": a, "e_t": e, "w_t": w}
    names |= {"k_t": Matrix(key[0, 0, 1][:, None]), r"k_t^\top": Matrix(key[0, 0, 1][None])}
    formula("performer-recurrence").holds(names | {r"v_t^\top": Matrix(value[0, 0, 1][None])})


def test_linear_attention_is_a_special_case(features, batch):
    query, key, value = batch
    ones = F.pad(value, (0, 1), value=1.0)
    mixed = performer.linear(features.query(query), features.key(key), ones)
    whole = performer.PerformerAttention(features)(query, key, value)
    torch.testing.assert_close(mixed[..., :-1] / mixed[..., -1:], whole)


@pytest.mark.claim("performer-undivided")
def test_the_answer_is_not_divided(rows):
    """Asked by a query twice as long, the state answers twice as much; the libraries normalise afterwards."""
    query, key, value, gate = rows
    for model in (performer.linear, lambda *x: performer.decayed(*x, gate), lambda *x: performer.delta_net(*x, gate)):
        torch.testing.assert_close(model(2 * query, key, value), 2 * model(query, key, value))
    plain = performer.linear(query, key, value)
    state = key.transpose(-1, -2) @ value  # after the last position
    torch.testing.assert_close(plain[:, :, -1:], query[:, :, -1:] @ state)
    for layer, line in ((Mamba2Mixer, "self.norm(scan_output"), (Qwen3NextGatedDeltaNet, "self.norm(core_attn_out")):
        assert line in inspect.getsource(layer)


def with_decay(query, key, value, log_decay):
    """The quadratic form: weights fade by the product of the decays between key and query."""
    faded = segment_sum(log_decay).exp()
    return (query @ key.transpose(-1, -2) * faded) @ value


def test_a_decay_is_a_mask_of_products(rows, agrees):
    query, key, value, decay = rows
    ours = performer.decayed(query, key, value, decay)
    theirs = with_decay(query, key, value, decay.log())
    agrees(ours, theirs, "transformers.models.mamba2.modeling_mamba2.segment_sum", 1e-10)
    assert (performer.linear(query, key, value) - theirs).abs().max() > 0.1  # negative control


def test_retention_is_a_special_case(rows):
    """The parallel form of RetNet's paper: D_nm = gamma^(n - m)."""
    query, key, value, _ = rows
    gamma = 1 - 2.0 ** -torch.tensor([1, 2, 5]).double()
    n = torch.arange(9)
    mask = (gamma[:, None, None] ** (n[:, None] - n)).tril()
    expected = (query @ key.transpose(-1, -2) * mask) @ value
    torch.testing.assert_close(performer.retnet(query, key, value, gamma), expected)


def test_mamba2_is_a_special_case(rows, agrees):
    """h_t = exp(A dt) h_{t-1} + dt B x, y = C h, with transformers' sums of A dt."""
    query, key, value, time = rows
    rate = torch.tensor([0.3, 1.0, 4.0]).double()
    ours = performer.mamba2(query, key, value, rate, time)
    theirs = with_decay(query, key, value * time[..., None], -rate[:, None] * time)
    agrees(ours, theirs, "transformers.models.mamba2.modeling_mamba2.segment_sum", 1e-10)
    assert (performer.mamba2(query, key, value, rate, time + 0.1) - theirs).abs().max() > 0.01  # negative control


def test_the_delta_rule_is_a_special_case(rows, agrees):
    """transformers' code for Qwen3-Next, whose decay is 1 here, then not; it computes in float32."""
    query, key, value, beta = rows
    swapped = [x.transpose(1, 2) for x in (query, F.normalize(key, dim=-1), value)]
    name = "transformers.models.qwen3_next.modeling_qwen3_next.torch_recurrent_gated_delta_rule"
    for log_decay in (torch.zeros_like(beta), -beta):
        theirs = torch_recurrent_gated_delta_rule(
            *(x.float() for x in swapped), log_decay.transpose(1, 2).float(), beta.transpose(1, 2).float()
        )[0]
        ours = performer.delta_net(query / 2, key, value, beta)  # transformers divides queries by sqrt(4)
        if log_decay.any():
            unit = F.normalize(key, dim=-1)
            ours = performer.recurrence(query / 2, unit, value, log_decay.exp(), beta, beta)
        agrees(ours.transpose(1, 2).float(), theirs, name, 1e-5)
    assert (performer.linear(query / 2, key, value).transpose(1, 2) - theirs).abs().max() > 0.1  # negative control


@pytest.mark.claim("performer-full-size")
def test_three_of_four_layers_of_qwen3_next_are_linear():
    config = Qwen3NextConfig()
    assert config.num_hidden_layers == 48
    assert config.layer_types == 12 * (3 * ["linear_attention"] + ["full_attention"])


@pytest.mark.claim("performer-delta")
def test_the_delta_rule_replaces_and_diverges_on_long_keys(rows):
    """beta = 1 and keys of length 1: asked for a key just written, the state answers its value."""
    _, key, value, beta = rows
    unit = F.normalize(key, dim=-1)
    torch.testing.assert_close(performer.delta_net(unit, key, value, torch.ones_like(beta)), value)
    long = 2 * unit.repeat(1, 1, 20, 1)
    values, ones = value.repeat(1, 1, 20, 1), torch.ones(2, 3, 180).double()
    wild = performer.recurrence(long, long, values, ones, ones, ones)
    assert wild[:, :, -1].abs().max() > 1e6  # beta |k|^2 = 4 > 2


@pytest.mark.claim("performer-by-hand")
def test_the_example_by_hand():
    """One feature of queries and keys, directions 1 and -1: the numbers of the table on the page."""
    omega = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    query, key = torch.ones(1, 1, 1, 1).double(), torch.tensor([0.0, 1.0]).double().view(1, 1, 2, 1)
    value = torch.tensor([10.0, 20.0]).double().view(1, 1, 2, 1)
    phi_q, phi_k = performer.positive_features(query[0, 0], omega), performer.positive_features(key[0, 0], omega)
    assert phi_q[0].tolist() == pytest.approx([1.1658, 0.1578], abs=5e-5)
    assert phi_k[0].tolist() == pytest.approx([0.7071, 0.7071], abs=5e-5)
    assert phi_k[1].tolist() == pytest.approx([1.1658, 0.1578], abs=5e-5)
    estimate = (phi_q @ phi_k.T)[0]
    assert estimate.tolist() == pytest.approx([0.9359, 1.3840], abs=6e-5)
    assert (estimate / estimate.sum()).tolist() == pytest.approx([0.4034, 0.5966], abs=6e-5)
    state, total = phi_k.T @ value[0, 0], phi_k.sum(0)
    assert state[:, 0].tolist() == pytest.approx([30.387, 10.227], abs=6e-4)
    assert total.tolist() == pytest.approx([1.8729, 0.8649], abs=6e-5)
    assert (phi_q @ state).item() == pytest.approx(37.040, abs=2e-3)
    assert (phi_q @ total).item() == pytest.approx(2.3199, abs=1e-4)
    ours = performer.linear_attention(performer.PositiveFeatures(omega), query, key, value)
    assert ours.item() == pytest.approx(15.966, abs=1e-3)
    assert exact(query, key, value).item() == pytest.approx(17.311, abs=1e-3)
    variance = performer.positive_variance(query[0, 0, 0], key[0, 0, 1], 2).item()
    assert variance == pytest.approx(198.02, abs=0.01)
