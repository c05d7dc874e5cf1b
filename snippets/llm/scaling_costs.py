"""What many processes cost: memory, bytes sent, hours. Formulas for the Llama of the decoder-only page and
AdamW, after ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054) and Megatron-LM (Narayanan et al. 2021,
2104.04473).

Bytes are those of one process and one step. Numbers are of any size, so floats.
"""

# --8<-- [start:imports]
from dataclasses import dataclass

# --8<-- [end:imports]


# --8<-- [start:size]
@dataclass(frozen=True)
class Size:
    """A Llama, by its numbers: layers, features, features of all keys, hidden features, heads, vocabulary."""

    layers: int
    width: int
    keys: int
    hidden: int
    heads: int
    vocabulary: int
    tied: bool = False

    @property
    def block(self) -> int:
        """Weights of a block."""
        return 2 * self.width * (self.width + self.keys) + 3 * self.width * self.hidden + 2 * self.width

    @property
    def rest(self) -> int:
        """Weights outside of the blocks: embedding, head, last norm."""
        return (1 if self.tied else 2) * self.vocabulary * self.width + self.width

    @property
    def weights(self) -> int:
        """All weights."""
        return self.layers * self.block + self.rest


SIZES = {
    "1 M": Size(4, 128, 128, 352, 4, 2048, tied=True),
    "125 M": Size(12, 768, 768, 2048, 12, 50_257, tied=True),
    "1 B": Size(16, 2048, 512, 8192, 32, 128_256, tied=True),  # Llama 3.2's
    "8 B": Size(32, 4096, 1024, 14_336, 32, 128_256),  # Llama 3.1's, as the next one
    "70 B": Size(80, 8192, 1024, 28_672, 64, 128_256),
}
# --8<-- [end:size]


# --8<-- [start:memory]
def state_bytes(weights: float, shards: int = 1) -> float:
    """Weights, gradients and AdamW's two moments, four bytes each, over the number of shards."""
    return 16 * weights / shards


def block_bytes(size: Size, tokens: int, number: int = 4) -> float:
    """What a block of the decoder-only page keeps for its backward pass, for so many tokens at once."""
    kept = 9 * size.width + 2 * size.keys + 4 * size.hidden + size.heads + 2
    return number * tokens * kept


def activation_bytes(size: Size, tokens: int, recomputed: bool, number: int = 4) -> float:
    """What all blocks keep. Recomputed: the input of each, and all of one that is computed again."""
    if recomputed:
        return number * tokens * size.width * (size.layers - 1) + block_bytes(size, tokens, number)
    return size.layers * block_bytes(size, tokens, number)


def gathered_bytes(size: Size, number: int = 2) -> float:
    """Whole weights that `sharded` holds at once: those outside of blocks, a block, and the next one."""
    return number * (size.rest + 2 * size.block)


# --8<-- [end:memory]


# --8<-- [start:sent]
def copies_bytes(weights: float, processes: int, number: int = 4) -> float:
    """What DistributedDataParallel sends: each gradient twice around a ring, but for a process's own part."""
    return 2 * (processes - 1) / processes * number * weights


def shards_bytes(size: Size, processes: int, rounds: int = 1, number: int = 2) -> float:
    """What `sharded` sends: weights for each pass of each round, `number` bytes each, and gradients once.

    What is outside of the blocks stays between forward and backward pass.
    """
    weights = rounds * number * (2 * size.layers * size.block + size.rest)
    return (processes - 1) / processes * (weights + 4 * size.weights)


def tensor_bytes(width: int, tokens: int, processes: int, number: int = 2) -> float:
    """What tensor parallelism sends for one block: four sums of (tokens, width), half of them backward."""
    return 4 * 2 * (processes - 1) / processes * number * tokens * width


# --8<-- [end:sent]


# --8<-- [start:pays]
def fewest_tokens(flops: float, bandwidth: float, number: int = 2) -> float:
    """Tokens of a process in a step with which computing takes as long as sending all that.

    flops: what it really computes in a second; bandwidth: bytes that it sends in a second.
    """
    return (2 * number + 4) * flops / (6 * bandwidth)


def idle_share(stages: int, rounds: int) -> float:
    """Of the time, what the stages of a pipeline wait, with so many rounds (micro-batches) in a step."""
    return (stages - 1) / (rounds + stages - 1)


def hours(weights: float, tokens: float, flops: float) -> float:
    """Hours of one process that computes so many operations a second; of several, together."""
    return 6 * weights * tokens / flops / 3600


# --8<-- [end:pays]
