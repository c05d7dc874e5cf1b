"""GLIP: head, losses and model against transformers' code, detection as a special case, several prompts, no boxes."""

import inspect
import math

import pytest
import torch
from torch import nn
from transformers.loss import loss_grounding_dino as theirs

from snippets import glip as page
from snippets.blocks.boxes import box_iou, generalized_iou
from snippets.glip_prompts import Pieces, phrase_scores, token_map, write_prompt
from snippets.glip_targets import centre_ness, decode, encode
from tests.snippets.oracles import perturbed

PIECES = Pieces("[PAD] [UNK] . , red blue gr ##een square circ ##le tri ##ang cross".split())
SMALL = {"vocabulary": len(PIECES.ids), "width": 16, "token_width": 12, "num_heads": 2}


def small(**other):
    torch.manual_seed(1)
    return perturbed(page.Glip(page.GlipConfig(**SMALL | other)), 0.05)


def read(*texts):
    """Ids and what of them is real, of texts of different lengths."""
    rows = [PIECES(text).ids for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids, torch.arange(longest)[None] < torch.tensor([[len(row)] for row in rows])


# alignment


@pytest.mark.equation("glip-alignment", of=page.Alignment)
def test_each_term_of_the_alignment(formula):
    head = perturbed(page.Alignment(6, 4)).double()
    regions, tokens = torch.randn(2, 5, 6).double(), 3 * torch.randn(2, 7, 4).double()
    logits = head(regions, tokens)
    names = {"S_{rt}": logits[1, 2, 3], "s": head.log_scale.detach(), "o_r": regions[1, 2], "h_t": tokens[1, 3]}
    unit = tokens[1, 3] / tokens[1, 3].norm()
    classes = head.project.weight @ unit / 2 + head.project.bias
    names |= {r"\hat h_t": unit, "z_t": classes.detach(), "b": head.token_bias.detach(), "b_0": head.bias.detach()}
    names |= {"W": page_matrix(head.project.weight.detach()), "c": head.project.bias.detach()}
    formula("glip-alignment").holds(names, relations=3)
    torch.testing.assert_close(head(regions, 2 * tokens), logits)  # the length of a token's state does not count
    for name, weight in head.named_parameters():  # each one does
        before = weight.data.clone()
        weight.data += 0.3
        assert (head(regions, tokens) - logits).abs().max() > 1e-3, name
        weight.data = before


def page_matrix(rows):
    from tests.formula import Matrix

    return Matrix(rows)


def test_at_first_every_fit_is_rare():
    for prior in (0.01, 0.2):
        head = page.Alignment(6, 4, prior)
        logits = head(torch.zeros(1, 5, 6), torch.randn(1, 7, 4))
        torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, prior))


@pytest.mark.claim("glip-detection")
def test_with_one_token_a_phrase_grounding_is_detection(agrees):
    """The classes' weights are the tokens' projections: then a linear classifier gives the same logits."""
    head = perturbed(page.Alignment(6, 4)).double()
    regions, names = torch.randn(1, 5, 6).double(), torch.randn(1, 3, 4).double()
    unit = names[0] / names[0].norm(dim=1, keepdim=True)
    classifier = nn.Linear(6, 3).double()
    classifier.weight.data = head.project(unit / 2).data / head.log_scale.exp().item()
    classifier.bias.data = (unit @ head.token_bias + head.bias).data
    said = torch.eye(3).bool()
    grounding = head(regions, names)
    agrees(grounding, classifier(regions), "a linear classifier", 1e-10)
    agrees(phrase_scores(grounding.sigmoid(), said), classifier(regions).sigmoid(), "a linear classifier", 1e-10)
    two = torch.tensor([[True, True, False], [False, False, True]])  # a phrase of two tokens is no class
    assert (phrase_scores(grounding.sigmoid(), two)[..., 0] - classifier(regions).sigmoid()[..., 0]).abs().max() > 1e-3


# losses


@pytest.mark.equation("glip-focal", of=page.focal_loss)
def test_focal_loss_equals_transformers_and_its_formula(agrees, formula):
    logits = 3 * torch.randn(4, 6, dtype=torch.float64)
    wanted = (torch.rand(4, 6) < 0.3).double()
    for alpha, gamma in ((0.25, 2.0), (0.6, 1.5)):
        ours = page.focal_loss(logits, wanted, alpha, gamma)
        right = torch.where(wanted > 0, logits.sigmoid(), 1 - logits.sigmoid())
        names = {r"\ell": ours, r"\omega": wanted * alpha + (1 - wanted) * (1 - alpha), "p": right, r"\gamma": gamma}
        formula("glip-focal").holds(names)
        other = theirs.sigmoid_focal_loss(logits, wanted, 3, alpha, gamma)
        agrees(ours.sum() / 3, other, "transformers.loss.loss_grounding_dino.sigmoid_focal_loss", 1e-10)
    swapped = page.focal_loss(logits, wanted, 0.75).sum()
    assert abs(swapped - page.focal_loss(logits, wanted).sum()) > 0.1  # alpha is that of the positives
    assert torch.autograd.gradcheck(lambda x: page.focal_loss(x, wanted), logits.requires_grad_())


