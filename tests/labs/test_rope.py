"""The RoPE lab reaches the bars that its issue set, and bears out what the post says of it."""

import math

import pytest
import torch

from snippets.llm.rope import Alibi, inverse_frequencies, yarn
from tests.labs.spread import greater, paired, seeds, tie
from theme.page.pages import ROOT
from theme.page.results import load

LENGTHS = ["64", "128", "256", "512", "1024"]
UNTRAINED = ["rope", "linear", "ntk", "ntk_16", "ntk_dynamic", "yarn", "yarn_cool", "llama3", "longrope"]
EXACT = {"mean": 0.0, "sd": 0.0, "seeds": [0.0] * 3}


def changed(losses: dict, first: str, last: str) -> float:
    """The mean rise from one length to another."""
    return losses[last]["mean"] - losses[first]["mean"]


def test_every_way_is_measured_up_to_eight_times_the_trained_length(results):
    loss = results("LLM/ROPE")["loss"]
    wanted = {*UNTRAINED, "alibi", "half_nope", "base_500k", "learnt_repeated", "learnt_stretched", "learnt_random"}
    assert wanted | {"tuned_rope", "tuned_linear", "tuned_yarn", "tuned_larger_base"} == set(loss)
    for losses in loss.values():
        assert list(losses) == LENGTHS and all(len(seeds(spread)) == 3 for spread in losses.values())
        assert all(map(math.isfinite, (spread["mean"] for spread in losses.values())))


def test_the_models_have_learnt_something(results):
    """Bytes of English have an entropy of about 3.1 nats without context."""
    loss = results("LLM/ROPE")["loss"]
    for name in ("rope", "base_500k", "half_nope", "alibi"):
        assert max(seeds(loss[name]["128"])) < 2.2, name
    assert max(seeds(loss["learnt_repeated"]["128"])) < 2.6
    greater(loss["rope"]["64"], loss["rope"]["128"], paired=True)  # 128 bytes of past are better than 64


def test_precision(results):
    """1e-7 up to a million in float64; float32 and bfloat16 are far from it."""
    precision = results("LLM/ROPE")["precision"]
    assert precision["float64"]["4095"] < 1e-10 and precision["float64"]["1000001"] < 1e-7


@pytest.mark.claim("rope-clocks")
def test_the_first_hand_turns_fast_and_the_last_hardly(results):
    lab = results("LLM/ROPE")
    turn = lab["turn"]
    assert 360 / 7 < turn["pair_0"] < 360 / 6  # "nearly a sixth of a turn"
    assert turn["pair_0"] > turn["pair_2"] > turn["pair_4"] > turn["pair_8"] and 12 * turn["pair_8"] < 8
    assert lab["pairs"] == 16


@pytest.mark.claim("rope-decay-figure")
def test_both_curves_fall_and_those_of_the_larger_base_stay_higher(results):
    decay = results("LLM/ROPE")["decay"]
    for kind, places in (("score", ("1", "10", "100", "1000")), ("bound", ("10", "100", "1000"))):
        small, large = decay[f"{kind}_10_000"], decay[f"{kind}_500_000"]
        assert all(0 < small[m] < large[m] < 1 for m in places)
        for curve in (small, large):
            assert all(curve[m] > curve[n] for m, n in zip(places, places[1:], strict=False))
    assert 0.4 < decay["rises_10_000"] < 0.6  # "a trend, not a law"


@pytest.mark.claim("rope-precision-figure")
@pytest.mark.claim("rope-precision")
def test_float32_loses_digits_and_bfloat16_all_of_them(results):
    precision = results("LLM/ROPE")["precision"]
    spread, places = precision["spread"], list(precision["float64"])
    assert places[0] == "65" and places[-1] == "1000001"
    assert max(precision["float64"].values()) < 1e-10
    assert 1e-3 < precision["float32"]["1000001"] < 4e-3 and precision["float32"]["4095"] < 1e-4
    assert 0.8 < precision["bfloat16"]["257"] / spread < 1.3  # "about as large as the spread"
    assert all(precision["bfloat16"][m] > 1.1 * spread for m in places[places.index("1301") :])


