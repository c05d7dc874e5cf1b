"""BLEU and chrF against sacrebleu, ROUGE against rouge_score, answers against torchmetrics, on adversarial texts."""

import string
from collections import Counter

import numpy as np
import pytest
import sacrebleu
import torch
from nltk.translate.meteor_score import meteor_score as nltk_meteor
from rouge_score import tokenizers
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF, TER
from torchmetrics.functional.text import squad

from snippets.llm import evaluation
from snippets.llm.evaluation import (
    bleu,
    bleu_counts,
    bleu_score,
    chrf,
    exact_match,
    rouge_l,
    rouge_lsum,
    rouge_n,
    rouge_tokens,
    sentence_bleu,
    token_f1,
    tokens_13a,
    tokens_char,
    tokens_intl,
    tokens_zh,
)
from snippets.llm.meteor import meteor, stem
from snippets.llm.ter import ter
from tests.snippets.llm.test_meteor import NoSynonyms
from tests.snippets.llm.texts import compare, corpus, pair, streams, text

TOKENIZERS = {"13a": tokens_13a, "intl": tokens_intl, "char": tokens_char, "zh": tokens_zh}
CLASSES = {"13a": "13a.Tokenizer13a", "intl": "intl.TokenizerV14International"}
CLASSES |= {"char": "char.TokenizerChar", "zh": "zh.TokenizerZh"}
SACREBLEU = {"BLEU": BLEU(), "chrF": CHRF(), "TER": TER()}
SMOOTHINGS = {
    "none": evaluation.unsmoothed,
    "exp": evaluation.smoothed_exp,
    "floor": evaluation.smoothed_floor,
    "add-k": evaluation.smoothed_add,
}


@pytest.fixture(autouse=True)
def quiet(caplog):
    """sacrebleu warns of sentence scores without effective order."""
    caplog.set_level("ERROR")


# tokens


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_are_those_of_sacrebleu(name, agrees):
    theirs = BLEU(tokenize=name)._preprocess_segment

    def same(text):
        assert TOKENIZERS[name](text) == theirs(text).split(), text
        return len(TOKENIZERS[name](text))

    compare(
        lambda source: (text(source),),
        same,
        lambda text: len(theirs(text).split()),
        agrees,
        f"sacrebleu.tokenizers.tokenizer_{CLASSES[name]}",
        0,
    )


@pytest.mark.claim("eval-tokens")
def test_tokenizers_differ_where_the_page_says():
    """A year at the end, escaped marks, marks of other scripts, curly quotes; each worked out by hand."""
    for name, tokenize in TOKENIZERS.items():
        theirs = BLEU(tokenize=name)._preprocess_segment
        for said in (
            "in 1999.",
            "&quot;a&quot;",
            "«a»",
            "中文ok カナ",
            "“a”€",
            "\U00020010\U00020010",
            "1,000 a-b 5-3 don't",
        ):
            assert tokenize(said) == theirs(said).split(), (name, said)
    assert BLEU().tokenizer_signature == BLEU(tokenize="13a").tokenizer_signature == "13a"  # the default
    assert tokens_13a("in 1999.") == ["in", "1999", "."] and tokens_intl("in 1999.") == ["in", "1999."]
    assert tokens_13a("&quot;a&quot;") == ['"', "a", '"'] and tokens_zh("&quot;") == ["&", "quot", ";"]
    assert tokens_13a("«a»") == ["«a»"] and tokens_intl("«a»") == ["«", "a", "»"]
    assert tokens_zh("中文ok カナ") == ["中", "文", "ok", "カナ"] and tokens_zh("“a”€") == ["“", "a", "”", "€"]
    assert tokens_zh("a—b, 3.5") == ["a", "—", "b", ",", "3.5"]  # the rest as by 13a
    assert tokens_zh("\U00020010\U00020010") == ["\U00020010\U00020010"]  # extension B, which the list misses
    assert tokens_char("a b") == ["a", "b"]
    assert tokens_13a("3.5, 1,000 a-b 5-3 don't") == "3.5 , 1,000 a-b 5 - 3 don't".split()


# BLEU


@pytest.mark.parametrize("name", TOKENIZERS)
def test_corpus_bleu_is_that_of_sacrebleu(name, agrees):
    theirs = BLEU(tokenize=name, force=True)
    compare(
        corpus,
        lambda candidates, references: bleu(candidates, references, TOKENIZERS[name]),
        lambda candidates, references: theirs.corpus_score(candidates, streams(references)).score,
        agrees,
        "sacrebleu.BLEU",
    )


