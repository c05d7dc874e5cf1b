"""Pre-training of RoBERTa: what the four formats cross, masks old and new, large batches in parts; the program."""

import copy
import random
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from transformers import DataCollatorForLanguageModeling, RobertaTokenizer

from snippets.llm import roberta_pretraining as page
from snippets.llm.bert import Config
from tests.shapes import unwatched
from tests.snippets.oracles import perturbed

MARKS = page.Marks(begin=0, end=2, pad=1, mask=4)
CONFIG = Config(60, 20, 24, 20, 2, 4, dropout=0.0)
TEXTS = [[[10 * d + 5 + s] * (s % 3 + 1) for s in range(5)] for d in range(5)]  # each sentence has its own token


def owners(tokens):
    """The documents whose tokens these are."""
    return {(token - 5) // 10 for token in tokens if token > 4}


DOCUMENTS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=2, max_size=6)


def numbered(sizes):
    """Documents of sentences of the given sizes, all of whose tokens differ."""
    count, texts = 100, []
    for document in sizes:
        texts.append([])
        for size in document:
            texts[-1].append(list(range(count, count + size)))
            count += size
    return texts


def flat(texts):
    return [token for text in texts for sentence in text for token in sentence]


def of_document(texts):
    return {token: d for d, text in enumerate(texts) for sentence in text for token in sentence}


# formats


@given(sizes=DOCUMENTS, length=st.integers(5, 14))
def test_full_sentences_hold_all_tokens_in_order_and_cross_documents(sizes, length):
    texts = numbered(sizes)
    rows = page.full_sentences(texts, length, MARKS)
    assert [token for row in rows for token in row.first if token != MARKS.end] == flat(texts)
    owner = of_document(texts)
    for row in rows:
        assert len(row.tokens(MARKS)) <= length and row.second is None and row.label is None
        assert row.first[0] != MARKS.end != row.first[-1]
        for i, token in enumerate(row.first[1:-1], 1):  # a mark stands where two documents meet, and nowhere else
            before, after = row.first[i - 1], row.first[i + 1]
            if token == MARKS.end:
                assert owner[before] != owner[after]
            elif after != MARKS.end:
                assert owner[token] == owner[after]
    for row, following in zip(rows, rows[1:], strict=False):  # what follows would not have fitted
        first = next(s for text in texts for s in text if following.first[0] in s)
        begins = first[0] == following.first[0]
        size = min(len(first), length - 2) + (owner[first[0]] != owner[row.first[-1]])
        assert not begins or len(row.first) + size > length - 2


@given(sizes=DOCUMENTS, length=st.integers(5, 14))
def test_doc_sentences_do_not_cross(sizes, length):
    texts = numbered(sizes)
    rows, owner = page.doc_sentences(texts, length, MARKS), of_document(texts)
    assert [token for row in rows for token in row.first] == flat(texts)
    assert all(len({owner[token] for token in row.first}) == 1 and MARKS.end not in row.first for row in rows)
    assert all(len(row.tokens(MARKS)) <= length for row in rows)


def test_full_sentences_do_cross():
    """Negative control of the one above, and the page's worked example."""
    texts = [[[5, 6], [7]], [[8, 9, 10], [11]]]
    rows = page.full_sentences(texts, 9, MARKS)
    assert [row.tokens(MARKS) for row in rows] == [[0, 5, 6, 7, 2, 8, 9, 10, 2], [0, 11, 2]]
    rows = page.doc_sentences(texts, 9, MARKS)
    assert [row.tokens(MARKS) for row in rows] == [[0, 5, 6, 7, 2], [0, 8, 9, 10, 11, 2]]
    assert page.full_sentences([[[5] * 20]], 9, MARKS) == [page.Row([5] * 7), page.Row([5] * 7), page.Row([5] * 6)]


def test_what_a_long_first_sentence_loses_is_missing_between_the_segments():
    texts, draw = [[list(range(100, 130)), list(range(130, 140))], [[50], [51]]], random.Random(0)
    rows = [page.segment_pairs(texts, 23, draw)[0] for _ in range(20)]
    follows = [row for row in rows if row.label == 0]
    assert len(follows) > 3
    for row in follows:
        assert row.first == list(range(100, 110)) and row.second == list(range(130, 140))


