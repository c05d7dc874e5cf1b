"""Classifier-free diffusion guidance (Ho and Salimans 2022, arXiv 2207.12598), and what it is used for:
drawing from a class or a caption, filling holes, enlarging.

Shapes: B batch, C channels, H height, W width, E embedding, L words of a caption,
N images.
Levels count from 0, the least noisy one, as in ddpm.py. The scale s is that of most libraries: 0 ignores the
condition, 1 is the conditional model, above 1 is guidance. The paper's strength is w = s - 1.
"""

# --8<-- [start:imports]
import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

# --8<-- [end:imports]
from snippets.blocks.unet import UNet
from snippets.data.digits import digits
from snippets.data.scenes import MAX_WORDS, VOCABULARY, encode_captions, scenes
from snippets.ddpm import (
    NoiseSchedule,
    ema_update,
    eps_from_x0,
    linear_beta,
    noise_like,
    q_sample,
    sample_ddim,
    save_grid,
    x0_from_eps,
)


# --8<-- [start:classes]
class ClassEncoder(nn.Module):
    """A vector for each class, and one more for "no class"."""

    def __init__(self, num_classes: int, dim: int):
        super().__init__()
        self.register_buffer("null", torch.tensor(num_classes))  # classes count from 0, so this one is free
        self.embedding = nn.Embedding(num_classes + 1, dim)  # learnt, the empty one too

    def forward(self, condition: Tensor) -> Tensor:
        """Vectors (B, E) of classes (B,); ValueError for a number that is no class and not `null`."""
        whole = condition.ndim == 1 and len(condition) and not condition.is_floating_point()
        if not whole or condition.min() < 0 or condition.max() > self.null:
            raise ValueError(f"classes (B,) from 0 to {self.null} (none) are expected, given {condition}")
        embedding = self.embedding(condition)  # (B, E)
        return embedding


# --8<-- [end:classes]


# --8<-- [start:captions]
class CaptionEncoder(nn.Module):
    """A vector for each caption: every word looks at its neighbours, twice, and all words are added up."""

    def __init__(self, num_words: int, length: int, dim: int):
        super().__init__()
        self.register_buffer("null", torch.zeros(length, dtype=torch.long))  # padding only: "" as a caption
        self.embedding = nn.Embedding(num_words, dim)
        self.conv_1 = nn.Conv1d(dim, dim, 9, padding=4)  # four words to either side: the phrase of a shape
        self.conv_2 = nn.Conv1d(dim, dim, 5, padding=2)  # and two more
        self.out = nn.Linear(dim, dim)

    def forward(self, condition: Tensor) -> Tensor:
        """Vectors (B, E) of captions (B, L), numbers of words, 0 is padding; ValueError for unknown words."""
        words, length = self.embedding.num_embeddings, len(self.null)
        whole = condition.ndim == 2 and len(condition) and not condition.is_floating_point()
        if not whole or condition.shape[1] != length or condition.min() < 0 or condition.max() >= words:
            wanted = f"captions (B, {length}) of whole numbers from 0 to {words - 1}"
            raise ValueError(f"{wanted} are expected, given {tuple(condition.shape)}, {condition}")
        there = (condition > 0)[:, None]  # (B, 1, L) where there is a word
        word = self.embedding(condition).transpose(1, 2) * there  # (B, E, L)
        word = F.silu(self.conv_1(word)) * there  # (B, E, L) "red circle at the top left"
        word = F.silu(self.conv_2(word)) * there  # (B, E, L) combined once more
        embedding = self.out(word.sum(dim=2))  # (B, E) all phrases in one vector
        return embedding


# --8<-- [end:captions]


