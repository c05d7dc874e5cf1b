"""Pictures as words: the codebook against a plain reference and diffusers, and the transformer that writes codes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vq_model import VectorQuantizer, VQModel

from snippets import picture_tokens as page
from snippets.blocks.autoencoder import AutoencoderConfig
from snippets.cfg import drop_condition
from snippets.llm.decoder_only import GPT2, Config
from tests.snippets.oracles import perturbed

CONFIG = AutoencoderConfig(3, 5, (4, 8), 1, 4)
WORDS, CODES, LENGTH = 7, 11, 6


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def pictures(count=4, height=4, width=6):
    return torch.rand(count, 3, height, width, generator=seeded()) * 2 - 1


def writer():
    model = perturbed(GPT2(Config(WORDS + CODES, 3 + LENGTH, 12, 20, 2, 3, 3)), 0.3)
    captions = torch.randint(1, WORDS, (4, 3), generator=seeded(1))
    return model, captions, torch.randint(CODES, (4, LENGTH), generator=seeded(2))


# the codebook


@pytest.mark.equation("tti-nearest", of=page.nearest_code)
def test_the_nearest_code_is_nearest(formula):
    vectors, codes = torch.randn(40, 5).double(), torch.randn(9, 5).double()
    found = page.nearest_code(vectors, codes)
    plain = [min(range(9), key=lambda k: sum((a - b) ** 2 for a, b in zip(v, codes[k], strict=True))) for v in vectors]
    assert found.tolist() == plain and len(set(plain)) > 4
    names = {"z": vectors[7], "e_k": codes[found[7]], "e_j": lambda j: codes[j], "j": range(9)}
    formula("tti-nearest").holds(names)
    with pytest.raises(ValueError, match=r"vectors \(N, Z\) and codes \(K, Z\) are expected, given \(40, 5\) and"):
        page.nearest_code(vectors, codes[:, :4])


@pytest.mark.equation("tti-straight", of=page.straight_through)
def test_gradients_pass_straight_through(formula):
    """In float64: forward it is the code, to the last bits; backward it is the identity."""
    vectors, chosen = torch.randn(6, 5).double().requires_grad_(), torch.randn(6, 5).double().requires_grad_()
    through = page.straight_through(vectors, chosen)
    names = {"q": through.detach(), "z": vectors.detach(), "e_k": chosen.detach()}
    formula("tti-straight").holds(names | {r"\operatorname{sg}": torch.detach}, idle=r"\operatorname{sg}")
    torch.testing.assert_close(through, chosen)
    weight = torch.randn(6, 5).double()
    (through * weight).sum().backward()
    assert vectors.grad is not None and torch.equal(vectors.grad, weight) and chosen.grad is None


@pytest.mark.equation("tti-codes", of=page.codebook_loss)
def test_codebook_loss_is_its_formula(formula):
    """The gradients of vectors and of codes, too."""
    vectors, chosen = (torch.randn(6, 5).double().requires_grad_() for _ in range(2))
    loss = page.codebook_loss(vectors, chosen, 0.25)
    names = {"z": vectors.detach(), "e_k": chosen.detach(), r"\lambda": 0.25, r"\mathbb{E}": torch.mean}
    names |= {r"L_{\text{codes}}": 5 * loss.detach(), r"\operatorname{sg}": torch.detach}
    formula("tti-codes").holds(names, idle=r"\operatorname{sg}")  # gradients tell, below
    loss.backward()
    torch.testing.assert_close(vectors.grad, 0.25 * 2 * (vectors - chosen).detach() / 30)
    torch.testing.assert_close(chosen.grad, 2 * (chosen - vectors).detach() / 30)


@pytest.mark.claim("tti-legacy")
def test_quantising_equals_diffusers(agrees):
    """The library's own quantiser has the weight on the other term, unless it is told otherwise."""
    vectors = torch.randn(3, 5, 4, 6)
    for legacy in (False, True):
        theirs = VectorQuantizer(9, 5, beta=0.25, legacy=legacy)
        theirs.embedding.weight.data.normal_(generator=seeded())
        quantised, loss, (_, _, chosen) = theirs(vectors)
        flat = vectors.permute(0, 2, 3, 1).flatten(0, 2)
        ours = page.nearest_code(flat, theirs.embedding.weight)
        assert torch.equal(ours, chosen)
        codes = theirs.embedding.weight[ours]
        back = page.straight_through(flat, codes).view(3, 4, 6, 5).permute(0, 3, 1, 2)
        torch.testing.assert_close(back, quantised)
        gradient = torch.autograd.grad(loss, theirs.embedding.weight, retain_graph=True)[0]
        own = torch.autograd.grad(page.codebook_loss(flat, codes, 0.25), theirs.embedding.weight)[0]
        factor = 4 if legacy else 1
        torch.testing.assert_close(factor * gradient, own)
        if not legacy:
            ours = page.codebook_loss(flat, codes, 0.25)
            agrees(ours.item(), loss.item(), "diffusers.models.autoencoders.vq_model.VectorQuantizer", 1e-5)
    assert VQModel(block_out_channels=(8,), norm_num_groups=4).quantize.legacy
    assert VectorQuantizer(9, 5, beta=0.25).legacy


