"""A step by accelerate is the page's step, where batches are even."""

import torch

from snippets.library.llm.scaling import step_by_accelerate
from snippets.llm import scaling as page
from snippets.llm.decoder_only import Llama
from tests.snippets.llm.scaling_cases import CONFIG, a_group


def start() -> tuple:
    torch.manual_seed(0)
    model = Llama(CONFIG)
    return model, torch.optim.SGD(model.parameters(), lr=1.0)


def test_a_step_by_accelerate_is_the_page_s_step(agrees):
    windows = list(torch.randint(256, (6, 13)).split(3))
    model, optimizer = start()
    theirs = step_by_accelerate(model, optimizer, windows, 0.1)
    with a_group():
        ours, optimizer = start()
        before = ours.head.weight.detach().clone()
        page.train_step(page.replicated(ours), optimizer, windows, 0.1)
    agrees(ours.head.weight, theirs.head.weight, "accelerate.Accelerator", 1e-6)
    assert (ours.head.weight - before).abs().max() > 1e-3
