"""The lab of CLIP: what the post says of its results, on several trainings."""

import math

import pytest

from tests.labs.spread import greater, paired, seeds, tie

SIZES = ["16", "64", "256"]


@pytest.fixture
def lab(results):
    return results("CLIP")


def chance(value: float, like: dict) -> dict:
    """What never varies, to compare a spread with."""
    count = len(like["seeds"])
    return {"mean": value, "sd": 0.0, "seeds": [value] * count}


def inside(row: dict) -> bool:
    """The rate that was taken is the best of those tried, and neither the lowest nor the highest of them."""
    best = row["rates"].index(row["rate"])
    return (
        row["rates"] == sorted(row["rates"])
        and 0 < best < len(row["rates"]) - 1
        and row["tried"][best] == max(row["tried"])
    )


def test_training_never_showed_a_held_out_pair(lab):
    assert lab["data.pairs"] == 16 and lab["data.held_out_in_training"] == 0
    assert lab["train.one_token_a_word"]


@pytest.mark.claim("clip-zero-shot")
def test_names_pairs_that_it_saw_and_most_that_it_did_not(lab):
    seen, held = lab["batch.64.seen"], lab["batch.64.held"]
    assert len(seeds(seen)) == 5 and 0.9 < seen["mean"] < 0.95
    assert 0.65 < held["mean"] < 0.8 and seeds(held).min() > 0.6
    greater(seen, held, paired=True)
    assert held["sd"] > 2 * seen["sd"]


@pytest.mark.claim("clip-batch")
def test_at_equal_pictures_the_largest_batch_is_worst(lab):
    for what in ("seen", "held"):
        greater(lab[f"batch.64.{what}"], lab[f"batch.256.{what}"])
        greater(lab[f"batch.16.{what}"], lab[f"batch.256.{what}"])
        tie(lab[f"batch.16.{what}"], lab[f"batch.64.{what}"], within=0.05)
    rows = [lab[f"batch.{name}"] for name in [*SIZES, "short"]]
    assert all(inside(row) and len(row["rates"]) >= 3 and len(seeds(row["seen"])) == 5 for row in rows)
    tried = dict(zip(lab["batch.64.rates"], lab["batch.64.tried"], strict=True))
    assert tried[0.001] == tried[0.002] and lab["batch.64.rate"] == 0.001
    steps = [lab[f"batch.{size}.steps"] for size in SIZES]
    assert steps[0] == 4 * steps[1] == 1500 and steps[2] == 93
    assert lab["batch.short.steps"] == steps[1]


@pytest.mark.claim("clip-batch-steps")
def test_at_equal_steps_the_larger_batch_is_better(lab):
    greater(lab["batch.64.seen"], lab["batch.short.seen"])


@pytest.mark.claim("clip-temperature")
def test_the_scale_dips_and_rises(lab):
    for size in SIZES:
        assert seeds(lab[f"batch.{size}.lowest_scale"]).max() < 1 / 0.07
        assert seeds(lab[f"batch.{size}.scale"]).max() < 50
    greater(lab["batch.64.scale"], chance(1 / 0.07, lab["batch.64.scale"]), paired=True)
    greater(lab["batch.16.scale"], lab["batch.64.scale"])
    greater(lab["batch.64.scale"], lab["batch.256.scale"])


@pytest.mark.claim("clip-ensemble")
def test_the_ensemble_beats_the_mean_prompt_and_not_the_best(lab):
    for what in ("seen", "held"):
        every, plain, single = (lab[f"prompts.{what}.{name}"] for name in ("ensemble", "plain", "single"))
        greater(every, single, paired=True)
        greater(single, lab[f"prompts.{what}.worst"], paired=True)
        for name, other in (("plain", plain), ("single", single)):
            assert lab[f"gains.{what}.over_{name}"] == pytest.approx(list(paired(every, other))[1:], abs=1e-9)
    greater(lab["prompts.seen.plain"], lab["prompts.seen.ensemble"], paired=True)
    low, high = lab["gains.held.over_plain"]
    assert low < 0 < high
    assert lab["prompts.number"] == 15


@pytest.mark.claim("clip-probe")
def test_sixteen_labels_are_as_good_as_none(lab):
    zero = lab["batch.64.seen"]
    tie(lab["probe.trained.seen.16"], zero, within=0.02, paired=True)
    for each in ("1", "4"):
        greater(zero, lab[f"probe.trained.seen.{each}"], paired=True)
    for each in ("1", "4", "16"):
        greater(lab[f"probe.trained.seen.{each}"], lab[f"probe.fresh.seen.{each}"], paired=True)
    assert paired(lab["probe.trained.seen.16"], lab["probe.fresh.seen.16"]).low > 0.3


@pytest.mark.claim("clip-probe-held")
def test_on_pairs_without_labels_zero_shot_is_better_than_two_probes(lab):
    greater(lab["batch.64.held"], lab["probe.trained.held"], paired=True)
    greater(lab["probe.trained.held"], lab["probe.fresh.held"], paired=True)


