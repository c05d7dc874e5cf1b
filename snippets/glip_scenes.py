"""A small GLIP of drawn scenes (Li et al. 2021, arXiv 2112.03857): phrases, training, and its use.

Shapes: B pictures of a batch, T tokens, R regions, P phrases, K shapes, N scenes.
"""

# --8<-- [start:imports]
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor
from tqdm import trange

# --8<-- [end:imports]
from snippets.blocks.average_precision import Found, Truth, coco_ap, mean_ap
from snippets.blocks.boxes import nms
from snippets.data.scenes import COLOURS, HELD_OUT, KINDS, SEEN, Scene, ink, scenes
from snippets.glip import Glip, GlipConfig, detect, glip_losses
from snippets.glip_prompts import Pieces, Prompt, batch_tokens, token_map, write_prompt
from snippets.glip_targets import assign, region_targets

# --8<-- [start:phrases]
CUT = "red blue gr ##een yel ##low pur ##ple cross squ ##are circ ##le tri ##ang"
PIECES = Pieces("[PAD] [UNK] . , a".split() + CUT.split())
PAIRS = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
TAUGHT = [f"{colour} {kind}" for colour, kind in SEEN] + KINDS  # never a held-out pair
LENGTHS = {phrase: len(PIECES(phrase).ids) + 1 for phrase in TAUGHT}  # tokens, with the separator behind it


def named(scene: Scene, phrases: list[str]) -> Tensor:
    """Which of phrases names which shape, (K, P): "red circle" and "circle" both name a red circle."""
    rows = [
        [phrase in (shape.kind, f"{shape.colour} {shape.kind}") for phrase in phrases]
        for shape in scene.shapes
    ]
    return torch.tensor(rows)


def draw_phrases(scene: Scene, generator: torch.Generator, most: int = 9, limit: int = 48) -> list[str]:
    """What a scene is asked for in training, in random order: its pairs, half of its kinds, others.

    Others are up to most, without those that would make the prompt longer than limit tokens.
    """
    asked = [f"{shape.colour} {shape.kind}" for shape in scene.shapes]
    half = torch.rand(len(asked), generator=generator) < 0.5  # (K,)
    asked += [shape.kind for shape, kind in zip(scene.shapes, half.tolist(), strict=True) if kind]
    count = int(torch.randint(most + 1, (), generator=generator))
    asked += [TAUGHT[i] for i in torch.randperm(len(TAUGHT), generator=generator)[:count].tolist()]
    room, kept = limit + 1, []  # the last phrase has no separator behind it
    for phrase in dict.fromkeys(phrase for phrase in asked if phrase in TAUGHT):
        if LENGTHS[phrase] <= room:
            kept.append(phrase)
            room -= LENGTHS[phrase]
    return [kept[i] for i in torch.randperm(len(kept), generator=generator).tolist()]


# --8<-- [end:phrases]


