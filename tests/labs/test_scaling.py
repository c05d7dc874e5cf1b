"""The lab of Scaling reaches its bars, and bears out what the post says of it."""

import ast
import inspect

import pytest
import torch.distributed.checkpoint.filesystem
from torch.nn.parallel import DistributedDataParallel

from snippets.exercises.llm.scaling import cut, mean_loss
from snippets.llm import scaling, scaling_costs
from snippets.llm.scaling_costs import SIZES
from theme.page.pages import ROOT
from theme.page.results import load

LAB = "LLM/Scaling"


def test_the_lab_ran_on_the_cpu():
    assert load(ROOT, LAB)["device"] == "cpu"


@pytest.mark.claim("scaling-tests")
def test_the_tests_that_the_page_tells_of_exist():
    code = (ROOT / "tests/snippets/llm/test_scaling.py").read_text(encoding="utf-8")
    for name in ("two_processes_with_accumulation_and_clipping_train_as_one", "two_processes_go_on_with_the_same_bits"):
        assert f"def test_{name}(" in code
    for name in ("four_copies_go_on_with_the_same_bits", "a_killed_run_leaves_no_half_checkpoint_and_goes_on"):
        assert f"def test_{name}(" in code
    assert "def test_a_full_disk_is_told_in_a_line_and_costs_no_checkpoint(" in code


@pytest.mark.claim("scaling-memory")
def test_eight_billion_weights_fit_as_shards_on_eight(results):
    lab = results(LAB)
    memory, gpus = lab["memory"], lab["gpus"]
    assert gpus == [1, 8, 64, 256, 1024]
    assert memory["b8"]["copies"] > 80 > memory["b8"]["shards"][1]
    for row in memory.values():
        falls = [row["shards"][n] - row["shards"][n + 1] for n in range(4)]
        assert all(fall > 0 for fall in falls) and falls[0] == max(falls) and falls[3] < 0.05 * falls[0]


@pytest.mark.claim("scaling-memory-table")
def test_the_table_is_the_formulas_and_logits_take_four_gib(results):
    memory = results(LAB)["memory"]
    for name, size in zip(("m125", "b1", "b8", "b70"), list(SIZES.values())[1:], strict=True):
        kept = scaling_costs.activation_bytes(size, 8192, True, 2) / 2**30
        row = memory[name]
        assert row["kept"] == pytest.approx(kept) and row["kept_all"] > 4 * kept
        assert row["copies"] == pytest.approx(row["state"] + kept)
        assert row["shards"][4] > kept + scaling_costs.gathered_bytes(size) / 2**30
        assert row["state"] == pytest.approx(16 * size.weights / 2**30)
    assert 128_256 * 4 * 8192 / 2**30 == pytest.approx(3.9, abs=0.05)


@pytest.mark.claim("scaling-enough")
def test_the_size_drops_out_and_few_hundred_gpus_are_fed(results):
    lab = results(LAB)
    assert lab["enough"]["between"] == pytest.approx(8 * 4e14 / 6 / 5e10)
    assert lab["enough"]["within"] == pytest.approx(lab["enough"]["between"] / 9)
    assert lab["most_gpus"] == pytest.approx(4e6 / lab["enough"]["between"])


@pytest.mark.claim("scaling-pays")
def test_sums_of_activations_need_the_wires_within_a_machine(results):
    lab = results(LAB)
    tensor = lab["tensor"]
    assert tensor["seconds_within"] < 0.3 * tensor["computing"] < tensor["seconds_between"]
    assert tensor["computing"] == pytest.approx(6 * SIZES["70 B"].weights * 8192 / 8 / 4e14)
    assert lab["idle"]["m4"] == pytest.approx(3 / 7) and lab["idle"]["m32"] == pytest.approx(3 / 35)


@pytest.mark.claim("scaling-hours")
def test_the_reported_hours_are_more_than_the_formula_s(results):
    hours = results(LAB)["hours"]
    assert hours["b8"] == pytest.approx(6 * 8.03e9 * 15e12 / 4e14 / 3600, rel=1e-2) and hours["b8"] < 1.46e6
    assert hours["b70"] == pytest.approx(6 * 70.55e9 * 15e12 / 4e14 / 3600, rel=1e-2) and hours["b70"] < 6.4e6


# what needs no run


@pytest.mark.claim("scaling-by-hand")
def test_the_table_by_hand():
    assert mean_loss([6, 4], [3, 1]) == 2.5 and (6 / 3 + 4 / 1) / 2 == 3
    assert cut([[3.0], [4.0]], 1.0) == [[pytest.approx(0.6)], [pytest.approx(0.8)]]
    assert cut([[3.0]], 1.0) == [[1.0]] and cut([[4.0]], 1.0) == [[1.0]]
    steps = 10 // 4
    assert (steps, *divmod(5, steps)) == (2, 2, 1) and 1 * (4 // 2) == 2
    assert scaling_costs.copies_bytes(1000, 4) == 6000
    assert scaling_costs.state_bytes(8e9) == 128e9 and scaling_costs.state_bytes(8e9, 64) == 2e9


@pytest.mark.claim("scaling-order")
def test_copies_change_their_order_after_the_first_pass():
    """What the page says of PyTorch: it rebuilds its buckets once, and page code makes that pass first."""
    source = inspect.getsource(DistributedDataParallel)
    assert "_rebuild_buckets" in source
    tree = ast.parse(inspect.getsource(scaling.replicated))
    assert [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "backward"]


@pytest.mark.claim("scaling-pickle")
def test_metadata_is_a_pickle():
    source = inspect.getsource(torch.distributed.checkpoint.filesystem)
    assert "pickle.load(" in source and "pickle.dump(metadata" in source