@pytest.mark.parametrize("effective", [False, True])
@pytest.mark.parametrize("name", SMOOTHINGS)
def test_smoothing_is_that_of_sacrebleu(name, effective, agrees):
    theirs = BLEU(smooth_method=name, effective_order=effective, force=True)

    def ours(candidate, reference):
        return bleu_score(bleu_counts(candidate, [reference]), SMOOTHINGS[name], effective)

    compare(pair, ours, lambda c, r: theirs.sentence_score(c, [r]).score, agrees, "sacrebleu.BLEU")


def test_every_case_of_counts_smoothed_as_sacrebleu(agrees):
    """Matched and possible n-grams drawn at random, so that each gap occurs that texts rarely have."""

    def rows(source):
        n = source.randint(1, 9)
        return n, source.randint(0, 12), *(source.randint(0, max(0, n - k)) for k in range(4))

    for name, smoothing in SMOOTHINGS.items():
        for effective in (False, True):

            def ours(n, length, *matched, smoothing=smoothing, effective=effective):
                counts = [n, length, *matched, *(max(0, n - k) for k in range(4))]
                return bleu_score(counts, smoothing, effective)

            def theirs(n, length, *matched, name=name, effective=effective):
                possible = [max(0, n - k) for k in range(4)]
                return BLEU.compute_bleu(list(matched), possible, n, length, name, None, effective).score

            compare(rows, ours, theirs, agrees, "sacrebleu.BLEU", cases=300)


def test_the_largest_count_in_one_reference_is_allowed():
    """The paper's example: seven times `the`, of which two are allowed; a second reference with three allows three."""
    assert bleu_counts("the " * 7, ["the cat is on the mat"])[2] == 2
    assert bleu_counts("the " * 7, ["the cat is on the mat", "the the the", "the"])[2] == 3


def test_the_closest_reference_counts_and_of_two_the_shorter():
    assert bleu_counts("a b c d", ["a b", "a b c d e f"])[1] == 2
    assert bleu_counts("a b c d", ["a b c d e f", "a b c d e"])[1] == 5
    assert bleu_counts("a b", ["", "a b c d e"])[1] == 0  # an empty one may be the closest


@pytest.mark.claim("eval-short")
def test_short_sentences_score_nothing_without_the_effective_order(caplog):
    """sacrebleu has it off in its class, and on in sentence_bleu. It drops orders that are too long only."""
    assert bleu(["a b c"], [["a b c"]]) == 0 and sentence_bleu("a b c", ["a b c"]) == pytest.approx(100)
    counts = bleu_counts("a b c d", ["a b x d"])
    assert bleu_score(counts, evaluation.unsmoothed, effective_order=True) == 0  # no match of order 3 or 4
    assert sentence_bleu("a x", ["a y"]) == pytest.approx(100 * (0.5 * 0.5) ** 0.5)
    corpus_of_one, one = BLEU().corpus_score(["a b c"], [["a b c"]]), sacrebleu.sentence_bleu("a b c", ["a b c"])
    assert corpus_of_one.score == 0 and one.score == pytest.approx(100)
    with caplog.at_level("WARNING", logger="sacrebleu"):
        assert BLEU().sentence_score("a b c", ["a b c"]).score == 0  # the class has it off too, and says so
    assert "effective_order" in caplog.text
    assert BLEU(smooth_method="none", effective_order=True).sentence_score("a b c d", ["a b x d"]).score == 0


@pytest.mark.claim("eval-smoothing")
def test_smoothings_side_by_side():
    """One pair, four answers; precisions by hand: 3 of 4, 1 of 3, then nothing of 2 and of 1."""
    counts = bleu_counts("a b c d", ["a b x d"])
    found = {name: smoothing(counts[2:6], counts[6:]) for name, smoothing in SMOOTHINGS.items()}
    assert found == {
        "none": [3 / 4, 1 / 3, 0, 0],
        "exp": [3 / 4, 1 / 3, 0.5 / 2, 0.25 / 1],
        "floor": [3 / 4, 1 / 3, 0.1 / 2, 0.1 / 1],
        "add-k": [3 / 4, 2 / 4, 1 / 3, 1 / 2],
    }
    for name, precisions in found.items():
        theirs = BLEU(smooth_method=name).sentence_score("a b c d", ["a b x d"]).precisions
        assert theirs == pytest.approx([100 * one for one in precisions]), name
    assert BLEU().smooth_method == "exp"


def test_a_corpus_is_no_mean_of_sentences():
    candidates, references = ["a b c d e", "x"], [["a b c d e"], ["y"]]
    mean = sum(sentence_bleu(*pair) for pair in zip(candidates, references, strict=True)) / 2
    assert bleu(candidates, references) == pytest.approx(95.54, abs=0.01) and mean == pytest.approx(50)


