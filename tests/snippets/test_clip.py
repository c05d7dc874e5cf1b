"""CLIP against transformers: embeddings, logits and losses of its folders; zero-shot, ensembles, retrieval, probes."""

import json
import math
import shutil
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, SiglipConfig, SiglipModel

from snippets import clip as page
from snippets.clip_text import Layer, TextConfig, quick_gelu
from snippets.exercises.clip import shared_loss
from tests.snippets.llm.folders import edited, refused, rewritten
from tests.snippets.oracles import perturbed

TEXT = {"vocab_size": 41, "max_position_embeddings": 11, "hidden_size": 24, "intermediate_size": 20}
TEXT |= {"num_hidden_layers": 3, "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": 2}
VISION = {"hidden_size": 18, "intermediate_size": 26, "num_hidden_layers": 2, "num_attention_heads": 3}
VISION |= {"image_size": 12, "patch_size": 4}
KINDS = {
    "plain": ({}, {}),
    "first": ({"eos_token_id": 7, "hidden_act": "gelu"}, {"image_size": 15, "patch_size": 5, "layer_norm_eps": 1e-3}),
    "grey": ({"num_hidden_layers": 1}, {"num_channels": 1, "hidden_act": "gelu", "num_attention_heads": 2}),
}
torch.manual_seed(0)
THEIRS = {
    kind: perturbed(CLIPModel(CLIPConfig(text_config=TEXT | text, vision_config=VISION | vision, projection_dim=10)))
    for kind, (text, vision) in KINDS.items()
}
ORACLE = "transformers.CLIPModel"
SMALL = TextConfig(41, 11, 24, 20, 2, 4, 10), page.VisionConfig(12, 4, 3, 18, 26, 2, 3, 10)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each model as transformers writes it, one of them in several files."""
    paths = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, path in paths.items():
        THEIRS[kind].save_pretrained(path, max_shard_size="8KB" if kind == "first" else "5GB")
    return paths


def batch(kind, pictures=5, texts=7):
    """Pictures, and texts of 9 tokens that end at different places, padded with the end itself or with 0."""
    vision = THEIRS[kind].config.vision_config
    tokens, place = torch.randint(8, 39, (texts, 9)), torch.arange(9)
    ends = torch.randint(2, 8, (texts, 1))
    end, pad = (7, 7) if kind == "first" else (40, 0)
    tokens[place > ends] = pad
    tokens[place.expand(texts, 9) == ends] = end
    real = (place <= ends).long()
    return torch.randn(pictures, vision.num_channels, vision.image_size, vision.image_size), tokens, real


# the model and its folders


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_and_logits_equal_transformers(kind, folders, agrees):
    pictures, tokens, real = batch(kind)
    ours = page.load_clip(folders[kind])
    assert not ours.training
    theirs = THEIRS[kind](input_ids=tokens, pixel_values=pictures, attention_mask=real)
    agrees(page.unit(ours.vision(pictures)), theirs.image_embeds, ORACLE)
    agrees(page.unit(ours.text(tokens)), theirs.text_embeds, ORACLE)
    agrees(ours(pictures, tokens), theirs.logits_per_image, ORACLE)
    raw = THEIRS[kind].get_image_features(pixel_values=pictures)
    agrees(ours.vision(pictures), raw.pooler_output, ORACLE)
    forgotten = ours.scale.exp() * ours.vision(pictures) @ ours.text(tokens).T  # negative control: not normed
    assert (forgotten - theirs.logits_per_image).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.claim("clip-get-features")
def test_the_librarys_features_are_an_object_with_embeddings_of_any_length():
    """The page's "In the library": get_..._features return no tensor, and pooler_output has not length 1."""
    pictures, tokens, real = batch("plain")
    theirs = THEIRS["plain"]
    outputs = theirs(input_ids=tokens, pixel_values=pictures, attention_mask=real)
    found = theirs.get_text_features(input_ids=tokens, attention_mask=real), theirs.get_image_features(pictures)
    for one, unit in zip(found, (outputs.text_embeds, outputs.image_embeds), strict=True):
        assert not torch.is_tensor(one)
        assert (page.unit(one.pooler_output) - unit).abs().max() < 1e-5
        assert (one.pooler_output.norm(dim=-1) - 1).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_features_for_a_probe_are_those_before_the_projection(kind, folders, agrees):
    pictures, _, _ = batch(kind)
    ours = page.load_clip(folders[kind])
    theirs = THEIRS[kind].vision_model(pixel_values=pictures).pooler_output
    agrees(ours.vision.features(pictures), theirs, "transformers.CLIPVisionModel")
    mean = ours.vision.norm(THEIRS[kind].vision_model(pixel_values=pictures).last_hidden_state.mean(dim=1))
    assert (mean - theirs).abs().max() > 0.01  # negative control: the mean of all states


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_each_part_of_the_picture_encoder_counts(kind, folders):
    pictures, _, _ = batch(kind)
    changes = {
        "activation": lambda vision: setattr(vision.layers[0], "activation", torch.relu),
        "norm before": lambda vision: setattr(vision, "norm_before", torch.nn.Identity()),
        "norm": lambda vision: setattr(vision, "norm", torch.nn.Identity()),
        "eps": lambda vision: setattr(vision.norm_before, "eps", 1.0),
        "class token": lambda vision: vision.class_token.data.zero_(),
        "position": lambda vision: vision.position.data.copy_(vision.position.flip(0).clone()),
        "patch": lambda vision: vision.patch.weight.data.copy_(vision.patch.weight.transpose(2, 3).clone()),
    }
    theirs = THEIRS[kind].get_image_features(pixel_values=pictures).pooler_output
    for name, change in changes.items():
        ours = page.load_clip(folders[kind])
        change(ours.vision)
        assert (ours.vision(pictures) - theirs).abs().max() > 1e-3, name


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_saved_folders_are_read_by_transformers(kind, folders, tmp_path, agrees):
    pictures, tokens, _ = batch(kind)
    ours = page.load_clip(folders[kind])
    page.save_clip(ours, tmp_path / "new")
    theirs, report = CLIPModel.from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not any(report.values()), report
    agrees(ours(pictures, tokens), theirs(input_ids=tokens, pixel_values=pictures).logits_per_image, ORACLE)
    once = page.load_clip(tmp_path / "new")
    assert all(weight.equal(once.state_dict()[name]) for name, weight in ours.state_dict().items())
    assert once.text.config == ours.text.config and once.vision.config == ours.vision.config


