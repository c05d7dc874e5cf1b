"""The lab of text to image: four generators at equal compute, the Fréchet distance's bias, and a flow in the plane."""

import math
import statistics

import pytest

from snippets.data.scenes import HELD_OUT
from tests.labs.spread import greater, seeds, tie

LAB = "TextToImage"
NAMES = ("codes", "pixels", "latents", "flow")


@pytest.fixture
def lab(results):
    return results(LAB)


def constant(value: float, like: dict) -> dict:
    """What never varies, to compare a spread with."""
    count = len(like["seeds"])
    return {"mean": value, "sd": 0.0, "seeds": [value] * count}


@pytest.mark.claim("tti-equal-compute")
def test_all_trainings_cost_the_same(lab):
    """Within half a step's operations; captions of new pairs never occur in training, the others all do."""
    for name in NAMES:
        spent = lab[f"train.{name}.steps"] * lab[f"train.{name}.giga"]
        assert abs(spent - lab["train.budget"]) <= lab[f"train.{name}.giga"] / 2 + 1e-6, name
    assert lab["data.new_captions"] == 1 and lab["data.captions"] == 16 * 2 * 4
    assert lab["data.scenes"] > 20 * lab["data.captions"]


@pytest.mark.claim("tti-ranks")
def test_latents_and_flow_follow_captions_best(lab):
    place = {name: lab[f"result.{name}.seen_place"] for name in NAMES}
    for better in ("latents", "flow"):
        for worse in ("codes", "pixels"):
            greater(place[better], place[worse], paired=True)
    tie(place["latents"], place["flow"], within=0.05, paired=True)
    tie(place["pixels"], place["codes"], within=0.2, paired=True)
    greater(lab["result.pixels.seen_colour"], lab["result.codes.seen_colour"], paired=True)


@pytest.mark.claim("tti-new-pairs")
def test_new_pairs_are_harder_and_hardest_for_the_transformer_that_writes(lab):
    lost = {}
    for name in NAMES:
        seen, held = lab[f"result.{name}.seen_place"], lab[f"result.{name}.held_place"]
        greater(seen, held, paired=True)
        apart = seeds(seen) - seeds(held)
        lost[name] = {"mean": apart.mean(), "sd": apart.std(ddof=1), "seeds": list(apart)}
    for name in NAMES[1:]:
        greater(lost["codes"], lost[name], paired=True)


@pytest.mark.claim("tti-measures")
def test_the_frechet_distance_and_the_clip_score_rank_otherwise_than_the_reader(lab):
    for name in NAMES[:3]:
        greater(lab["result.flow.frechet"], lab[f"result.{name}.frechet"], paired=True)
    for name in ("pixels", "latents"):
        greater(lab[f"result.{name}.clip"], lab["result.flow.clip"], paired=True)
    tie(lab["result.codes.clip"], lab["result.flow.clip"], within=0.03, paired=True)
    assert lab["result.flow.frechet.mean"] > 2 * max(lab[f"result.{name}.frechet.mean"] for name in NAMES[:3])
    greater(lab["result.codes.frechet"], lab["result.pixels.frechet"], paired=True)
    assert lab["clip.real_shuffled"] < 0.3 < 0.9 < lab["clip.real"] < 1
    assert lab["train.flow.guidance"] == 4


@pytest.mark.claim("tti-coders")
def test_most_of_the_distance_of_codes_is_the_codebooks(lab):
    assert 0.6 < lab["coders.frechet.codes"] / lab["result.codes.frechet.mean"] < 1
    assert lab["coders.frechet.latents"] < lab["coders.frechet.codes"] / 3
    assert lab["coders.latents.kind"] == 1 and 0.95 < lab["coders.codes.kind"] < 1


@pytest.mark.claim("tti-cost")
def test_writing_codes_costs_least(lab):
    giga = {name: lab[f"draw.{name}.giga"] for name in NAMES}
    assert 5.5 < giga["flow"] / giga["codes"] < 6.5
    assert max(giga["codes"], giga["flow"]) < min(giga["pixels"], giga["latents"])
    assert lab["data.tokens"] == 64 and lab["train.sampler"] == 20


