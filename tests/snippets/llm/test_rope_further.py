"""NoPE layers, the reach of a base, a factor for each pair, places in the plane: equations and transformers."""

import math
import re

import pytest
import torch
from transformers import LlamaConfig, Phi3Config, modeling_rope_utils
from transformers.models.llama4.configuration_llama4 import Llama4TextConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLVisionRotaryEmbedding, apply_rotary_pos_emb_vision

from snippets.llm import rope
from snippets.llm import rope_further as further
from theme.page.pages import ROOT

PAGE = (ROOT / "docs/posts/LLM/ROPE.md").read_text(encoding="utf-8")

# layers without positions


def test_nope_is_a_softmax_of_content():
    query, key, value = torch.randn(3, 2, 3, 7, 10, dtype=torch.float64)
    score = (query @ key.transpose(2, 3) / math.sqrt(10)).masked_fill(torch.ones(7, 7).triu(1).bool(), -math.inf)
    attend = further.Nope()
    torch.testing.assert_close(attend(query, key, value), score.softmax(dim=-1) @ value)
    x = torch.randn(2, 7, 12)
    assert attend.embed(x) is x
    order = [3, 1, 0, 2, 4, 5, 6]
    torch.testing.assert_close(
        attend(query, key[:, :, order], value[:, :, order])[:, :, 4:], attend(query, key, value)[:, :, 4:]
    )


def test_an_unturned_block_ignores_the_models_positions():
    x, block = torch.randn(2, 7, 12), rope.Block(12, 2)
    turning = rope.Rope(rope.inverse_frequencies(6))
    ours = further.Unturned(block)(x, turning)
    torch.testing.assert_close(ours, block(x, rope.Rope(torch.zeros(3))))  # nothing turns
    assert (ours - block(x, turning)).abs().max() > 1e-4


@pytest.mark.claim("rope-nope-growth")
def test_library_llama_4_enlarges_queries_of_its_unturned_layers():
    """From 8,192 tokens on, by 0.1 times the logarithm of how many times that the position is, plus 1."""
    config = Llama4TextConfig()
    assert config.attn_temperature_tuning and (config.floor_scale, config.attn_scale) == (8192, 0.1)


# a factor for each pair


@pytest.mark.equation("rope-long", of=further.by_factors)
@pytest.mark.equation("rope-long-magnitude", of=further.longrope_magnitude)
def test_longrope_is_its_formulas(formula):
    theta, factors = rope.inverse_frequencies(10), torch.tensor([1.0, 1.3, 2.5, 6.0, 9.0], dtype=torch.float64)
    slower = further.by_factors(theta, factors)
    formula("rope-long").holds({r"\theta'_i": slower, r"\theta_i": theta, r"\lambda_i": factors})
    grown = further.longrope_magnitude(8.0, 128)
    formula("rope-long-magnitude").holds({"a": grown, "s": 8.0, "L": 128})
    assert further.longrope_magnitude(1.0, 128) == 1


@pytest.mark.claim("rope-long-library")
def test_library_longrope_divides_and_grows_as_ours(agrees):
    short, long = [1.0 + 0.1 * i for i in range(8)], [2.0 + i for i in range(8)]
    parameters = {"rope_type": "longrope", "rope_theta": 5000.0, "short_factor": short, "long_factor": long}
    parameters |= {"original_max_position_embeddings": 64, "factor": 4.0}
    shape = {"hidden_size": 48, "num_attention_heads": 3, "max_position_embeddings": 256}
    config = LlamaConfig(**shape, rope_parameters=parameters)
    theta = rope.inverse_frequencies(16, 5000.0)
    for length, factors in ((64, short), (65, long)):
        theirs, grown = modeling_rope_utils.ROPE_INIT_FUNCTIONS["longrope"](config, "cpu", seq_len=length)
        ours = further.by_factors(theta, torch.tensor(factors))
        agrees(ours.log(), theirs.log(), "transformers.modeling_rope_utils._compute_longrope_parameters", 1e-6)
        assert grown == pytest.approx(further.longrope_magnitude(4.0, 64))  # for short texts, too
        assert (theirs.double() - theta).abs().max() > 1e-3  # negative control
    assert abs(further.longrope_magnitude(4.0, 64) - rope.yarn_magnitude(4.0)) > 1e-3


def test_search_finds_a_hidden_ladder_and_keeps_order():
    hidden, tried = torch.tensor([1.0, 1.0, 2.0, 5.0, 8.0]).double(), []

    def loss(factors: torch.Tensor) -> float:
        tried.append(factors)
        return (factors.log() - hidden.log()).pow(2).sum().item()

    best, lowest = further.search_factors(loss, torch.full((5,), 3.0).double(), 400, 9.0)
    assert lowest == loss(best) == min(map(loss, list(tried))) and lowest < 0.2 < loss(torch.full((5,), 3.0).double())
    assert all((one[1:] >= one[:-1]).all() and one.min() >= 1 and one.max() <= 9 for one in tried)
    assert any(one.max() == 9 for one in tried)  # the bound was met
    again, _ = further.search_factors(loss, torch.full((5,), 3.0).double(), 400, 9.0)
    assert torch.equal(again, best)


