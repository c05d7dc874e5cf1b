"""The DiT that reads captions, the limit of a biased distance, and the training loop."""

import copy

import pytest
import torch
from torch import nn

from snippets import text_to_image as page
from snippets.blocks.dit import DiT, DiTConfig
from snippets.cfg import CaptionEncoder
from tests.snippets.oracles import perturbed

CONFIG = DiTConfig(3, 8, 2, 24, 2, 3, 16)


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def network():
    torch.manual_seed(0)
    return perturbed(page.CaptionDiT(CONFIG, CaptionEncoder(9, 5, 24)))


@torch.no_grad()
def test_each_patch_gets_its_own_part_of_the_caption():
    model, x, t = network(), torch.randn(3, 3, 8, 8), torch.tensor([5.0, 300.0, 999.0])
    captions = torch.randint(1, 9, (3, 5), generator=seeded())
    answer = model(x, t, captions)
    assert answer.shape == x.shape
    told = model.encoder(captions)
    whole = model.patches(x) + model.layout(told).view(3, 16, 24)
    for block in model.blocks:
        whole = block(whole, model.time_embedding(t) + told)
    torch.testing.assert_close(answer, model.picture(whole, model.time_embedding(t) + told))
    assert (model(x, t, captions.roll(1, 0)) - answer).abs().max() > 0.01
    model.layout.weight.zero_(), model.layout.bias.zero_()
    plain = DiT(CONFIG, CaptionEncoder(9, 5, 24)).eval()
    plain.load_state_dict({name: w for name, w in model.state_dict().items() if not name.startswith("layout")})
    torch.testing.assert_close(model(x, t, captions), plain(x, t, captions))
    with pytest.raises(ValueError, match="t and condition for each are expected"):
        model(x, t[:2], captions)


@pytest.mark.equation("tti-limit", of=page.fit_limit)
def test_a_line_is_found_again_and_read_at_no_bias(formula, agrees):
    sizes = torch.tensor([50, 80, 100, 400])
    limit, slope = page.fit_limit(sizes, 1.5 + 30 / sizes.double())
    formula("tti-limit").holds({"F_N": 1.5 + 30 / sizes.double(), r"F_\infty": limit, "r": slope, "N": sizes})
    noisy = torch.tensor([2.0, 1.7, 1.9, 1.4]).double()
    matrix = torch.stack([torch.ones(4).double(), 1 / sizes.double()], dim=1)
    wanted = torch.linalg.lstsq(matrix, noisy).solution
    agrees(list(page.fit_limit(sizes, noisy)), wanted.tolist(), "torch.linalg.lstsq", 1e-10)
    for wrong in (sizes[:3], sizes[:, None]):
        with pytest.raises(ValueError, match="a distance for each of at least two sizes is expected"):
            page.fit_limit(wrong, noisy)
    with pytest.raises(ValueError, match="at least two sizes"):
        page.fit_limit(torch.tensor([50, 50]), noisy[:2])


def test_training_repeats_itself_and_averages():
    torch.manual_seed(0)
    start = nn.Linear(3, 2)

    def batch_of(model):
        return lambda generator: (model(torch.randn(7, 3, generator=generator)) - 1).square().mean()

    made = []
    for _ in range(2):
        model = copy.deepcopy(start)
        made.append((page.train_on(model, batch_of(model), 20, 0.1), model))
    (first, trained), (second, _) = made
    assert torch.equal(first.weight, second.weight) and not torch.equal(first.weight, start.weight)
    assert not torch.equal(first.weight, trained.weight) and not first.training
    assert batch_of(first)(seeded()) < 0.5 * batch_of(start)(seeded())