def test_focal_loss_of_large_logits_is_finite():
    logits = torch.tensor([200.0, -200.0], requires_grad=True)
    loss = page.focal_loss(logits, torch.tensor([0.0, 1.0]))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([150, 50]) and logits.grad.isfinite().all()


@pytest.mark.claim("glip-padding-nan")
def test_padding_is_left_out_and_not_multiplied():
    """transformers fills padded places with -inf, and selects before the loss; 0 times it would be no number."""
    logits = torch.tensor([[1.0, -torch.inf]])
    assert theirs.sigmoid_focal_loss(logits, torch.zeros(1, 2), 1).isnan()
    assert "masked_select(source_logits, text_mask)" in inspect.getsource(theirs.GroundingDinoImageLoss.loss_labels)
    assert page.focal_loss(logits[:, :1], torch.zeros(1, 1)).isfinite().all()


@pytest.fixture
def training():
    """A model, its output for three pictures with prompts of different lengths, and targets; the last has no box."""
    model = small().double()
    ids, real = read("red square. green circle", "cross", "triangle. blue cross")
    output = model(torch.randn(3, 3, 32, 32).double(), ids, real)
    owned = torch.zeros(3, 80, dtype=torch.bool)
    owned[0, [9, 10, 70]] = owned[1, 20] = True
    wanted = torch.zeros(3, 80, ids.shape[1], dtype=torch.float64)
    wanted[0, 9, :2], wanted[0, 10, 3:7], wanted[0, 70, :2], wanted[1, 20, 0] = 1, 1, 1, 1
    boxes = model.anchors + torch.tensor([1.0, -0.5, 2.0, 1.5]).double()
    return model, output, real, owned, (wanted, boxes.expand(3, -1, -1) * owned[..., None])


def test_the_losses_are_these_sums(training):
    model, output, real, owned, (wanted, boxes) = training
    logits, change, centre = (one.detach() for one in output)
    align = box = weight = middles = 0.0
    for b in range(3):
        for r in range(80):
            for t in range(int(real[b].sum())):
                p = 1 / (1 + math.exp(-logits[b, r, t]))
                align += -0.25 * (1 - p) ** 2 * math.log(p) if wanted[b, r, t] else -0.75 * p**2 * math.log(1 - p)
            if owned[b, r]:
                anchor, true = model.anchors[r : r + 1], boxes[b, r : r + 1]
                middle = centre_ness(anchor, true).item()
                apart = 1 - generalized_iou(decode(anchor, change[b, r : r + 1]), true).item()
                box, weight = box + middle * apart, weight + middle
                p = 1 / (1 + math.exp(-centre[b, r]))
                middles -= middle * math.log(p) + (1 - middle) * math.log(1 - p)
    ours = [loss.item() for loss in page.glip_losses(model, output, real, owned, (wanted, boxes))]
    assert ours == pytest.approx([align / 4, 2 * box / weight, middles / 4])
    other = page.glip_losses(model, output, torch.ones_like(real), owned, (wanted, boxes))
    assert other[0] - ours[0] > 1e-4  # padding does count if it is not left out


def test_all_weights_learn_and_padding_teaches_nothing(training):
    model, output, real, owned, targets = training
    sum(page.glip_losses(model, output, real, owned, targets)).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters() if p.shape != (48, 12))
    used = model.position.weight.grad.abs().amax(dim=1) > 0
    assert used.tolist() == [i < real.shape[1] for i in range(48)]
    assert model.token.weight.grad[0].abs().max() == 0  # that of padding


def test_a_batch_without_boxes_is_trained_on_too(training):
    model, output, real, owned, (wanted, boxes) = training
    losses = page.glip_losses(model, output, real, torch.zeros_like(owned), (0 * wanted, 0 * boxes))
    assert losses[0] > 0 and [loss.item() for loss in losses[1:]] == [0, 0]
    sum(losses).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# the model