def test_first_weights_and_scale():
    """openai/CLIP, clip/model.py: the scale begins at log(1 / 0.07), class token and positions at 1 / sqrt(width)."""
    torch.manual_seed(1)
    model = page.Clip(TextConfig(41, embedding=96), page.VisionConfig(96, 4, 3, 128, 512, 4, 4, 96))
    assert model.scale.item() == pytest.approx(math.log(1 / 0.07))
    assert model.scale.exp().item() == pytest.approx(14.2857, abs=1e-4)
    assert model.vision.position.std().item() == pytest.approx(128**-0.5, rel=0.03)
    assert model.vision.class_token.std().item() == pytest.approx(128**-0.5, rel=0.3)
    assert model.vision.project.weight.std().item() == pytest.approx(128**-0.5, rel=0.03)
    assert model.vision.layers[1].down.weight.std().item() == pytest.approx((8 * 128) ** -0.5, rel=0.03)


@torch.no_grad()
@pytest.mark.claim("clip-scale-in-the-loop")
def test_no_model_clips_the_scale(folders):
    """The page's confusion: at 200 the logits are 200 times the cosine, here and in transformers."""
    pictures, tokens, _ = batch("plain")
    ours, theirs = page.load_clip(folders["plain"]), THEIRS["plain"]
    before = theirs.logit_scale.data.clone()
    for model in (ours.scale, theirs.logit_scale):
        model.data.fill_(math.log(200))
    cosine = page.unit(ours.vision(pictures)) @ page.unit(ours.text(tokens)).T
    logits = theirs(input_ids=tokens, pixel_values=pictures).logits_per_image
    theirs.logit_scale.data.copy_(before)
    assert (ours(pictures, tokens) - 200 * cosine).abs().max() < 1e-3
    assert (logits - 200 * cosine).abs().max() < 1e-3 < (logits - 100 * cosine).abs().max()