@pytest.mark.claim("rope-precision-library")
def test_cosines_of_transformers_are_of_float32(results):
    precision = results("LLM/ROPE")["precision"]
    assert 1e-5 < precision["transformers_4095"] < 1e-3 < precision["transformers_131071"] < 1e-2


def test_the_lab_took_less_than_an_hour_on_the_cpu():
    run = load(ROOT, "LLM/ROPE")
    assert run["device"] == "cpu" and run["seconds"] < 3600


@pytest.mark.claim("rope-within")
def test_within_the_trained_length(results):
    loss = results("LLM/ROPE")["loss"]
    greater(loss["alibi"]["128"], loss["rope"]["128"], paired=True)
    assert paired(loss["learnt_repeated"]["128"], loss["alibi"]["128"]).low > 0.3  # "far behind"


@pytest.mark.claim("rope-fails")
def test_plain_rope_and_learnt_rows_fail_beyond_the_trained_length(results):
    loss = results("LLM/ROPE")["loss"]
    for name in ("rope", "learnt_repeated", "learnt_random"):
        for near, far in zip(LENGTHS[1:], LENGTHS[2:], strict=False):
            greater(loss[name][far], loss[name][near], paired=True)
    assert paired(loss["rope"]["1024"], loss["rope"]["128"]).low > 0.5
    stretched = loss["learnt_stretched"]
    greater(stretched["128"], loss["learnt_repeated"]["128"], paired=True)  # "at a price"
    rise = paired(loss["learnt_repeated"]["1024"], loss["learnt_repeated"]["128"]).mean
    assert abs(changed(stretched, "128", "1024")) < 0.3 * rise  # "nearly level"


@pytest.mark.claim("rope-alibi")
def test_alibi_reads_on_and_gains_from_fewer_beginnings(results):
    lab = results("LLM/ROPE")
    loss, gain = lab["loss"]["alibi"], lab["gain"]["alibi"]
    greater(loss["128"], loss["1024"], paired=True)
    whole = loss["128"]["mean"] - loss["1024"]["mean"]
    assert 0 < whole < 0.05 and gain["beginning"]["mean"] + gain["rest"]["mean"] == pytest.approx(whole, abs=1e-4)
    greater(gain["beginning"], EXACT, paired=True)
    tie(gain["rest"], EXACT, within=0.005, paired=True)  # "which is nothing"


@pytest.mark.claim("rope-interpolation")
def test_interpolation_alone_fails(results):
    loss = results("LLM/ROPE")["loss"]
    for length in LENGTHS:
        assert all(paired(loss["linear"][length], loss[name][length]).low > 0 for name in ("ntk", "yarn", "llama3"))
    assert loss["linear"]["64"]["mean"] > 3
    for name in ("tuned_rope", "tuned_yarn", "tuned_larger_base"):
        greater(loss["tuned_linear"]["1024"], loss[name]["1024"], paired=True)


@pytest.mark.claim("rope-interpolation-tuned")
def test_a_few_steps_make_interpolation_better_and_not_good(results):
    loss = results("LLM/ROPE")["loss"]
    for length in LENGTHS:
        assert paired(loss["linear"][length], loss["tuned_linear"][length]).low > 0.3, length
        assert paired(loss["tuned_linear"][length], loss["tuned_yarn"][length]).low > 0.3, length


@pytest.mark.claim("rope-ntk")
def test_ntk_holds_to_twice_the_length(results):
    loss = results("LLM/ROPE")["loss"]
    ntk = loss["ntk"]
    assert abs(changed(ntk, "128", "256")) < 0.05 and changed(ntk, "128", "1024") > 0.2
    assert 0 < paired(ntk["128"], loss["rope"]["128"]).mean < 0.1
    greater(ntk["1024"], loss["ntk_16"]["1024"], paired=True)
    assert changed(loss["ntk_16"], "128", "1024") > 0.1
    assert loss["ntk_dynamic"]["128"] == loss["rope"]["128"]
    greater(loss["ntk_dynamic"]["512"], ntk["512"], paired=True)


