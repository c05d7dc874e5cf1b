"""The tasks: what is asked and answered, what is held out, training, and what the page's program calls."""

import random
import re
from datetime import date

import matplotlib
import pytest
import torch

from snippets.data.scenes import HELD_OUT, SEEN, draw_scene
from snippets.llm import text_to_text as page
from snippets.llm.t5 import IGNORED, T5, Config

SMALL = Config(len(page.PIECES), 24, 5, 20, 1, 1, 3, dropout=0.0, gated=True, tied=False, scaled=False)


def drawn(name, count=200, seed=0, **others):
    rng = random.Random(seed)
    return [page.TASKS[name](rng, **others) for _ in range(count)]


def test_texts_become_tokens_and_back():
    texts = [text for name in page.TASKS for _, source, target in drawn(name, 50) for text in (source, target)]
    for text in texts:
        ids = page.to_ids(text)
        assert page.to_text(ids) == text and ids[-1] == page.END and page.END not in ids[:-1]
    assert [page.PIECES[i] for i in page.to_ids("words: forty-two xay")] == [
        *("words", ":", " forty", "-", "two", " ", "x", "a", "y", "<end>")
    ]
    assert page.to_text([5, 0, 6, 1, 7]) == page.CHARACTERS[3:5]
    with pytest.raises(ValueError, match="characters of .* are expected, given 'X'"):
        page.to_ids("X-ray")
    assert len(set(page.PIECES)) == len(page.PIECES) == len(page.IDS)


def test_numbers_are_spelled():
    told = {0: "zero", 19: "nineteen", 20: "twenty", 42: "forty-two", 100: "one hundred", 1000: "one thousand"}
    told |= {342: "three hundred and forty-two", 7042: "seven thousand and forty-two", 1100: "one thousand one hundred"}
    told |= {9999: "nine thousand nine hundred and ninety-nine"}
    for n, words in told.items():
        assert page.spell(n) == words
    assert len({page.spell(n) for n in range(10000)}) == 10000
    for n in (-1, 10000):
        with pytest.raises(ValueError, match="a number from 0 to 9999"):
            page.spell(n)


def value(words: str) -> int:
    """A number from its words, by another way than `spell`."""
    total = part = 0
    for word in re.findall("[a-z]+", words):
        if word == "thousand":
            total, part = total + 1000 * part, 0
        elif word == "hundred":
            part *= 100
        elif word in page.ONES:
            part += page.ONES.index(word)
        elif word != "and":
            part += 10 * (page.TENS.index(word) + 1)
    return total + part


def test_answers_are_right():
    for _, source, target in drawn("digits"):
        assert value(source.removeprefix("digits: ")) == int(target)
    for _, source, target in drawn("words"):
        assert value(target) == int(source.removeprefix("words: "))
    forms = set()
    for _, source, target in drawn("iso"):
        day = date.fromisoformat(target)
        plain = f"{day.day} {day:%B} {day.year}".lower(), f"{day:%B} {day.day}, {day.year}".lower()
        assert source.removeprefix("iso: ") in plain
        forms.add(plain.index(source.removeprefix("iso: ")))
    assert forms == {0, 1}
    for _, source, target in drawn("date"):
        day = date.fromisoformat(source.removeprefix("date: "))
        assert target == f"{day.day} {day:%B} {day.year}".lower()
    for word, source, target in drawn("reverse"):
        assert source == f"reverse: {word}" and list(target) == list(reversed(word))
        assert 3 <= len(word) <= 7 and len(set(word)) == len(word)


@pytest.mark.parametrize("held_out", [False, True])
def test_questions_are_answered_by_their_caption(held_out):
    counts = set()
    for key, source, answer in drawn("question", held_out=held_out, counts=(1, 2, 3)):
        question, caption = source.split("? ")
        parts = [re.fullmatch(r"a (\w+) (\w+) (\w+) at the (.*)", phrase).groups() for phrase in caption.split(" and ")]
        counts.add(len(parts))
        assert sorted(caption.split(" and ")) == key.split(" and ")
        about = [part for part in parts if question.endswith((f" the {part[2]}", f" the {part[3]}"))]
        assert len(about) == 1
        size, colour, kind, place = about[0]
        right = {"what colour": colour, "how large": size, "where is": place, "what is": f"{colour} {kind}"}
        assert answer == next(value for start, value in right.items() if question.startswith(start))
        pairs = [(part[1], part[2]) for part in parts]
        assert sum(pair in HELD_OUT for pair in pairs) == held_out
        assert all(pair in SEEN or pair in HELD_OUT for pair in pairs)
    assert counts == {1, 2, 3}


