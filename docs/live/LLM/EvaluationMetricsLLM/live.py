def longest(candidate: list[str], reference: list[str]) -> list[int]:
    """For each word of the candidate, the longest n-gram of up to four that holds it and that the reference has."""
    found = [0] * len(candidate)
    for order in (1, 2, 3, 4):
        known = set(ngrams(reference, order))
        for start, gram in enumerate(ngrams(candidate, order)):
            if gram in known:
                found[start : start + order] = [order] * order
    return found


def live(given: dict) -> dict:
    """Every text metric of the page, as it is printed there."""
    candidate, reference = given["candidate"], given["reference"]
    ours, theirs = tokens_13a(candidate), tokens_13a(reference)
    scores = {
        "BLEU": sentence_bleu(candidate, [reference]),
        "chrF": chrf([candidate], [[reference]]),
        "chrF++": chrf([candidate], [[reference]], word_order=2),
        "TER": ter([candidate], [[reference]]),
        "ROUGE-1": 100 * rouge_n(candidate, reference, 1)[2],
        "ROUGE-2": 100 * rouge_n(candidate, reference, 2)[2],
        "ROUGE-L": 100 * rouge_l(candidate, reference)[2],
        "METEOR": 100 * meteor(ours, [theirs], stem),
        "token F1": 100 * token_f1(candidate, [reference]),
        "exact match": 100 * exact_match(candidate, [reference]),
    }
    return {"scores": scores, "words": ours, "orders": longest(ours, theirs)}