@pytest.mark.claim("rope-yarn")
def test_yarn_is_the_best_of_the_formulas_at_1024(results):
    loss = results("LLM/ROPE")["loss"]
    for name in UNTRAINED:
        if name not in ("yarn", "longrope"):
            greater(loss[name]["1024"], loss["yarn"]["1024"], paired=True)
    assert paired(loss["yarn"]["128"], loss["rope"]["128"]).low > 0.05  # "at a price"
    greater(loss["yarn"]["1024"], loss["alibi"]["1024"], paired=True)
    for length in ("64", "128"):
        greater(loss["yarn"][length], loss["llama3"][length], paired=True)
    for length in ("512", "1024"):
        greater(loss["llama3"][length], loss["yarn"][length], paired=True)
    greater(loss["yarn_cool"]["1024"], loss["yarn"]["1024"], paired=True)
    turns = 128 * inverse_frequencies(32) / (2 * math.pi)
    assert 20 <= turns[0] < 21 and 4096 / (2 * math.pi) > 200
    slowed = inverse_frequencies(32) / yarn(32, 8.0, 128)
    assert slowed[0] == 1 and (slowed[1:] > 1.01).all()


@pytest.mark.claim("rope-search")
def test_searched_factors(results):
    lab = results("LLM/ROPE")
    loss, search = lab["loss"], lab["search"]
    greater(search["loss_before"], search["loss_after"], paired=True)
    for length in ("128", "1024"):
        greater(loss["yarn"][length], loss["longrope"][length], paired=True)
    assert paired(loss["yarn"]["1024"], loss["longrope"]["1024"]).high < 0.1  # "a few hundredths"
    assert all(len(factors) == 16 and factors == sorted(factors) for factors in search["factors"])
    assert search["magnitude"] == pytest.approx(math.sqrt(1 + math.log(8) / math.log(128)))
    assert 0.1 * math.log(8) + 1 == pytest.approx(1.208, abs=5e-4)


@pytest.mark.claim("rope-larger-base")
def test_a_larger_base_alone_reads_no_farther(results):
    loss = results("LLM/ROPE")["loss"]
    base, plain = loss["base_500k"], loss["rope"]
    tie(base["128"], plain["128"], within=0.05, paired=True)
    tie(base["1024"], plain["1024"], within=0.2, paired=True)
    assert paired(base["1024"], base["128"]).low > 0.5
    known = [128 * inverse_frequencies(32, b) >= 2 * math.pi for b in (10_000.0, 500_000.0)]
    assert known[0].sum() > known[1].sum()  # fewer pairs go round


@pytest.mark.claim("rope-half-nope")
def test_half_of_the_layers_without_positions(results):
    loss = results("LLM/ROPE")["loss"]
    half = loss["half_nope"]
    greater(half["128"], loss["rope"]["128"], paired=True)
    assert paired(half["1024"], half["128"]).low > 0.4  # "it fails too"


@pytest.mark.claim("rope-tuned")
def test_after_fine_tuning(results):
    loss = results("LLM/ROPE")["loss"]
    tuned = {name: one["1024"] for name, one in loss.items() if name.startswith("tuned")}
    greater(tuned["tuned_larger_base"], tuned["tuned_yarn"], paired=True)
    assert paired(tuned["tuned_larger_base"], tuned["tuned_yarn"]).high < 0.03  # "by about a hundredth"
    for worse, better in (("tuned_rope", "tuned_yarn"), ("alibi", "tuned_yarn"), ("alibi", "tuned_larger_base")):
        one, other = (loss[name]["1024"] for name in (worse, better))
        assert (seeds(one) > seeds(other)).all() and paired(one, other).low < 0  # in each, "not beyond the spread"
        tie(one, other, within=0.2, paired=True)
    assert tuned["tuned_rope"]["sd"] > 2 * tuned["tuned_yarn"]["sd"] > 0
    before = loss["rope"]["1024"]
    assert paired(before, tuned["tuned_rope"]).low > 4 * paired(tuned["tuned_rope"], tuned["tuned_yarn"]).mean


