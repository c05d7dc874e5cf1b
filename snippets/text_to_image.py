"""Text to image: a DiT that reads captions, how far a Fréchet distance is from its limit, and a program that
draws from captions in two ways.

Shapes: B batch, C channels, H height, W width, D features, N patches, S sample sizes.
"""

# --8<-- [start:imports]
import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import trange

# --8<-- [end:imports]
from snippets.blocks.autoencoder import AutoencoderConfig
from snippets.blocks.dit import DiT, DiTConfig
from snippets.cfg import CaptionEncoder
from snippets.data.scenes import VOCABULARY, encode_captions, scenes
from snippets.ddpm import ema_update, save_grid
from snippets.flow_matching import draw_flow, flow_loss, guided_flow
from snippets.llm.decoder_only import GPT2, Config
from snippets.picture_tokens import PictureTokens, train_tokens, write_pictures, writer_loss


# --8<-- [start:caption-dit]
class CaptionDiT(DiT):
    """A DiT for captions that speak of places: each patch gets its own part of what the caption says."""

    def __init__(self, config: DiTConfig, encoder: nn.Module):
        super().__init__(config, encoder)
        self.layout = nn.Linear(config.width, config.width * len(self.position))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """What it says (B, C, H, W) of noisy pictures x (B, C, H, W) at times t (B,), given captions."""
        self.check(x, t, condition)
        caption = self.encoder(condition)  # (B, D)
        told = self.time_embedding(t) + caption  # (B, D)
        tokens = self.patches(x) + self.layout(caption).unflatten(1, (-1, self.config.width))  # (B, N, D)
        for block in self.blocks:
            tokens = block(tokens, told)  # (B, N, D)
        return self.picture(tokens, told)


# --8<-- [end:caption-dit]


# --8<-- [start:limit]
def fit_limit(sizes: Tensor, distances: Tensor) -> tuple[float, float]:
    """The line limit + slope / size through distances (S,) of samples of sizes (S,): limit and slope.

    What least squares say of samples without end (Chong and Forsyth 2020, arXiv 1911.07023, section 3).
    """
    if sizes.ndim != 1 or sizes.shape != distances.shape or len(sizes.unique()) < 2:
        given = f"{sizes.tolist()} and {distances.tolist()}"
        raise ValueError(f"a distance for each of at least two sizes is expected, given {given}")
    inverse = 1 / sizes.double()  # (S,)
    centred = inverse - inverse.mean()  # (S,)
    slope = (centred * distances.double()).sum() / centred.square().sum()  # ()
    limit = distances.double().mean() - slope * inverse.mean()  # ()
    return limit.item(), slope.item()


# --8<-- [end:limit]


# --8<-- [start:train]
def train_on(model: nn.Module, loss_of: Callable, num_steps: int, rate: float = 2e-3) -> nn.Module:
    """Train on loss_of(generator), a number; returns the averaged network, in `eval` mode."""
    generator = torch.Generator().manual_seed(0)
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, num_steps)
    for step in trange(num_steps, desc="train", mininterval=2):
        loss = loss_of(generator)  # ()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        ema_update(average, model, decay=min(0.99, step / (step + 10)))
    return average


# --8<-- [end:train]


# --8<-- [start:main]
CODE_STEPS = 400
WRITER_STEPS = 350
FLOW_STEPS = 500
WORDS, CODES, BATCH = 8, 128, 32  # words of a caption of one shape, codes of the codebook, scenes of a batch


def main() -> None:
    """Train a codebook, a transformer that writes codes and a flow of latents; draw the same captions."""
    torch.set_num_threads(1)  # so small networks gain little from more
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    examples = scenes(3000, generator, max_shapes=1)
    pictures = torch.stack([scene.picture for scene in examples])
    captions = encode_captions([scene.caption for scene in examples])[:, :WORDS]
    book = PictureTokens(AutoencoderConfig(widths=(16, 32, 32)), CODES)
    book = train_tokens(book, pictures, CODE_STEPS)
    with torch.no_grad():
        latents = torch.cat([book.encode(part) for part in pictures.split(100)])
    codes, spread = book.choose(latents), latents.std()
    print(f"{codes.shape[1]} codes a picture, {len(codes.unique())} of {CODES} in use")
    latents = latents / spread

    def rows(generator: torch.Generator) -> Tensor:
        return torch.randint(len(pictures), (BATCH,), generator=generator)

    def writer_batch(generator: torch.Generator) -> Tensor:
        some = rows(generator)
        return writer_loss(writer, captions[some], codes[some], len(VOCABULARY), 0.1, generator)

    def flow_batch(generator: torch.Generator) -> Tensor:
        some = rows(generator)
        return flow_loss(flow, latents[some], captions[some], 0.1, generator)

    writer = GPT2(Config(len(VOCABULARY) + CODES, WORDS + codes.shape[1], 64, 256, 3, 4, 4))
    writer = train_on(writer, writer_batch, WRITER_STEPS)
    flow = CaptionDiT(DiTConfig(), CaptionEncoder(len(VOCABULARY), WORDS, 96))
    flow = train_on(flow, flow_batch, FLOW_STEPS)
    tested = [*scenes(5, torch.Generator().manual_seed(2), max_shapes=1)]
    tested += scenes(5, torch.Generator().manual_seed(2), held_out=True, max_shapes=1)  # pairs it never saw
    asked = encode_captions([scene.caption for scene in tested])[:, :WORDS]
    written = write_pictures(writer, asked, codes.shape[1], len(VOCABULARY), 2.0, generator)
    noise = torch.randn(len(asked), *latents.shape[1:], generator=generator)
    drawn = spread * draw_flow(guided_flow(flow, asked, 3.0), noise, num_steps=20)
    both = torch.cat([book.pictures(written), book.pictures(book.choose(drawn))])
    save_grid("drawn.png", both)
    print("drawn.png: above written code by code, below by the flow:", *[s.caption for s in tested], sep="\n")


if __name__ == "__main__":
    main()
# --8<-- [end:main]
