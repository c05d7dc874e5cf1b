"""Pictures as words: a codebook (VQ-VAE, van den Oord et al. 2017, arXiv 1711.00937) and a transformer that
writes its codes after a caption (DALL-E, Ramesh et al. 2021, arXiv 2102.12092).

Shapes: B batch, C channels of a picture, Z numbers of a code, H height, W width, K codes, L words of a
caption, T codes of a picture, N vectors, V words and codes.
"""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

# --8<-- [end:imports]
from snippets.blocks.autoencoder import AutoencoderConfig, Decoder, Encoder
from snippets.cfg import drop_condition
from snippets.llm.decoder_only import GPT2, empty_cache


# --8<-- [start:quantize]
def nearest_code(vectors: Tensor, codes: Tensor) -> Tensor:
    """Which of codes (K, Z) is nearest to each of vectors (N, Z): numbers (N,)."""
    if vectors.ndim != 2 or codes.ndim != 2 or vectors.shape[1] != codes.shape[1]:
        given = f"{tuple(vectors.shape)} and {tuple(codes.shape)}"
        raise ValueError(f"vectors (N, Z) and codes (K, Z) are expected, given {given}")
    # |v - c|^2 = |v|^2 - 2 v c + |c|^2, and |v|^2 is the same for all codes
    score = codes.square().sum(dim=1) - 2 * vectors @ codes.T  # (N, K)
    if score.isnan().any():
        raise ValueError("vectors and codes that are numbers are expected, given NaN: it is near to nothing")
    return score.argmin(dim=1)


def straight_through(vectors: Tensor, chosen: Tensor) -> Tensor:
    """The chosen codes (N, Z); their gradient goes to vectors (N, Z), as if nothing had been chosen."""
    return vectors + (chosen - vectors).detach()


def codebook_loss(vectors: Tensor, chosen: Tensor, commitment: float) -> Tensor:
    """Codes go to vectors (N, Z), and vectors, more slowly, to the codes chosen for them, (N, Z): ()."""
    to_vectors = F.mse_loss(chosen, vectors.detach())  # ()
    to_codes = F.mse_loss(vectors, chosen.detach())  # ()
    return to_vectors + commitment * to_codes


# --8<-- [end:quantize]


# --8<-- [start:autoencoder]
class PictureTokens(nn.Module):
    """An autoencoder whose latent is a square of codes: each place holds one of K vectors."""

    def __init__(self, config: AutoencoderConfig, num_codes: int):
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.to_code = nn.Conv2d(2 * config.latent_channels, config.latent_channels, 1)
        self.from_code = nn.Conv2d(config.latent_channels, config.latent_channels, 1)
        self.codes = nn.Parameter(torch.randn(num_codes, config.latent_channels))

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents (B, Z, h, w) of pictures (B, C, H, W), before codes are chosen."""
        return self.to_code(self.encoder(pictures))

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, C, factor * H, factor * W) of latents (B, Z, H, W) that are codes."""
        return self.decoder(self.from_code(latents))

    @torch.no_grad()
    def choose(self, latents: Tensor) -> Tensor:
        """The numbers (B, T) of the codes nearest to latents (B, Z, H, W), row by row from the top left."""
        vectors = latents.permute(0, 2, 3, 1).flatten(0, 2)  # (N, Z)
        return nearest_code(vectors, self.codes).unflatten(0, (len(latents), -1))

    @torch.no_grad()
    def pictures(self, tokens: Tensor) -> Tensor:
        """Pictures (B, C, H, W), square, of the numbers of their codes (B, T)."""
        side = round(tokens.shape[1] ** 0.5)
        latents = self.codes[tokens].transpose(1, 2).unflatten(2, (side, -1))  # (B, Z, _, _)
        return self.decode(latents)


# --8<-- [end:autoencoder]