WRONG = {
    "model_type": "clip_text_model",
    "quantization_config": {"quant_method": "bitsandbytes"},
    "text_config.hidden_act": "relu",
    "vision_config.hidden_act": "gelu_new",
    "text_config.attention_dropout": 0.1,
    "vision_config.attention_dropout": 0.1,
    "text_config.eos_token_id": [1, 2],
    "vision_config.image_size": [12, 16],
    "vision_config.patch_size": [4, 4],
    "vision_config.num_attention_heads": 5,
    "projection_dim": 11,
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_the_page_does_not_have_are_refused(name, folders):
    part, _, inner = name.rpartition(".")

    def change(path):
        given = json.loads((path / "config.json").read_text())
        (given[part] if part else given)[inner] = WRONG[name]
        (path / "config.json").write_text(json.dumps(given))

    refused(page.load_clip, folders["grey"], change, "expected, given")


def test_folders_with_other_weights_are_refused(folders):
    load, name = page.load_clip, "vision_model.encoder.layers.1.mlp.fc1.weight"
    sharded, whole = folders["first"], folders["plain"]
    refused(load, sharded, lambda path: sorted(path.glob("*.safetensors"))[1].unlink(), "model-00002-of-.* is expected")
    refused(load, whole, lambda path: (path / "model.safetensors").unlink(), "model.safetensors is expected")
    refused(load, whole, edited(lambda w: w.pop(name)), "given vision.layers.1.up.weight: none")
    refused(load, whole, edited(lambda w: w.pop("logit_scale")), "given scale: none")
    refused(load, whole, edited(lambda w: w.update({"logit_bias": torch.ones(1)})), r"given logit_bias: \[1\]")
    refused(load, whole, edited(lambda w: w.update({name: w[name].T.contiguous()})), "vision.layers.1.up.weight")
    refused(load, whole, edited(lambda w: w.update({name: w[name].to(torch.int8)})), "not quantised are expected")


@torch.no_grad()
def test_older_files_hold_settings_twice(folders, tmp_path, agrees):
    """Where text_config_dict and text_config differ, the former counts, with transformers' defaults, as there."""
    shutil.copytree(folders["plain"], tmp_path, dirs_exist_ok=True)
    given = json.loads((tmp_path / "config.json").read_text())
    rewritten(tmp_path, text_config_dict=given["text_config"], text_config={}, vision_config_dict=None)
    weights = load_file(tmp_path / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(11)[None]
    weights["vision_model.embeddings.position_ids"] = torch.arange(10)[None]
    save_file(weights, tmp_path / "model.safetensors")
    pictures, tokens, _ = batch("plain")
    theirs = CLIPModel.from_pretrained(tmp_path)(input_ids=tokens, pixel_values=pictures).logits_per_image
    agrees(page.load_clip(tmp_path)(pictures, tokens), theirs, ORACLE)
    refused(page.load_clip, tmp_path, partial(rewritten, text_config_dict={"hidden_act": "gelu"}), "is expected, given")


def test_settings_that_are_not_written_are_transformers_own():
    config = CLIPVisionConfig()
    assert {o: getattr(config, t) for t, o in page.VISION_SIZES.items()} == page.VISION_UNLESS_GIVEN
    assert CLIPConfig().projection_dim == 512 and not config.attention_dropout
    assert page.vision_config({}, 512).quick and page.tower({}, "text_config") == {}


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="a side that patches divide is expected, given 32, 5"):
        page.VisionConfig(32, 5)
    with pytest.raises(ValueError, match="one embedding is expected, given 64, 63"):
        page.Clip(TextConfig(41), page.VisionConfig(embedding=63))


@torch.no_grad()
def test_both_encoders_export():
    """torch.export follows tensors without their values, for any number of pictures and texts."""
    model = perturbed(page.Clip(*SMALL))
    pictures, tokens, _ = batch("plain")
    rows, texts = torch.export.Dim("rows", min=2, max=64), torch.export.Dim("texts", min=2, max=64)
    exported = torch.export.export(model, (pictures, tokens), dynamic_shapes=({0: rows}, {0: texts})).module()
    assert (exported(pictures[:3], tokens[2:]) - model(pictures[:3], tokens[2:])).abs().max() < 1e-5


def test_layers_are_shared_by_both_encoders():
    model = page.Clip(*SMALL)
    assert {type(layer) for part in (model.text, model.vision) for layer in part.layers} == {Layer}


@pytest.mark.equation("clip-quick-gelu", of=quick_gelu)
def test_quick_gelu(formula):
    x = torch.linspace(-4, 4, 17).double()
    formula("clip-quick-gelu").holds({r"\operatorname{quick}(x)": quick_gelu(x), "x": x})


@pytest.mark.claim("clip-activations")
def test_the_two_activations_differ_by_little():
    x = torch.linspace(-10, 10, 100_001).double()
    assert 0.0195 < (quick_gelu(x) - F.gelu(x)).abs().max() < 0.0205


@torch.no_grad()
@pytest.mark.claim("clip-other-activation")
def test_weights_load_into_the_other_activation_without_a_word(folders, tmp_path):
    """In transformers, too: the folder's setting exchanged, nothing is reported, and the logits are others."""
    pictures, tokens, _ = batch("plain")
    right = page.load_clip(folders["plain"])(pictures, tokens)
    shutil.copytree(folders["plain"], tmp_path, dirs_exist_ok=True)
    given = json.loads((tmp_path / "config.json").read_text())
    for name in ("text_config", "vision_config"):
        given[name]["hidden_act"] = "gelu"
    (tmp_path / "config.json").write_text(json.dumps(given))
    theirs, report = CLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    other = theirs.eval()(input_ids=tokens, pixel_values=pictures).logits_per_image
    assert (page.load_clip(tmp_path)(pictures, tokens) - other).abs().max() < 1e-3
    assert (other - right).abs().max() > 0.01


@pytest.mark.claim("clip-parameters")
def test_the_page_says_how_many_parameters_the_models_have():
    """Of the sizes in the table, without memory for them; the program's, too."""
    with torch.device("meta"):
        base = page.Clip(
            TextConfig(49408, 77, 512, 2048, 12, 8, 512), page.VisionConfig(224, 32, 3, 768, 3072, 12, 12, 512)
        )
        large = page.Clip(
            TextConfig(49408, 77, 768, 3072, 12, 12, 768), page.VisionConfig(224, 14, 3, 1024, 4096, 24, 16, 768)
        )
        small = page.Clip(TextConfig(574, num_layers=2), page.VisionConfig(patch=8))
    counts = [sum(p.numel() for p in model.parameters()) for model in (base, large, small)]
    assert counts[:2] == [151_277_313, 427_616_513] and round(counts[2] / 1e6, 1) == 0.3


# losses


@pytest.mark.claim("clip-by-hand")
def test_by_hand():
    """The page's worked example, number by number."""
    pictures, texts = torch.tensor([[3.0, 4], [5, 0]]), torch.tensor([[0.0, 2], [12, 5]])
    assert page.unit(pictures).flatten().tolist() == pytest.approx([0.6, 0.8, 1, 0])
    assert page.unit(texts).flatten().tolist() == pytest.approx([0, 1, 0.923, 0.385], abs=1e-3)
    logits = page.similarities(pictures, texts, torch.tensor(math.log(10))).requires_grad_()
    assert (logits / 10).flatten().tolist() == pytest.approx([0.8, 0.862, 0, 0.923], abs=1e-3)
    assert logits.flatten().tolist() == pytest.approx([8, 8.615, 0, 9.231], abs=1e-3)
    rows, columns = logits.softmax(dim=1), logits.softmax(dim=0)
    assert rows.diagonal().tolist() == pytest.approx([0.351, 1.000], abs=1e-3)
    assert columns.diagonal().tolist() == pytest.approx([1.000, 0.649], abs=1e-3)
    assert (-rows.diagonal().log()).tolist() == pytest.approx([1.048, 0.000], abs=1e-3)
    assert (-columns.diagonal().log()).tolist() == pytest.approx([0.000, 0.432], abs=1e-3)
    loss = page.clip_loss(logits)
    loss.backward()
    assert loss.item() == pytest.approx(0.370, abs=5e-4)
    assert logits.grad[0].tolist() == pytest.approx([-0.162, 0.25], abs=5e-4)
    assert page.clip_loss(page.similarities(pictures, texts, torch.tensor(0.0))).item() == pytest.approx(
        0.523, abs=5e-4
    )


@pytest.mark.equation("clip-gradient", of=page.clip_loss)
def test_the_gradient_of_a_logit(formula):
    logits = (3 * torch.randn(5, 5).double()).requires_grad_()
    (gradient,) = torch.autograd.grad(page.clip_loss(logits), logits)
    p, q = logits.detach().softmax(dim=1), logits.detach().softmax(dim=0)
    names = {r"\frac{\partial \mathcal{L}}{\partial \ell_{ij}}": gradient, "p_{ij}": p, "q_{ij}": q}
    formula("clip-gradient").holds(names | {r"\delta_{ij}": torch.eye(5), "B": 5})


@pytest.mark.equation("clip-logits", of=page.similarities)
def test_logits(formula):
    pictures, texts, scale = torch.randn(5, 4).double(), torch.randn(7, 4).double(), torch.tensor(1.3).double()
    names = {r"\ell_{ij}": page.similarities(pictures, texts, scale)[2, 6], "u_i": pictures[2], "v_j": texts[6]}
    formula("clip-logits").holds(names | {"s": scale})


@pytest.mark.equation("clip-loss", of=page.clip_loss)
def test_loss(formula):
    logits = 3 * torch.randn(5, 5).double()
    names = {r"\ell_{ii}": lambda i: logits[i - 1, i - 1], r"\ell_{ij}": lambda i, j: logits[i - 1, j - 1]}
    names |= {r"\ell_{ji}": lambda j, i: logits[j - 1, i - 1]}
    formula("clip-loss").holds(names | {r"\mathcal{L}": page.clip_loss(logits), "B": 5})


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_equals_transformers(kind, folders, agrees):
    pictures, tokens, _ = batch(kind, 5, 5)
    theirs = THEIRS[kind](input_ids=tokens, pixel_values=pictures, return_loss=True).loss
    ours = page.load_clip(folders[kind])
    agrees(page.clip_loss(ours(pictures, tokens)), theirs, ORACLE)
    one = F.cross_entropy(ours(pictures, tokens), torch.arange(5))  # negative control: one direction
    assert (one - theirs).abs() > 1e-3


@pytest.mark.claim("clip-log-b")
def test_uninformative_logits_give_log_n():
    assert round(page.clip_loss(torch.ones(64, 64)).item(), 2) == 4.16
    for count in (2, 7, 100):
        for value in (0.0, -3.0):
            assert page.clip_loss(torch.full((count, count), value)).item() == pytest.approx(math.log(count))
    assert page.clip_loss(torch.randn(7, 7)).item() != pytest.approx(math.log(7), abs=1e-2)


def test_hard_negatives_are_wrong_answers_for_pictures_only():
    logits = torch.randn(5, 8).double()
    by_hand = -sum(logits[i].log_softmax(0)[i] + logits[:, i].log_softmax(0)[i] for i in range(5)) / 10
    assert page.clip_loss(logits).item() == pytest.approx(by_hand.item())
    assert page.clip_loss(logits) > page.clip_loss(logits[:, :5])


@pytest.mark.claim("clip-repeated-captions")
def test_repeated_captions_are_false_negatives():
    """The page's confusion: where c rows have the same caption, no encoder gets below the mean of log c.

    Loss and gradients are those of a loss that counts the copies as right (the page's exercise 2), which differs
    where captions mean the same and have embeddings of their own.
    """
    pictures = F.one_hot(torch.tensor([0, 0, 1, 2, 2, 2])).double()
    best = page.clip_loss(1000 * pictures @ pictures.T)
    assert best.item() == pytest.approx((2 * math.log(2) + 3 * math.log(3)) / 6)
    alone = torch.eye(6).double()
    assert page.clip_loss(1000 * alone) < 1e-9

    def told(loss, shared: bool) -> list:
        generator = torch.Generator().manual_seed(0)
        shown = torch.randn(5, 4, generator=generator).double().requires_grad_()
        texts = torch.randn(5, 4, generator=generator).double().requires_grad_()
        captions = texts[meaning] if shared else texts
        value = loss(page.similarities(shown, captions, torch.tensor(1.0)))
        return [value.detach(), *torch.autograd.grad(value, (shown, texts))]

    meaning = torch.tensor([0, 1, 0, 0, 2])
    for shared in (True, False):
        ours, theirs = (told(loss, shared) for loss in (page.clip_loss, lambda logits: shared_loss(logits, meaning)))
        apart = max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))
        assert apart < 1e-12 if shared else apart > 0.01


