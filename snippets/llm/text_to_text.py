"""Several tasks in one model, each named by a prefix (Raffel et al. 2019, arXiv 1910.10683, section 2.4).

Shapes: B texts of a batch, S tokens of a source, T tokens of a target.
"""

# --8<-- [start:imports]
import random
import re
import zlib
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from tqdm import trange

# --8<-- [end:imports]
from snippets.data.scenes import HELD_OUT, PLACES, RADIUS, SEEN, VOCABULARY, Shape
from snippets.llm.t5 import T5, Config, collate, cross_maps, loss, shift_right
from snippets.llm.t5_decoding import beam_search, write
from snippets.llm.t5_folders import load_t5, save_t5

# --8<-- [start:numbers]
ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen""".split()
TENS = "ten twenty thirty forty fifty sixty seventy eighty ninety".split()
MONTHS = """january february march april may june july august september october november december""".split()


def spell(n: int) -> str:
    """A number from 0 to 9,999 in words: 342 is three hundred and forty-two."""
    if not 0 <= n <= 9999:
        raise ValueError(f"a number from 0 to 9999 is expected, given {n}")
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 1] + (f"-{ONES[n % 10]}" if n % 10 else "")
    size, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    rest = n % size
    joint = " and " if 0 < rest < 100 else " "
    return f"{ONES[n // size]} {name}" + (joint + spell(rest) if rest else "")


# --8<-- [end:numbers]


# --8<-- [start:text]
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789 -:?,."
WORDS = [*ONES, *TENS, *"hundred thousand digits words iso date reverse what how where is".split(), *MONTHS]
WORDS += sorted({word for word in VOCABULARY if len(word) > 1}) + ["colour", "large"]
PIECES = [
    "<pad>",
    "<end>",
    *CHARACTERS,
    *dict.fromkeys(form for word in WORDS for form in (word, f" {word}")),
]
IDS = {piece: i for i, piece in enumerate(PIECES)}
PAD = 0
END = 1


def to_ids(text: str) -> list[int]:
    """The tokens of a text: its known words, with the space before them, else characters; then the end.

    Raises ValueError for an unknown character.
    """
    unknown = sorted(set(text) - set(CHARACTERS))
    if unknown:
        raise ValueError(f"characters of {CHARACTERS!r} are expected, given {unknown[0]!r} in {text!r}")
    ids = []
    for part in re.findall(r" ?[a-z]+|.", text):
        ids += [IDS[part]] if part in IDS else [IDS[character] for character in part]
    return ids + [END]


def to_text(ids: list[int]) -> str:
    """The text of tokens, up to the first end."""
    ids = ids[: ids.index(END)] if END in ids else ids
    return "".join(PIECES[i] for i in ids if i != PAD)


# --8<-- [end:text]


# --8<-- [start:tasks]
def number_to_digits(rng: random.Random) -> tuple[str, str, str]:
    """What is held out, source and target: a number in words, and in digits."""
    n = rng.randrange(10000)
    return str(n), f"digits: {spell(n)}", str(n)


def digits_to_number(rng: random.Random) -> tuple[str, str, str]:
    """What is held out, source and target: a number in digits, and in words."""
    n = rng.randrange(10000)
    return str(n), f"words: {n}", spell(n)


def draw_date(rng: random.Random) -> tuple[str, str, str]:
    """A day as 7 march 1987, as march 7, 1987 and as 1987-03-07."""
    day, month, year = rng.randint(1, 28), rng.randrange(12), rng.randint(1900, 2099)
    name = MONTHS[month]
    return f"{day} {name} {year}", f"{name} {day}, {year}", f"{year}-{month + 1:02}-{day:02}"


def date_to_iso(rng: random.Random) -> tuple[str, str, str]:
    """What is held out, source and target: a day in one of two ways, and as ISO 8601 has it."""
    one, other, iso = draw_date(rng)
    return iso, f"iso: {rng.choice([one, other])}", iso


def iso_to_date(rng: random.Random) -> tuple[str, str, str]:
    """What is held out, source and target: a day as ISO 8601 has it, and in words."""
    one, _, iso = draw_date(rng)
    return iso, f"date: {iso}", one


def reverse(rng: random.Random, lengths: tuple[int, int] = (3, 7)) -> tuple[str, str, str]:
    """What is held out, source and target: a word of different letters, and the same from its end."""
    word = "".join(rng.sample(CHARACTERS[:26], rng.randint(*lengths)))
    return word, f"reverse: {word}", word[::-1]


def ask(rng: random.Random, counts: tuple = (1, 2), held_out: bool = False) -> tuple[str, str, str]:
    """A question about the caption of a scene of so many shapes, held_out: of a pair that scenes hold out."""
    count = rng.choice(counts)
    pairs = [rng.choice(SEEN) for _ in range(count)]
    if held_out:
        pairs[0] = rng.choice(HELD_OUT)
    while len({kind for _, kind in pairs}) < count:  # so that a kind names one shape
        pairs[1:] = [rng.choice(SEEN) for _ in pairs[1:]]
    places = rng.sample(list(PLACES), count)
    shapes = [
        Shape(kind, colour, rng.choice(list(RADIUS)), place, PLACES[place])
        for (colour, kind), place in zip(pairs, places, strict=True)
    ]
    about, phrases = shapes[0], sorted(shape.phrase for shape in shapes)  # in any order: the same scene
    key = " and ".join(phrases)
    rng.shuffle(phrases)
    caption = " and ".join(phrases)
    question, answer = rng.choice(
        [
            (f"what colour is the {about.kind}?", about.colour),
            (f"how large is the {about.kind}?", about.size),
            (f"where is the {about.kind}?", about.place),
            (f"what is at the {about.place}?", f"{about.colour} {about.kind}"),
        ]
    )
    return key, f"{question} {caption}", answer


TASKS = {
    "digits": number_to_digits,
    "words": digits_to_number,
    "iso": date_to_iso,
    "date": iso_to_date,
    "reverse": reverse,
    "question": ask,
}


def is_held_out(key: str) -> bool:
    """Whether an example is kept from training: a tenth of all numbers, days, words and captions."""
    return zlib.crc32(key.encode()) % 10 == 0


def draw(task: Callable, count: int, rng: random.Random, held_out: bool = False) -> list[tuple[str, str]]:
    """Sources and targets of a task, of training or held out."""
    rows = []
    while len(rows) < count:
        key, source, target = task(rng)
        if is_held_out(key) == held_out:
            rows.append((source, target))
    return rows


# --8<-- [end:tasks]


# --8<-- [start:train]
def batch_of(rows: list[tuple[str, str]], config: Config) -> dict[str, Tensor]:
    """Rows of source and target as tensors."""
    return collate([to_ids(source) for source, _ in rows], [to_ids(target) for _, target in rows], config)


def rate_factor(step: int, num_steps: int, warm_up: int) -> float:
    """The share of the peak rate at a step, counted from 0: it rises for warm_up steps, then falls."""
    if step < warm_up:
        return (step + 1) / warm_up
    return (num_steps - step) / (num_steps - warm_up)


def train(
    model: T5, rows: dict[str, int], num_steps: int, rate: float, warm_up: int, rng: random.Random
) -> list[float]:
    """Train on so many new rows of each task at each step, and return the loss of each step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98), fused=True)
    losses = []
    model.train()
    for step in trange(num_steps, desc="train", mininterval=5):
        for group in optimizer.param_groups:
            group["lr"] = rate * rate_factor(step, num_steps, warm_up)
        optimizer.zero_grad()
        total = 0.0
        for name, count in rows.items():  # each by itself: short rows need no padding to the longest of all
            batch = batch_of(draw(TASKS[name], count, rng), model.config)
            cost = loss(model, **batch) / len(rows)  # ()
            cost.backward()
            total += cost.item()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(total)
    model.eval()
    return losses