# chrF


@pytest.mark.parametrize("order", [0, 1, 2])
def test_chrf_is_that_of_sacrebleu(order, agrees):
    theirs = CHRF(word_order=order)
    compare(
        corpus,
        lambda candidates, references: chrf(candidates, references, order),
        lambda candidates, references: theirs.corpus_score(candidates, streams(references)).score,
        agrees,
        "sacrebleu.CHRF",
    )


@pytest.mark.claim("eval-chrf-names")
def test_chrf_plus_plus_is_another_metric():
    """Words count in chrF++ only; sacrebleu's CHRF() is chrF."""
    pair = ["ab cd"], [["abc d"]]  # the same letters, other words
    assert chrf(*pair) == pytest.approx(100) and chrf(*pair, word_order=2) == pytest.approx(100 * 6 / 8 * 1, abs=12)
    assert chrf(*pair, word_order=2) == pytest.approx(CHRF(word_order=2).corpus_score(["ab cd"], [["abc d"]]).score)
    assert CHRF().word_order == 0 and CHRF().corpus_score(["ab cd"], [["abc d"]]).score == pytest.approx(100)
    assert CHRF().beta == 2 and CHRF().char_order == 6


def test_orders_that_are_too_long_are_left_out():
    """One equal letter: 100. With the eps smoothing of the first implementation it would be a sixth."""
    assert chrf(["a"], [["a"]]) == 100
    assert CHRF(eps_smoothing=True).corpus_score(["a"], [["a"]]).score == pytest.approx(100 / 6)


def test_one_mark_is_split_from_a_word():
    assert evaluation.words_and_marks("(hi) (a a) !") == ["(hi", ")", "(", "a", "a", ")", "!"]


# ROUGE


def scores(kind, **others):
    scorer = RougeScorer([kind], **others)
    return lambda candidate, reference: list(scorer.score(reference, candidate)[kind])


@pytest.mark.parametrize("stemmed", [False, True])
@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rouge5", "rougeL", "rougeLsum"])
def test_rouge_is_that_of_rouge_score(kind, stemmed, agrees):
    def tokenize(text):
        return rouge_tokens(text, stem if stemmed else None)

    metric = {"rougeL": rouge_l, "rougeLsum": rouge_lsum}.get(kind)

    def ours(candidate, reference):
        pair = candidate, reference
        return list(metric(*pair, tokenize) if metric else rouge_n(*pair, int(kind[5:]), tokenize))

    theirs = scores(kind, use_stemmer=stemmed)  # a thousand cases of each kind, of which half are stemmed
    compare(pair, ours, theirs, agrees, "rouge_score.rouge_scorer.RougeScorer", 1e-12, cases=500)


def test_rouge_lsum_of_several_lines_is_that_of_rouge_score(agrees):
    def lines(source):
        return "\n".join(" ".join(source.choices("abcd", k=source.randint(0, 6))) for _ in range(source.randint(1, 4)))

    compare(
        lambda source: (lines(source), lines(source)),
        lambda c, r: list(rouge_lsum(c, r)),
        scores("rougeLsum"),
        agrees,
        "rouge_score.rouge_scorer.RougeScorer",
        1e-12,
    )


@pytest.mark.claim("eval-lines")
def test_lsum_is_l_where_there_are_no_lines_and_forgives_their_order():
    assert rouge_lsum("a b c", "c a b") == rouge_l("a b c", "c a b")
    assert rouge_lsum("c d\na b", "a b\nc d")[2] == 1 and rouge_l("c d\na b", "a b\nc d")[2] == 0.5
    assert scores("rougeLsum")("a b c", "c a b") == scores("rougeL")("a b c", "c a b")
    assert scores("rougeLsum")("c d\na b", "a b\nc d")[2] == 1 and scores("rougeL")("c d\na b", "a b\nc d")[2] == 0.5


@pytest.mark.claim("eval-ascii")
def test_rouge_drops_what_is_not_ascii_unless_told_otherwise():
    """A text in another script scores 0 against itself; the stemmer has nothing to do with it."""
    same = ["สวัสดี 中文"] * 2
    assert rouge_n(*same, 1) == (0, 0, 0) and rouge_tokens("café") == ["caf"]
    assert rouge_n(*same, 1, str.split)[2] == 1

    class Split(tokenizers.Tokenizer):
        def tokenize(self, text):
            return text.split()

    assert scores("rouge1", tokenizer=Split())(*same) == [1, 1, 1] and scores("rouge1")(*same) == [0, 0, 0]