@torch.no_grad()
def test_pictures_become_rows_of_numbers_and_come_back():
    model, shown = perturbed(page.PictureTokens(CONFIG, CODES)), pictures(3, 6, 6)
    latents = model.encode(shown)
    tokens = model.choose(latents)
    assert tokens.shape == (3, 9) and len(tokens.unique()) > 2
    for place in range(9):
        vector = latents[1, :, place // 3, place % 3]
        assert tokens[1, place] == (model.codes - vector).norm(dim=1).argmin()
    square = torch.stack([model.codes[row].T.view(5, 3, 3) for row in tokens])
    torch.testing.assert_close(model.pictures(tokens), model.decode(square))


def test_the_loss_counts_pixels_and_codes_and_reaches_all_parts():
    model, shown = perturbed(page.PictureTokens(CONFIG, CODES)), pictures()
    loss, used = page.tokens_loss(model, shown, 0.25)
    latents = model.encode(shown)
    flat = latents.permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.equal(used, page.nearest_code(flat, model.codes)) and used.shape == (24,)
    square = model.codes[used].view(4, 2, 3, 5).permute(0, 3, 1, 2)
    torch.testing.assert_close(
        loss, F.mse_loss(model.decode(square), shown) + 1.25 * F.mse_loss(latents, square), rtol=1e-5, atol=1e-6
    )
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    unused = [k for k in range(CODES) if k not in used]
    assert unused and not model.codes.grad[unused].any()


def test_unused_codes_move_to_vectors_far_from_all_codes():
    torch.manual_seed(0)
    model, shown = page.PictureTokens(CONFIG, CODES), pictures(8)
    vectors = model.encode(shown).permute(0, 2, 3, 1).flatten(0, 2).detach()
    model.codes.data += 30
    before, used = model.codes.detach().clone(), torch.arange(CODES) < 4
    page.revive(model, shown, used, seeded())
    moved = (model.codes != before).any(dim=1)
    assert torch.equal(moved, ~used)
    assert all((vectors[:, None] - model.codes[4:].detach()).norm(dim=2).amin(dim=0) == 0)
    assert len(page.nearest_code(vectors, model.codes).unique()) == CODES - 4


def test_training_repeats_itself_and_rebuilds():
    torch.manual_seed(0)
    shown = (torch.rand(30, 3, 1, 1) * 2 - 1).expand(30, 3, 4, 6)  # plain colours
    start = page.PictureTokens(AutoencoderConfig(3, 2, (8, 16), 1, 4), 13)
    made = [page.train_tokens(copy.deepcopy(start), shown, 3, batch_size=5, every=2) for _ in range(2)]
    weights = [model.state_dict() for model in (start, *made)]
    assert all(torch.equal(weights[1][name], weight) for name, weight in weights[2].items())
    assert all(not torch.equal(weights[0][name], weight) for name, weight in weights[1].items())
    before = page.tokens_loss(start, shown, 0.25)[0]
    model = page.train_tokens(start, shown, 16, batch_size=5, every=4)
    assert page.tokens_loss(model, shown, 0.25)[0] < 0.8 * before and not model.training
    assert len(model.choose(model.encode(shown)).unique()) > 3


# the transformer that writes


@torch.no_grad()
@pytest.mark.equation("tti-chain", of=page.writer_loss)
def test_the_loss_is_minus_the_log_of_the_whole_pictures_chance(formula):
    model, captions, codes = writer()
    model = model.double()
    loss = page.writer_loss(model, captions[:1], codes[:1], WORDS, 0.0, seeded())

    def chance(i):  # of code i, counted from 1, given the caption and the codes before it
        text = torch.cat([captions[0], WORDS + codes[0, : i - 1]])[None]
        return model(text)[0, -1, WORDS:].softmax(dim=0)[codes[0, i - 1]]

    names = {r"\log p(c \mid y)": -LENGTH * loss, r"p(c_i \mid c_{<i}, y)": chance, "T": LENGTH, "i": 0}
    formula("tti-chain").holds(names)


@torch.no_grad()
def test_captions_are_left_out_as_told_and_the_codes_before_count():
    model, captions, codes = writer()
    loss = page.writer_loss(model, captions, codes, WORDS, 0.5, seeded(1))
    told = drop_condition(captions, torch.zeros(3, dtype=torch.long), 0.5, seeded(1))
    assert (told == 0).all(dim=1).any() and (told == captions).all(dim=1).any()
    each = [page.writer_loss(model, told[i : i + 1], codes[i : i + 1], WORDS, 0.0, seeded()) for i in range(4)]
    torch.testing.assert_close(loss, torch.stack(each).mean())
    other = codes.clone()
    other[:, 0] = (other[:, 0] + 1) % CODES
    assert abs(page.writer_loss(model, captions, other, WORDS, 0.0, seeded()) - loss) > 1e-3


@torch.no_grad()
def test_a_code_does_not_see_the_codes_after_it():
    model, captions, codes = writer()
    text = torch.cat([captions, WORDS + codes], dim=1)
    changed = text.clone()
    changed[:, 6:] = WORDS + (changed[:, 6:] - WORDS + 1) % CODES
    before, after = model(text), model(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert (before[:, 6:] - after[:, 6:]).abs().max() > 1e-2


@pytest.mark.equation("tti-guided", of=page.guided_logits)
def test_guidance_is_its_formula(formula):
    both = torch.randn(6, 11).double()
    names = {r"\ell": page.guided_logits(both, 3.0), r"\ell_y": both[:3], r"\ell_\varnothing": both[3:], "s": 3.0}
    formula("tti-guided").holds(names)


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_written_codes_are_draws_from_the_guided_chances(scale):
    """Code by code without a cache, on the same random numbers."""
    model, captions, _ = writer()
    ours = page.write_pictures(model, captions, LENGTH, WORDS, scale, seeded(5))
    generator, written = seeded(5), torch.zeros(4, 0, dtype=torch.long)
    for _ in range(LENGTH):
        told = model(torch.cat([captions, WORDS + written], dim=1))[:, -1, WORDS:]
        untold = model(torch.cat([0 * captions, WORDS + written], dim=1))[:, -1, WORDS:]
        chances = (untold + scale * (told - untold)).softmax(dim=1)
        written = torch.cat([written, torch.multinomial(chances, 1, generator=generator)], dim=1)
    assert torch.equal(ours, written) and len(ours.unique()) > 3
    if scale != 1:
        assert not torch.equal(page.write_pictures(model, captions, LENGTH, WORDS, 1.0, seeded(5)), ours)
