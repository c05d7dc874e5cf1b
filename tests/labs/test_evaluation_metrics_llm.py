"""The evaluation lab reaches the bars of its issue, and shows what the post says of it."""

import math

import pytest

from tests.labs.spread import greater, seeds

KEY = "LLM/EvaluationMetricsLLM"
METRICS = ["bleu", "chrf", "chrfpp", "ter", "meteor", "rouge1", "rouge2", "rougel", "token_f1"]


# what the metrics see


@pytest.mark.claim("eval-changes")
def test_a_negation_costs_less_than_a_paraphrase(results):
    """In every row but TER's, a tie, and BERTScore's; lower case costs points in three. One word becomes one word."""
    changes, negation = results(KEY)["changes"], results(KEY)["negation"]
    assert changes["replaced"] == changes["length_kept"] == 1 and changes["count"] == changes["bert_count"]
    assert changes["ter"]["negate"]["mean"] == pytest.approx(changes["ter"]["paraphrase"]["mean"])
    for name in set(METRICS) - {"ter"}:
        assert changes[name]["negate"]["mean"] > changes[name]["paraphrase"]["mean"], name
        assert negation[name]["p"] <= 0.05, name
    lowered = {name for name in METRICS if changes[name]["lower"]["high"] < 99}
    assert lowered == {"bleu", "chrf", "chrfpp"}
    assert changes["bertscore"]["lower"]["mean"] == pytest.approx(100, abs=0.1)
    assert changes["bertscore"]["negate"]["mean"] < changes["bertscore"]["paraphrase"]["mean"]


@pytest.mark.claim("eval-negation")
def test_negated_sentences_score_higher(results):
    """By BLEU and chrF; TER sees one edit in both; BERTScore prefers the paraphrase, and forgives a `not` as marks."""
    negation, changes = results(KEY)["negation"], results(KEY)["changes.bertscore"]
    for name in ("bleu", "chrf"):
        assert negation[name]["gap"] > 0 and negation[name]["p"] <= 0.05
    assert negation["ter"] == {"gap": 0, "p": 1}
    assert negation["bertscore"]["gap"] < 0 and negation["bertscore"]["p"] <= 0.05
    gap = changes["negate"]["mean"] - changes["paraphrase"]["mean"]
    assert negation["bertscore"]["gap"] == pytest.approx(gap)
    for other in ("unmark", "drop"):  # the intervals overlap
        low, high = changes[other]["low"], changes[other]["high"]
        assert changes["negate"]["low"] < high and low < changes["negate"]["high"], other
        assert abs(changes["negate"]["mean"] - changes[other]["mean"]) < 1.5


@pytest.mark.claim("eval-order")
def test_order_is_nothing_to_single_words(results):
    changes = results(KEY)["changes"]
    assert changes["rouge1"]["shuffle"]["mean"] == pytest.approx(100) == changes["token_f1"]["shuffle"]["mean"]
    assert changes["bleu"]["shuffle"]["high"] < 35


@pytest.mark.claim("eval-floor")
def test_another_sentence_has_points(results):
    changes = results(KEY)["changes"]
    for name in ("chrf", "rouge1", "bertscore"):
        assert changes[name]["other"]["low"] > 5, name


# likelihood


@pytest.mark.claim("eval-stride")
def test_perplexity_falls_by_the_first_step_and_hardly_further(results):
    stride = results(KEY)["stride"]
    rows = [seeds(stride[str(one)]) for one in (512, 256, 128, 64)]
    assert (rows[0] > rows[1]).all() and ((rows[0] - rows[1]) > 5 * abs(rows[1] - rows[3])).all()
    pooled = [stride["pooled"][str(one)] for one in (512, 256, 128, 64)]
    for value, row in zip(pooled, rows, strict=True):  # equal lengths: the geometric mean
        assert math.log(value) == pytest.approx(sum(math.log(one) for one in row) / 3)
    assert stride["saved"] == pytest.approx(1 - pooled[3] / pooled[0])
    assert pooled[0] - pooled[1] > 0.9 * (pooled[0] - pooled[3])  # nearly all of it by the first step
    assert 1600 < stride["bytes"] < 1700 and 5 < stride["work"] < 8


