"""The lab of ControlNet: what the post says of its results."""

import pytest

from tests.labs.spread import greater, p_value, tie

LAB = "ControlNet"


def pairs(a, b):
    return list(zip(a["seeds"], b["seeds"], strict=True))


def test_the_captions_of_the_test_are_not_in_training(results):
    lab = results(LAB)
    assert lab["data.tested_in_training"] == 0 and lab["data.tested"] == 48


@pytest.mark.claim("cn-steps")
def test_the_table_of_gradients(results):
    """Tensors with a gradient, part by part, at the first three steps."""
    whole, steps = results(LAB)["gradient.tensors"], results(LAB)["gradient.steps"]
    assert all(step["frozen"] == 0 < whole["frozen"] and step["zeros"] == whole["zeros"] for step in steps)
    assert [step["copy"] for step in steps] == [0, whole["copy"], whole["copy"]]
    assert [step["hint_last"] for step in steps] == [0, whole["hint_last"], whole["hint_last"]]
    assert [step["hint"] for step in steps] == [0, 0, whole["hint"]]


@pytest.mark.claim("cn-grid")
@pytest.mark.claim("cn-obeyed")
def test_masks_outlines_and_key_points_are_obeyed(results):
    lab = results(LAB)
    for kind in ("mask", "edge", "pose"):
        greater(lab[f"control.{kind}.overlap"], lab["plain.overlap"], paired=True)
        for name in ("colour", "kind", "place"):
            tie(lab[f"control.{kind}.{name}"], lab[f"plain.{name}"], within=0.05)
    greater(lab["control.mask.overlap"], lab["control.edge.overlap"], paired=True)
    greater(lab["control.edge.overlap"], lab["control.pose.overlap"], paired=True)
    assert min(lab["control.mask.overlap"]["seeds"]) >= 0.8 and max(lab["plain.overlap"]["seeds"]) < 0.65
    assert min(lab["plain.place"]["seeds"]) > 0.9
    assert max(lab["control.mask.overlap"]["seeds"]) < lab["rebuilt"] < 1


@pytest.mark.claim("cn-methods")
def test_four_methods_of_equal_size(results):
    lab = results(LAB)
    zero, method = lab["control.mask"], lab["method"]
    sizes = [lab[f"sizes.{name}"] for name in ("zero", "gaussian", "adapter", "lora")]
    assert max(sizes) / min(sizes) < 1.02
    greater(method["lora"]["overlap"], zero["overlap"], paired=True)
    greater(method["gaussian"]["overlap"], zero["overlap"], paired=True)
    tie(method["adapter"]["overlap"], zero["overlap"], within=0.02)
    greater(zero["place"], method["adapter"]["place"], paired=True)
    greater(zero["colour"], method["adapter"]["colour"], paired=True)
    for name in ("zero", "gaussian", "adapter", "lora"):
        tried = dict(lab[f"rates.{name}.tried"])
        best = lab[f"rates.{name}.best"]
        assert min(tried) < best < max(tried) and tried[best] == max(tried.values())


@pytest.mark.claim("cn-begun")
def test_random_layers_spoil_the_first_pictures(results):
    lab = results(LAB)
    greater(lab["plain.place"], lab["begun.gaussian.place"])
    greater(lab["plain.kind"], lab["begun.gaussian.kind"])
    tie(lab["plain.overlap"], lab["scale.0_0.overlap"], within=1e-9)
    assert lab["rise.zero.first"]["sd"] < 1e-6 < lab["rise.gaussian.first"]["sd"]
    assert lab["method.gaussian.place.mean"] > lab["plain.place.mean"]


def shares(lab, name):
    """Of each curve, the share of the rise that is there at each look."""
    steps = lab["curve.steps"]
    curves = [[(value - one[0]) / (one[-1] - one[0]) for value in one] for one in lab[f"curve.{name}"]]
    return [dict(zip(steps, one, strict=True)) for one in curves]


@pytest.mark.claim("cn-sudden")
def test_the_rise_lies_between_steps_15_and_90(results):
    lab = results(LAB)
    found = shares(lab, "zero")
    assert len(found) == 5 and all(one[15] < 0.1 for one in found)
    assert all(max(value for step, value in one.items() if step <= 90) >= 0.75 for one in found)
    assert all(0.78 < curve[6] < 0.88 and 0.84 < curve[-1] < 0.9 for curve in lab["curve.zero"])
    ends = [curve[-1] for curve in lab["curve.gaussian"]]
    assert len(ends) == 3 and sum(ends) / 3 > max(curve[-1] for curve in lab["curve.zero"])


