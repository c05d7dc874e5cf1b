"""The evaluation post's metrics of texts with sacreBLEU and rouge-score."""

# --8<-- [start:scores]
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF, TER


def scores_by_libraries(candidates: list[str], references: list[list[str]]) -> dict[str, float]:
    """BLEU, chrF, chrF++ and TER of a corpus, and the mean F1 of ROUGE-L with the first references."""
    places = [list(texts) for texts in zip(*references, strict=True)]  # a list for each place
    metrics = {"BLEU": BLEU(), "chrF": CHRF(), "chrF++": CHRF(word_order=2), "TER": TER()}
    found = {name: metric.corpus_score(candidates, places).score for name, metric in metrics.items()}
    scorer = RougeScorer(["rougeL"])  # add use_stemmer=True for the original program's option -m
    pairs = [scorer.score(texts[0], one) for one, texts in zip(candidates, references, strict=True)]
    found["ROUGE-L"] = sum(pair["rougeL"].fmeasure for pair in pairs) / len(pairs)
    return found


# --8<-- [end:scores]