# --8<-- [start:network]
class ConditionalUNet(UNet):
    """The U-Net of DDPM, told a condition besides the level: the embeddings are added. It predicts x0.

    Args: encoder, which makes vectors of 4 * widths[0] numbers from conditions and has the empty one, `null`;
    channels and widths as in UNet.
    """

    def __init__(self, encoder: nn.Module, channels: int = 1, widths: tuple = (24, 48)):
        super().__init__(channels, widths, attention=(False, *[True] * (len(widths) - 1)))
        self.encoder = encoder

    def check(self, x: Tensor, t: Tensor, condition: Tensor, channels: int, multiple: int) -> None:
        """ValueError unless x, t and condition are what the network takes."""
        if x.ndim != 4 or x.shape[1] != channels or any(n % multiple for n in x.shape[2:]):
            wanted = f"(B, {channels}, H, W) with H and W multiples of {multiple}"
            raise ValueError(f"images {wanted} are expected, given {tuple(x.shape)}")
        if t.shape != x.shape[:1] or condition.shape[:1] != x.shape[:1]:
            given = f"{tuple(t.shape)} and {tuple(condition.shape)} for {len(x)} images"
            raise ValueError(f"one t and one condition for each image are expected, given {given}")

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """The predicted clean images (B, C, H, W) for noisy ones x (B, C, H, W) at levels t (B,)."""
        self.check(x, t, condition, self.channels, self.factor)
        embedding = self.time_embedding(t) + self.encoder(condition)  # (B, E) level and condition
        x0 = self.denoise(x, embedding)  # (B, C, H, W)
        return x0


# --8<-- [end:network]


