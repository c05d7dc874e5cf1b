"""Classifier guidance (Dhariwal and Nichol 2021, arXiv 2105.05233, section 4): a diffusion model that knows
no classes draws the class asked for, because the gradient of a classifier of noisy images is added
at each step.

Shapes: B batch, C channels, H height, W width, K classes, O features, E time embedding, T levels, N images.
Time is an index, as in ddpm.py: t = 0 is the least noisy level, t = T - 1 is almost pure noise.
"""

# --8<-- [start:imports]
from collections.abc import Callable
from functools import partial

# --8<-- [end:imports]
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from snippets.blocks.unet import Downsample, Stage, TimeEmbedding, UNet
from snippets.data.digits import digits
from snippets.ddpm import (
    NoiseSchedule,
    ddpm_step,
    linear_beta,
    noise_like,
    q_sample,
    sample_ddim,
    save_grid,
    train,
)


# --8<-- [start:classifier]
class NoisyClassifier(nn.Module):
    """Read the class of a noisy image, told how noisy it is: the way down of the U-Net, then a linear layer.

    Args: channels of the image; size, its height and width; widths of the levels, each half as large as the
    one before; num_classes. Halvings have to divide the size, and 8, the groups, every width.
    """

    def __init__(self, channels: int = 1, size=(8, 8), widths=(16, 32), num_classes: int = 10):
        super().__init__()
        factor = 2 ** (len(widths) - 1)  # how far the image shrinks
        if any(n <= 0 or n % factor for n in size) or any(w % 8 for w in widths) or num_classes < 2:
            wanted = f"a size divisible by {factor}, widths divisible by 8 and 2 classes or more"
            raise ValueError(f"{wanted} are expected, given {size}, {widths} and {num_classes}")
        self.image = (channels, *size)  # what forward takes
        time_dim, width = 4 * widths[0], widths[0]  # as in the U-Net
        self.time_embedding = TimeEmbedding(width, time_dim)
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)  # from pixels to features
        self.stages = nn.ModuleList()
        for level, out in enumerate(widths):
            last = level == len(widths) - 1  # the coarsest level: attention, and no more halving
            stage = Stage([width], out, time_dim, groups=8, attentions=int(last))
            if not last:
                stage.downsamplers.append(Downsample(out))
            self.stages.append(stage)
            width = out  # what the next level gets
        self.norm_out = nn.GroupNorm(8, width, eps=1e-6)  # each image for itself: no statistics of the batch
        places = (size[0] // factor) * (size[1] // factor)  # pixels of the coarsest level
        self.head = nn.Linear(width * places, num_classes)  # which stroke is where decides the class

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The logits (B, K) of images x (B, C, H, W) at levels t (B,); their softmax is p(y | x_t, t)."""
        if not x.is_floating_point() or t.shape != x.shape[:1] or x.shape[1:] != self.image:
            wanted = f"float images of shape (B, {', '.join(map(str, self.image))}) and one t for each"
            raise ValueError(
                f"{wanted} are expected, given {x.dtype} {tuple(x.shape)} and t {tuple(t.shape)}"
            )
        time = F.silu(self.time_embedding(t))  # (B, E) the noise level, for every block
        hidden = self.conv_in(x)  # (B, O, H, W) features of each pixel
        for stage in self.stages:
            hidden = stage.down(hidden, time, [])  # (B, _, _, _) coarser; nobody will need the skips
        features = F.silu(self.norm_out(hidden)).flatten(1)  # (B, _) all features of all places in a row
        logits = self.head(features)  # (B, K) one number for each class
        return logits


# --8<-- [end:classifier]


# --8<-- [start:loss]
def classifier_loss(
    model: nn.Module, schedule: NoiseSchedule, x0: Tensor, y: Tensor, generator: torch.Generator
) -> Tensor:
    """Cross-entropy of the classes y (B,) of images x0 (B, C, H, W) that were noised to random levels."""
    if y.shape != x0.shape[:1] or y.is_floating_point():
        raise ValueError(f"one integer class for each of {len(x0)} images is expected, given {y.dtype} {y}")
    eps = noise_like(x0, generator)  # (B, C, H, W) fresh noise
    t = torch.randint(schedule.num_steps, x0.shape[:1], generator=generator, device=x0.device)  # (B,) levels
    xt = q_sample(schedule, x0, t, eps)  # (B, C, H, W) what the sampler will show it
    loss = F.cross_entropy(model(xt, t), y)  # () mean of -log p(y | x_t, t)
    return loss


def train_classifier(
    model: nn.Module, schedule: NoiseSchedule, x0: Tensor, y: Tensor, num_steps: int, batch_size: int = 64
) -> nn.Module:
    """Train on images x0 (N, C, H, W) in [-1, 1] and classes y (N,), and return the model in `eval` mode."""
    if num_steps <= 0 or batch_size <= 0:
        raise ValueError(f"num_steps > 0 and batch_size > 0 are expected, given {num_steps}, {batch_size}")
    if len(x0) != len(y) or not x0.is_floating_point() or not x0.abs().max() <= 1:
        given = f"{len(x0)} of {x0.dtype} up to {x0.abs().max()}, and {len(y)} classes"
        raise ValueError(f"float images in [-1, 1] and a class for each are expected, given {given}")
    generator = torch.Generator(x0.device).manual_seed(0)  # the same run each time
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.05)  # few digits: small weights
    decline = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)  # ends at learning rate 0
    for _ in trange(num_steps, desc="train the classifier", mininterval=2):
        rows = torch.randint(len(x0), (batch_size,), generator=generator, device=x0.device)  # (B,) images
        loss = classifier_loss(model, schedule, x0[rows], y[rows], generator)  # () how wrong it is
        optimizer.zero_grad()  # forget the last gradient
        loss.backward()  # how each weight changes the loss
        optimizer.step()  # move each weight a little
        decline.step()  # and next time a little less
    return model.eval()


# --8<-- [end:loss]


# --8<-- [start:guidance]
def guidance(classifier: nn.Module, y: Tensor, scale: float, xt: Tensor, t: Tensor) -> Tensor:
    """scale times the gradient of log p(y | x_t, t) at images xt (B, C, H, W), for classes y (B,).

    The classifier maps images and levels t (B,) to logits (B, K), each row from its own image alone.
    """
    if not 0 <= scale < float("inf"):
        raise ValueError(f"a finite scale >= 0 is expected, given {scale}")
    if y.shape != xt.shape[:1] or t.shape != y.shape or y.is_floating_point():
        given = f"y {y.dtype} {tuple(y.shape)} and t {tuple(t.shape)}"
        raise ValueError(f"an integer class and a level for each image are expected, given {given}")
    with torch.enable_grad():  # the samplers run under no_grad
        x = xt.detach().requires_grad_()  # (B, C, H, W) what we differentiate with respect to
        log_p = classifier(x, t).log_softmax(dim=1)  # (B, K) of every class
        if y.min() < 0 or y.max() >= log_p.shape[1]:
            raise ValueError(f"classes in [0, {log_p.shape[1]}) are expected, given {y}")
        chosen = log_p.gather(1, y[:, None])  # (B, 1) of the class asked for
        gradient = torch.autograd.grad(chosen.sum(), x)[0]  # (B, C, H, W) of the sum, not of the mean
    return scale * gradient


# --8<-- [end:guidance]


# --8<-- [start:algorithm1]
def shifted_step(
    guide: Callable, schedule: NoiseSchedule, xt: Tensor, t: Tensor, eps: Tensor, noise: Tensor
) -> Tensor:
    """Algorithm 1, one level down: DDPM's step, its mean moved by its variance times guide(xt, t)."""
    variance = schedule.at(schedule.beta_tilde, t, xt)  # (B, 1, 1, 1) sigma squared, not sigma
    shift = variance * guide(xt, t)  # (B, C, H, W) towards the class
    x = ddpm_step(schedule, xt, t, eps, noise) + shift  # (B, C, H, W) a draw one level down
    return x


def shifted_step_at_mean(
    guide: Callable, schedule: NoiseSchedule, xt: Tensor, t: Tensor, eps: Tensor, noise: Tensor
) -> Tensor:
    """The same, but the gradient is taken where the derivation has it: at the mean, one level down."""
    mean = ddpm_step(schedule, xt, t, eps, torch.zeros_like(noise))  # (B, C, H, W) where the step would go
    variance = schedule.at(schedule.beta_tilde, t, xt)  # (B, 1, 1, 1) 0 at t = 0, which has no level below
    shift = variance * guide(mean, (t - 1).clamp(min=0))  # (B, C, H, W) towards the class
    x = ddpm_step(schedule, xt, t, eps, noise) + shift  # (B, C, H, W) a draw one level down
    return x


# --8<-- [end:algorithm1]


# --8<-- [start:algorithm2]
def guided_eps(model: nn.Module, guide: Callable, schedule: NoiseSchedule, xt: Tensor, t: Tensor) -> Tensor:
    """Algorithm 2: the model's noise minus sqrt(1 - alpha_bar) times guide(xt, t), for any sampler."""
    noise = schedule.at(schedule.noise, t, xt)  # (B, 1, 1, 1) from a score to a noise
    eps = model(xt, t) - noise * guide(xt, t)  # (B, C, H, W) less of what hides the class
    return eps


# --8<-- [end:algorithm2]


# --8<-- [start:main]
TRAIN_STEPS = 600
CLASSIFIER_STEPS = 500


def main() -> None:
    """Train a model that draws without knowing classes and one that knows them; draw what we ask for."""
    torch.set_num_threads(1)  # so small a network gains little from more, and loses much on a busy machine
    torch.manual_seed(0)  # the same first weights each time
    images, labels = digits()  # (N, 1, 8, 8), (N,)
    schedule = NoiseSchedule(linear_beta())  # 1,000 levels
    model = train(UNet(channels=1, widths=(24, 48)), schedule, images, TRAIN_STEPS)  # sees no label
    classifier = train_classifier(NoisyClassifier(), schedule, images, labels, CLASSIFIER_STEPS)
    y = torch.arange(10).repeat_interleave(10)  # (100,) ten of each digit
    guide = partial(guidance, classifier, y, 4.0)  # scale 4
    generator = torch.Generator().manual_seed(0)  # the same noise each time
    noise = torch.randn(100, 1, 8, 8, generator=generator)  # (100, 1, 8, 8) where all start
    guided = partial(guided_eps, model, guide, schedule)  # to the sampler, a network like any other
    drawn = sample_ddim(guided, schedule, noise, num_steps=50, eta=0.0, generator=generator)  # (100, 1, 8, 8)
    save_grid("guided.png", drawn)
    print("ten new digits of each class, a row each: guided.png")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