@pytest.mark.claim("rope-lengths")
def test_the_figure_of_lengths(results):
    loss = results("LLM/ROPE")["loss"]
    assert all(one["128"]["mean"] > 2.2 for name, one in loss.items() if name in ("linear", "learnt_repeated"))
    assert changed(loss["rope"], "128", "256") > 0.1 and changed(loss["rope"], "128", "1024") > 0.9
    assert abs(changed(loss["ntk"], "128", "256")) < 0.02 and changed(loss["ntk"], "256", "1024") > 0.5
    assert 0.05 < changed(loss["yarn"], "128", "1024") < 0.15 and -0.05 < changed(loss["alibi"], "128", "1024") < 0
    lowest = min(loss["tuned_linear"][length]["mean"] for length in LENGTHS)
    for name in ("rope", "yarn"):
        assert max(loss[f"tuned_{name}"][length]["mean"] for length in LENGTHS) < lowest - 0.5
    assert all(loss["tuned_rope"][length]["mean"] > loss["tuned_yarn"][length]["mean"] for length in LENGTHS)


@pytest.mark.claim("rope-positions")
def test_the_figure_of_positions(results):
    position = results("LLM/ROPE")["position"]
    first, second, third, last = (
        {name: parts[part] for name, parts in position.items()}
        for part in ("first_128", "to_256", "to_320", "last_quarter")
    )
    assert all(first["linear"]["mean"] > first[name]["mean"] + 0.5 for name in position if name != "linear")
    greater(second["learnt_repeated"], first["learnt_repeated"], paired=True)
    greater(second["rope"], first["rope"], paired=True)
    greater(second["rope"], second["alibi"], paired=True)
    assert 0.2 < second["rope"]["mean"] - first["rope"]["mean"] - (second["alibi"]["mean"] - first["alibi"]["mean"])
    assert abs(paired(third["ntk"], third["alibi"]).mean) < 0.1
    assert paired(last["ntk"], last["alibi"]).low > 0.2
    assert all(abs(last[name]["mean"] - last["linear"]["mean"]) < 0.6 for name in ("rope", "ntk"))
    for name in ("yarn", "alibi"):
        assert abs(last[name]["mean"] - second[name]["mean"]) < 0.3
    assert all(parts["yarn"]["mean"] > parts["alibi"]["mean"] for parts in (first, second, third, last))


@pytest.mark.claim("rope-fault-temperature")
def test_yarn_without_its_temperature(results):
    loss = results("LLM/ROPE")["loss"]
    greater(loss["yarn_cool"]["1024"], loss["yarn"]["1024"], paired=True)
    for length in ("64", "128"):
        assert abs(paired(loss["yarn_cool"][length], loss["yarn"][length]).mean) < 0.01


@pytest.mark.claim("rope-alibi-range")
def test_a_head_of_alibi_looks_far_beyond_the_trained_length():
    """With equal scores, the last of four heads has e^(-128/256) of its weight beyond 128 positions."""
    query, value = torch.zeros(1, 4, 5000, 2), torch.zeros(1, 4, 5000, 2)
    value[:, :, : 5000 - 128] = 1  # what lies 128 positions or more before the last query
    share = Alibi(4)(query[:, :, -1:].expand_as(query), query, value)[0, -1, -1, 0].item()
    assert share == pytest.approx(math.exp(-128 / 256), abs=0.005) and round(100 * math.exp(-0.5)) == 61
    assert Alibi(4).slope.tolist() == [1 / 4, 1 / 16, 1 / 64, 1 / 256]


@pytest.mark.claim("rope-table")
def test_only_alibi_falls_without_fine_tuning(results):
    loss = results("LLM/ROPE")["loss"]
    falls = [name for name, one in loss.items() if not name.startswith("tuned") and changed(one, "128", "1024") < 0]
    assert falls == ["alibi"]
    greater(loss["alibi"]["128"], loss["alibi"]["1024"], paired=True)
