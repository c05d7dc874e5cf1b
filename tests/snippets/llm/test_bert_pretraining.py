"""Pre-training of BERT: which words are hidden and how, pairs, losses, rates, spans; and the page's program."""

import inspect
import itertools
import math
import random
import re

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from transformers import (
    BertForPreTraining,
    BertTokenizer,
    DataCollatorForLanguageModeling,
    get_linear_schedule_with_warmup,
)

from snippets.llm import bert_pretraining as page
from snippets.llm.bert import Bert, Config, attend, collate
from tests.snippets.oracles import perturbed
from theme.page.pages import ROOT

CONFIG = Config(41, 13, 24, 20, 2, 4)
IDS = {piece: i for i, piece in enumerate(page.SPECIAL)}  # [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4
TEXTS = [[[10 * d + 5 + s] * (s + 1) for s in range(4)] for d in range(3)]  # each sentence has its own token


@pytest.fixture
def model():
    """A small BERT with both heads, every weight moved."""
    return perturbed(page.new_model(CONFIG))


def numbers_of(name, count):
    """A batch of pairs, as tokens, segments and real, with labels."""
    drawn = [page.draw_pair(TEXTS, 10) for _ in range(count)]
    batch = collate([page.join(a, b, IDS) for a, b, _ in drawn], CONFIG, IDS["[PAD]"])
    return batch, torch.tensor([label for *_, label in drawn])


# hidden words


