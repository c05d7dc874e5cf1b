FLOPS = 4e14  # operations that a GPU really computes in a second
WITHIN, BETWEEN, MACHINE = 450e9, 50e9, 8  # bytes a second within a machine of 8 GPUs, and between machines
GPUS = [2**power for power in range(11)]


def live(given: dict) -> dict:
    """Bytes of one GPU by parts and by number of GPUs, bytes that it sends in a step, and seconds for it all."""
    size, gpus, tokens, rounds = SIZES[given["model"]], given["gpus"], given["tokens"], given["rounds"]
    kept = activation_bytes(size, tokens, given["recomputed"], number=2)

    def parts(way: str, gpus: int) -> list[float]:
        """Of a GPU: weights, gradients and moments; activations; whole weights."""
        if way == "copies":
            return [state_bytes(size.weights), kept, 0]
        return [state_bytes(size.weights, gpus), kept, gathered_bytes(size)]

    shards = given["way"] == "shards"
    sent = shards_bytes(size, gpus, rounds) if shards else copies_bytes(size.weights, gpus)
    bandwidth = WITHIN if gpus <= MACHINE else BETWEEN
    return {
        "parts": parts(given["way"], gpus),
        "curves": {way: [sum(parts(way, number)) for number in GPUS] for way in ("copies", "shards")},
        "sent": sent,
        "seconds": [sent / bandwidth, 6 * size.weights * tokens * rounds / FLOPS],
        "enough": fewest_tokens(FLOPS, bandwidth),
    }