@pytest.mark.claim("eval-units")
def test_units_are_one_measurement(results):
    units = results(KEY)["units"]
    assert units["bits_byte"] * math.log(2) == pytest.approx(units["nats_byte"])
    assert math.exp(units["nats_byte"]) == pytest.approx(units["perplexity_byte"])
    assert units["perplexity_byte"] ** units["bytes_word"] == pytest.approx(units["perplexity_word"])
    assert units["perplexity_byte"] == pytest.approx(results(KEY)["stride.64"]["seeds"][-1])


@pytest.mark.claim("eval-windows")
def test_the_mean_of_windows_is_another_number(results):
    """Lower in each passage, whose last, short window is the easiest of its four."""
    stride = results(KEY)["stride"]
    windows = [stride["windows"][str(number)] for number in (1, 2, 3, 4)]
    for *others, last in zip(*windows, strict=True):
        assert last < min(others)
    assert (seeds(stride["512"]) - seeds(stride["mean_of_windows"]) > 0.02).all()
    means = [sum(passage) / 4 for passage in zip(*windows, strict=True)]
    assert seeds(stride["mean_of_windows"]).tolist() == pytest.approx(means)
    assert stride["pooled"]["512"] > stride["mean_of_windows"]["mean"] + 0.02


@pytest.mark.claim("eval-choice")
def test_choices_are_better_by_their_mean(results):
    choice = results(KEY)["choice"]
    assert choice["byte"]["mean"] > choice["sum"]["mean"] > choice["shortest"]["mean"]
    assert choice["p"] <= 0.05


# classes


@pytest.mark.claim("eval-ece")
def test_a_calibrated_model_has_an_error(results):
    ece = results(KEY)["ece"]
    for bins in ("b5", "b15", "b50"):
        greater(ece["n100"][bins], ece["n1000"][bins])
        greater(ece["n1000"][bins], ece["n10000"][bins])
    for n in ("n100", "n1000", "n10000"):
        greater(ece[n]["b15"], ece[n]["b5"])
        greater(ece[n]["b50"], ece[n]["b15"])


@pytest.mark.claim("eval-imbalance")
def test_f1_rewards_the_larger_class(results):
    imbalance = results(KEY)["imbalance"]
    assert imbalance["lazy"]["95"]["f1"] > imbalance["real"]["95"]["f1"]
    assert imbalance["lazy"]["95"]["mcc"] == 0 < imbalance["real"]["95"]["mcc"]
    shares = ["50", "70", "90", "95", "99"]
    lazy = [imbalance["lazy"][share]["f1"] for share in shares]
    assert lazy == sorted(lazy) and lazy[-1] > 0.99
    assert all(imbalance["lazy"][share]["mcc"] == 0 for share in shares)


@pytest.mark.claim("eval-calibration")
def test_what_the_lines_of_calibration_show(results):
    """Errors fall with examples and grow with bins. Dashed: F1 rises to 1, MCC stays 0; solid: MCC falls."""
    ece, imbalance = results(KEY)["ece"], results(KEY)["imbalance"]
    for n, more in (("n100", "n1000"), ("n1000", "n10000")):
        assert all(ece[n][bins]["mean"] > ece[more][bins]["mean"] for bins in ("b5", "b15", "b50"))
    assert all(row["b5"]["mean"] < row["b15"]["mean"] < row["b50"]["mean"] for row in ece.values())
    assert imbalance["lazy"]["50"]["f1"] < imbalance["lazy"]["90"]["f1"] < imbalance["lazy"]["99"]["f1"]
    assert imbalance["lazy"]["99"]["f1"] > 0.99 and imbalance["lazy"]["99"]["mcc"] == 0
    assert imbalance["real"]["50"]["mcc"] == pytest.approx(0.6) and imbalance["real"]["99"]["mcc"] < 0.2