@pytest.mark.claim("cn-rise")
def test_quarters_of_the_rise(results):
    lab = results(LAB)
    greater(lab["rise.zero.three_quarters"], lab["rise.zero.quarter"], paired=True)
    assert max(lab["rise.zero.three_quarters"]["seeds"]) <= 90 and min(lab["rise.zero.quarter"]["seeds"]) >= 30
    for name in ("quarter", "three_quarters"):
        tie(lab[f"rise.zero.{name}"], lab[f"rise.gaussian.{name}"], within=20)


@pytest.mark.claim("cn-scales")
def test_the_overlap_rises_beyond_a_scale_of_1(results):
    scale = results(LAB)["scale"]
    order = [scale[name]["overlap"] for name in ("0_0", "0_25", "0_5", "0_75", "1_0", "1_25", "1_5", "2_0")]
    for less, more in zip(order, order[1:], strict=False):
        greater(more, less, paired=True)
    assert order[4]["mean"] - order[0]["mean"] > 4 * (order[-1]["mean"] - order[4]["mean"])
    assert 0.6 < order[0]["mean"] < 0.62 and 0.9 < order[-1]["mean"] < 0.92
    for name in ("colour", "size"):
        greater(scale["1_0"][name], scale["2_0"][name], paired=True)
    assert all(min(one["colour"]["mean"], one["kind"]["mean"]) > 0.95 for one in scale.values())


@pytest.mark.claim("cn-conflict")
@pytest.mark.claim("cn-conflict-shown")
def test_who_wins(results):
    conflict = results(LAB)["conflict"]
    for what in ("kind", "place"):
        for scale in ("0_0", "0_5", "1_0"):
            greater(conflict[what][scale]["caption"], conflict[what][scale]["hint"], paired=True)
    greater(conflict["kind"]["2_0"]["caption"], conflict["kind"]["2_0"]["hint"], paired=True)
    greater(conflict["place"]["2_0"]["hint"], conflict["place"]["2_0"]["caption"], paired=True)
    greater(conflict["place"]["1_0"]["colour"], conflict["place"]["2_0"]["colour"], paired=True)
    assert min(conflict["place"]["2_0"]["hint"]["seeds"]) > 0.75
    assert max(conflict["place"]["2_0"]["colour"]["seeds"]) < 0.6


@pytest.mark.claim("cn-dropout")
def test_leaving_out_texts_in_training_helps_without_a_text(results):
    lab = results(LAB)
    greater(lab["silent.both.overlap"], lab["always.silent.overlap"], paired=True)
    greater(lab["control.mask.overlap"], lab["always.told.overlap"], paired=True)
    tie(lab["silent.both.overlap"], lab["control.mask.overlap"], within=0.02)


@pytest.mark.claim("cn-guess-mode")
def test_guess_mode_is_worse_than_both_here(results):
    lab = results(LAB)
    greater(lab["silent.both.overlap"], lab["silent.guess.overlap"], paired=True)
    assert max(lab["silent.guess.overlap"]["seeds"]) < 0.6


@pytest.mark.claim("cn-two")
def test_two_controls_at_once(results):
    lab = results(LAB)
    tie(lab["two.together.overlap"], lab["two.mask.overlap"], within=0.02)
    greater(lab["two.mask.colour"], lab["two.together.colour"], paired=True)
    assert lab["two.pairs"] > 20


@pytest.mark.claim("cn-fault-scale")
def test_a_black_hint_is_no_scale_of_0(results):
    lab = results(LAB)
    greater(lab["plain.colour"], lab["faults.scale.colour"], paired=True)


@pytest.mark.claim("cn-fault-halves")
def test_exchanged_halves_lead_away(results):
    lab = results(LAB)
    greater(lab["silent.guess.overlap"], lab["faults.halves.overlap"], paired=True)
    assert max(lab["faults.halves.overlap"]["seeds"]) < 0.1


@pytest.mark.claim("cn-fault-range")
def test_hints_from_minus_1_control_less(results):
    lab = results(LAB)
    greater(lab["control.mask.overlap"], lab["faults.range.overlap"], paired=True)
    greater(lab["faults.range.overlap"], lab["plain.overlap"], paired=True)
    assert p_value(lab["faults.range.overlap"], lab["control.mask.overlap"], paired=True) > 0.5
