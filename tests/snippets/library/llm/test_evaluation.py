"""The evaluation post's lines with sacreBLEU and rouge-score give the numbers of the page's own code."""

import pytest

from snippets.library.llm.evaluation import scores_by_libraries
from snippets.llm.evaluation import bleu, chrf, rouge_l
from snippets.llm.ter import ter

CANDIDATES = ["the cat sat on the mat", "it is not a dog, is it?", "three of 3.5 &amp; more"]
REFERENCES = [["the cat is on the mat", "a cat"], ["is it no dog?", "it is a dog"], ["three of 3.5 & less", "four"]]


@pytest.mark.claim("eval-library")
def test_the_same_scores(agrees):
    theirs = scores_by_libraries(CANDIDATES, REFERENCES)
    corpus = CANDIDATES, REFERENCES
    pairs = [rouge_l(one, texts[0])[2] for one, texts in zip(*corpus, strict=True)]
    ours = {"BLEU": bleu(*corpus), "chrF": chrf(*corpus), "chrF++": chrf(*corpus, word_order=2), "TER": ter(*corpus)}
    ours["ROUGE-L"] = sum(pairs) / len(pairs)
    agrees(list(ours.values()), [theirs[name] for name in ours], "sacrebleu.BLEU", 1e-9)
    assert abs(theirs["chrF"] - theirs["chrF++"]) > 0.1  # negative control: they are two metrics