# --8<-- [start:scene-network]
class SceneUNet(ConditionalUNet):
    """A network for larger pictures and for captions that speak of places.

    It works on squares of 2x2 pixels, which is four times cheaper, and besides the vector in every block it
    gets the caption as a picture: 16 channels of 4x4 cells, made from the vector, glued to the input.
    """

    def __init__(self, encoder: nn.Module, channels: int = 3, widths: tuple = (32, 64)):
        super().__init__(encoder, 4 * channels, widths)
        self.layout = nn.Linear(4 * widths[0], 16 * 4 * 4)
        self.conv_in = nn.Conv2d(4 * channels + 16, widths[0], 3, padding=1)  # in place of UNet's

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """The predicted clean images (B, C, H, W) for noisy ones x (B, C, H, W) at levels t (B,)."""
        self.check(x, t, condition, self.channels // 4, 2 * self.factor)
        told = self.encoder(condition)  # (B, E)
        layout = self.layout(told).view(-1, 16, 4, 4)  # (B, 16, 4, 4) what goes where
        cells = F.pixel_unshuffle(x, 2)  # (B, 4 * C, _, _) half of H and W
        layout = F.interpolate(layout, size=cells.shape[2:])  # (B, 16, _, _) as large
        cells = torch.cat([cells, layout], dim=1)  # (B, _, _, _) side by side
        cells = self.denoise(cells, self.time_embedding(t) + told)  # (B, 4 * C, _, _)
        x0 = F.pixel_shuffle(cells, 2)  # (B, C, H, W)
        return x0


# --8<-- [end:scene-network]


# --8<-- [start:training]
# --8<-- [start:drop]
def drop_condition(condition: Tensor, null: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Conditions (B,) or (B, L), of which about a share is replaced by null: each sample by its own draw."""
    if not 0 <= share <= 1:
        raise ValueError(f"a share in [0, 1] is expected, given {share}")
    dropped = torch.rand(len(condition), generator=generator, device=condition.device) < share  # (B,)
    told = condition.clone()  # _ (B,) or (B, L), like the condition
    told[dropped] = null
    return told


# --8<-- [end:drop]


def guided_loss(
    model: ConditionalUNet,
    schedule: NoiseSchedule,
    x0: Tensor,
    condition: Tensor,
    drop: float,
    generator: torch.Generator,
) -> Tensor:
    """Algorithm 1, one batch: the weighted error of x0, a share `drop` of the conditions left out."""
    told = drop_condition(condition, model.encoder.null, drop, generator)  # _ like the condition
    eps = noise_like(x0, generator)  # (B, C, H, W)
    t = torch.randint(schedule.num_steps, x0.shape[:1], generator=generator, device=x0.device)  # (B,)
    xt = q_sample(schedule, x0, t, eps)  # (B, C, H, W)
    weight = schedule.at(1 / schedule.noise**2, t, x0).clamp(max=10)  # (B, 1, 1, 1) detail counts more
    loss = (weight * (model(xt, t, told) - x0).square()).mean()  # ()
    return loss


def train_guided(
    model: ConditionalUNet,
    schedule: NoiseSchedule,
    x0: Tensor,
    condition: Tensor,
    num_steps: int,
    batch_size: int = 64,
) -> ConditionalUNet:
    """Algorithm 1: train on images x0 (N, C, H, W) in [-1, 1] and their N conditions, one in ten dropped.

    Returns the averaged network, in `eval` mode. Its answer to `null` is the unconditional model.
    """
    if len(x0) != len(condition) or num_steps <= 0 or batch_size <= 0:
        given = f"{len(x0)} images, {len(condition)} conditions, {num_steps} steps, batches of {batch_size}"
        raise ValueError(f"a condition for each image, and positive numbers, are expected, given {given}")
    if not x0.is_floating_point() or not x0.abs().max() <= 1:
        raise ValueError(f"float images in [-1, 1] are expected, given {x0.dtype} up to {x0.abs().max()}")
    generator = torch.Generator(x0.device).manual_seed(0)  # the same run each time
    average = copy.deepcopy(model).eval()  # a calmer copy, used for sampling
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    decline = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for step in trange(num_steps, desc="train", mininterval=2):
        rows = torch.randint(len(x0), (batch_size,), generator=generator, device=x0.device)  # (B,)
        loss = guided_loss(model, schedule, x0[rows], condition[rows], 0.1, generator)  # ()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decline.step()
        ema_update(average, model, decay=min(0.995, step / (step + 10)))
    return average


# --8<-- [end:training]


# --8<-- [start:scale]
def scale_from_w(w: float) -> float:
    """The scale s that most libraries ask for, from the strength w of the paper. Back: w = s - 1."""
    return 1 + w


# --8<-- [end:scale]


# --8<-- [start:guidance]
# --8<-- [start:guide]
def guide(told: Tensor, untold: Tensor, scale: float) -> Tensor:
    """The guided prediction (Eq. 6): from untold towards told and, for a scale above 1, beyond."""
    if told.shape != untold.shape:
        given = f"{tuple(told.shape)} and {tuple(untold.shape)}"
        raise ValueError(f"two predictions of the same shape are expected, given {given}")
    prediction = untold + scale * (told - untold)  # (B, C, H, W) 0: untold, 1: told
    return prediction


# --8<-- [end:guide]


def guided(
    model: ConditionalUNet, schedule: NoiseSchedule, condition: Tensor, scale: float, phi: float = 0.0
) -> Callable:
    """The guided noise as a function of xt and t, as the samplers want it: one pass for both halves.

    phi from 0 to 1 is the share of guidance rescale, see `rescale`.
    """
    if not 0 <= phi <= 1:
        raise ValueError(f"phi in [0, 1] is expected, given {phi}")
    null = model.encoder.null.expand_as(condition)  # _ (B,) or (B, L), like the condition

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        both = model(torch.cat([xt, xt]), torch.cat([t, t]), torch.cat([condition, null]))  # (2 * B, C, H, W)
        told, untold = both.chunk(2)  # (B, C, H, W), (B, C, H, W) in the order of the line above
        x0 = rescale(guide(told, untold, scale), told, phi)  # (B, C, H, W)
        eps = eps_from_x0(schedule, xt, t, x0)  # (B, C, H, W)
        return eps

    return predict


# --8<-- [end:guidance]


# --8<-- [start:remedies]
def rescale(beyond: Tensor, told: Tensor, phi: float) -> Tensor:
    """Guidance rescale (Lin et al. 2023, Eqs. 15 and 16): shrink towards the told one's deviation."""
    if beyond.ndim != 4 or told.shape != beyond.shape:
        given = f"{tuple(beyond.shape)} and {tuple(told.shape)}"
        raise ValueError(f"two predictions (B, C, H, W) are expected, given {given}")
    size, wanted = (x.std(dim=(1, 2, 3), keepdim=True) for x in (beyond, told))  # (B, 1, 1, 1), (B, 1, 1, 1)
    ratio = torch.where(size > 1e-3, wanted / size, 1)  # (B, 1, 1, 1) one flat picture has no deviation
    factor = phi * ratio + (1 - phi)  # (B, 1, 1, 1) 1 if phi is 0
    shrunk = factor * beyond  # (B, C, H, W) at phi = 1 as large as told
    return shrunk


def dynamic_threshold(x0: Tensor, share: float = 0.9) -> Tensor:
    """Imagen's remedy: find the size that a share of the pixels keep, clip there, and divide by it."""
    if not 0 < share <= 1:
        raise ValueError(f"a share in (0, 1] is expected, given {share}")
    wide = x0.to(torch.promote_types(x0.dtype, torch.float32))  # (B, C, H, W) quantiles need no less
    size = wide.flatten(1).abs().quantile(share, dim=1)  # (B,)
    size = size.clamp(min=1)  # (B,) 1 if nearly all are in [-1, 1]
    size = size.view(-1, 1, 1, 1).to(x0)  # (B, 1, 1, 1)
    x0 = x0.clamp(-size, size) / size  # (B, C, H, W) all in [-1, 1]
    return x0


def with_x0(schedule: NoiseSchedule, predict: Callable, adjust: Callable) -> Callable:
    """A prediction of the noise whose implied clean image is adjusted: clipped, thresholded, corrected."""

    def adjusted(xt: Tensor, t: Tensor) -> Tensor:
        x0 = adjust(x0_from_eps(schedule, xt, t, predict(xt, t)))  # (B, C, H, W) the guess, put right
        eps = eps_from_x0(schedule, xt, t, x0)  # (B, C, H, W) the noise that would imply it
        return eps

    return adjusted


# --8<-- [end:remedies]


# --8<-- [start:keep]
def keep_pixels(pictures: Tensor, known: Tensor) -> Callable:
    """A correction of guesses: the known pixels (a mask that broadcasts to the pictures) are put back."""
    pairs = zip(known.shape[::-1], pictures.shape[::-1], strict=False)  # sizes from the last one on
    fits = known.ndim <= pictures.ndim == 4 and all(size in (1, whole) for size, whole in pairs)
    if known.dtype != torch.bool or known.all() or not fits:
        wanted = f"a mask of bools for {tuple(pictures.shape)} with something to fill"
        raise ValueError(f"{wanted} is expected, given {known.dtype} {tuple(known.shape)} {known}")

    def adjust(x0: Tensor) -> Tensor:
        x0 = torch.where(known, pictures, x0.clamp(-1, 1))  # (B, C, H, W)
        return x0

    return adjust


def shrink(x: Tensor) -> Tensor:
    """Half as many pixels a side: means of squares of 2x2."""
    if x.ndim != 4 or x.shape[2] % 2 or x.shape[3] % 2 or not x.is_floating_point():
        given = f"{x.dtype} {tuple(x.shape)}"
        raise ValueError(f"float images (B, C, H, W), H and W even, are expected, given {given}")
    small = F.avg_pool2d(x, 2)  # (B, C, _, _) half of H and W
    return small


def keep_small(small: Tensor, rounds: int = 20) -> Callable:
    """A correction of guesses: they shrink to `small`, and stay in [-1, 1] the better the more rounds."""
    if rounds <= 0 or small.ndim != 4 or not small.abs().max() <= 1:
        given = f"{rounds} and {tuple(small.shape)} up to {small.abs().max()}"
        raise ValueError(f"rounds > 0 and images (B, C, H, W) in [-1, 1] are expected, given {given}")

    def adjust(x0: Tensor) -> Tensor:
        for _ in range(rounds):
            x0 = x0.clamp(-1, 1)  # (B, C, H, W)
            if shrink(x0).shape != small.shape:
                given = f"{tuple(x0.shape)} for {tuple(small.shape)}"
                raise ValueError(f"guesses twice as large as what is known are expected, given {given}")
            missing = small - shrink(x0)  # (B, C, H // 2, W // 2) what each square lacks
            x0 = x0 + missing.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)  # (B, C, H, W)
        return x0

    return adjust


def restore(
    predict: Callable,
    schedule: NoiseSchedule,
    keep: Callable,
    xt: Tensor,
    num_steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Images (B, C, H, W) from noise xt that agree with what is known: every guess is corrected by `keep`."""
    corrected = with_x0(schedule, predict, keep)  # a prediction of the noise, like any other
    drawn = sample_ddim(corrected, schedule, xt, num_steps, 1.0, generator)  # (B, C, H, W)
    return keep(drawn)


# --8<-- [end:keep]


# --8<-- [start:text]
SCENE_STEPS = 5000


def text_to_image(prompts: list[str], scale: float = 3.0) -> Tensor:
    """Train on 6,000 drawn scenes and their captions; returns a picture (B, 3, 32, 32) for each prompt."""
    if not prompts:
        raise ValueError(f"at least one prompt is expected, given {prompts}")
    asked = encode_captions(prompts)  # (B, L) first, so that a word that is unknown costs no training
    examples = scenes(6000, torch.Generator().manual_seed(1))  # no red square is among them
    pictures = torch.stack([scene.picture for scene in examples])  # (N, 3, 32, 32)
    captions = encode_captions([scene.caption for scene in examples])  # (N, L)
    torch.manual_seed(0)  # the same first weights each time
    encoder = CaptionEncoder(len(VOCABULARY), MAX_WORDS, dim=128)
    model = SceneUNet(encoder, channels=3, widths=(32, 64))
    schedule = NoiseSchedule(linear_beta())
    model = train_guided(model, schedule, pictures, captions, SCENE_STEPS, batch_size=32)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(prompts), 3, 32, 32, generator=generator)  # (B, 3, 32, 32)
    predict = guided(model, schedule, asked, scale)
    drawn = sample_ddim(
        predict, schedule, noise, num_steps=50, eta=0.0, generator=generator
    )  # (B, 3, 32, 32)
    return drawn


# --8<-- [end:text]


# --8<-- [start:main]
TRAIN_STEPS = 700


def main() -> None:
    """Train on the real digits; draw each of the ten at four scales, complete halves, enlarge."""
    torch.set_num_threads(1)  # so small a network gains little from more, and loses much on a busy machine
    torch.manual_seed(0)  # the same first weights each time
    (images, labels), (others, names) = digits(), digits(held_out=True)
    schedule = NoiseSchedule(linear_beta())
    model = ConditionalUNet(ClassEncoder(num_classes=10, dim=96), channels=1, widths=(24, 48))
    model = train_guided(model, schedule, images, labels, TRAIN_STEPS)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(10, 1, 8, 8, generator=generator)  # (10, 1, 8, 8) the same for each scale
    rows = []
    for scale in (0.0, 1.0, 3.0, 8.0):
        predict = guided(model, schedule, torch.arange(10), scale)  # one of each digit
        rows.append(sample_ddim(predict, schedule, noise, 50, 0.0, generator))
    save_grid("guided.png", torch.cat(rows))
    known = (torch.arange(8) < 4)[:, None]  # (8, 1) the upper half of a picture
    few, small = others[:10], shrink(others[:10])  # (10, 1, 8, 8), (10, 1, 4, 4)
    predict = guided(model, schedule, names[:10], 2.0)
    filled = restore(predict, schedule, keep_pixels(few, known), noise, 100, generator)  # (10, 1, 8, 8)
    save_grid("filled.png", torch.cat([few.where(known, 0), filled, few]))
    large = restore(predict, schedule, keep_small(small), noise, 100, generator)  # (10, 1, 8, 8)
    save_grid("enlarged.png", torch.cat([F.interpolate(small, scale_factor=2.0), large, few]))
    print("digits by scale: guided.png; halves completed: filled.png; twice as large: enlarged.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