def test_only_words_of_four_letters_are_stemmed():
    assert rouge_tokens("runs dies was", stem) == ["run", "die", "was"] and stem("was") == "wa"


@pytest.mark.claim("eval-mid")
def test_mid_of_rouge_score_is_a_median_of_draws():
    """What other tools report as `mid` changes from run to run; the plain mean does not."""
    from rouge_score.scoring import BootstrapAggregator, Score

    mids = []
    for _ in range(2):
        found = BootstrapAggregator(n_samples=20)
        for value in (0.0, 0.13, 0.37, 0.9, 1.0):
            found.add_scores({"rouge1": Score(value, value, value)})
        mids.append(found.aggregate()["rouge1"].mid.fmeasure)
    assert mids[0] != mids[1] and max(abs(mid - 0.48) for mid in mids) > 1e-6


def test_the_subsequence_is_that_of_a_plain_table():
    """Against the recursion that everybody knows, on random words."""
    source = np.random.default_rng(0)
    for _ in range(1000):
        first, second = (list(source.choice(list("abc"), source.integers(0, 12))) for _ in range(2))
        table = np.zeros((len(first) + 1, len(second) + 1), int)
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
        longest = len(second) - evaluation.subsequence_rows(first, second)[-1].bit_count()
        assert longest == table[-1, -1] == len(evaluation.subsequence(first, second))


# answers


def test_answers_are_scored_as_in_squad(agrees):
    """torchmetrics' SQuAD; it has one candidate, several answers, and percent."""

    def theirs(candidate, *answers):
        truth = {"answers": {"answer_start": [0] * len(answers), "text": list(answers)}, "id": "1"}
        found = squad([{"prediction_text": candidate, "id": "1"}], [truth])
        return [found["exact_match"].item() / 100, found["f1"].item() / 100]

    def ours(candidate, *answers):
        return [exact_match(candidate, answers), token_f1(candidate, answers)]

    def texts(source):
        return *pair(source), text(source)

    compare(texts, ours, theirs, agrees, "torchmetrics.functional.text.squad", 1e-6)


@pytest.mark.claim("eval-article")
def test_an_answer_that_is_an_article_is_nothing():
    """SQuAD's cleaning takes `A` away: of two such answers the F1 is 1 since SQuAD 2."""
    assert evaluation.normal_answer("A.") == [] and exact_match("a", ["The"]) == 1 == token_f1("a", ["The"])
    assert token_f1("cat", ["The"]) == 0
    truth = {"answers": {"answer_start": [0], "text": ["The"]}, "id": "1"}
    found = squad([{"prediction_text": "A", "id": "1"}], [truth])
    assert found["exact_match"] == 100 == found["f1"]


def test_answers_by_hand():
    assert exact_match("The Cat!", ["cat", "dog"]) == 1 and exact_match("cats", ["cat"]) == 0
    assert token_f1("a black cat", ["the cat sat", "dog"]) == pytest.approx(0.5)


# wrong input


@pytest.mark.parametrize(
    ("candidates", "references"),
    [([], []), (["a"], []), (["a"], [["a"], ["b"]]), ("a", [["a"]]), (["a"], ["a"]), (["a"], [[]]), (["a"], [[None]])],
)
def test_references_that_do_not_fit_are_refused(candidates, references):
    for metric in (bleu, chrf):
        with pytest.raises(ValueError, match="expected, given"):
            metric(candidates, references)


@pytest.mark.claim("eval-transposed")
def test_transposed_references_are_refused_where_sacrebleu_cuts_them():
    """Three candidates with two references each: sacrebleu takes them for two streams, and scores two sentences."""
    candidates, references = ["a", "b", "c"], [["a", "x"], ["b", "x"], ["c", "x"]]
    assert BLEU().corpus_score(candidates, references).sys_len == 2
    with pytest.raises(ValueError, match="candidates and as many lists"):
        bleu(candidates, streams(references))


EMPTY = [("", ""), ("", "cat"), ("cat", "")]  # candidate, reference