def test_captions_are_those_of_scenes():
    from snippets.data.scenes import PLACES, Shape

    key, source, _ = next(row for row in drawn("question", counts=(2,)))
    shapes = []
    for phrase in source.split("? ")[1].split(" and "):
        size, colour, kind, place = re.fullmatch(r"a (\w+) (\w+) (\w+) at the (.*)", phrase).groups()
        shapes.append(Shape(kind, colour, size, place, PLACES[place]))
    assert draw_scene(shapes).caption == source.split("? ")[1]


@pytest.mark.claim("encdec-held-out")
def test_no_held_out_row_occurs_in_training():
    """A tenth of all numbers, days, words and captions; both directions of a task hold out the same."""
    for name, task in page.TASKS.items():
        known = {source for source, _ in page.draw(task, 3000, random.Random(1))}
        held = {source for source, _ in page.draw(task, 300, random.Random(2), held_out=True)}
        assert not known & held, name
    share = sum(page.is_held_out(str(n)) for n in range(10000)) / 10000
    assert 0.08 < share < 0.12
    rng = random.Random(3)
    held = {target for _, target in page.draw(page.number_to_digits, 300, rng, held_out=True)}
    back = {source.removeprefix("words: ") for source, _ in page.draw(page.digits_to_number, 3000, rng)}
    assert not held & back


def test_a_batch_has_its_rows():
    rows = [("reverse: abc", "cba"), ("words: 7", "seven")]
    batch = page.batch_of(rows, SMALL)
    assert batch["source"].shape == batch["real"].shape and batch["target"].shape == (2, 4)
    assert batch["target"][1].tolist() == [page.IDS["seven"], 1, IGNORED, IGNORED]


@pytest.mark.equation("encdec-rate", of=page.rate_factor)
def test_the_rate_rises_and_falls(formula):
    steps = torch.tensor([3.0, 7.0, 9.0, 10.0, 50.0, 98.0])
    rates = torch.tensor([page.rate_factor(int(step), 100, 10) * 3e-3 for step in steps], dtype=torch.float64)
    names = {r"\eta_\tau": rates, r"\eta": 3e-3, r"\tau": steps, r"\tau_\text{all}": 100, r"\tau_\text{w}": 10}
    formula("encdec-rate").holds(names)
    assert page.rate_factor(9, 100, 10) == page.rate_factor(10, 100, 10) == 1 and page.rate_factor(0, 5, 0) == 1
    assert page.rate_factor(0, 100, 10) == 0.1


def test_training_lowers_the_loss_and_repeats():
    def run():
        torch.manual_seed(0)
        model = T5(SMALL)
        return page.train(model, {"digits": 8, "reverse": 4}, 40, 1e-2, 5, random.Random(0)), model

    losses, model = run()
    assert losses[-1] < 0.75 * losses[0] and len(losses) == 40 and not model.training
    assert run()[0] == losses


def test_answers_by_one_beam_are_greedy():
    torch.manual_seed(0)
    model = T5(SMALL).eval()
    sources = ["reverse: abc", "words: 1234"]
    found = page.answers_by_beams(model, sources, beams=1, room=6)
    assert [row[0][0] for row in found] == page.answers(model, sources, room=6)
    assert len(page.answers_by_beams(model, sources, beams=3, room=6)[0]) == 3
    rows = list(zip(sources, page.answers(model, sources), strict=True))
    assert page.exact(model, rows) == 1 and page.exact(model, [("words: 1", "?"), *rows[:1]]) == 0.5


def test_the_program_runs(tmp_path, monkeypatch, capsys):
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "TRAIN_STEPS", 2)
    page.main()
    assert "held-out rows are exactly right" in capsys.readouterr().out
    assert (tmp_path / "cross-attention.png").exists() and (tmp_path / "small-t5/config.json").exists()