# programs


@pytest.mark.claim("eval-pass")
def test_the_naive_estimate_is_too_low(results):
    curves = results(KEY)["pass"]
    gaps = {k: curves["truth"][k] - curves["naive"][k] for k in curves["truth"]}
    assert all(abs(curves["truth"][k] - curves["unbiased"][k]) < 1e-12 for k in gaps)
    assert all(gap > 0.01 for k, gap in gaps.items() if k != "1") and abs(gaps["1"]) < 1e-12
    worst = max(gaps, key=gaps.get)
    assert curves["worst"] == {"k": int(worst), "short": pytest.approx(100 * gaps[worst])}


# how sure


@pytest.mark.claim("eval-coverage")
def test_intervals_cover_and_shrink(results):
    """Within two standard errors of their counts: 95 % for large sets, less for 20 skewed scores."""
    interval = results(KEY)["interval"]
    error = math.sqrt(0.95 * 0.05 / interval["repeats"])
    for n in ("n500", "n2000"):
        for kind in ("binary", "skewed"):
            assert abs(interval[kind][n]["coverage"] - 0.95) < 2 * error, (kind, n)
    assert interval["skewed"]["n20"]["coverage"] < 0.95 - 2 * error
    assert interval["slope"] == pytest.approx(-0.5, abs=0.05)
    widths = [interval["binary"][f"n{n}"]["width"] for n in (20, 50, 100, 200, 500, 2000)]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.claim("eval-intervals")
def test_the_lines_of_the_intervals_are_as_told(results):
    """Skewed scores at 20, 50 and 200 examples lie below the band; both widths fall as the root of n grows."""
    interval = results(KEY)["interval"]
    band = 2 * math.sqrt(0.95 * 0.05 / interval["repeats"])
    assert interval["skewed"]["n20"]["coverage"] < 0.95 - band < interval["binary"]["n20"]["coverage"] < 0.95 + band
    for kind, below in (("binary", set()), ("skewed", {20, 50, 200})):
        found = {n: interval[kind][f"n{n}"]["coverage"] for n in (20, 50, 100, 200, 500, 2000)}
        assert {n for n, share in found.items() if share < 0.95 - band} == below
        assert max(found.values()) < 0.95 + band
        widths = [interval[kind][f"n{n}"]["width"] for n in (20, 50, 100, 200, 500, 2000)]
        assert widths == sorted(widths, reverse=True) and widths[0] / widths[-1] == pytest.approx(10, rel=0.1)


@pytest.mark.claim("eval-paired")
def test_the_paired_test_is_right_and_sees_more(results):
    found = results(KEY)["paired"]
    for n in ("n100", "n400"):
        assert 0.005 < found["false"][n]["paired"] <= 0.05, n
    assert found["power"]["n400"]["paired"] > 4 * found["power"]["n400"]["overlap"]
    assert found["power"]["n400"]["paired"] > found["power"]["n100"]["paired"]
    for kind in ("false", "power"):
        assert all(0.08 < share < 0.095 for share in found["apart"][kind].values())


@pytest.mark.claim("eval-size")
def test_sizes_are_those_of_the_formula(results):
    size = results(KEY)["size"]
    for name, variance in (("tenth", 0.1), ("fifth", 0.2), ("unpaired", 0.32)):
        assert size[name] == math.ceil(((1.959964 + 0.841621) / 0.01) ** 2 * variance - 1e-6), name


# judges


@pytest.mark.claim("eval-judges")
def test_biases_are_found_but_for_the_judges_own(results):
    judge = results(KEY)["judge"]
    truth, bias = judge["true"], judge["bias"]
    assert judge["plain"]["C"]["mean"] < 0 < truth["C"] - 0.5  # A, with 0, seems better
    for found, wanted in ((judge["freed"]["C"], truth["C"]), (judge["position"], bias["position"])):
        assert abs(found["mean"] - wanted) < 0.2
    assert abs(judge["length"]["mean"] - bias["length"]) < 0.2 and abs(judge["jury"]["own"]["mean"] - bias["own"]) < 0.1
    greater(judge["freed"]["B"], judge["jury"]["B"])  # it keeps its liking for itself