@pytest.mark.claim("tti-settings")
def test_the_best_settings_lie_inside_of_those_that_were_tried(lab):
    rates, scales = lab["train.rates"], lab["train.guidances"]
    assert (min(rates), max(rates), len(rates)) == (0.001, 0.032, 6) and scales == [1, 2, 4, 8]
    for name in NAMES:
        tried = lab[f"train.{name}.tried"]
        best = tried.index(max(tried))
        assert lab[f"train.{name}.rate"] == rates[best // len(scales)]
        assert lab[f"train.{name}.guidance"] == scales[best % len(scales)]
    assert all(min(rates) < lab[f"train.{name}.rate"] < max(rates) for name in NAMES)
    edges = [name for name in NAMES if lab[f"train.{name}.guidance"] in (min(scales), max(scales))]
    assert edges == ["pixels"] and lab["train.pixels.guidance"] == 1


@pytest.mark.claim("tti-grid")
def test_the_last_three_captions_of_the_grid_are_of_new_pairs(lab):
    pairs = [tuple(caption.split()[2:4]) for caption in lab["grid.captions"]]
    assert len(pairs) == 9
    assert [pair in HELD_OUT for pair in pairs] == [False] * 6 + [True] * 3
    for name in ("latents", "flow"):
        greater(lab[f"result.{name}.seen_kind"], lab["result.pixels.seen_kind"], paired=True)


@pytest.mark.claim("tti-bias")
def test_distances_fall_like_a_line_in_one_over_the_number_of_pictures(lab):
    """The correlation of mean distances and 1/N, for both rows."""
    sizes = lab["bias.sizes"]
    for name in ("real", "flow"):
        means = [lab[f"bias.{name}.n{size}.mean"] for size in sizes]
        assert statistics.correlation(means, [1 / size for size in sizes]) > 0.95
        greater(lab[f"bias.{name}.n64"], lab[f"bias.{name}.n1024"], paired=True)
        assert len(seeds(lab[f"bias.{name}.n64"])) == 10
        slope = (means[0] - means[-1]) / (1 / sizes[0] - 1 / sizes[-1])
        line = [means[-1] + slope * (1 / size - 1 / sizes[-1]) for size in sizes]
        assert max(abs(a - b) for a, b in zip(means, line, strict=True)) < 0.3 * (means[0] - means[-1])
    assert 2.5 < lab["bias.real.n64.mean"] < 4 and lab["bias.real.n1024.mean"] < 0.3
    assert 15 < lab["bias.flow.n1024.mean"] < 17 < 20 < lab["bias.flow.n64.mean"] < 23


@pytest.mark.claim("tti-limit-real")
def test_the_limit_for_real_pictures_is_no_distance(lab):
    limit = lab["bias.real.limit"]
    tie(limit, constant(0.0, limit), within=0.1)
    assert limit["sd"] > 2 * lab["bias.real.n1024.sd"]
    greater(lab["bias.real.n64"], lab["result.pixels.frechet"])


@pytest.mark.claim("tti-toy")
def test_even_times_and_those_of_the_cosine_schedule_do_alike(lab):
    even, linear, cosine = (lab[f"toy.error.{name}"] for name in ("even", "linear", "cosine"))
    assert all(abs(math.log(a / b)) < 0.11 for a, b in zip(even, cosine, strict=True))
    assert all(c > 1.1 * max(a, b) for a, b, c in zip(even[1:], cosine[1:], linear[1:], strict=True))
    assert all(later < earlier for row in (even, linear, cosine) for earlier, later in zip(row, row[1:], strict=False))


@pytest.mark.claim("tti-bend")
def test_ways_in_the_plane_are_far_from_straight(lab):
    assert 0.9 < lab["toy.bend"] < 1.2 and 0.7 < lab["toy.length"] < 1
