"""The lab of span corruption bears out what the post says of it."""

import inspect
import json
import re

import pytest
import torch

from snippets.data.text import text
from snippets.llm import pretraining_objectives, span_corruption
from snippets.llm.span_corruption import lengths, span_length_chances
from tests.labs.spread import greater, paired, seeds
from theme.page.pages import ROOT

LAB = "LLM/SpanCorruption"


@pytest.mark.claim("span-examples")
def test_the_figure_shows_what_the_functions_ask_for(results):
    """Only span corruption's target leaves out what stands in the input; at half hidden, both are equally long."""
    cost = results(LAB)["cost"]
    assert cost["full_target"] == 65 and cost["span_target"] == lengths(64, 0.15, 3)[1] == 14
    assert lengths(24, 0.5, 3)[0] == lengths(24, 0.5, 3)[1]


@pytest.mark.claim("span-places")
def test_the_first_place_is_never_hidden_and_the_last_always(results):
    lab = results(LAB)
    hidden = lab["places.hidden"]
    assert len(hidden) == 568 and hidden[0] == 0 and hidden[-1] == 1
    middle = hidden[50:500]
    assert abs(sum(middle) / len(middle) - 0.15) < 0.01 and max(middle) < 0.25
    assert sum(hidden[-8:-1]) / 7 > 0.3  # "rising near the end"
    assert sum(hidden) == pytest.approx(lab["spans.hidden"], abs=1e-6)
    drawn, exact = lab["spans.drawn"], lab["spans.exact"]
    assert exact[:5] == pytest.approx(span_length_chances(85, 28)[:5])
    assert all(abs(a - b) < 0.01 for a, b in zip(drawn, exact, strict=True))
    assert all(a > b for a, b in zip(exact[:12], exact[1:12], strict=False)) and abs(drawn[0] - 1 / 3) < 0.03
    assert lab["spans.p_value"] > 1e-3


@pytest.mark.claim("span-speed")
def test_batches_are_twenty_times_as_fast_and_linear(results):
    speed = results(LAB)["timings.speed"]
    assert speed["plain"]["ratio"] >= 20  # the bar, with the same generator
    assert speed["plain"]["ratio"] > speed["plain_python"]["ratio"] > 5
    assert speed["plain"]["nanoseconds"] > speed["plain_python"]["nanoseconds"]
    assert speed["exponent"] < 1.1 and speed["by_tokens"][-1] < 2 * min(speed["by_tokens"])
    assert [speed["tokens"][0], speed["tokens"][-1]] == [12496, 1000248]
    for function in (span_corruption.corrupt_batch, span_corruption.segment_rows, span_corruption.spread):
        assert " for token in" not in inspect.getsource(function) and "while" not in inspect.getsource(function)


@pytest.mark.claim("span-cost-ratio")
def test_a_whole_target_costs_twice_as_much(results):
    cost = results(LAB)["cost"]
    small = pretraining_objectives.SMALL
    assert cost["full"] == pretraining_objectives.multiplications(small, 65, 65)
    assert cost["span"] == pretraining_objectives.multiplications(small, *lengths(64, 0.15, 3))
    assert cost["ratio"] == pytest.approx(cost["full"] / cost["span"]) and 1.9 < cost["ratio"] < 2.2


@pytest.mark.claim("span-program")
def test_the_program_writes_the_marks_and_spaces(results):
    """The recorded run: nine gaps, none of them guessed; the right targets rebuild the text."""
    program = json.loads((ROOT / "docs/results/LLM/SpanCorruption.program.json").read_text(encoding="utf-8"))
    printed = program["printed"]
    assert printed[0].startswith(f"{results(LAB)['program.steps']} steps")
    rows = {kind: [line for line in printed if line.startswith(kind)] for kind in ("right", "written", "rebuilt")}
    gaps = 0
    for right, written in zip(rows["right"], rows["written"], strict=True):
        wanted, found = (re.findall("⟨[0-9]⟩([^⟨]*)", line.rstrip("'")) for line in (right, written))
        assert re.findall("⟨[0-9]⟩", written) == ["⟨0⟩", "⟨1⟩", "⟨2⟩"] and set("".join(found)) == {" "}
        assert not any(a == b for a, b in zip(wanted, found, strict=True))
        gaps += len(wanted)
    assert gaps == 9 and len(rows["rebuilt"]) == 3 and not any("⟨" in line for line in rows["rebuilt"])
    assert torch.bincount(text()).argmax() == ord(" ")


KINDS = ("span", "bert", "prefix", "deshuffle")


@pytest.mark.claim("span-pretraining")
def test_all_trainings_are_below_counts(results):
    found = results(LAB)["pretraining"]
    for kind in KINDS:
        own = found[kind]
        assert len(seeds(own["loss"])) == 5 and max(seeds(own["loss"])) < own["bigram"] < own["unigram"]
        assert own["rate"] not in (min(found["rates"]), max(found["rates"]))  # the best one is no end of the range


@pytest.mark.claim("span-task")
@pytest.mark.claim("span-task-figure")
def test_what_pre_training_does_to_the_task(results):
    """Paired over five seeds: two kinds cost nats and right answers, two save nats, one of them adds right answers."""
    task = results(LAB)["task"]
    nats, right = ({kind: task[kind][name] for kind in ("scratch", *KINDS)} for name in ("nats", "right"))
    for kind in ("span", "prefix"):
        greater(nats[kind], nats["scratch"], paired=True)
        greater(right["scratch"], right[kind], paired=True)
        assert right[kind]["mean"] < task["commonest"]
    for kind in ("bert", "deshuffle"):
        greater(nats["scratch"], nats[kind], paired=True)
    greater(right["deshuffle"], right["scratch"], paired=True)
    assert paired(right["bert"], right["scratch"]).low < 0 < paired(right["bert"], right["scratch"]).high
    for kind in KINDS:
        for name in ("nats", "right"):
            difference = paired(task[kind][name], task["scratch"][name])
            assert task[kind][f"{name}_gain"] == pytest.approx([difference.low, difference.high])
    means = {kind: nats[kind]["mean"] for kind in nats}
    assert sorted(means, key=means.get) == ["deshuffle", "bert", "scratch", "prefix", "span"]
    assert max(max(seeds(one)) for one in right.values()) < 0.5
    assert task["span"]["rate"] == max(task["rates"])


@pytest.mark.claim("span-sweep")
@pytest.mark.claim("span-sweep-figure")
def test_other_densities_and_spans(results):
    """Paired with the main setting's first three seeds, no difference is beyond the spread."""
    lab = results(LAB)
    page = (ROOT / "docs/posts/LLM/SpanCorruption.md").read_text(encoding="utf-8")
    assert "(five seeds) | ${}$ and ${}$ |".format(*lengths(64, 0.15, 3)) in page
    scratch, main = lab["task"]["scratch"], lab["task"]["span"]
    for setting in ("mean_1", "mean_8", "density_50", "both"):
        found = lab["sweep"][setting]
        assert max(seeds(found["loss"])) < found["unigram"]
        assert min(seeds(found["nats"])) > max(seeds(scratch["nats"]))
        for name in ("nats", "right"):
            first = seeds(main[name])[: len(seeds(found[name]))]
            difference = paired(found[name], {"mean": 0, "sd": 0, "seeds": list(first)})
            assert len(first) == 3 and difference.low < 0 < difference.high