@pytest.mark.claim("clip-retrieval")
def test_retrieval_in_both_directions(lab):
    for what, first, five in (("seen", (0.5, 0.75), 0.95), ("held", (0.4, 0.62), 0.85)):
        for way in ("text", "picture"):
            assert first[0] < lab[f"retrieval.{what}.{way}_at_1"]["mean"] < first[1]
            assert lab[f"retrieval.{what}.{way}_at_5"]["mean"] > five
        for k in (1, 5):
            tie(lab[f"retrieval.{what}.text_at_{k}"], lab[f"retrieval.{what}.picture_at_{k}"], within=0.03)
    for way in ("text", "picture"):
        greater(lab[f"retrieval.seen.{way}_at_1"], lab[f"retrieval.held.{way}_at_1"], paired=True)
    assert 0 < lab["retrieval.seen.repeated"] < lab["data.tested"] / 4
    assert 0 < lab["retrieval.held.repeated"] < lab["data.tested"] / 4


@pytest.mark.claim("clip-matrix")
def test_each_picture_is_nearest_to_its_caption(lab):
    assert lab["matrix.right"] == 8
    assert lab["matrix.diagonal"] > 0.9 and lab["matrix.others"] < 0.2
    assert lab["matrix.next_place"] == [5, 2] and lab["matrix.next"] < lab["matrix.diagonal"]


@pytest.mark.claim("clip-gap")
def test_the_gap_narrows_and_stays_visible(lab):
    greater(lab["gap.distance.start"], lab["gap.distance.end"], paired=True)
    assert seeds(lab["gap.distance.start"]).min() > 1.2 and seeds(lab["gap.distance.end"]).max() < 0.15
    assert seeds(lab["gap.told_apart.start"]).min() == 1
    assert seeds(lab["gap.told_apart.end"]).min() > 0.97
    assert seeds(lab["gap.pictures.start"]).min() > 0.99
    assert 0.8 < seeds(lab["gap.texts.start"]).min()
    greater(lab["gap.pictures.start"], lab["gap.texts.start"], paired=True)
    greater(lab["gap.own.end"], chance(0.9, lab["gap.own.end"]), paired=True)
    assert math.isclose(lab["gap.own.start"]["mean"], 0, abs_tol=0.15)


@pytest.mark.claim("clip-order")
def test_without_hard_negatives_relations_and_places_are_chance(lab):
    for kind in ("relations", "places"):
        for what in ("seen", "held"):
            for name in ("main", "plain"):
                share = lab[f"order.{name}.{kind}.{what}"]
                tie(share, chance(0.5, share), within=0.05, paired=True)


@pytest.mark.claim("clip-order-colours")
def test_exchanged_colours_are_told_apart_without_hard_negatives(lab):
    for what in ("seen", "held"):
        for name in ("main", "plain"):
            share = lab[f"order.{name}.colours.{what}"]
            greater(share, chance(0.6, share), paired=True)
            assert seeds(share).min() > 0.6


@pytest.mark.claim("clip-fault-length")
def test_a_forgotten_length_is_not_noticed(lab):
    tie(lab["faults.no_length"], lab["faults.none"], within=0.02, paired=True)


@pytest.mark.claim("clip-fault-last")
def test_the_last_place_costs_some_points(lab):
    greater(lab["faults.none"], lab["faults.last_place"], paired=True)
    assert 0.03 < lab["faults.none"]["mean"] - lab["faults.last_place"]["mean"] < 0.12


@pytest.mark.claim("clip-fault-mean")
def test_a_bare_mean_costs_some_points(lab):
    greater(lab["prompts.seen.ensemble"], lab["faults.mean"], paired=True)
    assert 0.6 < lab["faults.shortest_mean"] < lab["faults.longest_mean"] < 0.95


@pytest.mark.claim("clip-hard")
def test_hard_negatives_teach_relations_and_places(lab):
    for name in ("plain", "hard"):
        assert inside(lab[f"order.{name}"]) and lab[f"order.{name}.rates"][0] < lab["order.plain.rate"]
    for kind in ("relations", "places"):
        for what in ("seen", "held"):
            hard = lab[f"order.hard.{kind}.{what}"]
            assert len(seeds(hard)) == len(seeds(lab[f"order.plain.{kind}.{what}"])) == 5
            greater(hard, chance(0.5, hard), paired=True)
            greater(hard, lab[f"order.plain.{kind}.{what}"])
    shares = seeds(lab["order.hard.relations.seen"])
    assert lab["order.hard.relations.range_seen"] == [shares.min(), shares.max()]
    assert shares.max() - shares.min() > 0.3
    for name in ("plain", "hard"):
        greater(lab["batch.64.seen"], lab[f"order.{name}.zero_shot.seen"])
        greater(lab["retrieval.seen.text_at_1"], lab[f"order.{name}.text_at_1.seen"])
    assert lab["order.training_pictures"] < lab["data.scenes"] / 3 and lab["order.pictures"] > lab["train.pictures"]


@pytest.mark.claim("clip-hard-price")
def test_hard_negatives_cost_exchanged_colours(lab):
    greater(lab["order.plain.colours.seen"], lab["order.hard.colours.seen"])
    relations, colours = (seeds(lab[f"order.hard.{kind}.seen"]) for kind in ("relations", "colours"))
    assert lab["order.hard.colours.range_seen"] == [colours.min(), colours.max()]
    assert relations.argmin() == colours.argmax()
    assert sum(abs(colours - 0.5) < 0.07) == 3
    for measure in ("text_at_1", "picture_at_1", "zero_shot"):
        hard, plain = (lab[f"order.{name}.{measure}.seen"] for name in ("hard", "plain"))
        assert hard["mean"] <= plain["mean"]