# --8<-- [start:batch]
def write_batch(
    drawn: list[Scene], owners: list[Tensor], generator: torch.Generator
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """A prompt for each scene, and what its regions are to say of it: ids (B, T), real (B, T), targets.

    owners are the scenes' `assign`, each of shape (R,).
    """
    asked = [draw_phrases(scene, generator) for scene in drawn]
    prompts: list[Prompt] = [write_prompt(phrases) for phrases in asked]
    tokens = [PIECES(prompt.text) for prompt in prompts]
    ids, real = batch_tokens([one.ids for one in tokens])  # (B, T), (B, T)
    wanted = torch.zeros(len(drawn), len(owners[0]), ids.shape[1])  # (B, R, T)
    boxes = []
    for i, (scene, owner) in enumerate(zip(drawn, owners, strict=True)):
        said = token_map(tokens[i], prompts[i].spans)  # (_, _)
        row, box = region_targets(owner, scene.boxes, named(scene, asked[i]), said)  # (R, _), (R, 4)
        wanted[i, :, : row.shape[1]] = row
        boxes.append(box)
    return ids, real, (wanted, torch.stack(boxes))


# --8<-- [end:batch]


# --8<-- [start:train]
def train(
    model: Glip, drawn: list[Scene], steps: int, batch: int = 16, rate: float = 2e-3, seed: int = 0
) -> list[float]:
    """Train on scenes, with prompts written anew each time: AdamW, a warm-up, a cosine. Returns losses."""
    generator = torch.Generator().manual_seed(seed)
    pictures = ink(drawn)  # (N, 3, 32, 32)
    owners = [assign(model.anchors, model.levels, scene.boxes) for scene in drawn]
    owned = torch.stack(owners) >= 0  # (N, R)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    losses = []
    for _ in trange(steps):
        chosen = torch.randint(len(drawn), (batch,), generator=generator).tolist()
        ids, real, targets = write_batch(
            [drawn[i] for i in chosen], [owners[i] for i in chosen], generator
        )  # (B, _), (B, _), _
        output = model(pictures[chosen], ids, real)
        loss = sum(glip_losses(model, output, real, owned[chosen], targets))  # ()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


# --8<-- [end:train]


# --8<-- [start:measure]
def truth_of(scene: Scene, phrases: list[str]) -> Truth:
    """The boxes of a scene, once for each phrase that names them."""
    shape, phrase = named(scene, phrases).nonzero(as_tuple=True)  # (_,), (_,)
    return Truth(scene.boxes[shape], phrase)


def measure(model: Glip, drawn: list[Scene], phrases: list[str], counted: list[str]) -> tuple[float, float]:
    """AP50 and AP on scenes that are asked for all phrases, the mean over those that are counted."""
    model.eval()
    found = detect(model, PIECES, ink(drawn), phrases)
    precision = coco_ap(found, [truth_of(scene, phrases) for scene in drawn])
    labels = [phrases.index(phrase) for phrase in counted]
    return mean_ap({label: precision[label] for label in labels if label in precision})


# --8<-- [end:measure]


# --8<-- [start:picture]
def draw_boxes(axes, scene: Scene, found: Found, phrases: list[str], least: float = 0.3) -> None:
    """A scene on matplotlib's axes, with boxes and phrases: at each place the best one.

    Those with scores below least are left out.
    """
    axes.imshow((scene.picture.permute(1, 2, 0) / 2 + 0.5).clamp(0, 1).numpy(), extent=(0, 32, 32, 0))
    axes.set_xticks([])
    axes.set_yticks([])
    for i in nms(found.boxes, found.scores, torch.zeros_like(found.labels), 0.5).tolist():
        score, (left, top, right, bottom) = found.scores[i].item(), found.boxes[i].tolist()
        if score >= least:
            sides = right - left, bottom - top
            axes.add_patch(plt.Rectangle((left, top), *sides, fill=False, edgecolor="black"))
            axes.text(left, top - 0.6, f"{phrases[found.labels[i]]} {score:.2f}", fontsize=7, color="black")


def save_boxes(path: str, drawn: list[Scene], found: list[Found], phrases: list[str]) -> None:
    """Eight scenes with the boxes that were found in them."""
    figure, axes = plt.subplots(2, 4, figsize=(10, 5.4), layout="constrained")
    for place, scene, one in zip(axes.flat, drawn, found, strict=True):
        draw_boxes(place, scene, one, phrases)
    figure.savefig(path, dpi=90)
    plt.close(figure)


# --8<-- [end:picture]


# --8<-- [start:main]
SCENES, TRAIN_STEPS, TESTED = 2000, 1000, 200


def main() -> None:
    """Train on scenes of seen pairs, then look for all pairs in scenes that are new."""
    torch.set_num_threads(1)  # so small a network gains little from more
    torch.manual_seed(0)
    drawn = scenes(SCENES, torch.Generator().manual_seed(0))
    model = Glip(GlipConfig(len(PIECES.ids)))
    losses = train(model, drawn, TRAIN_STEPS)
    print(f"loss {losses[0]:.2f}, at the end {sum(losses[-20:]) / len(losses[-20:]):.2f}")
    never = [f"{colour} {kind}" for colour, kind in HELD_OUT]
    for what, held_out, counted in (
        ("pairs of training", False, [pair for pair in PAIRS if pair not in never]),
        ("pairs never seen together", True, never),
    ):
        tested = scenes(TESTED, torch.Generator().manual_seed(1), held_out)
        ap50, ap = measure(model, tested, PAIRS, counted)
        print(f"{what}: AP50 {ap50:.1%}, AP {ap:.1%}")
    shown = scenes(8, torch.Generator().manual_seed(2))
    save_boxes("boxes.png", shown, detect(model, PIECES, ink(shown), PAIRS), PAIRS)
    print("eight scenes and the boxes found in them: boxes.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
