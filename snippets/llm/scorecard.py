"""The program of the page: ten changes of a sentence, the metrics that see them, and how sure they are."""

# --8<-- [start:imports]
import random
import re
from collections.abc import Callable
from functools import cache
from pydoc_data.topics import topics

import matplotlib.pyplot as plt

# --8<-- [end:imports]
from snippets.llm.evaluation import chrf, rouge_l, rouge_n, sentence_bleu, token_f1
from snippets.llm.execution import pass_at_k, run_program, standing_fences
from snippets.llm.judging import bootstrap, bradley_terry, mean, paired_test
from snippets.llm.likelihood import bits_each, perplexity, strided_nats
from snippets.llm.meteor import meteor, stem
from snippets.llm.ter import ter

# --8<-- [start:changes]
SAME_MEANING = {"used": "employed", "defined": "declared", "same": "identical", "current": "present"}
SAME_MEANING |= {"created": "made", "evaluated": "computed", "executed": "run", "assigned": "given"}
SAME_MEANING |= {"allowed": "permitted", "allows": "permits", "needed": "required", "specified": "stated"}
SAME_MEANING |= {"determined": "decided", "removed": "deleted", "replaced": "exchanged", "shown": "displayed"}
SAME_MEANING |= {"available": "accessible", "modified": "changed", "additional": "further", "large": "big"}
SAME_MEANING |= {"usually": "mostly", "often": "frequently", "typically": "normally", "useful": "helpful"}
SAME_MEANING |= {"contains": "holds", "provides": "offers", "produces": "yields", "necessary": "required"}
VERBS = {"is", "are", "can", "must", "may", "will", "should", "has", "was", "be"}
JOINTS = set("if when or unless which that who where while although because as whether cannot only".split())


