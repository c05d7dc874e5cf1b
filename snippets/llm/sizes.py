"""Weights, operations and memory traffic of GPT-2 and Llama, by formulas."""

from snippets.llm.decoder_only import Config


# --8<-- [start:count]
def count_parameters(config: Config) -> dict[str, int]:
    """Weights of a GPT-2 and of a Llama of these sizes; shared ones count once."""
    width, keys, hidden = config.width, config.head_dim * config.num_key_heads, config.hidden
    vocabulary = config.vocabulary * width * (1 if config.tied else 2)
    attention = 2 * width * width + 2 * width * keys
    biases = 2 * width + 2 * keys + hidden + width
    gpt2 = attention + 2 * width * hidden + biases + 4 * width  # two norms with gain and bias
    llama = attention + 3 * width * hidden + 2 * width  # two norms with gain
    return {
        "gpt2": vocabulary + config.context * width + config.num_layers * gpt2 + 2 * width,
        "llama": vocabulary + config.num_layers * llama + width,
    }


def flops(config: Config, seen: int) -> int:
    """Multiplications and additions in matrix products of a Llama, for a token that sees `seen` positions."""
    width, keys = config.width, config.head_dim * config.num_key_heads
    matrices = config.num_layers * (2 * width * width + 2 * width * keys + 3 * width * config.hidden)
    head = width * config.vocabulary
    return 2 * (matrices + head) + 4 * config.num_layers * width * seen


def bytes_read(config: Config, seen: int, size: int = 4) -> int:
    """What a Llama reads for one token of one text: each weight once, keys and values of `seen` positions.

    size is the bytes of a number. Of an embedding that is not the head, one row is read.
    """
    unused = 0 if config.tied else (config.vocabulary - 1) * config.width
    cached = 2 * config.num_layers * config.num_key_heads * config.head_dim * seen
    return size * (count_parameters(config)["llama"] - unused + cached)


# --8<-- [end:count]
