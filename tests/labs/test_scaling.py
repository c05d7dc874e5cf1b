"""The lab of Scaling reaches its bars, and bears out what the post says of it."""

import ast
import inspect

import pytest
import torch.distributed.checkpoint.filesystem
from torch.nn.parallel import DistributedDataParallel

from snippets.exercises.llm.scaling import cut, mean_loss
from snippets.llm import scaling, scaling_costs
from snippets.llm.scaling_costs import SIZES
from tests.labs.spread import seeds
from theme.page.pages import ROOT
from theme.page.results import load

LAB = "LLM/Scaling"
WAYS, NUMBERS = ("replicated", "sharded"), ("2", "4")


def test_the_lab_ran_on_the_cpu():
    assert load(ROOT, LAB)["device"] == "cpu"


@pytest.mark.claim("scaling-agree")
def test_many_learn_what_one_learns(results):
    lab = results(LAB)
    for way in WAYS:
        for number in NUMBERS:
            found = {kind: seeds(lab["agree"][way][number][kind]) for kind in ("weights", "losses")}
            assert all(len(values) == 3 and max(values) == lab["most"][way][number][k] for k, values in found.items())
            assert all(0 <= difference < 1e-6 for difference in found["losses"])
            close, also_close, far = sorted(found["weights"])
            assert 0 < close <= also_close < 1e-6 and 1e-5 < far < 1.5e-5  # 0: it would be the same run


@pytest.mark.claim("scaling-kills")
def test_nothing_is_lost_but_the_steps_since_the_last_checkpoint(results):
    lab = results(LAB)
    rows, every = lab["kills"], lab["kills_every"]
    assert len(rows) == 10 and sum(row["everyone"] for row in rows) == 5
    assert {row["processes"] for row in rows} == {2, 4} and {row["way"] for row in rows} == {*WAYS}
    assert all(row["killed"] for row in rows)
    lost = [row["done"] - row["newest"] for row in rows]
    assert max(lost) == lab["kills_lost"] and min(lost) >= 0 and max(lost) < 2 * every  # one may be on its way
    assert sum(row["same"] for row in rows) == lab["kills_same"] == 10
    assert sum(len(row["half"]) for row in rows) == lab["kills_half"]
    assert all(len(row["half"]) <= 1 and row["newest"] % every == 0 for row in rows)
    differences = [one for number in ("1", "4") for one in seeds(lab["elsewhere"][number])]
    assert len(differences) == 6 and max(differences) == lab["elsewhere_most"] < 1e-6


@pytest.mark.claim("scaling-traffic")
def test_bytes_are_those_of_the_formulas_and_gloo_sends_sums_to_all(results):
    lab = results(LAB)
    rows = lab["traffic"]
    for row in rows:
        assert row["over"] == pytest.approx(row["counted"] / row["formula"])
        if row["way"] == "replicated":
            assert 1 < row["over"] < 1.015
        else:
            assert 1.2 < row["over"] < 1.6
        assert abs(row["counted"] / row["gloo"] - 1) <= lab["traffic_gloo"] < 0.04
    shown = [(rows[n]["processes"], rows[n]["way"], rows[n]["half"], rows[n]["rounds"]) for n in (4, 5, 0, 3, 10, 6)]
    assert shown[:3] == [(2, "replicated", False, 1), (2, "replicated", False, 2), (2, "sharded", False, 1)]
    assert shown[3:] == [(2, "sharded", True, 2), (4, "replicated", False, 1), (4, "sharded", False, 1)]
    for row in rows:
        if row["way"] == "sharded":
            grown = row["formula"] / next(one["formula"] for one in rows if same_but_one_round(one, row))
            assert grown == pytest.approx(1) if row["rounds"] == 1 else grown > 1.2
    big = SIZES["8 B"]
    assert 0.9 < scaling_costs.shards_bytes(big, 64) / scaling_costs.copies_bytes(big.weights, 64) < 1.01


def same_but_one_round(one, row):
    return one["rounds"] == 1 and all(one[name] == row[name] for name in ("processes", "way", "half"))


@pytest.mark.claim("scaling-torchrun")
def test_both_commands_of_torchrun_train_the_same(results):
    run = results(LAB)["torchrun"]
    one, two = run["one_node"], run["two_nodes"]
    assert len(one) == len(two) == 4 and one[0] > one[-1] and two[0] > two[-1]
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) == run["apart"] == 0


@pytest.mark.claim("scaling-tests")
def test_the_tests_that_the_page_tells_of_exist():
    code = (ROOT / "tests/snippets/llm/test_scaling.py").read_text(encoding="utf-8")
    for name in ("two_processes_go_on_with_the_same_bits", "four_copies_go_on_with_the_same_bits"):
        assert f"def test_{name}(" in code
    for name in ("a_killed_run_leaves_no_half_checkpoint", "a_full_disk_is_told_in_a_line_and_costs_no_checkpoint"):
        assert f"def test_{name}" in code


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
    assert hours["b8"] == pytest.approx(6 * 8.03e9 * 15e12 / 4e14 / 3600, rel=1e-2) and hours["b8"] < 1.3e6
    assert hours["b70"] == pytest.approx(6 * 70.55e9 * 15e12 / 4e14 / 3600, rel=1e-2) and hours["b70"] < 6.4e6


@pytest.mark.claim("scaling-speed")
def test_shards_and_more_processes_take_more_of_the_cpu(results):
    cpu = results(LAB)["timings.cpu"]
    for way in WAYS:
        assert cpu[way]["1"] < cpu[way]["2"] < cpu[way]["4"]
    assert all(cpu["sharded"][number] > 1.2 * cpu["replicated"][number] for number in ("1", "2", "4"))


@pytest.mark.claim("scaling-wrong")
def test_wrong_means_and_early_cuts_move_the_gradient(results):
    wrong = results(LAB)["wrong"]
    for name in ("means", "clipped"):
        assert len(seeds(wrong[name])) == 5 and all(0.1 < distance < 0.8 for distance in seeds(wrong[name]))


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


@pytest.mark.claim("scaling-two-bytes")
def test_a_token_that_two_bytes_do_not_hold_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    for token, fits in ((65_535, True), (65_536, False)):
        target = tmp_path / str(token)
        if fits:
            scaling.write_shards(tmp_path, target, lambda passage, token=token: [token])
            assert scaling.Windows(target, 1)[0].tolist() == [token, 0]
        else:
            with pytest.raises(OverflowError):
                scaling.write_shards(tmp_path, target, lambda passage, token=token: [token])


@pytest.mark.claim("scaling-pickle")
def test_metadata_is_a_pickle():
    source = inspect.getsource(torch.distributed.checkpoint.filesystem)
    assert "pickle.load(" in source and "pickle.dump(metadata" in source
