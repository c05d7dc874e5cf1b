"""transformers gives the page's ids, by the names of a T5 tokenizer's sentinels, and the page's loss."""

import random

import numpy as np
import pytest
import torch
import transformers
from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

from snippets.library.llm.span_corruption import corrupt_by_names, loss_by_transformers
from snippets.llm.span_corruption import corrupt, corrupt_batch, noise_mask, sentinel_ids
from snippets.llm.t5 import loss
from snippets.llm.t5_folders import load_t5
from tests.snippets.oracles import perturbed

WORDS = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁w{i}", -1.0) for i in range(50))]
TOKENIZER = T5Tokenizer(vocab=[*WORDS, *((f"<extra_id_{k}>", 0.0) for k in reversed(range(100)))], extra_ids=100)


def test_ids_by_names_are_the_page_s(agrees):
    rng = random.Random(0)
    for length in (2, 30, 97, 400):
        tokens = [rng.randrange(3, 53) for _ in range(length)]
        mask = noise_mask(length, 0.15, 3, rng)
        source, target = corrupt(tokens, mask, sentinel_ids(len(TOKENIZER)))
        assert corrupt_by_names(TOKENIZER, tokens, mask) == ([*source, 1], [*target, 1])
        assert corrupt(tokens, mask, sentinel_ids(len(TOKENIZER))[::-1])[0] != source  # negative control
    text = TOKENIZER.decode(corrupt_by_names(TOKENIZER, [3, 4, 5, 6], [False, True, True, False][:3] + [True])[1])
    assert text.startswith("<extra_id_0>") and text.endswith("</s>")


@torch.no_grad()
def test_the_loss_is_transformers_and_counts_sentinels_and_the_end(tmp_path, agrees):
    sizes = {"vocab_size": 160, "d_model": 24, "d_kv": 5, "d_ff": 20, "num_layers": 2, "num_heads": 3}
    theirs = perturbed(T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)))
    theirs.save_pretrained(tmp_path)
    ours = load_t5(str(tmp_path))
    tokens = torch.randint(3, 53, (4, 41))
    source, target = corrupt_batch(tokens, 0.3, 2.0, sentinel_ids(153), 1, np.random.default_rng(0))
    given = source, torch.ones_like(source, dtype=torch.bool), target
    wanted = loss_by_transformers(theirs, source, target)
    agrees(loss(ours, *given).item(), wanted, "transformers.T5ForConditionalGeneration")
    without = loss(ours, *given[:2], target.masked_fill((target >= 53) | (target == 1), -100)).item()
    assert abs(without - wanted) > 1e-3  # negative control: sentinels and the end are part of the loss
    assert wanted != pytest.approx(loss(ours, *given[:2], target.roll(1, dims=1)).item(), abs=1e-3)


@pytest.mark.claim("span-no-collator")
def test_transformers_has_no_collator_that_corrupts_spans():
    """Collators by name; the flag of whole words belongs to the one for masked language models."""
    collators = [name for name in dir(transformers) if name.startswith("DataCollator")]
    assert len(collators) > 5 and not [name for name in collators if "Span" in name or "T5" in name]
    made = transformers.DataCollatorForLanguageModeling(TOKENIZER, mlm=False)
    assert not [name for name in vars(made) if "span" in name or "density" in name]