@pytest.mark.parametrize("shares", [(0.8, 0.1), (0.3, 0.5)])
def test_chosen_words_meet_their_fates_in_the_stated_shares(shares):
    """Chi-square of chosen or not, and of [MASK], another, the same; a chosen one has one fate."""
    tokens, allowed = torch.randint(5, 1000, (300, 401)), torch.ones(300, 401, dtype=torch.bool)
    hidden, chosen = page.mask_tokens(tokens, allowed, 4, 1000, shares)
    count, total = chosen.sum().item(), chosen.numel()
    assert stats.chisquare([count, total - count], [0.15 * total, 0.85 * total]).pvalue > 1e-3
    masked, same = (hidden == 4)[chosen].sum().item(), (hidden == tokens)[chosen].sum().item()
    other = count - masked - same
    draws_itself = shares[1] / 1000  # a random token may be the word itself, or [MASK]
    expected = [shares[0] + draws_itself, 1 - sum(shares) + draws_itself, shares[1] - 2 * draws_itself]
    assert stats.chisquare([masked, same, other], [count * p for p in expected]).pvalue > 1e-3
    assert hidden[~chosen].equal(tokens[~chosen])
    wrong = [shares[0] * 0.9 + 0.0, 1 - sum(shares), shares[1] + shares[0] * 0.1]  # negative control
    assert stats.chisquare([masked, same, other], [count * p for p in wrong]).pvalue < 1e-3
    random_words = hidden[chosen & (hidden != tokens) & (hidden != 4)]
    bins = torch.bincount(random_words // 100, minlength=10).tolist()
    assert stats.chisquare(bins).pvalue > 1e-3  # from the whole vocabulary


@pytest.mark.claim("bert-two-draws")
def test_library_draws_on_what_is_left():
    """Its 0.5 is of the fifth that is not masked; both ways give 80, 10 and 10 %."""
    pieces = {piece: i for i, piece in enumerate([*page.SPECIAL, *(f"w{i}" for i in range(995))])}
    collator = DataCollatorForLanguageModeling(BertTokenizer(vocab=pieces), mlm_probability=0.15, seed=0)
    tokens = torch.randint(5, 1000, (100, 401))
    hidden, labels = collator.torch_mask_tokens(tokens.clone())
    for hid, chosen in ((hidden, labels != -100), page.mask_tokens(tokens, torch.ones_like(tokens).bool(), 4, 1000)):
        masked, same = (hid == 4)[chosen].sum().item(), (hid == tokens)[chosen].sum().item()
        count = chosen.sum().item()
        shares = [0.8, 0.1, 0.1]
        assert stats.chisquare([masked, same, count - masked - same], [count * p for p in shares]).pvalue > 1e-4
        twice = [0.8, 0.2 * 0.9, 0.2 * 0.1]  # negative control: a tenth of what is left
        assert stats.chisquare([masked, same, count - masked - same], [count * p for p in twice]).pvalue < 1e-4


@pytest.mark.claim("bert-label")
def test_library_says_that_0_follows():
    said = inspect.getdoc(BertForPreTraining.forward)
    assert re.search(r"\b0 indicates sequence B is a continuation of sequence A", said)
    assert re.search(r"\b1 indicates sequence B is a random sequence", said)
    texts = [[[10 * d + s] for s in range(4)] for d in range(3)]  # a sentence of document d begins with d
    for _ in range(200):
        first, second, label = page.draw_pair(texts, 2)
        assert (label == 0) == (second[0] == first[-1] + 1)


def test_special_tokens_and_padding_are_never_chosen():
    batch, _ = numbers_of("", 400)
    allowed = ~torch.isin(batch["tokens"], torch.tensor(list(IDS.values())))
    assert not allowed[~batch["real"]].any()
    for _ in range(5):
        hidden, chosen = page.mask_tokens(batch["tokens"], allowed, 4, 41)
        assert chosen.any() and not chosen[~allowed].any() and hidden[~allowed].equal(batch["tokens"][~allowed])
    with pytest.raises(ValueError, match="at most 1"):
        page.mask_tokens(batch["tokens"], allowed, 4, 41, (0.8, 0.3))


def test_masks_are_drawn_where_the_tokens_are():
    """On another device than the CPU; this one has shapes only."""
    tokens = torch.zeros(5, 13, dtype=torch.long, device="meta")
    hidden, chosen = page.mask_tokens(tokens, tokens.bool(), 4, 41)
    assert hidden.device.type == chosen.device.type == "meta"


def test_masks_are_new_each_time():
    tokens, allowed = torch.randint(5, 41, (5, 13)), torch.ones(5, 13, dtype=torch.bool)
    assert not page.mask_tokens(tokens, allowed, 4, 41)[1].equal(page.mask_tokens(tokens, allowed, 4, 41)[1])


# pairs


def test_half_of_the_pairs_follow_and_their_label_is_0():
    labels = []
    for _ in range(2000):
        first, second, label = page.draw_pair(TEXTS, 10)
        owners = {token // 10 for token in first}, {token // 10 for token in second}
        assert len(owners[0]) == len(owners[1]) == 1 and first and second and len(first) + len(second) <= 10
        assert (owners[0] == owners[1]) == (label == 0)
        if label == 0:
            assert second[0] > first[-1]  # what follows, not what stands before
        labels.append(label)
    assert stats.binomtest(sum(labels), len(labels), 0.5).pvalue > 1e-3


def test_between_two_passages_that_follow_text_is_usually_missing():
    """The page's warning: the first passage is cut at its end, and the second begins behind what was cut off."""
    document, ends = list(range(2000)), sorted({*random.Random(0).sample(range(1, 2000), 100), 0, 2000})
    texts = [[document[a:b] for a, b in zip(ends, ends[1:], strict=False)], [[5000], [5001]]]
    drawn = [page.draw_pair(texts, 61) for _ in range(500)]
    gaps = [second[0] - first[-1] - 1 for first, second, label in drawn if label == 0 and first[0] < 2000]
    assert len(gaps) > 100 and min(gaps) >= 0
    assert sum(gap > 0 for gap in gaps) / len(gaps) > 0.9


def test_a_first_passage_leaves_room_and_something_to_follow():
    long = [[[5] * 50, [6] * 50], [[15] * 50, [16] * 50]]
    for _ in range(50):
        first, second, _ = page.draw_pair(long, 10)
        assert len(first) == 5 and len(second) == 5
    for texts, room in (([TEXTS[0]], 10), ([[[5]], [[6]]], 10), (TEXTS, 1)):
        with pytest.raises(ValueError, match="two documents of two sentences"):
            page.draw_pair(texts, room)


def test_rows_of_pairs():
    """The page's worked example."""
    assert page.join([7, 8], [9], IDS) == ([2, 7, 8, 3, 9, 3], [0, 0, 0, 0, 1, 1])
    assert page.join([7, 8], [], IDS) == ([2, 7, 8, 3], [0, 0, 0, 0])


def test_sentences_end_at_paragraphs_and_marks():
    document = "Return the list. It is new.\n\nRaises ValueError, e.g. if\nit is empty!\n\n  ----\n\n>>> f()"
    assert page.sentences(document) == [
        "Return the list.",
        "It is new.",
        "Raises ValueError, e.g. if\nit is empty!",
        ">>> f()",
    ]


# losses


@torch.no_grad()
@pytest.mark.equation("bert-loss", of=page.pretraining_loss)
def test_the_loss_is_of_the_chosen_words_and_of_all_pairs(model, formula):
    model = model.double()
    batch, labels = numbers_of("", 5)
    words = batch["tokens"].clone()
    chosen = torch.zeros_like(words, dtype=torch.bool)
    chosen[0, 1] = chosen[3, 2] = chosen[4, 1] = True
    batch["tokens"] = words.masked_fill(chosen, IDS["[MASK]"])
    value = page.pretraining_loss(model, batch, words, chosen, labels)
    x = model["bert"](**batch)
    logits = model["words"](x)
    places = chosen.nonzero().tolist()
    words_p = [logits[b, t].softmax(-1)[words[b, t]] for b, t in places]
    pairs_p = model["pairs"](model["pooler"](x)).softmax(-1)[torch.arange(5), labels]
    names = {"p_m(w_m)": lambda m: words_p[m], r"p_b(\lambda_b)": lambda b: pairs_p[b], "m": range(3), "b": range(5)}
    formula("bert-loss").holds(names | {r"\mathcal{L}": value, "M": 3, "B": 5})
    pairs = -pairs_p.log()
    everywhere = F.cross_entropy(logits.flatten(0, 1), words.flatten()) + pairs.mean()  # negative control
    assert abs(value - everywhere) > 0.01
    changed = words.masked_fill(~chosen, 7)  # words that were not chosen do not count
    assert page.pretraining_loss(model, batch, changed, chosen, labels).equal(value)


def test_label_0_counts(model):
    batch, _ = numbers_of("", 5)
    words, none = batch["tokens"], torch.zeros_like(batch["tokens"], dtype=torch.bool)
    costs = [page.pretraining_loss(model, batch, words, none, torch.full((5,), k)).item() for k in (0, 1)]
    assert all(cost > 0 for cost in costs) and costs[0] != costs[1]
    ignored = F.cross_entropy(torch.randn(5, 2), torch.zeros(5).long(), ignore_index=0)  # negative control
    assert ignored.isnan()


def test_a_batch_without_hidden_words_has_a_loss(model):
    batch, labels = numbers_of("", 5)
    none = torch.zeros_like(batch["tokens"], dtype=torch.bool)
    value = page.pretraining_loss(model, batch, batch["tokens"], none, labels)
    assert value.isfinite()
    assert F.cross_entropy(torch.zeros(0, 41), torch.zeros(0).long()).isnan()  # what the mean would be


@pytest.mark.claim("bert-empty")
def test_weights_survive_a_loss_that_is_no_number(model):
    batch, _ = numbers_of("", 5)
    none = torch.zeros_like(batch["tokens"], dtype=torch.bool)
    logits = model["words"](model["bert"](**batch)[none])
    loss = F.cross_entropy(logits, batch["tokens"][none], reduction="sum") / len(logits)
    assert loss.isnan() and len(logits) == 0
    loss.backward()
    assert not any(p.grad is not None and p.grad.isnan().any() for p in model.parameters())


# steps


@pytest.mark.equation("bert-rate", of=page.rate_factor)
def test_rates_are_their_formula(formula):
    factors = torch.tensor([page.rate_factor(step, 40) for step in range(40)], dtype=torch.float64)
    names = {r"\frac{\eta_\tau}{\eta}": factors, r"\tau": torch.arange(40)}
    names |= {r"\tau_\text{w}": 4, r"\tau_\text{all}": 40}
    formula("bert-rate").holds(names)


@pytest.mark.parametrize("num_steps", [1, 2, 9, 10, 100, 1000])
def test_rates_rise_and_fall(num_steps):
    factors = [page.rate_factor(step, num_steps) for step in range(num_steps)]
    warm_up = max(1, num_steps // 10)
    assert max(factors) == factors[warm_up - 1] == 1 and min(factors) > 0
    theirs = get_linear_schedule_with_warmup(  # which begins at 0 and never ends: one step apart
        torch.optim.SGD([torch.zeros(1)], lr=1.0), warm_up, num_steps + 1
    ).lr_lambdas[0]
    assert factors == pytest.approx([theirs(step + 1) for step in range(num_steps)])


def test_training_lowers_both_losses_and_ends_in_eval_mode():
    torch.manual_seed(0)
    random.seed(0)
    model = page.new_model(CONFIG)
    losses = page.pretrain(model, TEXTS, IDS, 60, rate=1e-2)
    assert len(losses) == 60 and not model["bert"].training
    assert losses[0] == pytest.approx(math.log(41) + math.log(2), abs=0.3)
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])


@pytest.mark.claim("bert-decay")
def test_biases_and_norms_do_not_decay(model):
    """With gradients of 0, matrices shrink and the rest stays."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    page.fit(model, lambda: sum(p.sum() for p in model.parameters()) * 0, 3, 0.1)
    for name, p in model.named_parameters():
        assert (p.norm() < before[name].norm()) == (p.ndim > 1), name


def test_ways_of_masking_reach_the_loss(monkeypatch):
    seen = []
    monkeypatch.setattr(page, "mask_tokens", lambda *given: seen.append(given[-1]) or (given[0], given[1]))
    page.pretrain(page.new_model(CONFIG), TEXTS, IDS, 1, shares=(0.0, 1.0))
    page.pretrain(page.new_model(CONFIG), TEXTS, IDS, 1)
    assert seen == [(0.0, 1.0), (0.8, 0.1)]


# tasks


def tuned(model, name):
    return torch.nn.ModuleDict({k: model[k] for k in ("bert", "pooler")} | {name: page.output(model["bert"], 2)})


def test_costs_of_texts_and_spans(model):
    batch, labels = numbers_of("", 5)
    texts, spans = perturbed(tuned(model, "label")), perturbed(tuned(model, "ends"))
    logits = texts["label"](texts["pooler"](texts["bert"](**batch)))
    assert page.text_loss(texts, batch, labels).item() == pytest.approx(F.cross_entropy(logits, labels).item())
    ends = torch.tensor([[1, 2], [2, 2], [1, 3], [3, 3], [1, 1]])
    found = page.span_logits(spans, batch)
    assert found[~batch["real"][:, None].expand_as(found)].eq(-math.inf).all()
    first, last = F.cross_entropy(found[:, 0], ends[:, 0]), F.cross_entropy(found[:, 1], ends[:, 1])
    assert page.span_loss(spans, batch, ends).item() == pytest.approx((first + last).item() / 2, abs=1e-5)


def test_the_best_span_is_found_among_all():
    logits = torch.randn(50, 2, 11)
    for longest in (1, 4, 30):
        found = page.best_span(logits, longest)
        for (begin, end), (i, j) in zip(logits.unbind(1) and logits, found.tolist(), strict=True):
            spans = [(i, j) for i, j in itertools.combinations_with_replacement(range(11), 2) if j - i < longest]
            assert max(spans, key=lambda s: begin[s[0]] + end[s[1]]) == (i, j)
    apart = torch.stack([logits[:, 0].argmax(1), logits[:, 1].argmax(1)], dim=1)
    assert (apart[:, 0] > apart[:, 1]).any()  # negative control: each end by itself gives spans that end too early


LETTERS = [*page.SPECIAL, *"abcdefgh"]


def letters(model_seed=0):
    """A tokenizer of single letters, and a small BERT for it, every weight moved."""
    torch.manual_seed(model_seed)
    return page.WordPiece(LETTERS), perturbed(page.new_model(Config(len(LETTERS), 9, 24, 20, 2, 4)))


def test_rows_of_texts_fit_into_the_context():
    wordpiece, model = letters()
    batch = page.batch_of(["a b", "c " * 20], wordpiece, model["bert"].config)
    assert batch["tokens"].tolist() == [[2, 5, 6, 3, 0, 0, 0, 0, 0], [2, *[7] * 7, 3]]
    assert batch["real"].sum(dim=1).tolist() == [4, 9] and not batch["segments"].any()


def test_fine_tuning_learns_labels_and_leaves_the_pretrained_model_as_it_was():
    """Label: how often a stands in a text, which is not told by its first word."""
    wordpiece, model = letters()
    random.seed(0)
    texts = [[random.choice("abcde") for _ in range(random.randint(2, 7))] for _ in range(300)]
    examples = [(" ".join(text), min(2, text.count("a"))) for text in texts]
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    tuned = page.fine_tune(model, wordpiece, examples[:200], 120, 1e-2)
    assert set(tuned) == {"bert", "pooler", "label"} and tuned["label"].out_features == 3
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())
    moved = [name for name, weight in tuned.state_dict().items() if name in before and not weight.equal(before[name])]
    assert any(name.startswith("pooler") for name in moved) and any(name.startswith("bert.layers") for name in moved)
    asked, wanted = zip(*examples[200:], strict=True)
    found = page.labels_of(tuned, wordpiece, asked)
    hits = sum(map(int.__eq__, found, wanted))
    assert hits > 85 > 1.2 * max(map(wanted.count, wanted))  # of 100; negative control: the most frequent label
    one = [page.labels_of(tuned, wordpiece, [text])[0] for text in asked]
    assert sum(a != b for a, b in zip(one, found, strict=True)) <= 1  # padding changes no answer


@torch.no_grad()
def test_vectors_are_means_of_real_tokens_of_length_1():
    wordpiece, model = letters()
    texts = ["a b", "c d e f g", "h"]
    found = page.vectors(model["bert"], wordpiece, texts)
    assert found.norm(dim=1) == pytest.approx(torch.ones(3).numpy(), abs=1e-5)
    for text, vector in zip(texts, found, strict=True):
        tokens = torch.tensor([[2, *wordpiece.encode(text), 3]])
        mean = model["bert"](tokens)[0].mean(dim=0)
        assert (mean / mean.norm() - vector).abs().max() < 1e-5
    batch = page.batch_of(texts, wordpiece, model["bert"].config)
    padded = F.normalize(model["bert"](**batch).mean(dim=1), dim=1)  # negative control
    assert (padded - found).abs().max() > 1e-3


def test_kinds_are_balanced_and_apart():
    random.seed(0)
    known, asked = page.kinds(False, 30), page.kinds(True, 20)
    assert [label for _, label in known] == [0] * 30 + [1] * 30 and len(asked) == 40
    assert min(len(text) for text, _ in known + asked) >= 40
    for held_out, found in ((False, known), (True, asked)):
        for text, label in found:
            owners = {(page.is_held_out(n), n[:6] == "topic ") for n, doc in page.documents().items() if text in doc}
            assert (held_out, bool(label)) in owners


def test_guesses_fill_each_gap():
    pieces = [*page.SPECIAL, *"abcdefgh"]
    wordpiece = page.WordPiece(pieces)
    model = perturbed(page.new_model(Config(len(pieces), 13, 24, 20, 2, 4)))
    found = page.guess(model, wordpiece, "a [MASK] b [MASK]", 4)
    assert len(found) == 2 and all(len(row) == 4 for row in found)
    assert all(a[1] >= b[1] for row in found for a, b in itertools.pairwise(row))
    logits = model["words"](model["bert"](torch.tensor([[2, 5, 4, 6, 4, 3]])))[0, [2, 4]].softmax(-1)
    assert [pieces.index(row[0][0]) for row in found] == logits.argmax(-1).tolist()


def test_the_program_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "TRAIN_STEPS", 2)
    monkeypatch.setattr(page, "TUNE_STEPS", 2)
    monkeypatch.setattr(page, "VOCABULARY", 700)
    several = sorted(page.documents().items())
    topics = [pair for pair in several if pair[0].startswith("topic ")]
    few = dict(several[:40] + topics[:40])
    monkeypatch.setattr(page, "documents", lambda: few)
    page.main()
    printed = capsys.readouterr().out
    assert re.search(r"^topic or docstring: \d+ of \d\d+ held-out sentences right$", printed, re.M)
    assert "loss.png" in printed and (tmp_path / "loss.png").stat().st_size > 1000


# by hand


@pytest.mark.claim("bert-row")
def test_the_row_of_the_page_is_what_the_code_makes(monkeypatch):
    """Each line of the table, from join, collate and mask_tokens; a second, longer row brings the padding."""
    text = (ROOT / "docs/posts/LLM/BERT.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (text|read, .*?|place, .*?|segment, .*?|real|asked) \|(.*) \|$", text, re.M)[:6]
    table = {name.split(",")[0]: [cell.strip(" `") for cell in cells.split("|")] for name, cells in lines}
    assert len(table) == 6 and {len(cells) for cells in table.values()} == {12}
    pieces = [*page.SPECIAL, *"the end of list it is new get".split()]
    wordpiece = page.WordPiece(pieces)
    first, second = (wordpiece.encode(part) for part in ("the end of the list", "it is new"))
    rows = [page.join(first, second, wordpiece.ids), page.join(first, first, wordpiece.ids)]
    batch = collate([(row[:12], kinds[:12]) for row, kinds in rows], Config(13, 12, 4, 4, 1, 1), wordpiece.ids["[PAD]"])
    words = batch["tokens"][:1]
    choice, fate = torch.ones(12), torch.zeros(12)
    choice[[0, 2, 5, 7, 11]], fate[[5, 7]] = 0.1, torch.tensor([0.95, 0.85])
    monkeypatch.setattr(torch, "rand", Draws(choice.tolist(), fate.tolist()))
    monkeypatch.setattr(torch, "randint_like", lambda like, high: torch.full_like(like, wordpiece.ids["get"]))
    allowed = ~torch.isin(words, torch.tensor([wordpiece.ids[piece] for piece in page.SPECIAL]))
    hidden, chosen = page.mask_tokens(words, allowed, wordpiece.ids["[MASK]"], len(pieces))
    named = [pieces[i] for i in words[0]]
    assert table["text"] == [piece.replace("[PAD]", "") for piece in named]
    assert table["read"] == [pieces[i] for i in hidden[0]]
    assert table["place"] == [str(i) for i in range(12)]
    assert table["segment"] == [str(kind) for kind in batch["segments"][0].tolist()]
    assert table["real"] == [str(int(real)) for real in batch["real"][0].tolist()]
    assert table["asked"] == [piece if asked else "" for piece, asked in zip(named, chosen[0], strict=True)]


def test_the_page_tells_how_to_draw_among_ordinary_pieces():
    text = (ROOT / "docs/posts/LLM/BERT.md").read_text(encoding="utf-8")
    (remedy,) = re.findall(r"`(ordinary\[.*?\])`", text)
    tokens, ordinary = torch.full((300, 7), 6), torch.arange(5, 41)
    drawn = eval(remedy, {"torch": torch, "tokens": tokens, "ordinary": ordinary})
    assert drawn.shape == tokens.shape and drawn.unique().tolist() == ordinary.tolist()
    kept = "first[-(room // 2):]"
    assert kept in text and eval(kept, {"first": [1, 2, 3, 4, 5], "room": 6}) == [3, 4, 5]


SECTION = re.compile(r"^## By hand\n(.*?)^## ", re.M | re.S)


class Draws:
    """Stands for torch.rand: gives the draws of the worked example, one after the other."""

    def __init__(self, *rows: list[float]):
        self.rows = iter(rows)

    def __call__(self, shape: torch.Size, device: torch.device | None = None) -> torch.Tensor:
        return torch.tensor([next(self.rows)]).reshape(shape)


class Fixed(torch.nn.Module):
    """Gives the same numbers whatever it is asked; None gives back what came in."""

    def __init__(self, numbers: torch.Tensor | None = None):
        super().__init__()
        self.numbers = numbers

    def forward(self, x: torch.Tensor | None = None, **batch: torch.Tensor) -> torch.Tensor:
        return x if self.numbers is None else self.numbers


@pytest.mark.claim("bert-by-hand")
@torch.no_grad()
def test_the_worked_example_is_what_the_code_computes(monkeypatch):
    """Every number of the table, from the page's code; each has to stand there in these digits."""
    table = SECTION.search((ROOT / "docs/posts/LLM/BERT.md").read_text(encoding="utf-8"))[1]
    tokens = torch.tensor([[7, 8, 9, 10]])
    monkeypatch.setattr(torch, "rand", Draws([0.05, 0.40, 0.12, 0.08], [0.30, 0.5, 0.95, 0.83]))
    monkeypatch.setattr(torch, "randint_like", lambda like, high: torch.full_like(like, 99))
    hidden, chosen = page.mask_tokens(tokens, torch.ones_like(tokens).bool(), 4, 100)
    assert chosen.tolist() == [[True, False, True, True]]  # "the first, the third and the fourth"
    assert hidden.tolist() == [[4, 8, 9, 99]]  # [MASK], not chosen, as it is, another

    bert = Bert(Config(1, 1, 4, 4, 0, 1, kinds=1)).eval()
    for part, row in ((bert.token, [1, 2, 0, 1]), (bert.position, [0, 1, 1, 0]), (bert.segment, [1, 0, -1, -1])):
        part.weight.data = torch.tensor([row], dtype=torch.float)
    zero = torch.zeros(1, dtype=torch.long)
    total = (bert.token.weight + bert.position.weight + bert.segment.weight)[0]
    assert total.tolist() == [2, 3, 0, 0]
    first = bert.embed(zero, zero, zero)[0]

    key, value = torch.tensor([[[[2.0, 0], [0, 1], [5, 5]]]]), torch.tensor([[[[1.0, 0], [0, 2], [9, 9]]]])
    query, real = torch.tensor([[[[1.0, 0]]]]), torch.tensor([[True, True, False]])
    scores = (query @ key.transpose(2, 3) / 2**0.5)[0, 0, 0, :2]
    mixed = attend(query, key, value, real)[0, 0]

    words = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]).log()
    x, answers, both = torch.zeros(1, 2, 1), torch.tensor([[0, 1]]), torch.tensor([[True, True]])
    pair = torch.tensor([[0.8, 0.2]]).log()
    parts = {"bert": Fixed(x), "words": Fixed(words), "pooler": Fixed(), "pairs": Fixed(pair)}
    loss = page.pretraining_loss(parts, {}, answers, both, torch.tensor([0]))
    of_words = page.pretraining_loss(parts | {"pairs": Fixed(torch.tensor([[99.0, 0]]))}, {}, answers, both, zero)

    begin, end = torch.tensor([1, 3, 2.0]), torch.tensor([2, 0, 1.5])
    spans = torch.stack([begin, end])[None]
    assert (begin.argmax(), end.argmax()) == (1, 0)
    assert page.best_span(spans).tolist() == [[1, 2]]
    rows = {
        "hide words": [],
        "their second": [],
        "first vector": [total.mean(), total.std(correction=0), *first],
        "attention": [*scores[:1], *scores.softmax(0)],
        "the values": list(mixed),
        "GELU": [F.gelu(torch.ones(1))],
        "the words": [math.log(2), math.log(4), of_words],
        "the pair": [-pair[0, 0], loss],
        "the rate": [page.rate_factor(step, 20) for step in (0, 1, 11)],
        "the span": [f"{begin[1] + end[2]:.1f}"],
    }
    lines = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")}
    assert len(lines) == len(rows) + 2  # the heading and the rule
    for name, numbers in rows.items():
        (line,) = (line for start, line in lines.items() if start.startswith(name))
        for number in numbers:
            text = number if isinstance(number, str) else f"{float(number):.4f}".removesuffix("00")
            assert text in line, f"{text} is not in: {line}"