@pytest.mark.claim("eval-empty")
def test_empty_texts():
    """What the table of the page says: ours and the libraries', both empty, no candidate, no reference."""
    found = {
        "BLEU": [bleu([c], [[r]]) for c, r in EMPTY],
        "chrF": [chrf([c], [[r]]) for c, r in EMPTY],
        "TER": [ter([c], [[r]]) for c, r in EMPTY],
        "ROUGE": [rouge_l(c, r)[2] for c, r in EMPTY],
        "METEOR": [meteor(c.split(), [r.split()], stem) for c, r in EMPTY],
        "token F1": [token_f1(c, [r]) for c, r in EMPTY],
    }
    theirs = {name: [metric.corpus_score([c], [[r]]).score for c, r in EMPTY] for name, metric in SACREBLEU.items()}
    theirs["ROUGE"] = [scores("rougeL")(c, r)[2] for c, r in EMPTY]
    theirs["METEOR"] = [nltk_meteor([r.split()], c.split(), wordnet=NoSynonyms()) for c, r in EMPTY]
    truth = [{"answers": {"answer_start": [0], "text": [r]}, "id": "1"} for _, r in EMPTY]
    given = [[{"prediction_text": c, "id": "1"}] for c, _ in EMPTY]
    theirs["token F1"] = [squad(c, [r])["f1"].item() / 100 for c, r in zip(given, truth, strict=True)]
    assert found == theirs
    assert found.pop("TER") == [0, 100, 100] and found.pop("token F1") == [1, 0, 0]
    assert set(map(tuple, found.values())) == {(0, 0, 0)}
    assert rouge_lsum("", "a")[2] == rouge_n("a", "", 2)[2] == 0 and exact_match("", [""]) == 1


def test_punctuation_is_ascii():
    assert set("".join(evaluation.split_marks(string.punctuation))) == set(string.punctuation)
    assert Counter(evaluation.MARKS.findall(string.punctuation)) == Counter(set(string.punctuation) - set("',-."))


# formulas, as the page prints them


@pytest.mark.equation("eval-matches", of=evaluation.matches)
def test_matches_are_their_formula(formula):
    candidate, reference = list("aaabbcd"), list("aabbbcce")
    ours, theirs = ([text.count(letter) for letter in "abcde"] for text in (candidate, reference))
    names = {"c_g": lambda g: ours[g], "r_g": lambda g: theirs[g], "g": range(5)}
    formula("eval-matches").agrees(evaluation.matches(candidate, reference), names)


@pytest.mark.equation("eval-brevity", of=evaluation.brevity_penalty)
def test_brevity_is_its_formula(formula):
    pairs = [(7, 5), (5, 7), (5, 5), (1, 9)]
    ours = torch.tensor([evaluation.brevity_penalty(*pair) for pair in pairs], dtype=torch.float64)
    lengths, references = torch.tensor(pairs, dtype=torch.float64).T
    formula("eval-brevity").holds({"b": ours, "c": lengths, "r": references})
    assert evaluation.brevity_penalty(0, 3) == 0


@pytest.mark.equation("eval-bleu", of=bleu_score)
def test_bleu_is_its_formula(formula):
    counts = [8, 11, 7, 5, 3, 2, 8, 7, 6, 5]
    precisions = [matched / possible for matched, possible in zip(counts[2:6], counts[6:], strict=True)]
    names = {r"\mathrm{BLEU}": bleu_score(counts), "b": evaluation.brevity_penalty(8, 11)}
    formula("eval-bleu").holds(names | {"p_n": lambda n: precisions[int(n) - 1]})


@pytest.mark.equation("eval-f", of=evaluation.f_beta)
def test_f_is_its_formula(formula):
    for beta in (2, 1, 0.5):
        names = {r"F_\beta": evaluation.f_beta(0.3, 0.8, beta), r"\beta": beta, "P": 0.3, "R": 0.8}
        formula("eval-f").holds(names)
    assert evaluation.f_beta(0, 0) == 0


@pytest.mark.equation("eval-rouge", of=rouge_l)
def test_rouge_l_is_its_formula(formula):
    """The longest common subsequence is b c d."""
    precision, recall, f1 = rouge_l("a b c d e f g", "x b y c d")
    names = {"P": precision, "R": recall, "F_1": f1, r"\ell": 3, "c": 7, "r": 5}
    formula("eval-rouge").holds(names, relations=3)


@pytest.mark.claim("eval-by-hand")
def test_the_pair_of_the_page():
    """What the page works out by hand."""
    pair = "the cat sat on the mat", "the cat is on the mat"
    found = [rouge_n(*pair, 1)[2], rouge_n(*pair, 2)[2], rouge_l(*pair)[2], token_f1(pair[0], pair[1:])]
    assert found == pytest.approx([5 / 6, 3 / 5, 5 / 6, 3 / 4])
    assert sentence_bleu(pair[0], [pair[1]]) == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25)
    assert sentence_bleu(pair[0], [pair[1]]) == pytest.approx(38.0, abs=0.05)
    assert ter([pair[0]], [[pair[1]]]) == pytest.approx(100 / 6)
    words = [text.split() for text in pair]
    assert meteor(words[0], words[1:], stem) == pytest.approx(5 / 6 * (1 - 0.5 * (2 / 5) ** 3))