@pytest.mark.parametrize("make", [page.segment_pairs, page.sentence_pairs])
def test_pairs_follow_in_half_of_the_rows_and_cross_documents_in_the_others(make):
    labels = []
    for seed in range(120):
        for row in make(TEXTS, 12, random.Random(seed)):
            assert row.first and row.second and len(row.tokens(MARKS)) <= 12
            assert len(owners(row.first)) == len(owners(row.second)) == 1  # no part crosses
            assert (owners(row.first) == owners(row.second)) == (row.label == 0)
            if row.label == 0:
                assert row.second[0] == row.first[-1] + 1  # the very next sentence
            labels.append(row.label)
    assert stats.binomtest(sum(labels), len(labels), 0.5).pvalue > 1e-3
    for texts, length in (([TEXTS[0]], 12), ([TEXTS[0], []], 12), (TEXTS, 4)):
        with pytest.raises(ValueError, match="two documents"):
            make(texts, length, random.Random(0))


def test_segments_hold_several_sentences_and_sentence_pairs_one():
    segments = page.segment_pairs(TEXTS, 20, random.Random(0))
    assert any(len(set(row.first)) > 1 for row in segments) and any(len(set(row.second)) > 1 for row in segments)
    pairs = page.sentence_pairs(TEXTS, 20, random.Random(0))
    assert all(len(set(row.first)) == len(set(row.second)) == 1 for row in pairs)
    assert len(pairs) == 5 * 4  # each two neighbours of a document begin a row
    short = sum(len(row.tokens(MARKS)) for row in pairs) / len(pairs)
    assert short < sum(len(row.tokens(MARKS)) for row in segments) / len(segments)


def test_long_sentences_are_cut_in_pairs():
    long = [[[5] * 50, [6] * 50], [[15] * 50, [16] * 50]]
    for make in (page.segment_pairs, page.sentence_pairs):
        for row in make(long, 13, random.Random(0)):
            assert len(row.first) == 5 and len(row.second) == 5


def test_rows_as_the_network_reads_them():
    row = page.Row([7, 8], [9], 1)
    assert row.tokens(MARKS) == [0, 7, 8, 2, 9, 2] and row.segments() == [0, 0, 0, 0, 1, 1]
    assert page.Row([7]).tokens(MARKS) == [0, 7, 2] and page.Row([7]).segments() == [0, 0, 0]


# masks


ROWS = [page.Row(list(range(5, 5 + 15))) for _ in range(40)]


def first_epochs(copies, count):
    """The masks of some epochs, by row."""
    random.seed(0)
    torch.manual_seed(0)
    rows = [page.Row([token], [token, 7, 8] * 4) for token in range(10, 50)]  # known by their first token
    source = page.epochs(rows, MARKS, 60, copies)
    found = []
    for _ in range(count):
        epoch = [next(source) for _ in rows]
        assert sorted(m.words[1] for m in epoch) == list(range(10, 50))  # each row once
        found.append({m.words[1]: (tuple(m.read), tuple(m.chosen)) for m in epoch})
        assert [m.words[1] for m in epoch] != list(range(10, 50))  # in an order of its own
    return found


def test_static_masks_repeat_and_dynamic_ones_do_not():
    static, dynamic = first_epochs(1, 4), first_epochs(None, 4)
    assert static[0] == static[1] == static[2] == static[3]
    for one, other in zip(dynamic, dynamic[1:], strict=False):
        assert sum(one[row] != other[row] for row in one) > 30
    ten = first_epochs(10, 21)  # as in BERT: ten copies
    assert ten[0] == ten[10] == ten[20] and ten[3] == ten[13]
    assert len({str(sorted(epoch.items())) for epoch in ten[:10]}) == 10
    with pytest.raises(ValueError, match="one copy of masks or more is expected, given 0"):
        next(page.epochs(ROWS, MARKS, 60, 0))


