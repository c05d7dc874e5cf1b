"""The evaluation lab reaches the bars of its issue, and shows what the post says of it."""

import math

import pytest

from tests.labs.spread import greater, seeds

KEY = "LLM/EvaluationMetricsLLM"
METRICS = ["bleu", "chrf", "chrfpp", "ter", "meteor", "rouge1", "rouge2", "rougel", "token_f1"]


# what the metrics see


@pytest.mark.claim("eval-changes")
def test_a_negation_costs_less_than_a_paraphrase(results):
    """In every row but BERTScore's; lower case costs points in three. METEOR of a text itself is a little below 100."""
    changes, negation = results(KEY)["changes"], results(KEY)["negation"]
    for name in METRICS:
        assert changes[name]["negate"]["mean"] > changes[name]["paraphrase"]["mean"], name
        assert negation[name]["p"] <= 0.05, name
    lowered = {name for name in METRICS if changes[name]["lower"]["high"] < 99}
    assert lowered == {"bleu", "chrf", "chrfpp"}
    assert changes["bertscore"]["lower"]["mean"] == pytest.approx(100, abs=0.1)
    assert changes["bertscore"]["negate"]["mean"] < changes["bertscore"]["paraphrase"]["mean"]


@pytest.mark.claim("eval-negation")
def test_negated_sentences_score_higher(results):
    negation, changes = results(KEY)["negation"], results(KEY)["changes.bertscore"]
    for name in ("bleu", "chrf"):
        assert negation[name]["gap"] > 0 and negation[name]["p"] <= 0.05
    assert abs(changes["negate"]["mean"] - changes["paraphrase"]["mean"]) < 3


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
    assert stride["saved"]["mean"] == pytest.approx((1 - rows[3] / rows[0]).mean())


@pytest.mark.claim("eval-units")
def test_units_are_one_measurement(results):
    units, stride = results(KEY)["units"], results(KEY)["stride"]
    assert units["bits_byte"] * math.log(2) == pytest.approx(units["nats_byte"])
    assert math.exp(units["nats_byte"]) == pytest.approx(units["perplexity_byte"])
    assert units["perplexity_byte"] ** units["bytes_word"] == pytest.approx(units["perplexity_word"])
    assert (seeds(stride["512"]) - seeds(stride["mean_of_windows"]) > 0.02).all()


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
    """Skewed scores at 20 examples lie below the band; both widths fall, in proportion to the root of n."""
    interval = results(KEY)["interval"]
    band = 2 * math.sqrt(0.95 * 0.05 / interval["repeats"])
    assert interval["skewed"]["n20"]["coverage"] < 0.95 - band < interval["binary"]["n20"]["coverage"] < 0.95 + band
    for kind in ("binary", "skewed"):
        widths = [interval[kind][f"n{n}"]["width"] for n in (20, 50, 100, 200, 500, 2000)]
        assert widths == sorted(widths, reverse=True) and widths[0] / widths[-1] == pytest.approx(10, rel=0.1)


@pytest.mark.claim("eval-paired")
def test_the_paired_test_is_right_and_sees_more(results):
    found = results(KEY)["paired"]
    for n in ("n100", "n400"):
        assert 0.005 < found["false"][n]["paired"] <= 0.05, n
    assert found["power"]["n400"]["paired"] > 4 * found["power"]["n400"]["overlap"]
    assert found["power"]["n400"]["paired"] > found["power"]["n100"]["paired"]


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
    assert judge["plain"]["C"]["mean"] < truth["C"] - 0.5
    for found, wanted in ((judge["freed"]["C"], truth["C"]), (judge["position"], bias["position"])):
        assert abs(found["mean"] - wanted) < 0.2
    assert abs(judge["length"]["mean"] - bias["length"]) < 0.2 and abs(judge["jury"]["own"]["mean"] - bias["own"]) < 0.2
    greater(judge["freed"]["B"], judge["jury"]["B"])  # it keeps its liking for itself


@pytest.mark.claim("eval-judge-figure")
def test_both_are_off_as_they_are_and_c_is_near_when_freed(results):
    judge = results(KEY)["judge"]
    for name in ("B", "C"):
        found = judge["plain"][name]
        assert found["mean"] < judge["true"][name] and len(found["seeds"]) == 5
    reach = 2 * judge["plain"]["C"]["sd"]
    assert judge["plain"]["C"]["mean"] + reach < judge["true"]["C"]
    assert abs(judge["freed"]["C"]["mean"] - judge["true"]["C"]) < 2 * judge["freed"]["C"]["sd"]
    assert judge["freed"]["B"]["mean"] - 2 * judge["freed"]["B"]["sd"] > judge["true"]["B"]


@pytest.mark.claim("eval-elo-order")
def test_elo_depends_on_the_order_of_games(results):
    assert (seeds(results(KEY)["judge.elo_order"]) > 10).all()


@pytest.mark.claim("eval-orders")
def test_a_changed_verdict_is_no_proof_of_a_bias(results):
    orders = results(KEY)["judge.orders"]
    flips = [orders[bias]["flips"] for bias in ("b0", "b6", "b20")]
    assert 0.2 < flips[0] < flips[1] < flips[2]


@pytest.mark.claim("eval-overlap")
def test_little_of_the_held_out_prose_is_in_training(results):
    overlap = results(KEY)["overlap"]
    assert overlap["mean"] < 0.05 and overlap["none"] > 0.5 and overlap["documents"] > 40


# faults


@pytest.mark.claim("eval-fault-clip")
def test_counts_that_are_not_clipped_forgive_repetition(results):
    faults = results(KEY)["faults"]
    assert faults["unclipped"] > faults["right"] + 5


@pytest.mark.claim("eval-fault-context")
def test_windows_without_context_cost_perplexity(results):
    values = results(KEY)
    greater(values["faults.no_context"], values["stride.64"], paired=True)


@pytest.mark.claim("eval-fault-share")
def test_the_share_is_too_low_for_every_k_above_1(results):
    curves = results(KEY)["pass"]
    gaps = [100 * (curves["truth"][str(k)] - curves["naive"][str(k)]) for k in range(2, 11)]
    assert min(gaps) > 1 and max(gaps) == pytest.approx(curves["worst"]["short"])


# speed


@pytest.mark.claim("eval-speed")
def test_speed_reaches_the_bars_with_equal_scores(results):
    values = results(KEY)
    bars = {"bleu": 2, "rouge_l": 8, "chrf": 50, "ter": 2}
    for name, bar in bars.items():
        assert values[f"timings.ratio.{name}"] >= bar, name
        assert values["speed.difference"][name] < 1e-4, name
        assert values["timings.exponent"][name] < 1.1, name
    assert values["speed.count"]["most"] == 10_000


def test_the_lab_took_less_than_25_minutes_of_one_core(results):
    assert results(KEY)["timings.cpu_seconds"] < 1500
