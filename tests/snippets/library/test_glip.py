"""The GLIP post's lines with transformers; and in which ways Grounding DINO is another model."""

import inspect

import pytest
import torch
from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig
from transformers.loss import loss_grounding_dino
from transformers.models.grounding_dino import modeling_grounding_dino as theirs
from transformers.models.grounding_dino import processing_grounding_dino

from snippets.glip_fusion import Fusion
from snippets.library import glip
from tests.snippets.oracles import perturbed


@pytest.mark.claim("glip-library")
def test_the_same_regions_and_tokens(agrees):
    ours = perturbed(Fusion(12, 12, 24, 2))
    regions, tokens = torch.randn(3, 9, 12), torch.randn(3, 5, 12)
    real = torch.arange(5)[None] < torch.tensor([[5], [2], [4]])
    given = {name: weight.clone() for name, weight in ours.state_dict().items()}
    new = glip.fuse_by_transformers(given, regions, tokens, real, 2)
    name = "transformers.models.grounding_dino.modeling_grounding_dino.GroundingDinoFusionLayer"
    with torch.no_grad():
        for mine, other in zip(ours(regions, tokens, real), new, strict=True):
            agrees(mine, other, name, 1e-5)
    assert (new[0] - ours(regions, tokens, torch.ones_like(real))[0]).abs().max() > 1e-3


@pytest.mark.claim("glip-library-differs")
def test_where_it_is_another_model():
    config = GroundingDinoConfig()
    assert (config.num_queries, config.max_text_len, config.decoder_layers) == (900, 256, 6)
    head = theirs.GroundingDinoContrastiveEmbedding(config)
    assert not list(head.parameters())  # no scale, no bias
    regions, tokens = torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    logits = head(regions, tokens, torch.tensor([[True, True, True, False]]))
    torch.testing.assert_close(logits[..., :3], regions @ tokens[:, :3].transpose(1, 2))
    assert logits.shape == (1, 3, 256) and logits[..., 3:].isneginf().all()
    assert "linear_sum_assignment" in inspect.getsource(loss_grounding_dino.GroundingDinoHungarianMatcher)
    source = inspect.getsource(processing_grounding_dino.GroundingDinoProcessor)
    assert "torch.max(batch_probs, dim=-1)" in source or ".max(" in source  # the largest probability of a token
    assert "nms" not in source.lower()


@pytest.mark.claim("glip-separators")
def test_phrases_see_themselves_only_and_are_found_by_their_separators():
    """101 and 102 are BERT's ends, 1012 the full stop."""
    special = torch.tensor(theirs.SPECIAL_TOKENS)
    ids = torch.tensor([[101, 2417, 4418, 1012, 2630, 2892, 1012, 102]])  # two phrases of two tokens
    mask, _ = theirs.generate_masks_with_special_tokens_and_transfer_map(ids, special)
    assert mask[0, 1, 1:3].all() and not mask[0, 1, 4:6].any() and mask[0, 4, 4:6].all()
    maps = theirs.build_label_maps(torch.zeros(1, 1, 8), ids)[0]
    assert maps.tolist() == [[0, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]
    joined = torch.tensor([[101, 2417, 4418, 2630, 2892, 1012, 102, 0]])  # without the full stop between them
    assert theirs.build_label_maps(torch.zeros(1, 1, 8), joined)[0].tolist() == [[0, 1, 1, 1, 1, 0, 0, 0]]


@pytest.mark.claim("glip-library-targets")
def test_targets_of_prompts_of_different_lengths_are_mixed_up():
    """Three pictures with 3, 1 and 2 phrases; one box each, of the first phrase of its picture."""
    loss = loss_grounding_dino.GroundingDinoImageLoss(None, 0.25, ["labels"])
    maps = [torch.eye(6)[[0, 1, 2]], torch.eye(6)[[3]], torch.eye(6)[[4, 5]]]
    one = torch.tensor([0])
    targets, pairs = [{"class_labels": one}] * 3, [(one, one)] * 3

    def rows(label_maps):
        outputs = {"logits": torch.zeros(3, 2, 6), "label_maps": label_maps}
        return loss._get_target_classes_one_hot(outputs, targets, pairs)[:, 0].argmax(dim=1).tolist()

    right = [int(one[0].argmax()) for one in maps]
    assert rows(maps) == [0, 1, 2] and right == [0, 3, 4]  # phrases of the first picture for all three
    same = [torch.eye(6)[[0, 1, 2]]] * 3
    assert rows(same) == [0, 0, 0]  # with one prompt for all, nothing is wrong


@pytest.mark.claim("glip-library-whole")
def test_inside_a_whole_grounding_dino(agrees):
    """Random weights: what goes into its fusion layer comes out as ours says; its answers are of another kind."""
    swin = SwinConfig(
        image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4, out_indices=[2, 3, 4]
    )
    bert = BertConfig(vocab_size=1100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 72, "decoder_ffn_dim": 48}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_queries": 7, "max_text_len": 20}
    torch.manual_seed(0)
    config = GroundingDinoConfig(backbone_config=swin, text_config=bert, **sizes, **heads)
    model = perturbed(GroundingDinoForObjectDetection(config), 0.05)
    seen = {}

    def note(layer, positional, named, output):
        seen.update(named, output=output)

    layer = model.model.encoder.layers[0].fusion_layer
    layer.register_forward_hook(note, with_kwargs=True)
    ids = torch.tensor([[101, 7, 8, 1012, 9, 1012, 102, 0], [101, 5, 1012, 4, 3, 2, 1012, 102]])
    with torch.no_grad():
        answer = model(torch.randn(2, 3, 64, 64), ids, attention_mask=(ids > 0).long())
    ours = Fusion(32, 32, 36, 2)
    names = {}
    for name, weight in layer.state_dict().items():
        names[".".join(glip.NAMES.get(part, part) for part in name.split("."))] = weight
    ours.load_state_dict(names)
    regions, tokens = (torch.tensor(seen[f"{kind}_features"].tolist()) for kind in ("vision", "text"))
    real = ~torch.tensor(seen["attention_mask_text"].tolist())
    assert real.tolist() == (ids > 0).tolist() and not seen["attention_mask_vision"].any()
    with torch.no_grad():
        new_regions, new_tokens = ours(regions, tokens, real)
    (their_regions, _), (their_tokens, _) = seen["output"]
    name = "transformers.models.grounding_dino.modeling_grounding_dino.GroundingDinoFusionLayer"
    agrees(new_regions, their_regions, name, 1e-5)
    agrees(new_tokens, their_tokens, name, 1e-5)
    assert answer.logits.shape == (2, 7, 20) and answer.pred_boxes.shape == (2, 7, 4)  # queries, no regions
    assert answer.logits[0, :, 7:].isneginf().all() and answer.logits[..., :7].isfinite().any()
    assert ((answer.pred_boxes > 0) & (answer.pred_boxes < 1)).all()  # middles and sides, in shares of the picture
