"""The GLIP lab reaches its bars and bears out the page's claims."""

import pytest

from tests.labs.spread import paired

KINDS = ("fused", "plain")
TRAININGS = range(3)


def best_at_the_edge(rates: dict) -> bool:
    """The chosen rate is the highest of those tried."""
    tried = {int(name.removeprefix("at_")): ap for name, ap in rates.items() if name != "chosen"}
    return max(tried, key=tried.get) == max(tried) == round(rates["chosen"] * 1e4)


@pytest.mark.claim("glip-ap")
def test_held_out_pairs_are_found_less_well(results):
    lab = results("GLIP")
    for kind in KINDS:
        seen, held_out = (lab["ap"][kind][where]["ap50"]["seeds"] for where in ("seen", "held_out"))
        assert min(seen) > 0.99 and all(seen[i] - held_out[i] > 0.1 for i in TRAININGS)
        assert max(held_out) - min(held_out) > 0.2
        assert best_at_the_edge(lab["rates"][kind])
    apart = paired(lab["ap"]["fused"]["held_out"]["ap50"], lab["ap"]["plain"]["held_out"]["ap50"])
    assert apart.low < 0 < apart.high


@pytest.mark.claim("glip-said")
def test_one_word_is_right_where_the_phrase_is_wrong(results):
    for kind in KINDS:
        said = results("GLIP")["said"][kind]
        for i in TRAININGS:
            halves = said["colour"]["seeds"][i] + said["kind"]["seeds"][i]
            assert said["neither"]["seeds"][i] < 0.05 and halves > 5 * said["neither"]["seeds"][i]
        shares = [sum(said[what]["seeds"][i] for what in said) for i in TRAININGS]
        assert shares == pytest.approx([1, 1, 1])
        assert max(said["right"]["seeds"]) - min(said["right"]["seeds"]) > 0.2


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
            assert min(told[pieces]) > 0.85 and max(others) < 0.1


@pytest.mark.claim("glip-false-phrases")
def test_phrases_that_are_half_there_are_said_more_often(results):
    for kind in KINDS:
        phrases = {name: spread["seeds"] for name, spread in results("GLIP")["phrases"][kind].items()}
        assert min(phrases["there"]) == 1 and max(phrases["neither"]) == 0
        assert min(phrases["both_apart"]) > 0 and min(phrases["one"]) > 0
        assert max(phrases["both_apart"]) < 0.2
    fused, plain = (results("GLIP")["phrases"][kind]["both_apart"]["seeds"] for kind in KINDS)
    assert all(a > b for a, b in zip(fused, plain, strict=True))
    apart, one = (results("GLIP")["phrases"]["plain"][name]["seeds"] for name in ("both_apart", "one"))
    assert all(abs(a - b) < 0.01 for a, b in zip(apart, one, strict=True))


@pytest.mark.claim("glip-prompts")
def test_prompts_written_in_another_way_still_work(results):
    prompts = results("GLIP")["prompts"]
    assert all(min(way["seeds"]) > 0.9 for kind in KINDS for way in prompts[kind].values())
    for kind in KINDS:
        one, all_in_one = prompts[kind]["alone"]["seeds"], prompts[kind]["usual"]["seeds"]
        assert all(a < b for a, b in zip(one, all_in_one, strict=True))
        gain = paired(prompts[kind]["usual"], prompts[kind]["comma"])
        assert gain.low < 0 < gain.high
