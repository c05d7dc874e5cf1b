def live(given: dict) -> dict:
    """A text as the network reads it: pieces, ids and segments; what is longer than its 64 places is cut off."""
    wordpiece = WordPiece(given["pieces"])
    tokens, segments = join(wordpiece.encode(given["text"])[:62], [], wordpiece.ids)
    return {"tokens": tokens, "segments": segments, "pieces": [wordpiece.pieces[token] for token in tokens]}
