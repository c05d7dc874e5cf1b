"""A small CLIP of drawn scenes (Radford et al. 2021, arXiv 2103.00020): captions, training, and its use.

Shapes: N scenes, B pictures of a batch, K classes.
"""

# --8<-- [start:imports]
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

# --8<-- [end:imports]
from snippets.clip import (
    Clip,
    VisionConfig,
    class_embeddings,
    recall,
    similarities,
    unit,
    zero_shot,
)
from snippets.clip_text import TextConfig
from snippets.clip_tokenizer import ClipTokenizer, learn_merges
from snippets.clip_training import train
from snippets.data.scenes import COLOURS, KINDS, RADIUS, Scene, ink, scenes

# --8<-- [start:captions]
CLASSES = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
PROMPTS = ["a {}", *(f"a {size} {{}}" for size in RADIUS)]
PROMPTS += [f"a {{}} at the {row} {side}" for row in ("top", "bottom") for side in ("left", "right")]


def describe(scene: Scene, generator: torch.Generator) -> str:
    """A caption, written anew each time: shapes in random order, size and place named half of the time."""
    phrases = []
    for i in torch.randperm(len(scene.shapes), generator=generator).tolist():
        shape = scene.shapes[i]
        size, place = (torch.rand(2, generator=generator) < 0.5).tolist()
        begin = f"a {shape.size} " if size else "a "
        end = f" at the {shape.place}" if place else ""
        phrases.append(f"{begin}{shape.colour} {shape.kind}{end}")
    return " and ".join(phrases)


# --8<-- [end:captions]


# --8<-- [start:picture]
def save_matrix(path: str, cosines: Tensor, drawn: list[Scene]) -> None:
    """Pictures down the side, their captions below, and the cosine (N, N) of each pair."""
    figure, (side, matrix) = plt.subplots(1, 2, figsize=(8, 8.6), width_ratios=[1, 8], layout="constrained")
    strip = torch.cat([scene.picture for scene in drawn], dim=1)  # (3, _, 32)
    side.imshow((strip.permute(1, 2, 0) / 2 + 0.5).clamp(0, 1))
    side.set_xticks([])
    side.set_yticks([32 * i - 0.5 for i in range(len(drawn))], [])
    matrix.imshow(cosines, cmap="cividis")
    for i, row in enumerate(cosines.tolist()):
        for j, cosine in enumerate(row):
            matrix.text(j, i, f"{cosine:z.2f}", ha="center", color="black" if cosine > 0.25 else "white")
    matrix.set_yticks([])
    captions = [scene.caption.replace(" and ", "\nand ") for scene in drawn]
    matrix.set_xticks(range(len(drawn)), captions, rotation=60, ha="right", fontsize=8)
    figure.savefig(path, dpi=100, bbox_inches="tight")  # long captions would be cut
    plt.close(figure)


# --8<-- [end:picture]


# --8<-- [start:main]
SCENES, TRAIN_STEPS, BATCH, TESTED = 3000, 500, 64, 400


def accuracy(guessed: Tensor, drawn: list[Scene]) -> float:
    """The share of guessed classes (N,) that name the one shape of a scene."""
    names = [f"{scene.shapes[0].colour} {scene.shapes[0].kind}" for scene in drawn]
    right = torch.tensor([CLASSES.index(name) for name in names])  # (N,)
    return (guessed == right).float().mean().item()


def main() -> None:
    """Train on scenes of one and two shapes, then name, find and compare pictures it has not seen."""
    torch.set_num_threads(1)  # so small a network gains little from more
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    drawn = scenes(SCENES, generator, max_shapes=2)
    tokenizer = ClipTokenizer(learn_merges([scene.caption for scene in drawn], 100))
    pictures = ink(drawn)  # (N, 3, 32, 32)

    def draw() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(SCENES, (BATCH,), generator=generator)  # (B,)
        return pictures[chosen], tokenizer([describe(drawn[i], generator) for i in chosen.tolist()])

    model = Clip(TextConfig(len(tokenizer.ids), num_layers=2), VisionConfig(patch=8))
    losses = train(model, draw, TRAIN_STEPS)
    print(f"loss {losses[0]:.2f}, at the end {losses[-1]:.2f}; scale {model.scale.exp().item():.1f}")
    model.eval()
    for prompts in (PROMPTS[:1], PROMPTS):
        texts = [prompt.format(name) for name in CLASSES for prompt in prompts]
        tokens = tokenizer(texts).unflatten(0, (len(CLASSES), -1))  # (K, _, _)
        classes = class_embeddings(model, tokens)  # (K, _)
        for what, held_out in (("pairs of training", False), ("pairs never seen", True)):
            tested = scenes(TESTED, torch.Generator().manual_seed(1), held_out, max_shapes=1)
            share = accuracy(zero_shot(model, ink(tested), classes).argmax(dim=-1), tested)
            print(f"{what}, {len(CLASSES)} classes, wordings of each: {len(prompts)}; right: {share:.0%}")
    with torch.no_grad():
        tested = scenes(100, torch.Generator().manual_seed(2), max_shapes=2)
        shown = model.vision(ink(tested))  # (100, _)
        told = model.text(tokenizer([scene.caption for scene in tested]))  # (100, _)
        found = similarities(shown, told, model.scale)  # (100, 100)
    print(f"of 100 captions the right one first: {recall(found, 1):.0%}, among five: {recall(found, 5):.0%}")
    save_matrix("similarities.png", unit(shown[:8]) @ unit(told[:8]).T, tested[:8])
    print("eight pictures and their captions: similarities.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
