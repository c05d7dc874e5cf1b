def live(given: dict) -> dict:
    """The text's own first merges, and its chunks cut into pieces by them."""
    text = given["text"]
    merges = train_merges([text], given["merges"])
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    pieces = [[written(piece) for piece in merge(to_bytes(chunk), ranks)] for chunk in chunks(text)]
    joined = [[written(piece) for piece in pair] for pair in merges]
    return {"pieces": pieces, "merges": joined, "bytes": len(to_bytes(text))}
