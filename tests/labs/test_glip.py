"""The GLIP lab reaches its bars and bears out the page's claims."""

import itertools

import pytest

from tests.labs.spread import paired

KINDS = ("fused", "plain")
TRAININGS = range(3)


def inside(rates: dict) -> bool:
    """The chosen rate is the best of those tried, neither the lowest nor the highest; each doubles the one before."""
    tried = dict(zip(rates["rates"], rates["tried"], strict=True))
    doubled = all(b == pytest.approx(2 * a) for a, b in itertools.pairwise(rates["rates"]))
    return doubled and max(tried, key=tried.get) == rates["chosen"] and min(tried) < rates["chosen"] < max(tried)


@pytest.mark.claim("glip-ap")
def test_held_out_pairs_are_found_less_well(results):
    lab = results("GLIP")
    for kind in KINDS:
        seen, held_out = (lab["ap"][kind][where]["ap50"]["seeds"] for where in ("seen", "held_out"))
        assert min(seen) > 0.99 and all(seen[i] - held_out[i] > 0.05 for i in TRAININGS)
        assert max(held_out) - min(held_out) > 0.2
        assert inside(lab["rates"][kind])
    apart = paired(lab["ap"]["fused"]["held_out"]["ap50"], lab["ap"]["plain"]["held_out"]["ap50"])
    assert apart.low < 0 < apart.high


@pytest.mark.claim("glip-said")
def test_one_word_is_right_where_the_phrase_is_wrong(results):
    both_wrong = []
    for kind in KINDS:
        said = results("GLIP")["said"][kind]
        for i in TRAININGS:
            assert said["colour"]["seeds"][i] + said["kind"]["seeds"][i] > said["neither"]["seeds"][i]
        both_wrong += said["neither"]["seeds"]
        shares = [sum(said[what]["seeds"][i] for what in said) for i in TRAININGS]
        assert shares == pytest.approx([1, 1, 1])
        assert max(said["right"]["seeds"]) - min(said["right"]["seeds"]) > 0.2
    assert sorted(both_wrong)[4] <= 0.04 < max(both_wrong) == both_wrong[1]  # the second training with fusion
    assert max(both_wrong[3:]) == 0


@pytest.mark.claim("glip-boxes")
def test_most_but_not_all_held_out_shapes_are_found(results):
    right = results("GLIP")["said"]["fused"]["right"]["seeds"][0]
    assert 0.2 < right < 0.9  # of the network of the picture


@pytest.mark.claim("glip-tokens")
def test_all_pieces_of_a_phrase_light_up_and_no_other(results):
    tokens = results("GLIP")["tokens"]
    names = tokens["names"]
    phrases = {"circle": slice(0, 3), "triangle": slice(4, 8)}
    assert names[:3] == ["red", "circ", "##le"] and names[4:8] == ["blue", "tri", "##ang", "##le"]
    for kind in KINDS:
        for shape, pieces in phrases.items():
            told = tokens[kind][shape]
            others = [p for i, p in enumerate(told) if i not in range(len(told))[pieces]]
            assert min(told[pieces]) > 0.85 and max(others) <= tokens["fused"]["circle"][10] < 0.2


def shares(results, kind: str, *where: str) -> dict[str, list[float]]:
    """How often phrases were said in each training, by what of them is in the picture."""
    found = results("GLIP")["phrases"][kind]
    for name in where:
        found = found[name]
    return {name: spread["seeds"] for name, spread in found.items() if name != "held_out"}


@pytest.mark.claim("glip-false-phrases")
def test_phrases_that_are_half_there_are_said_more_often(results):
    there = [share for kind in KINDS for share in shares(results, kind)["there"]]
    assert sorted(there)[1:] == [1] * 5 and min(there) > 0.99
    for kind in KINDS:
        phrases = shares(results, kind)
        assert max(phrases["neither"]) == 0
        assert min(phrases["both_apart"]) > 0 and min(phrases["one"]) > 0
        assert max(phrases["both_apart"]) < 0.2
    fused, plain = (shares(results, kind)["both_apart"] for kind in KINDS)
    assert all(a > b for a, b in zip(fused, plain, strict=True))
    apart, one = (shares(results, "plain")[name] for name in ("both_apart", "one"))
    assert all(abs(a - b) < 0.01 for a, b in zip(apart, one, strict=True))


@pytest.mark.claim("glip-never-denied")
def test_phrases_that_were_never_denied_are_said_more_often(results):
    for kind in KINDS:
        denied, never = shares(results, kind), shares(results, kind, "held_out")
        for name in ("both_apart", "one"):
            assert all(a > 2 * b for a, b in zip(never[name], denied[name], strict=True))
        assert max(never["neither"]) == 0


@pytest.mark.claim("glip-prompts")
def test_prompts_written_in_another_way_still_work(results):
    prompts = results("GLIP")["prompts"]
    for kind in KINDS:
        assert all(min(way["seeds"]) > 0.9 for name, way in prompts[kind].items() if name != "alone")
        one, all_in_one = prompts[kind]["alone"]["seeds"], prompts[kind]["usual"]["seeds"]
        assert all(a < b for a, b in zip(one, all_in_one, strict=True))
        gain = paired(prompts[kind]["usual"], prompts[kind]["comma"])
        assert gain.low < 0 < gain.high
    lost = {kind: 1 - max(prompts[kind]["alone"]["seeds"]) for kind in KINDS}
    assert 1 - min(prompts["plain"]["alone"]["seeds"]) < 0.05 and lost["fused"] > 0.15