def drop(words: list[str], source: random.Random) -> list[str]:
    """Without one word in six."""
    gone = source.sample(range(len(words)), max(1, len(words) // 6))
    return [word for at, word in enumerate(words) if at not in gone]


def swap(words: list[str], source: random.Random) -> list[str]:
    """One word in six changes places with the next."""
    words = list(words)
    for at in source.sample(range(len(words) - 1), max(1, len(words) // 6)):
        words[at : at + 2] = words[at + 1], words[at]
    return words


def shuffle(words: list[str], source: random.Random) -> list[str]:
    """In any order."""
    return source.sample(words, len(words))


def paraphrase(words: list[str], source: random.Random) -> list[str]:
    """With words of nearly the same meaning."""
    return [SAME_MEANING.get(word, word) for word in words]


def negate(words: list[str], source: random.Random) -> list[str]:
    """With `not` behind the first auxiliary verb, or without the one that is there."""
    at = next(at for at, word in enumerate(words) if word in VERBS) + 1
    rest = words[at + 1 :] if words[at : at + 1] == ["not"] else ["not", *words[at:]]
    return words[:at] + rest


def cut(words: list[str], source: random.Random) -> list[str]:
    """The first half."""
    return words[: len(words) // 2]


def repeat(words: list[str], source: random.Random) -> list[str]:
    """The second half twice."""
    return words + words[len(words) // 2 :]


def lower(words: list[str], source: random.Random) -> list[str]:
    """In lower case."""
    return [word.lower() for word in words]


def unmark(words: list[str], source: random.Random) -> list[str]:
    """Without punctuation."""
    return re.sub(r"[^\w\s]", "", " ".join(words)).split()


def other(words: list[str], source: random.Random) -> list[str]:
    """Another sentence: what a score means that says nothing."""
    return source.choice([text for text in sentences() if text != " ".join(words)]).split()


CHANGES = [lower, unmark, paraphrase, negate, swap, drop, cut, repeat, shuffle, other]


def is_plain(sentence: str) -> bool:
    """Whether one word has another for it, and an auxiliary verb comes before all that begins a clause."""
    words = sentence.split()
    at = next((at for at, word in enumerate(words) if word in VERBS), None)
    if at is None or re.search(r"[=*~-]{3}|>>>|::=|\.\.\.|→", sentence):
        return False
    joints = {word.lower().strip(",") for word in words[:at]} & JOINTS or {"cannot", "only"} & set(words)
    return not joints and sum(word in SAME_MEANING for word in words) == 1


@cache
def sentences() -> list[str]:
    """Sentences of Python's help of 8 to 30 words: `paraphrase` and `negate` change one word of each."""
    text = " ".join(" ".join(topic.split()) for topic in topics.values())
    found = [one for one in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text) if 8 <= len(one.split()) <= 30]
    return [one for one in dict.fromkeys(found) if is_plain(one)]


# --8<-- [end:changes]


# --8<-- [start:metrics]
METRICS = {
    "BLEU": lambda ours, theirs: sentence_bleu(ours, [theirs]),
    "chrF": lambda ours, theirs: chrf([ours], [[theirs]]),
    "chrF++": lambda ours, theirs: chrf([ours], [[theirs]], word_order=2),
    "100 - TER": lambda ours, theirs: max(0.0, 100 - ter([ours], [[theirs]])),
    "METEOR": lambda ours, theirs: 100 * meteor(ours.split(), [theirs.split()], stem),
    "ROUGE-1": lambda ours, theirs: 100 * rouge_n(ours, theirs, 1)[2],
    "ROUGE-2": lambda ours, theirs: 100 * rouge_n(ours, theirs, 2)[2],
    "ROUGE-L": lambda ours, theirs: 100 * rouge_l(ours, theirs)[2],
    "token F1": lambda ours, theirs: 100 * token_f1(ours, [theirs]),
}


def scores(references: list[str], change: Callable, metric: str, seed: int = 0) -> list[float]:
    """A metric of each reference, changed, against itself."""
    source = random.Random(seed)
    return [METRICS[metric](" ".join(change(text.split(), source)), text) for text in references]


# --8<-- [end:metrics]


# --8<-- [start:main]
PAIRS = 100


def main() -> None:
    """Score one pair, then many; a text by its likelihood; programs by running them; judges by games."""
    candidate, reference = "the cat sat on the mat", "the cat is on the mat"
    print(f"{candidate!r} against {reference!r}:")
    print("  " + ", ".join(f"{name} {score(candidate, reference):.1f}" for name, score in METRICS.items()))

    texts = random.Random(0).sample(sentences(), PAIRS)
    table = {name: {change.__name__: scores(texts, change, name) for change in CHANGES} for name in METRICS}
    low, high = bootstrap(table["BLEU"]["negate"])
    print(f"BLEU of {PAIRS} negated sentences: {mean(table['BLEU']['negate']):.1f} ({low:.1f} to {high:.1f})")
    p = paired_test(table["BLEU"]["negate"], table["BLEU"]["paraphrase"])
    print(f"  of paraphrased ones: {mean(table['BLEU']['paraphrase']):.1f}; p = {p:.3f} if both were equal")

    letters = list(texts[0].encode())
    nats = strided_nats(lambda window, first: [4.0] * (len(window) - first), letters, context=16, stride=4)
    text = f"perplexity {perplexity(sum(nats), len(nats)):.1f}, {bits_each(sum(nats), len(nats)):.2f} bits"
    print(f"4 nats a byte: {text}")

    print("fences:", ", ".join(name for name, stands in standing_fences().items() if stands))
    programs = ["def add(a, b): return a + b", "def add(a, b): return a - b", "while True: pass"]
    said = [run_program(one, "assert add(2, 3) == 5", seconds=1, fenced=False) for one in programs]
    chances = [pass_at_k(3, said.count("passed"), k) for k in (1, 2)]
    print(f"programs: {', '.join(said)}; pass@1 {chances[0]:.2f}, pass@2 {chances[1]:.2f}")

    games = [("A", "B", 1.0)] * 6 + [("A", "B", 0.0)] * 2 + [("B", "A", 1.0)] * 5 + [("B", "A", 0.0)] * 3
    strengths, (first,) = bradley_terry(games, [[1.0]] * len(games))
    print(f"judge, in log odds: A over B {strengths['A'] - strengths['B']:.2f}, the first answer {first:.2f}")
    draw(table)


def draw(table: dict[str, dict[str, list[float]]]) -> None:
    """Each metric's mean for each change."""
    values = [[mean(found) for found in row.values()] for row in table.values()]
    figure, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
    axis.imshow(values, vmin=0, vmax=100, aspect="auto")
    axis.set_xticks(range(len(CHANGES)), [change.__name__ for change in CHANGES])
    axis.set_yticks(range(len(table)), list(table))
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            color = "black" if value > 50 else "white"
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", color=color)
    figure.savefig("scores.png")
    plt.close(figure)
    print("each metric after each change: scores.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