# the reach of a base


@pytest.mark.equation("rope-similar", of=rope.mean_cosine)
def test_a_key_like_the_query_scores_by_the_mean_cosine(formula):
    """Exactly: of independent features with variance sigma^2, the mean score is sigma^2 times the rotation's trace."""
    theta, distances = rope.inverse_frequencies(20), torch.tensor([0, 1, 5, 30, 200])
    every = torch.eye(20, dtype=torch.float64).expand(5, 20, 20).transpose(0, 1)[None]  # a feature each, as heads
    turned = rope.rotate_pairs(every, rope.angles(distances, theta))
    trace = (turned * every).sum(dim=(0, 1, 3))
    c = rope.mean_cosine(distances, theta)
    names = {r"\mathbb{E}\langle R_m q, R_n q\rangle": 1.3**2 * trace, "c(m - n)": c, r"\sigma": 1.3, "d": 20}
    formula("rope-similar").holds(names)
    query, key = torch.randn(2, 1, 40_000, 1, 20, dtype=torch.float64)
    for m, expected in zip(distances.tolist(), 20 * c, strict=True):
        angle = rope.angles(torch.tensor([m]), theta)
        alike, unlike = ((rope.rotate_pairs(query, angle) * one).sum(dim=-1).mean() for one in (query, key))
        assert abs(alike - expected) < 0.15 and abs(unlike) < 0.15


@pytest.mark.claim("rope-reach")
def test_how_far_bases_reach():
    """Heads of 128 features, as in the page's table; and of 32, the lab's."""
    found = {base: further.reach(rope.inverse_frequencies(128, base), 200_000) for base in (1e4, 5e5, 1e6)}
    assert found == {1e4: 1707, 5e5: 18_438, 1e6: 27_115}
    for base, distance in ((24.0, 14), (1e4, 474), (5e5, 2089)):
        theta = rope.inverse_frequencies(32, base)
        assert further.reach(theta, 10_000) == distance
        score = rope.mean_cosine(torch.arange(distance + 1), theta)
        assert score[distance] < 0 <= score[:distance].min()
    assert further.reach(rope.inverse_frequencies(128), 500) == 500  # none so near


# the plane


@pytest.mark.equation("rope-plane", of=further.plane_angles)
def test_scores_in_the_plane_know_two_differences(formula):
    query, key = torch.randn(2, 20, dtype=torch.float64)
    theta = rope.inverse_frequencies(10)
    row, column = torch.tensor([0, 1, 2, 3, 4, 10, 11, 12, 13, 14]), torch.tensor([5, 6, 7, 8, 9, 15, 16, 17, 18, 19])

    def turned(x, r, c):
        return rope.rotate_halves(x.view(1, 1, 1, 20), further.plane_angles(torch.tensor([[r, c]]), theta)).flatten()

    def alone(x, by):
        return rope.rotate_halves(x.view(1, 1, 1, 10), rope.angles(torch.tensor([by]), theta)).flatten()

    names = {
        r"R_{u,w} q": turned(query, 9, 4),
        r"R_{u',w'} k": turned(key, 3, 6),
        r"R_{u-u'} q^{\text{row}}": alone(query[row], 6),
        r"k^{\text{row}}": key[row],
        r"R_{w-w'} q^{\text{col}}": alone(query[column], -2),
        r"k^{\text{col}}": key[column],
    }
    formula("rope-plane").holds(names)


@pytest.mark.claim("rope-two-d")
def test_library_qwen_turns_pictures_so(agrees):
    """Scores know both differences and nothing else of the places; Qwen2-VL's pictures are turned so."""
    config = Qwen2VLVisionConfig(embed_dim=60, num_heads=3)  # heads of 20 features
    places = torch.tensor([[0, 0], [0, 1], [2, 1], [3, 5], [7, 2], [6, 6], [1, 4]])
    cos, sin = Qwen2VLVisionRotaryEmbedding(config)(torch.zeros(1), places.T[None])
    query, key = torch.randn(2, 7, 3, 20)
    theirs = apply_rotary_pos_emb_vision(query, key, cos[0], sin[0])
    angle = further.plane_angles(places, rope.inverse_frequencies(10))
    ours = [rope.rotate_halves(x.transpose(0, 1)[None], angle)[0].transpose(0, 1) for x in (query, key)]
    name = "transformers.models.qwen2_vl.modeling_qwen2_vl.apply_rotary_pos_emb_vision"
    agrees(torch.stack(ours), torch.stack(theirs), name, 1e-5)
    swapped = rope.rotate_halves(
        query.transpose(0, 1)[None], further.plane_angles(places.flip(1), rope.inverse_frequencies(10))
    )
    assert (swapped[0].transpose(0, 1) - theirs[0]).abs().max() > 0.1  # negative control

    def score(one, other):
        at = [further.plane_angles(torch.tensor([place]), rope.inverse_frequencies(10)) for place in (one, other)]
        pair = [rope.rotate_halves(x[:1, :1].double()[None], by) for x, by in zip((query, key), at, strict=True)]
        return (pair[0] * pair[1]).sum().item()

    near = score((3, 5), (1, 4))
    assert score((103, 65), (101, 64)) == pytest.approx(near, abs=1e-9)
    assert abs(score((4, 5), (1, 4)) - near) > 1e-4 and abs(score((3, 6), (1, 4)) - near) > 1e-4