def test_padding_changes_nothing():
    """A prompt by itself, and beside a longer one, has the same logits and boxes."""
    model = small()
    pictures = torch.randn(2, 3, 32, 32)
    ids, real = read("cross", "green triangle. red circle")
    logits, change, centre = model(pictures, ids, real)
    alone = model(pictures[:1], *read("cross"))
    torch.testing.assert_close(logits[:1, :, :1], alone[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(change[:1], alone[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(centre[:1], alone[2], atol=1e-5, rtol=1e-4)
    assert (model(pictures, ids, torch.ones_like(real))[0][:1, :, :1] - alone[0]).abs().max() > 1e-3


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.claim("glip-fused-boxes")
def test_only_with_fusion_the_prompt_moves_boxes(fused):
    model = small(fused=fused, num_layers=3)
    for layer in model.rounds:
        if fused:
            layer.fusion.region_scale.data.fill_(0.5)
    picture = torch.randn(1, 3, 32, 32)
    first, second = (model(picture, *read(text))[1] for text in ("red cross", "blue circle"))
    assert ((first - second).abs().max() > 1e-3) == fused
    assert len(model.rounds) == 3


def test_sizes_may_differ():
    model = small(side=48, context=5)
    logits, change, centre = model(torch.randn(2, 3, 48, 48), *read("red cross. circle", "cross"))
    assert (logits.shape, change.shape, centre.shape) == ((2, 180, 5), (2, 180, 4), (2, 180))
    assert model.levels == [144, 36] and model.anchors.shape == (180, 4)


def test_regions_are_where_their_anchors_are():
    """A dark spot changes most the regions whose anchors' middles are near to it."""
    encoder = small().picture
    plain = torch.zeros(1, 3, 32, 32)
    spot = plain.clone()
    spot[:, :, 5:7, 25:27] = -1
    change = (page.flat(list(encoder(spot))) - page.flat(list(encoder(plain))))[0, :64].norm(dim=1)
    x, y = (small().anchors[change.argmax()].view(2, 2).mean(dim=0)).tolist()
    assert abs(x - 26) <= 6 and abs(y - 6) <= 6


def test_the_network_exports():
    model = small()
    ids, real = read("red cross", "blue cross")
    given = torch.randn(2, 3, 32, 32), ids, real
    program = torch.export.export(model, given)
    for ours, exported in zip(model(*given), program.module()(*given), strict=True):
        torch.testing.assert_close(ours, exported)


# detection


def exact(model, boxes, phrase_tokens):
    """A model that answers with certain boxes at the regions nearest to them, for whichever tokens are given."""

    def answer(pictures, ids, real):
        logits = torch.full((len(pictures), len(model.anchors), ids.shape[1]), -9.0)
        change, centre = (
            torch.zeros(len(pictures), len(model.anchors), 4),
            torch.zeros(len(pictures), len(model.anchors)),
        )
        for i, (box, words) in enumerate(zip(boxes, phrase_tokens, strict=True)):
            region = int(box_iou(model.anchors, box[None])[:, 0].argmax())
            change[:, region] = encode(model.anchors[region : region + 1], box[None])
            centre[:, region] = 3 - i
            logits[:, region] = torch.where(torch.isin(ids, torch.tensor(words)), 4.0 - i, -9.0)
        return logits, change, centre

    model.forward = answer
    return model


def test_boxes_come_with_their_phrases_over_several_prompts():
    """Twelve phrases need three prompts of 12 tokens; a label is the phrase's place in the whole list."""
    colours = ["red", "blue", "green"]
    phrases = [f"{colour} {kind}" for colour in colours for kind in ("square", "circle", "triangle", "cross")]
    boxes = torch.tensor([[3.0, 4, 13, 15], [17.0, 16, 30, 29]])
    words = [[PIECES.ids[piece] for piece in text.split()] for text in ("blue circ ##le", "gr ##een cross")]
    model = exact(small(context=12), boxes, words)
    found = page.detect(model, PIECES, torch.zeros(2, 3, 32, 32), phrases, threshold=0.9)
    assert len(found) == 2
    for one in found:
        assert [phrases[i] for i in one.labels.tolist()] == ["blue circle", "green cross"]
        torch.testing.assert_close(one.boxes, boxes, atol=1e-4, rtol=0)
        p = torch.tensor([4.0, 3.0]).sigmoid() * torch.tensor([3.0, 2.0]).sigmoid()
        torch.testing.assert_close(one.scores, p.sqrt())
    everything = page.detect(model, PIECES, torch.zeros(1, 3, 32, 32), phrases, threshold=0.0)[0]
    assert len(everything.labels) == 100 and everything.scores.diff().max() <= 0
    for separator in (", ", " . "):
        other = page.detect(model, PIECES, torch.zeros(1, 3, 32, 32), phrases, 0.9, separator)[0]
        assert other.labels.tolist() == found[0].labels.tolist()


def test_the_phrases_scores_equal_those_of_one_long_prompt_where_words_do_not_look_at_each_other():
    """Three prompts, merged, have the columns that one prompt of all phrases has."""
    phrases = ["red square", "green circle", "cross", "blue triangle"]
    boxes, words = torch.tensor([[3.0, 4, 13, 15]]), [[PIECES.ids["red"], PIECES.ids["##le"]]]
    scores = []
    for context in (48, 6):
        model = exact(small(context=context), boxes, words)
        one = page.detect(model, PIECES, torch.zeros(1, 3, 32, 32), phrases, threshold=0.2)[0]
        scores.append(dict(zip(one.labels.tolist(), one.scores.tolist(), strict=True)))
    assert scores[0] == pytest.approx(scores[1]) and set(scores[0]) == {0, 1, 3}


def test_best_removes_within_a_label_only():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9]])
    kept = page.best(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([2, 2, 5]))
    assert kept.labels.tolist() == [2, 5] and kept.scores.tolist() == pytest.approx([0.9, 0.7])
    assert len(page.best(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([2, 2, 5]), overlap=0.95).labels) == 3
    assert len(page.best(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([1, 2, 5]), most=2).labels) == 2


@pytest.mark.claim("glip-labels-vanish")
def test_thresholds_on_tokens_make_phrases_that_nobody_asked_for():
    """What Grounding DINO's text does: tokens above a threshold are joined. Phrases' own scores keep the labels."""
    prompt = write_prompt(["red circle", "blue square"])
    tokens = PIECES(prompt.text)
    said = token_map(tokens, prompt.spans)
    p = torch.tensor([[[0.9, 0.3, 0.3, 0.01, 0.1, 0.6]]])  # red circ ##le . blue square, of a red square
    names = {i: piece for piece, i in PIECES.ids.items()}
    read_off = [names[i] for i, on in zip(tokens.ids, p[0, 0] > 0.4, strict=True) if on]
    assert read_off == ["red", "square"]  # of two phrases
    assert phrase_scores(p, said)[0, 0].tolist() == pytest.approx([0.5, 0.35])


def test_phrases_are_scored_by_probabilities():
    """Of a phrase with one token that fits and one that does not fit at all: the mean of the probabilities."""
    model = exact(small(), torch.tensor([[3.0, 4, 13, 15]]), [[PIECES.ids["red"]]])
    found = page.detect(model, PIECES, torch.zeros(1, 3, 32, 32), ["red square", "blue"], threshold=0.2)[0]
    p = (torch.tensor(4.0).sigmoid() + torch.tensor(-9.0).sigmoid()) / 2 * torch.tensor(3.0).sigmoid()
    assert found.labels.tolist() == [0] and found.scores.tolist() == pytest.approx([p.sqrt().item()])


@pytest.mark.claim("glip-by-hand")
def test_the_worked_example():
    """The page's table, by the page's code: the projection's bias carries z, nothing else is learnt."""
    regions = torch.tensor([[[2.0, 1], [-1, 2]]])
    classes = torch.tensor([[1.0, 1], [2, -1], [1, 0]])
    head = page.Alignment(2, 3)
    head.project.weight.data, head.project.bias.data = 2 * classes.T, torch.zeros(2)
    head.bias.data.fill_(-1.0)
    logits = head(regions, torch.eye(3)[None])
    torch.testing.assert_close(logits[0], torch.tensor([[2.0, 2, 1], [0, -5, -2]]))
    p = logits.sigmoid()
    wanted = torch.tensor([[0.881, 0.881, 0.731], [0.5, 0.007, 0.119]])
    torch.testing.assert_close(p[0], wanted, atol=5e-4, rtol=0)
    said = torch.ones(1, 3).bool()
    assert phrase_scores(p, said).flatten().tolist() == pytest.approx([0.831, 0.209], abs=5e-4)
    assert logits.mean(dim=2).sigmoid().flatten().tolist() == pytest.approx([0.841, 0.088], abs=5e-4)
    losses = page.focal_loss(logits[0, :, 0], torch.tensor([1.0, 0.0])).tolist()
    assert losses == pytest.approx([0.00045, 0.130], abs=5e-4) and losses[0] == pytest.approx(0.00045, abs=5e-6)