SIGLIP = {"hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def siglip():
    torch.manual_seed(0)
    text = SIGLIP | {"vocab_size": 41, "max_position_embeddings": 9, "projection_size": 24}
    config = SiglipConfig(text_config=text, vision_config=SIGLIP | {"image_size": 12, "patch_size": 4})
    model = perturbed(SiglipModel(config))
    model.logit_scale.data.fill_(1.1)
    model.logit_bias.data.fill_(-2.3)
    pictures, tokens = torch.randn(5, 3, 12, 12), torch.randint(41, (5, 9))
    return model, model(input_ids=tokens, pixel_values=pictures, return_loss=True)


@pytest.mark.equation("clip-siglip", of=page.siglip_loss)
def test_siglip_loss(formula):
    logits = 3 * torch.randn(4, 4).double()
    names = {r"\ell_{ij}": lambda i, j: logits[i - 1, j - 1], "z_{ij}": lambda i, j: 1 if i == j else -1}
    formula("clip-siglip").holds(names | {r"\mathcal{L}_{\text{sig}}": page.siglip_loss(logits), "B": 4})


def test_siglip_loss_equals_transformers(siglip, agrees):
    model, outputs = siglip
    given = outputs.image_embeds, outputs.text_embeds, model.logit_scale, model.logit_bias
    pictures, texts, scale, bias = (torch.tensor(x.tolist()) for x in given)
    logits = page.similarities(pictures, texts, scale) + bias
    agrees(page.siglip_loss(logits), outputs.loss, "transformers.SiglipModel")
    assert (page.siglip_loss(logits - bias) - outputs.loss).abs() > 0.1  # negative control: no bias
    assert (page.siglip_loss(logits) * 5 / 25 - outputs.loss).abs() > 0.1  # and the mean over all pairs


@pytest.mark.claim("clip-siglip-start")
def test_siglip_begins_where_almost_every_pair_is_wrong():
    """The page's confusion: scale log 10 and bias -10, not transformers' fresh model, whose are 0."""
    fresh = SiglipModel(
        SiglipConfig(text_config=SIGLIP | {"vocab_size": 41}, vision_config=SIGLIP | {"image_size": 16})
    )
    assert fresh.logit_scale.item() == fresh.logit_bias.item() == 0
    cosine = 0.1 * torch.randn(64, 64)
    start, zero = page.siglip_loss(10 * cosine - 10), page.siglip_loss(cosine)
    assert start < 15 and zero > 40  # at 0, each of 64 x 64 pairs costs log 2
    assert zero.item() == pytest.approx(64 * math.log(2), rel=0.1)


# use


@pytest.mark.equation("clip-zero-shot", of=page.zero_shot)
def test_zero_shot(formula):
    model = perturbed(page.Clip(*SMALL)).double()
    pictures, classes = torch.randn(4, 3, 12, 12).double(), page.unit(torch.randn(3, 10).double())
    logits = page.similarities(model.vision(pictures), classes, model.scale)
    names = {r"p_k": page.zero_shot(model, pictures, classes)[1, 2], r"\ell_k": logits[1, 2], "K": 3}
    formula("clip-zero-shot").holds(names | {r"\ell_m": lambda m: logits[1, m - 1]})


@pytest.mark.equation("clip-ensemble", of=page.class_embeddings)
def test_prompts_are_averaged_and_normed_again(formula):
    model = perturbed(page.Clip(*SMALL)).double()
    prompts = torch.randint(3, 40, (5, 3, 9))
    prompts[..., 8] = 40
    each = model.text(prompts.flatten(0, 1)).unflatten(0, (5, 3))
    ours = page.class_embeddings(model, prompts)
    names = {"w": ours[4], r"\bar v": page.unit(each[4]).mean(dim=0), "v_r": lambda r: each[4, r - 1], "Q": 3}
    formula("clip-ensemble").holds(names, relations=2)
    assert ours.norm(dim=-1).allclose(torch.ones(5).double())
    plain = page.unit(each.mean(dim=1))  # negative control: long embeddings count more
    assert (plain - ours).abs().max() > 1e-3


def test_classes_have_the_length_1():
    """The more a class's prompts disagree, the shorter is their mean: it is brought to length 1."""
    model = perturbed(page.Clip(*SMALL))
    prompts = torch.randint(3, 40, (5, 3, 9))
    assert page.class_embeddings(model, prompts).norm(dim=-1).allclose(torch.ones(5))
    plain = page.unit(model.text(prompts.flatten(0, 1))).unflatten(0, (5, 3)).mean(dim=1)
    assert plain.norm(dim=-1).max() < 0.99


@torch.no_grad()
def test_zero_shot_equals_transformers(folders, agrees):
    pictures, tokens, _ = batch("plain")
    ours = page.load_clip(folders["plain"])
    theirs = THEIRS["plain"](input_ids=tokens, pixel_values=pictures).logits_per_image.softmax(dim=-1)
    agrees(page.zero_shot(ours, pictures, page.class_embeddings(ours, tokens[:, None])), theirs, ORACLE)


def test_recall_counts_what_is_found():
    logits = torch.tensor([[3.0, 2, 1], [9, 8, 7], [6, 5, 4]])
    assert page.recall(logits, 1) == pytest.approx(1 / 3)
    assert page.recall(logits, 2) == pytest.approx(2 / 3)
    assert page.recall(logits, 3) == 1
    assert page.recall(logits.T, 1) == pytest.approx(1 / 3)
    assert page.recall(torch.zeros(3, 3), 1) == 1  # all are equal
    random = torch.randn(11, 11)
    for k in (1, 4):
        found = [i in row.topk(k).indices for i, row in enumerate(random)]
        assert page.recall(random, k) == pytest.approx(sum(found) / 11)


def test_the_probe_finds_what_the_features_tell():
    """Labels that are a linear function of the features: a probe finds them, of labels in disorder it finds none."""
    model = perturbed(page.Clip(*SMALL))
    pictures, others = torch.randn(200, 3, 12, 12), torch.randn(90, 3, 12, 12)
    direction = torch.randn(18)
    with torch.no_grad():
        told, right = (model.vision.features(x) @ direction for x in (pictures, others))
    labels, right = told > told.median(), right > told.median()
    guessed = page.linear_probe(model, pictures, labels.long(), others)
    assert (guessed == right.long()).float().mean() > 0.85
    guessed = page.linear_probe(model, pictures, labels[torch.randperm(200)].long(), others)
    assert (guessed == right.long()).float().mean() < 0.75


def test_transformers_has_no_parameter_that_the_page_lacks():
    ours = page.Clip(*SMALL)
    theirs = CLIPModel(CLIPConfig(text_config=TEXT | {"num_hidden_layers": 2}, vision_config=VISION, projection_dim=10))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert transformers.CLIPConfig().logit_scale_init_value == pytest.approx(math.log(1 / 0.07), abs=1e-4)