# the page's tables


@pytest.mark.claim("rope-full-size")
def test_the_settings_of_the_table():
    """The distances, from head and base; transformers' defaults for Llama and Phi-3 have the heads of the table."""
    cells = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| first negative")]
    distances = [int(re.sub(r"\D", "", cell)) for cell in cells[0][1:]]
    models = ((32, 1e4), (128, 1e4), (128, 5e5), (128, 1e6), (96, 1e4))
    assert distances == [further.reach(rope.inverse_frequencies(dim, base), 200_000) for dim, base in models]
    for config, dim in ((LlamaConfig(), 128), (Phi3Config(), 96)):
        assert config.hidden_size // config.num_attention_heads == dim
        assert config.rope_parameters["rope_theta"] == 10_000


@pytest.mark.claim("rope-by-hand")
def test_the_numbers_of_the_worked_example():
    """Each is computed by the page's code, and stands in its row to four digits."""
    query, key = (torch.tensor(x, dtype=torch.float64).view(1, 1, 1, 4) for x in ([1, 0, 2, 0], [1, 0, 1, 0]))
    theta = rope.inverse_frequencies(4, 100.0)

    def turned(x, at, by=theta):
        return rope.rotate_pairs(x, rope.angles(torch.tensor([at]), by)).flatten()

    def score(by=theta):
        return (turned(query, 3, by) @ turned(key, 1, by)).item()

    halves = rope.rotate_halves(query[..., rope.halves_order(4)], rope.angles(torch.tensor([3]), theta)).flatten()
    weights = rope.Alibi(2)(*torch.zeros(2, 1, 2, 3, 4), torch.eye(3).expand(1, 2, 3, 3))[0, :, 2]
    alibi = (weights[:, 0] / weights[:, 2]).log()
    turns = 20 * theta / (2 * math.pi)
    parts = rope.by_parts(theta, 4.0, 20, 1.0, 4.0)
    ntk = rope.ntk_aware(4, 4.0, 100.0)
    products = turned(query, 3) * turned(key, 1)
    apart = [(turned(query, 2) * turned(key, 0))[i : i + 2].sum() for i in (0, 2)]
    rows = {
        "the frequencies": theta[1:],
        "the query, turned": turned(query, 3),
        "the key, turned": turned(key, 1),
        "their score": [*products.abs(), score()],
        "the same from the distance 2": [*map(abs, apart), sum(apart)],
        "in halves": halves,
        "the mean cosine": rope.mean_cosine(torch.tensor([2]), theta),
        "interpolation": [*rope.linear(theta, 4.0), score(rope.linear(theta, 4.0))],
        "NTK-aware": [ntk[1], score(ntk)],
        "turns within": turns,
        "by parts": [(parts[0] / theta[0] - 0.25) / 0.75, *parts],
        "YaRN's growth": [rope.yarn_magnitude(4.0), rope.yarn_magnitude(4.0) ** 2],
        "LongRoPE's": [further.longrope_magnitude(4.0, 20)],
        "ALiBi's": alibi,
    }
    section = re.search(r"^## By hand\n(.*?)^## ", PAGE, re.M | re.S)[1]
    table = {line.split(" | ")[0].strip("| "): line for line in section.splitlines() if line.startswith("| ")}
    assert len(table) == len(rows) + 2  # with head and rule
    for name, values in rows.items():
        (line,) = (line for step, line in table.items() if step.startswith(name))
        for value in values:
            assert f"{float(value):.4f}" in line, (name, float(value))


# wrong input

THETA = rope.inverse_frequencies(10)
WRONG = {
    "too few factors": lambda: further.by_factors(THETA, torch.ones(4)),
    "a factor below 1": lambda: further.by_factors(THETA, torch.full((5,), 0.9)),
    "no number": lambda: further.by_factors(THETA, torch.full((5,), math.nan)),
    "factor": lambda: further.longrope_magnitude(0.5, 128),
    "one position": lambda: further.longrope_magnitude(2.0, 1),
    "no round": lambda: further.search_factors(lambda factors: 0.0, torch.ones(5), 0, 8.0),
    "a small bound": lambda: further.search_factors(lambda factors: 0.0, torch.ones(5), 3, 0.5),
    "a matrix": lambda: further.search_factors(lambda factors: 0.0, torch.ones(5, 2), 3, 8.0),
    "no distance": lambda: further.reach(THETA, 0),
    "one coordinate": lambda: further.plane_angles(torch.arange(5), THETA),
    "three coordinates": lambda: further.plane_angles(torch.zeros(5, 3), THETA),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused(name):
    with pytest.raises(ValueError, match="expected"):
        WRONG[name]()