@pytest.mark.claim("roberta-collator")
def test_transformers_collator_masks_anew_each_time():
    ids = {name: i for i, name in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefgh"])}
    collator = DataCollatorForLanguageModeling(RobertaTokenizer(vocab=ids, merges=[]))
    row = {"input_ids": torch.randint(5, 13, (200,))}
    one, other = (collator([row])["labels"] for _ in range(2))
    assert not one.equal(other) and (one != -100).any()
    row = page.Row(list(range(5, 60)) * 3)
    assert page.hide(row, MARKS, 60) != page.hide(row, MARKS, 60)


def test_marks_are_never_hidden_and_shares_are_berts():
    torch.manual_seed(0)
    row = page.Row([*range(5, 25), 2, *range(25, 45)], list(range(45, 60)))
    fates, places = Counter(), Counter()
    for _ in range(1500):
        masked = page.hide(row, MARKS, 60)
        assert masked.row is row and masked.words == row.tokens(MARKS)
        for i, (read, word, chosen) in enumerate(zip(masked.read, masked.words, masked.chosen, strict=True)):
            assert chosen or read == word
            if chosen:
                assert word not in (MARKS.begin, MARKS.end)
                fates["mask" if read == MARKS.mask else "same" if read == word else "other"] += 1
                places[i] += 1
    total = sum(fates.values())
    assert len(places) == 55 and stats.binomtest(total, 1500 * 55, 0.15).pvalue > 1e-3
    expected = [0.8 + 0.1 / 60, 0.1 + 0.1 / 60, 0.1 - 0.2 / 60]
    counts = [fates["mask"], fates["same"], fates["other"]]
    assert stats.chisquare(counts, [total * p for p in expected]).pvalue > 1e-3
    assert stats.chisquare(counts, [total * p for p in (0.8, 0.19, 0.01)]).pvalue < 1e-3  # negative control


@pytest.mark.equation("roberta-asked", of=None)
def test_the_share_of_places_that_are_ever_asked_for(formula):
    cases, shares = [(3, 2), (2, 5), (40, 10)], []
    for epochs, copies in cases:
        never = 1.0
        for _ in {epoch % copies for epoch in range(epochs)}:
            never *= 0.85
        shares.append(1 - never)
    e, m = torch.tensor(cases).double().T
    formula("roberta-asked").holds({"A": torch.tensor(shares, dtype=torch.float64), "e": e, "m": m})


# large batches


@pytest.fixture
def model():
    return perturbed(page.new_model(CONFIG, MARKS.pad, pairs=True)).double()


def groups_of(parts, seed=0):
    """Masked pairs in parts of different sizes."""
    torch.manual_seed(seed)
    masked = [page.hide(row, MARKS, 60) for row in page.sentence_pairs(TEXTS, 11, random.Random(seed))]
    cuts = [0, 2, 3, 9, len(masked)] if parts == 4 else [0, len(masked)]
    assert len(masked) > 10
    return [masked[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_parts_give_the_gradient_of_the_one_large_batch(model):
    """To 1e-6, in float32 and double; the mean of the parts' means does not."""
    for precision in (torch.float64, torch.float32):
        model = model.to(precision)
        found = []
        for parts in (1, 4):
            model.zero_grad()
            loss = page.accumulate(model, groups_of(parts))
            found.append((loss, gradients(model)))
        (one, whole), (other, summed) = found
        assert abs(one - other) < 1e-6
        assert max((whole[name] - summed[name]).abs().max().item() for name in whole) < 1e-6
        assert len(whole) == len(summed) > 40
    model.zero_grad()  # negative control: each part's own mean, then the mean of these
    for group in groups_of(4):
        of_words, of_pairs = page.costs(model, [group[0], *group[1:]])
        num_words = sum(sum(masked.chosen) for masked in group)
        num_pairs = sum(masked.row.label is not None for masked in group)
        ((of_words / max(1, num_words) + of_pairs / max(1, num_pairs)) / 4).backward()
    assert max((whole[name] - grad).abs().max().item() for name, grad in gradients(model).items()) > 1e-3


@torch.no_grad()
def plain_costs(model, group):
    """Of each row alone, without padding: the costs of its words, and of its label."""
    words, labels = [], []
    for masked in group:
        x = model["bert"](torch.tensor([masked.read]), segments=torch.tensor([masked.row.segments()]))
        logits = model["words"](x)[0]
        words += [
            F.cross_entropy(logits[i], torch.tensor(masked.words[i])) for i in range(len(logits)) if masked.chosen[i]
        ]
        if masked.row.label is not None:
            logits = model["pairs"](model["pooler"](x))
            labels.append(F.cross_entropy(logits, torch.tensor([masked.row.label])))
    return words, labels


@pytest.mark.equation("roberta-large-batch", of=page.accumulate)
def test_the_loss_is_one_mean_over_all_parts(model, formula):
    groups = groups_of(4)
    apart = [plain_costs(model, group) for group in groups]
    loss = page.accumulate(model, groups)
    names = {"C_k": lambda k: sum(apart[k][0]), "D_k": lambda k: sum(apart[k][1], torch.zeros(()).double())}
    names |= {"k": range(4), r"\mathcal{L}": loss, "M": sum(len(a) for a, _ in apart)}
    names["B"] = sum(len(b) for _, b in apart)
    formula("roberta-large-batch").holds(names)


def test_costs_are_those_of_each_row_alone(model):
    torch.manual_seed(0)
    without = [page.hide(row, MARKS, 60) for row in page.full_sentences(TEXTS, 18, MARKS)]
    for group in [*groups_of(4), without]:
        words, labels = plain_costs(model, group)
        of_words, of_pairs = page.costs(model, group)
        assert of_words.item() == pytest.approx(sum(words).item() if words else 0)
        assert of_pairs.item() == pytest.approx(sum(labels).item() if labels else 0)


def test_a_batch_without_hidden_words_has_a_loss():
    model = perturbed(page.new_model(CONFIG, MARKS.pad, pairs=False))
    rows = [page.Masked(page.Row([5, 6]), [0, 5, 6, 2], [0, 5, 6, 2], [False] * 4)] * 3
    assert page.accumulate(model, [rows]) == 0
    assert set(model) == {"bert", "words"}


def test_models_of_one_kind_of_segments_read_pairs_too():
    model = perturbed(page.new_model(Config(60, 20, 24, 20, 1, 4, kinds=1), MARKS.pad, pairs=True))
    assert page.costs(model, groups_of(1)[0])[0] > 0


def test_groups_hold_about_as_many_tokens():
    """Short rows come in greater numbers."""
    for rows in (page.sentence_pairs(TEXTS, 9, random.Random(0)), page.full_sentences(TEXTS, 18, MARKS)):
        source = page.batches(page.epochs(rows, MARKS, 60, None), 50)
        for _ in range(20):
            group = next(source)
            sizes = [len(masked.read) for masked in group]
            assert sum(sizes) >= 50 > sum(sizes[:-1])


# training


@pytest.mark.equation("roberta-rate", of=page.rate_at)
def test_rates_are_their_formula(formula):
    read = torch.tensor([0.0, 3, 40, 41, 200, 399, 400]).double()
    factors = torch.tensor([page.rate_at(one.item(), 400) for one in read], dtype=torch.float64)
    formula("roberta-rate").holds({r"\frac{\eta_n}{\eta}": factors, "n": read, r"n_\text{all}": 400})
    assert factors[2] == 1 and factors[-1] == 0 == factors[0]


def trained(parts, total=9000, copies=None):
    torch.manual_seed(0)
    random.seed(0)
    model = page.new_model(CONFIG, MARKS.pad, pairs=True)
    rows = page.segment_pairs(TEXTS, 15, random.Random(0))
    return model, page.pretrain(model, page.epochs(rows, MARKS, 60, copies), total, 1e-2, parts, 100)


def test_training_lowers_the_loss_and_reads_as_many_tokens():
    with unwatched():
        model, losses = trained(1)
        again, fewer, fixed = trained(1)[1], trained(3)[1], trained(1, copies=1)[1]
    assert not model["bert"].training and 80 <= len(losses) <= 90  # of 100 tokens and some
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert 27 <= len(fewer) <= 30
    assert again == losses != fixed  # the seed decides, and so do the masks


def test_biases_and_norms_do_not_decay(monkeypatch):
    """With gradients of 0, matrices shrink and the rest stays."""
    model = perturbed(page.new_model(CONFIG, MARKS.pad, pairs=True))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def nothing(model, groups):
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        return 0.0

    monkeypatch.setattr(page, "accumulate", nothing)
    rows = page.segment_pairs(TEXTS, 15, random.Random(0))
    page.pretrain(model, page.epochs(rows, MARKS, 60, None), 1000, 0.1, 1, 100)
    for name, p in model.named_parameters():
        assert (p.norm() < before[name].norm()) == (p.ndim > 1), name


# gaps


def test_guesses_fill_each_gap():
    bpe = page.ByteBPE(page.train_merges(["the list of the list", "a file"], 20))
    marks = page.Marks(*(bpe.ids[name] for name in (page.BEGIN, page.END, page.PAD, page.MASK)))
    config = Config(len(bpe.ids), 30, 24, 20, 2, 4, kinds=1)
    model = perturbed(page.new_model(config, marks.pad, pairs=False))
    found = page.fill(model, bpe, "the <mask> of<mask> file", 4)
    assert len(found) == 2 and all(len(row) == 4 for row in found)
    left, middle = bpe.encode("the"), bpe.encode(" of")
    ids = [marks.begin, *left, marks.mask, *middle, marks.mask, *bpe.encode(" file"), marks.end]
    logits = model["words"](model["bert"](torch.tensor([ids])))[0]
    for row, place in zip(found, [i for i, token in enumerate(ids) if token == marks.mask], strict=True):
        chances = logits[place].softmax(dim=-1)
        assert bpe.ids[row[0][0]] == chances.argmax() and row[0][1] == pytest.approx(chances.max().item(), abs=1e-6)


# packed documents


@torch.no_grad()
@pytest.mark.claim("roberta-packed")
def test_documents_in_a_row_look_at_each_other():
    """The page's confusion: packing hides no document from the next one. A change of the first moves the second."""
    bert = perturbed(page.Roberta(CONFIG, MARKS.pad)).double()
    row = page.full_sentences(TEXTS[:2], 18, MARKS)[0]
    tokens = torch.tensor([row.tokens(MARKS)])
    assert owners(row.first) == {0, 1}
    other = copy.deepcopy(tokens)
    other[0, 1] = 55
    second = [i for i, token in enumerate(tokens[0].tolist()) if token > 4 and (token - 5) // 10 == 1]
    assert (bert(tokens) - bert(other))[0, second].abs().max() > 1e-3
    apart = page.doc_sentences(TEXTS[:2], 18, MARKS)  # negative control: rows of one document
    assert all(len(owners(row.first)) == 1 for row in apart)


def test_the_program_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "TRAIN_TOKENS", 3000)
    monkeypatch.setattr(page, "MERGES", 200)
    few = dict(sorted(page.documents().items())[:40])
    monkeypatch.setattr(page, "documents", lambda: few)
    page.main()
    assert "loss.png" in capsys.readouterr().out and (tmp_path / "loss.png").stat().st_size > 1000


def test_parts_are_named_as_the_page_says():
    assert isinstance(page.new_model(CONFIG, MARKS.pad, pairs=True), nn.ModuleDict)
    assert set(page.new_model(CONFIG, MARKS.pad, pairs=True)) == {"bert", "words", "pooler", "pairs"}


def test_sentences_are_those_of_the_bert_page():
    from snippets.llm.bert_pretraining import sentences

    documents = page.documents().values()
    assert all(page.split_sentences(document) == sentences(document) for document in list(documents)[:50])
    assert page.split_sentences("Return it. It is new.\n\nE.g. this\n\n--") == ["Return it.", "It is new.", "E.g. this"]