# --8<-- [start:tokens-loss]
def tokens_loss(model: PictureTokens, pictures: Tensor, commitment: float) -> tuple[Tensor, Tensor]:
    """The loss () of pictures (B, C, H, W): rebuilt, and codes to vectors; and the codes chosen, (N,)."""
    latents = model.encode(pictures)  # (B, Z, _, _)
    vectors = latents.permute(0, 2, 3, 1).flatten(0, 2)  # (N, Z)
    used = nearest_code(vectors, model.codes)  # (N,)
    chosen = model.codes[used]  # (N, Z)
    through = straight_through(vectors, chosen)  # (N, Z)
    square = through.view(len(latents), *latents.shape[2:], -1).permute(0, 3, 1, 2)  # (B, Z, _, _)
    loss = F.mse_loss(model.decode(square), pictures) + codebook_loss(vectors, chosen, commitment)  # ()
    return loss, used


@torch.no_grad()
def revive(model: PictureTokens, pictures: Tensor, used: Tensor, generator: torch.Generator) -> None:
    """Move codes that are not used, False in (K,), to vectors of pictures (B, C, H, W) far from all codes."""
    vectors = model.encode(pictures).permute(0, 2, 3, 1).flatten(0, 2)  # (N, Z)
    for code in (~used).nonzero().flatten().tolist():
        distance = torch.cdist(vectors, model.codes).amin(dim=1).square()  # (N,) to the nearest code
        if distance.sum() > 0:  # else each vector has a code of its own
            row = torch.multinomial(distance, 1, generator=generator)  # (1,)
            model.codes[code] = vectors[row[0]]


def train_tokens(
    model: PictureTokens, pictures: Tensor, num_steps: int, batch_size: int = 8, every: int = 50
) -> PictureTokens:
    """Train on pictures (N, C, H, W) in [-1, 1]; the same network, in `eval` mode.

    At the start and after each `every` steps of the first three quarters, unused codes are moved.
    """
    generator = torch.Generator(pictures.device).manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.9, 0.99), fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, num_steps)
    used = torch.zeros(len(model.codes), dtype=torch.bool)  # (K,) since codes were moved
    for step in trange(num_steps, desc="codes", mininterval=2):
        if step % every == 0 and 4 * step <= 3 * num_steps:
            rows = torch.randint(len(pictures), (4 * batch_size,), generator=generator)  # (_,)
            revive(model, pictures[rows], used, generator)
            used = torch.zeros_like(used)  # (K,)
        rows = torch.randint(len(pictures), (batch_size,), generator=generator)  # (B,)
        loss, chosen = tokens_loss(model, pictures[rows], commitment=0.25)  # (), (_,)
        used[chosen] = True
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
    return model.eval()


# --8<-- [end:tokens-loss]


# --8<-- [start:writer]
def writer_loss(
    model: GPT2, captions: Tensor, tokens: Tensor, words: int, drop: float, generator: torch.Generator
) -> Tensor:
    """The cross-entropy of the codes of pictures, tokens (B, T), after captions (B, L): ().

    A share `drop` of the captions is left out. Codes come behind the words in the vocabulary: code k is
    number `words` + k.
    """
    told = drop_condition(captions, torch.zeros_like(captions[0]), drop, generator)  # (B, L)
    text = torch.cat([told, words + tokens[:, :-1]], dim=1)  # (B, L + T - 1)
    logits = model(text)[:, captions.shape[1] - 1 :, words:]  # (B, T, K) each says the code after it
    loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())  # ()
    return loss


def guided_logits(both: Tensor, scale: float) -> Tensor:
    """The guided logits (B, K) from logits (2 * B, K): first all with their captions, then all without."""
    told, untold = both.chunk(2)  # (B, K), (B, K)
    logits = untold + scale * (told - untold)  # (B, K)
    return logits


@torch.no_grad()
def write_pictures(
    model: GPT2, captions: Tensor, length: int, words: int, scale: float, generator: torch.Generator
) -> Tensor:
    """The numbers of codes (B, length) of pictures that fit captions (B, L), drawn one after the other."""
    text = torch.cat([captions, torch.zeros_like(captions)])  # (2 * B, L)
    cache = empty_cache(model, len(text), text.shape[1] + length)
    written = []
    for _ in range(length):
        logits = model(text, cache)[:, -1, words:]  # (2 * B, K)
        chances = guided_logits(logits, scale).softmax(dim=1)  # (B, K)
        code = torch.multinomial(chances, 1, generator=generator)  # (B, 1)
        written.append(code)
        text = words + torch.cat([code, code])  # (2 * B, 1) the cache knows what came before
    return torch.cat(written, dim=1)


# --8<-- [end:writer]