# --8<-- [end:train]


# --8<-- [start:answer]
def answers(model: T5, sources: list[str], room: int = 24) -> list[str]:
    """What the model writes for each source, greedily."""
    batch = collate([to_ids(source) for source in sources], [[END]] * len(sources), model.config)
    return [to_text(row) for row in write(model, batch["source"], batch["real"], room)]


def answers_by_beams(
    model: T5, sources: list[str], beams: int, room: int = 24
) -> list[list[tuple[str, float]]]:
    """The best targets of each source by beam search, with their scores."""
    batch = collate([to_ids(source) for source in sources], [[END]] * len(sources), model.config)
    found = beam_search(model, batch["source"], batch["real"], room, beams)
    return [[(to_text(tokens), score) for tokens, score in row] for row in found]


def exact(model: T5, rows: list[tuple[str, str]], room: int = 24) -> float:
    """The share of rows whose target is written exactly."""
    found = answers(model, [source for source, _ in rows], room)
    return sum(answer == target for answer, (_, target) in zip(found, rows, strict=True)) / len(rows)


def draw_map(axis: plt.Axes, model: T5, source: str, target: str, layer: int = -1) -> None:
    """Where the decoder looks in the source as it writes a target: a mean over heads, darker for more."""
    ids, labels = to_ids(source), to_ids(target)
    written = shift_right(torch.tensor([labels]), model.config)  # (1, T)
    share = cross_maps(model, torch.tensor([ids]), written)[layer][0].mean(dim=0)  # (T, S)
    axis.imshow(share, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(ids)), [PIECES[i].strip() or "␣" for i in ids], rotation=90)
    axis.set_yticks(range(len(labels)), [PIECES[i].strip() or "␣" for i in labels])


# --8<-- [end:answer]


# --8<-- [start:main]
TRAIN_STEPS = 400
SMALL = Config(len(PIECES), 64, 16, 128, 2, 2, 4, dropout=0.0, gated=True, tied=False, scaled=False)


def main() -> None:
    """Train on two tasks, save and load the model, answer held-out rows, and draw where it looks."""
    torch.manual_seed(0)
    model, names = T5(SMALL), ["digits", "iso"]
    rng = random.Random(0)
    losses = train(model, dict.fromkeys(names, 32), TRAIN_STEPS, 3e-3, TRAIN_STEPS // 10 + 1, rng)
    print(f"loss: {losses[0]:.2f} at the first step, {losses[-1]:.3f} at the last")
    save_t5(model, "small-t5")
    model = load_t5("small-t5")
    for name in names:
        rows = draw(TASKS[name], 200, random.Random(1), held_out=True)
        print(f"{name}: {exact(model, rows):.0%} of 200 held-out rows are exactly right")
        source, target = rows[0]
        for text, score in answers_by_beams(model, [source], beams=3)[0]:
            print(f"  {source} -> {text}  (score {score:.3f}, right: {target})")
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        draw_map(axis, model, *draw(TASKS[name], 1, random.Random(2), held_out=True)[0])
    figure.savefig("cross-attention.png")
    print("saved cross-attention.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