@pytest.mark.claim("eval-judge-figure")
def test_c_is_far_off_as_it_is_and_b_when_freed(results):
    judge = results(KEY)["judge"]
    for name in ("B", "C"):
        found = judge["plain"][name]
        assert found["mean"] < judge["true"][name] and len(found["seeds"]) == judge["games"]["seeds"] == 20
    assert judge["plain"]["C"]["mean"] + 2 * judge["plain"]["C"]["sd"] < judge["true"]["C"]
    assert judge["plain"]["B"]["mean"] + 2 * judge["plain"]["B"]["sd"] > judge["true"]["B"]  # its bar has the truth
    assert judge["true"]["B"] - judge["plain"]["B"]["mean"] < 0.1
    assert abs(judge["freed"]["C"]["mean"] - judge["true"]["C"]) < 2 * judge["freed"]["C"]["sd"]
    assert judge["freed"]["B"]["mean"] - 2 * judge["freed"]["B"]["sd"] > judge["true"]["B"]


@pytest.mark.claim("eval-elo-order")
def test_elo_depends_on_the_order_of_games(results):
    judge = results(KEY)["judge"]
    assert (seeds(judge["elo_order"]) > 10).all()
    assert len(judge["elo_order"]["seeds"]) == judge["games"]["seeds"] and judge["games"]["each"] == 600


@pytest.mark.claim("eval-orders")
def test_a_changed_verdict_is_no_proof_of_a_bias(results):
    orders = results(KEY)["judge.orders"]
    flips = [orders[bias]["flips"] for bias in ("b0", "b6", "b20")]
    assert 0.2 < flips[0] < flips[1] < flips[2]


@pytest.mark.claim("eval-overlap")
def test_little_of_the_held_out_prose_is_in_training(results):
    overlap = results(KEY)["overlap"]
    assert overlap["mean"] < 0.05 and overlap["none"] > 0.5 and overlap["documents"] > 40
    assert overlap["where"] == "sunau.py" and overlap["above_half"] == 1


# faults


@pytest.mark.claim("eval-fault-clip")
def test_counts_that_are_not_clipped_forgive_repetition(results):
    faults = results(KEY)["faults"]
    assert faults["unclipped"] > faults["right"] + 5


@pytest.mark.claim("eval-fault-context")
def test_windows_without_context_cost_perplexity(results):
    values = results(KEY)
    greater(values["faults.no_context"], values["stride.64"], paired=True)
    logs = [math.log(one) for one in values["faults.no_context"]["seeds"]]
    assert math.log(values["faults.no_context_pooled"]) == pytest.approx(sum(logs) / 3)
    assert values["faults.no_context_pooled"] > values["stride.pooled.64"]


@pytest.mark.claim("eval-fault-share")
def test_the_share_is_too_low_for_every_k_above_1(results):
    curves = results(KEY)["pass"]
    gaps = [100 * (curves["truth"][str(k)] - curves["naive"][str(k)]) for k in range(2, 11)]
    assert min(gaps) > 1 and max(gaps) == pytest.approx(curves["worst"]["short"])


# speed


@pytest.mark.claim("eval-speed")
def test_speed_reaches_the_bars_with_equal_scores(results):
    values = results(KEY)
    bars = {"bleu": 2, "rouge_l": 8, "chrf": 50, "ter": 2, "chrf_sacrebleu": 1}
    for name, bar in bars.items():
        assert values[f"timings.ratio.{name}"] >= bar, name
        assert values["speed.difference"][name] < 1e-4, name
        assert name == "chrf_sacrebleu" or values["timings.exponent"][name] < 1.1, name
    assert values["speed.count"]["most"] == 10_000


def test_the_lab_took_less_than_25_minutes_of_one_core(results):
    assert results(KEY)["timings.cpu_seconds"] < 1500
