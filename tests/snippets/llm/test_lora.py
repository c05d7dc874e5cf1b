"""LoRA: forward, merge and unmerge against peft, on nn.Linear and GPT-2's Conv1D; files both ways; what trains."""

import copy
import json
import math
import warnings

import matplotlib.image
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from snippets.llm import lora
from snippets.llm.checkpoints import load_llama
from snippets.llm.decoder_only import GPT2, LLAMA_NAMES, Config, Llama, train
from tests.formula import Matrix
from tests.snippets.oracles import perturbed

DOUBLE = torch.float64
PEFT = "peft.tuners.lora.Linear"
EVERY = ["to_query", "to_key", "to_value", "to_out", "gate", "up", "down"]
GPT2_CONFIG = GPT2Config(vocab_size=29, n_positions=13, n_embd=12, n_layer=2, n_head=3, n_inner=20)  # slow to make
LLAMA_CONFIG = LlamaConfig(
    vocab_size=29,
    hidden_size=12,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    max_position_embeddings=13,
    tie_word_embeddings=False,
)


def layer(kind: str, inputs: int = 7, outputs: int = 11) -> nn.Module:
    made = nn.Linear(inputs, outputs) if kind == "Linear" else Conv1D(outputs, inputs)
    return perturbed(made).to(DOUBLE)


def llama() -> Llama:
    return perturbed(Llama(Config(29, 13, width=12, hidden=20, num_layers=2, num_heads=3, num_key_heads=1)))


def with_peft(model: nn.Module, names: list[str], rank=3, alpha=5, dropout=0.0, **others) -> PeftModel:
    """The same by peft, on a copy, all weights moved from their first values."""
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, **others)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it has set fan_in_fan_out
        made = get_peft_model(copy.deepcopy(model), config)
    for name, p in made.named_parameters():
        if "lora_" in name:
            p.data += 0.2 * torch.randn_like(p)
    return made


def moved(model: nn.Module) -> nn.Module:
    """Adapters away from their first values."""
    for adapter in lora.adapters(model).values():
        adapter.A.data += 0.2 * torch.randn_like(adapter.A)
        adapter.B.data += 0.2 * torch.randn_like(adapter.B)
    return model.eval()


def copied(ours: nn.Module, theirs: PeftModel) -> nn.Module:
    """Give our adapters the weights of peft's."""
    for path, adapter in lora.adapters(ours).items():
        other = theirs.base_model.model.get_submodule(path)
        adapter.A.data.copy_(other.lora_A["default"].weight)
        adapter.B.data.copy_(other.lora_B["default"].weight)
    return ours


@pytest.fixture(params=["Linear", "Conv1D"])
def pair(request):
    """One layer with our adapter and with peft's, in float64 and train mode, dropout 0.3; inputs (2, 5, 7)."""
    base = nn.Sequential(layer(request.param)).train()
    theirs = with_peft(base, ["0"], dropout=0.3).to(DOUBLE).train()
    ours = copied(lora.add_adapters(copy.deepcopy(base), ["0"], rank=3, alpha=5, dropout=0.3), theirs)
    return ours, theirs, torch.randn(2, 5, 7, dtype=DOUBLE)


# one layer


def in_formulas(ours: nn.Module, x: torch.Tensor, h: torch.Tensor) -> dict:
    """Values of the formulas' letters for the layer of `pair`; the bias is not in them."""
    adapter = ours[0]
    weight = adapter.layer.weight.T if isinstance(adapter.layer, Conv1D) else adapter.layer.weight
    names = {"W": Matrix(weight), "B": Matrix(adapter.B), "A": Matrix(adapter.A), r"\alpha": 5, "r": 3}
    return names | {"h": h - adapter.layer.bias, "x": x}


@pytest.mark.equation("lora-forward", of=lora.LoRA)
def test_forward_is_its_formula(pair, formula):
    ours, _, x = pair
    formula("lora-forward").holds(in_formulas(ours, x, ours.eval()(x)))


def test_forward_is_that_of_peft_with_the_same_dropout(pair, agrees):
    ours, theirs, x = pair
    torch.manual_seed(3)
    expected = theirs(x)
    torch.manual_seed(3)
    agrees(ours(x), expected, PEFT, 1e-10)
    torch.manual_seed(4)
    assert (ours(x) - expected).abs().max() > 1e-3  # another mask: dropout is there
    agrees(ours.eval()(x), theirs.eval()(x), PEFT, 1e-10)
    ours[0].alpha = ours[0].rank
    assert (ours(x) - theirs(x)).abs().max() > 1e-3  # negative control: alpha over rank counts


@pytest.mark.equation("lora-dropout", of=lora.LoRA)
def test_dropout_is_on_the_path_of_the_adapter_only(pair, formula):
    """With the adapter's B at zero, no mask shows; otherwise the mean over masks is the output without dropout."""
    ours, _, x = pair
    clean = ours.eval()(x)
    draws = torch.stack([ours.train()(x) for _ in range(4000)])
    spread = draws.std(dim=0) / math.sqrt(4000)
    assert ((draws.mean(dim=0) - clean).abs() < 5 * spread + 1e-12).all()
    adapter = ours[0]
    torch.manual_seed(3)
    seen = F.dropout(x, 0.3)
    expected = adapter.layer(x) + 5 / 3 * seen @ adapter.A.T @ adapter.B.T
    torch.manual_seed(3)
    dropped = ours(x)
    torch.testing.assert_close(dropped, expected)
    formula("lora-dropout").holds(in_formulas(ours, x, dropped) | {"D": lambda inputs: inputs * seen / x})
    assert (adapter.layer(seen) - adapter.layer(x)).abs().max() > 1e-3  # what dropping the layer's inputs would do
    adapter.B.data.zero_()
    assert torch.equal(ours(x), adapter.layer(x))


@pytest.mark.equation("lora-merge", of=(lora.LoRA.merge, lora.LoRA.delta))
def test_merged_weight_is_its_formula(formula):
    adapter = perturbed(lora.LoRA(layer("Linear"), 3, 5.0))
    before = adapter.layer.weight.clone()
    adapter.merge()
    names = {"W'": Matrix(adapter.layer.weight), "W": Matrix(before), "B": Matrix(adapter.B), "A": Matrix(adapter.A)}
    formula("lora-merge").holds(names | {r"\alpha": 5, "r": 3})


def test_merge_and_unmerge_are_those_of_peft(pair, agrees):
    ours, theirs, x = pair
    ours.eval(), theirs.eval()
    adapter, other = ours[0], theirs.base_model.model[0]
    before, unmerged = adapter.layer.weight.clone(), ours(x)
    agrees(adapter.delta(), other.get_delta_weight("default"), PEFT, 1e-10)
    lora.merge(ours), other.merge()
    agrees(adapter.layer.weight, other.base_layer.weight, PEFT, 1e-10)
    torch.testing.assert_close(ours(x), unmerged, rtol=0, atol=1e-10)
    assert (adapter.layer.weight - before).abs().max() > 0.01
    unscaled = before + 3 / 5 * adapter.delta()
    assert (unscaled - other.base_layer.weight).abs().max() > 0.01  # negative control
    lora.unmerge(ours), other.unmerge()
    agrees(adapter.layer.weight, other.base_layer.weight, PEFT, 1e-10)
    assert (adapter.layer.weight - before).abs().max() < 1e-15
    torch.testing.assert_close(ours(x), unmerged, rtol=0, atol=1e-10)
    assert torch.equal(lora.remove_adapters(ours)(x), ours[0](x)) and ours[0] is adapter.layer


def test_unmerge_restores_float32_to_a_few_units_of_rounding_and_bfloat16_not():
    """Adding and subtracting the same number rounds twice, at the size of the larger one."""
    errors = {}
    for dtype in (torch.float32, torch.bfloat16):
        adapter = perturbed(lora.LoRA(nn.Linear(70, 110), 3, 5.0)).to(dtype)
        before = adapter.layer.weight.clone()
        adapter.merge()
        assert not torch.equal(adapter.layer.weight, before)
        adapter.unmerge()
        errors[dtype] = (adapter.layer.weight - before).abs().max().item()
    assert errors[torch.float32] < 2e-7 < 1e-3 < errors[torch.bfloat16]


@pytest.mark.equation("lora-init", of=lora.LoRA.__init__)
def test_first_values_are_those_of_peft(pair, agrees, formula):
    """A the same numbers from the same seed, even between -1 / sqrt(I) and 1 / sqrt(I); B zero; nothing changes."""
    ours, theirs, x = pair
    other = theirs.base_model.model[0]
    torch.manual_seed(3)
    fresh = lora.LoRA(ours[0].layer, 3, 5.0)
    torch.manual_seed(3)
    other.reset_lora_parameters("default", True)
    agrees(fresh.A, other.lora_A["default"].weight, PEFT, 0)
    agrees(fresh.B, other.lora_B["default"].weight, PEFT, 0)
    assert not fresh.B.any() and torch.equal(fresh(x), fresh.layer(x))  # bit for bit
    wide = lora.LoRA(nn.Linear(400, 3), 50, 1.0).A

    def even(low, high):
        """Whether wide lies between low and high, and reaches nearly to both."""
        return low <= wide.min() < 0.99 * low and 0.99 * high < wide.max() <= high

    names = {r"A_{ij} \sim \mathcal{U}": even, r"d_\text{in}": 400}
    formula("lora-init").agrees(True, names, apart="B = 0")
    assert 0.049 < wide.abs().max() <= 1 / math.sqrt(400) and abs(wide.mean()) < 1e-3
    assert wide.std().item() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.02)


def test_a_wrapped_model_answers_as_before_bit_for_bit():
    model, tokens = llama(), torch.randint(29, (2, 9))
    before = model(tokens)
    assert torch.equal(lora.add_adapters(model, EVERY, 3, 5.0)(tokens), before)
    perturbed(lora.adapters(model)["blocks.1.up"])
    assert not torch.equal(model(tokens), before)


@pytest.mark.equation("lora-gradient", of=lora.LoRA)
def test_gradients_are_the_formulas_and_only_b_moves_at_first(formula):
    adapter = lora.LoRA(layer("Linear"), 3, 5.0)
    x, wanted = torch.randn(6, 7, dtype=DOUBLE), torch.randn(6, 11, dtype=DOUBLE)

    def gradients():
        adapter.zero_grad()
        y = adapter(x)
        y.retain_grad()
        (y - wanted).square().sum().backward()
        return y.grad

    g = gradients()
    torch.testing.assert_close(adapter.B.grad, 5 / 3 * g.T @ (x @ adapter.A.T))
    assert adapter.B.grad.abs().min() > 0 and not adapter.A.grad.any() and adapter.layer.weight.grad is None
    perturbed(adapter)
    g = gradients()
    torch.testing.assert_close(adapter.B.grad, 5 / 3 * g.T @ (x @ adapter.A.T))
    torch.testing.assert_close(adapter.A.grad, 5 / 3 * (g @ adapter.B).T @ x)
    x, wanted = x[:1], wanted[:1]  # the formulas are of one input
    g, before = gradients(), {"A": Matrix(adapter.A), "B": Matrix(adapter.B), r"\alpha": 5, "r": 3}
    found = {rf"\frac{{\partial L}}{{\partial {one}}}": Matrix(getattr(adapter, one).grad) for one in "AB"}
    formula("lora-gradient").holds(found | before | {"g": Matrix(g.T), "x": Matrix(x.T)}, relations=2)
    with torch.no_grad():
        adapter.A.zero_(), adapter.B.zero_()
    gradients()
    assert not adapter.A.grad.any() and not adapter.B.grad.any()  # both zero: it never leaves


def test_an_adapter_takes_the_mode_and_type_of_its_layer():
    assert not lora.LoRA(layer("Linear").eval(), 3, 5.0, 0.5).dropout.training
    assert lora.LoRA(layer("Linear").train(), 3, 5.0, 0.5).dropout.training
    assert lora.LoRA(layer("Conv1D"), 3, 5.0).A.dtype == DOUBLE


@pytest.mark.equation("lora-scale", of=lora.LoRA.delta)
def test_size_of_the_first_step_is_its_formula(formula):
    """A wide layer, and a rate of 0.5: the formula is right to 2 %."""
    adapter, x, wanted = lora.LoRA(nn.Linear(3000, 2000), 4, 8.0), torch.randn(64, 3000), torch.randn(64, 2000)
    optimizer = torch.optim.Adam([adapter.A, adapter.B], lr=0.5)
    (adapter(x) - wanted).square().sum().backward()
    optimizer.step()
    names = {r"\frac{\alpha}{r} B A": Matrix(adapter.delta().detach()), r"\alpha": 8, r"\eta": 0.5, "r": 4}
    formula("lora-scale").holds(names | {r"d_\text{out}": 2000}, tolerance=0.02)


def test_size_of_the_first_step_by_rank():
    """One step of Adam on B moves each number by the rate. Over r terms the change grows as sqrt(r), less alpha / r."""
    x, wanted, rate = torch.randn(64, 300), torch.randn(64, 200), 1e-3
    for rank in (4, 16, 64):
        adapter = lora.LoRA(nn.Linear(300, 200), rank, 8.0)
        optimizer = torch.optim.Adam([adapter.A, adapter.B], lr=rate)
        (adapter(x) - wanted).square().sum().backward()
        optimizer.step()
        size = adapter.delta().norm().item()
        assert size == pytest.approx(8.0 * rate * math.sqrt(200 / (3 * rank)), rel=0.1)
        assert size != pytest.approx(8.0 * rate * math.sqrt(200 / 3), rel=0.3)  # negative control: one size at all r


@pytest.mark.claim("lora-first-fall")
def test_the_first_step_lowers_the_loss_by_as_much_at_every_rank():
    """With alpha / r, though the change shrinks as 1 / sqrt(r); the fall is the formula's. Means of 20 starts."""
    rate, falls, sizes, generator = 1e-4, {}, {}, torch.Generator().manual_seed(0)
    x, wanted = (torch.randn(64, size, generator=generator).to(DOUBLE) for size in (120, 80))
    base = perturbed(nn.Linear(120, 80)).to(DOUBLE)
    for rank in (1, 4, 64):
        for name, alpha in (("alpha / r", 8.0), ("alpha / sqrt(r)", 8.0 * rank**0.5), ("alpha", 8.0 * rank)):
            found, size = [], []
            for seed in range(20):
                torch.manual_seed(seed)
                adapter = lora.LoRA(copy.deepcopy(base), rank, alpha)
                optimizer = torch.optim.Adam([adapter.A, adapter.B], lr=rate)
                before = (adapter(x) - wanted).square().mean()
                before.backward()
                optimizer.step()
                found.append((before - (adapter(x) - wanted).square().mean()).item())
                size.append(adapter.delta().norm().item())
            falls[name, rank], sizes[name, rank] = sum(found) / 20, sum(size) / 20
    for rank in (4, 64):
        for name, growth in (("alpha / r", 1), ("alpha / sqrt(r)", rank**0.5), ("alpha", rank)):
            assert falls[name, rank] / falls[name, 1] == pytest.approx(growth, rel=0.06), (name, rank)
        assert sizes["alpha / r", rank] / sizes["alpha / r", 1] == pytest.approx(rank**-0.5, rel=0.25)
    adapter = lora.LoRA(copy.deepcopy(base), 4, 8.0)  # the formula, for one start
    optimizer = torch.optim.Adam([adapter.A, adapter.B], lr=rate / 100)
    before, changed = (adapter(x) - wanted).square().mean(), base.weight.detach().requires_grad_()
    G = torch.autograd.grad((x @ changed.T + base.bias - wanted).square().mean(), changed)[0]
    promised = 8.0 / 4 * sum(rate / 100 * (G @ row).abs().sum() for row in adapter.A.detach())
    before.backward()
    optimizer.step()
    assert (before - (adapter(x) - wanted).square().mean()).item() == pytest.approx(promised.item(), rel=1e-3)


# whole models


@pytest.mark.equation("lora-count", of=lora.count_trained)
def test_count_is_its_formula(formula):
    counted = lora.count_trained(lora.LoRA(nn.Linear(7, 11), 3, 5.0))
    formula("lora-count").agrees(counted, {"r": 3, r"d_\text{in}": 7, r"d_\text{out}": 11})


@pytest.mark.parametrize("names", [["to_query", "to_value"], EVERY])
def test_parameters_are_rank_times_inputs_plus_outputs(names):
    model = llama()
    expected = sum(3 * sum(m.weight.shape) for path, m in model.named_modules() if path.split(".")[-1] in names)
    total = sum(p.numel() for p in model.parameters())
    lora.add_adapters(model, names, 3, 5.0)
    assert lora.count_trained(model) == expected > 0
    assert sum(p.numel() for p in model.parameters()) == total + expected


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (DOUBLE, 1e-10)])
def test_a_llama_with_adapters_is_that_of_peft(dtype, tolerance, agrees):
    model, tokens = llama().to(dtype).train(), torch.randint(29, (2, 9))
    theirs = with_peft(model, EVERY, dropout=0.2).to(dtype).train()
    ours = copied(lora.add_adapters(copy.deepcopy(model), EVERY, 3, 5.0, 0.2), theirs)
    torch.manual_seed(3)
    expected = theirs(tokens)
    torch.manual_seed(3)
    agrees(ours(tokens), expected, "peft.PeftModel", tolerance)
    assert (ours(tokens) - expected).abs().max() > 1e-3  # other masks
    ours.eval(), theirs.eval()
    agrees(ours(tokens), theirs(tokens), "peft.PeftModel", tolerance)
    merged = theirs.merge_and_unload()
    agrees(lora.remove_adapters(lora.merge(ours))(tokens), merged(tokens), "peft.PeftModel", tolerance)
    assert (model.eval()(tokens) - merged(tokens)).abs().max() > 1e-3  # negative control: the base alone


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_training_changes_the_adapters_and_nothing_else(dropout):
    model = lora.add_adapters(llama().train(), ["to_query", "up"], 3, 5.0, dropout)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    train(model, torch.arange(29).repeat(20), 5, rate=1e-2)
    inside = {f"{path}.{part}" for path in lora.adapters(model) for part in "AB"}
    assert {name for name, p in model.named_parameters() if p.grad is not None} == inside
    assert {name for name, p in model.named_parameters() if p.requires_grad} == inside
    for name, p in model.state_dict().items():
        assert torch.equal(p, before[name]) != (name in inside), name


def test_training_steps_are_those_of_peft(agrees):
    """Five steps of AdamW from the same weights give the same adapters."""
    model = llama().double().train()
    theirs = with_peft(model, ["to_query", "up"]).to(DOUBLE).train()
    ours = copied(lora.add_adapters(copy.deepcopy(model), ["to_query", "up"], 3, 5.0), theirs)
    inner = theirs.base_model.model
    for one in (ours, inner):
        train(one, torch.arange(29).repeat(20), 5, rate=1e-2)
    for path, adapter in lora.adapters(ours).items():
        agrees(adapter.A, inner.get_submodule(path).lora_A["default"].weight, PEFT, 1e-10)
        agrees(adapter.B, inner.get_submodule(path).lora_B["default"].weight, PEFT, 1e-10)


@pytest.mark.claim("lora-tied")
def test_a_tied_weight_is_not_merged():
    """The head of this model is its embedding: merged into the head, an adapter would change what tokens mean."""
    model, tokens = lora.add_adapters(llama(), ["head"], 3, 5.0), torch.randint(29, (2, 9))
    perturbed(lora.adapters(model)["head"])
    before, weight = model(tokens), model.token.weight.clone()
    with pytest.raises(ValueError, match="nothing else uses are expected, given that of head"):
        lora.merge(model)
    assert torch.equal(model.token.weight, weight) and torch.equal(model(tokens), before)
    lora.adapters(model)["head"].merge()  # without asking
    assert not torch.equal(model.token.weight, weight) and (model(tokens) - before).abs().max() > 1e-3
    untied = Llama(Config(29, 13, 12, 20, 2, 3, 1, tied=False))
    lora.merge(lora.add_adapters(untied, ["head"], 3, 5.0))


def test_names_are_ends_of_paths():
    model = lora.add_adapters(llama(), ["0.to_query", "blocks.1.up"], 3, 5.0)
    assert set(lora.adapters(model)) == {"blocks.0.to_query", "blocks.1.up"}
    with pytest.raises(ValueError, match=r"expected, given \['query'\]"):  # not the end of a word
        lora.add_adapters(llama(), ["query", "up"], 3, 5.0)


# fused projections


@pytest.mark.equation("lora-fused", of=lora.fuse)
@pytest.mark.parametrize("query_rank", [3, 4])
def test_separate_adapters_are_one_of_the_fused_matrix(query_rank, agrees, formula):
    """Our GPT-2 has three matrices where transformers has c_attn, (12, 36): adapters on q, k, v become one on it."""
    theirs = perturbed(GPT2LMHeadModel(GPT2_CONFIG)).double()
    block = theirs.transformer.h[0].attn
    ours = GPT2(Config(29, 13, 12, 20, 2, 3, 3)).double()
    parts = []
    for index, name in enumerate(("to_query", "to_key", "to_value")):
        linear = getattr(ours.blocks[0], name)
        linear.weight.data = block.c_attn.weight.data.chunk(3, dim=1)[index].T.contiguous()
        linear.bias.data = block.c_attn.bias.data.chunk(3)[index].clone()
        parts.append(moved(lora.LoRA(linear, query_rank if index == 0 else 3, 5.0 + index)))
    A, B = lora.fuse(parts)
    rank = len(A)
    assert A.shape == (query_rank + 6, 12) and B.shape == (36, rank)
    names = {}
    for letter, part in zip("qkv", parts, strict=True):
        names |= {f"B_{letter}": Matrix(part.B), f"A_{letter}": Matrix(part.A), f"s_{letter}": part.alpha / part.rank}
    formula("lora-fused").holds(names | {"s": 5 / 3, r"\alpha": 5, "r": 3}, relations=2)
    torch.testing.assert_close(B @ A, torch.cat([part.delta() for part in parts]))
    wrapped = with_peft(theirs, ["transformer.h.0.attn.c_attn"], rank, rank).double().eval()
    other = wrapped.base_model.model.transformer.h[0].attn.c_attn
    other.lora_A["default"].weight.data, other.lora_B["default"].weight.data = A, B
    x = torch.randn(2, 5, 12, dtype=DOUBLE)
    separate = torch.cat([part(x) for part in parts], dim=-1)
    agrees(separate, other(x), PEFT, 1e-10)
    other.lora_B["default"].weight.data = B.roll(12, dims=0)  # negative control: k, v and q changed places
    assert (separate - other(x)).abs().max() > 1e-3


def test_one_adapter_of_a_fused_matrix_shares_its_inputs_directions():
    """Rank r over q, k and v together has one A: r (W + 3 W) numbers, not 3 r (W + W)."""
    fused, apart = lora.LoRA(Conv1D(36, 12), 3, 5.0), [lora.LoRA(nn.Linear(12, 12), 3, 5.0) for _ in range(3)]
    assert lora.count_trained(fused) == 3 * (12 + 36) < 3 * 3 * 24 == sum(map(lora.count_trained, apart))


# subspaces


@pytest.mark.equation("lora-similarity", of=lora.similarity)
def test_similarity_is_the_definition(formula):
    first, second = torch.randn(3, 11), torch.randn(5, 11)
    phi = lora.similarity(first, second)
    assert phi.shape == (3, 5) and phi.min() >= 0 and phi.max() <= 1
    left, right = (torch.linalg.svd(m.double())[2] for m in (first, second))
    i, j = torch.tensor([1, 3]), torch.tensor([4, 2])  # both at once: columns beyond i and j are zero
    some, others = (v[:6] * (torch.arange(6) < n[:, None])[..., None] for v, n in ((left, i), (right, j)))
    names = {r"\phi(i, j)": phi[i - 1, j - 1], "i": i, "j": j}
    names |= {"V_{1,i}": Matrix(some.mT), "V_{2,j}": Matrix(others.mT)}
    formula("lora-similarity").holds(names, apart=r"\in [0, 1]")
    for i in range(1, 4):
        for j in range(1, 6):
            expected = torch.linalg.matrix_norm(left[:i] @ right[:j].T).square() / min(i, j)
            assert phi[i - 1, j - 1].item() == pytest.approx(expected.item(), abs=1e-12)
    mixed = torch.randn(3, 3) @ first
    assert lora.similarity(first, mixed)[-1, -1].item() == pytest.approx(1)  # the same span
    apart = torch.cat([torch.zeros(2, 3), torch.eye(2)], dim=1), torch.cat([torch.eye(3), torch.zeros(3, 2)], dim=1)
    assert lora.similarity(*apart).abs().max() < 1e-12
    assert torch.allclose(lora.similarity(first, first).diagonal(), torch.ones(3, dtype=DOUBLE))


def test_random_subspaces_overlap_by_the_larger_one_over_the_inputs():
    phi = torch.stack([lora.similarity(torch.randn(4, 60), torch.randn(15, 60)) for _ in range(300)]).mean(dim=0)
    assert phi[3, 14].item() == pytest.approx(15 / 60, abs=0.01) and phi[0, 0].item() == pytest.approx(1 / 60, abs=0.01)


# files


def subject(kind: str, tokens: torch.Tensor):
    """A model of nn.Linear or of Conv1D, names of layers, and a function that gives the model's logits."""
    if kind == "Linear":
        return llama(), ["to_query", "down"], lambda model: model(tokens)
    made = perturbed(GPT2LMHeadModel(GPT2_CONFIG))
    return made, ["c_attn", "mlp.c_proj"], lambda model: model(tokens).logits


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (DOUBLE, 1e-10)])
@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
def test_peft_reads_what_we_write(kind, dtype, tolerance, tmp_path, agrees):
    tokens = torch.randint(29, (2, 9))
    base, names, logits = subject(kind, tokens)
    base = base.to(dtype)
    ours = moved(lora.add_adapters(copy.deepcopy(base), names, 3, 5.0, 0.1))
    lora.save_adapter(ours, tmp_path / "made")
    theirs = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "made", autocast_adapter_dtype=False).eval()
    agrees(logits(ours), logits(theirs), "peft.PeftModel", tolerance)
    assert (logits(base) - logits(theirs)).abs().max() > 1e-3  # negative control: without what was read
    config = json.loads((tmp_path / "made/adapter_config.json").read_text())
    assert config["fan_in_fan_out"] == (kind == "Conv1D")  # peft would correct it, with a warning
    inner = theirs.base_model.model
    paths = {path for path, module in inner.named_modules() if hasattr(module, "lora_A")}
    assert paths == set(lora.adapters(ours))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (DOUBLE, 1e-10)])
@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
@pytest.mark.parametrize("rslora", [False, True])
def test_we_read_what_peft_writes(kind, rslora, dtype, tolerance, tmp_path, agrees):
    tokens = torch.randint(29, (2, 9))
    base, names, logits = subject(kind, tokens)
    base = base.to(dtype)
    theirs = with_peft(base, names, dropout=0.1, use_rslora=rslora).to(dtype).eval()
    theirs.save_pretrained(tmp_path)
    ours = lora.load_adapter(copy.deepcopy(base), tmp_path, {})
    agrees(logits(ours), logits(theirs), "peft.PeftModel", tolerance)
    assert {one.dropout.p for one in lora.adapters(ours).values()} == {0.1}
    agrees(logits(lora.merge(ours)), logits(theirs.merge_and_unload()), "peft.PeftModel", tolerance)
    for adapter in lora.adapters(lora.unmerge(ours)).values():
        adapter.alpha = 3 * adapter.alpha if rslora else adapter.alpha / math.sqrt(3)
    assert (logits(ours) - logits(theirs)).abs().max() > 1e-3  # negative control: another scale


def test_an_adapter_of_transformers_llama_fits_the_llama_of_the_page(tmp_path, agrees):
    """A base loaded by load_llama, an adapter that peft trained on transformers' own class."""
    theirs, tokens = perturbed(LlamaForCausalLM(LLAMA_CONFIG)), torch.randint(29, (2, 9))
    theirs.save_pretrained(tmp_path / "base")
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = with_peft(theirs, names).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    ours = lora.load_adapter(load_llama(tmp_path / "base"), tmp_path / "adapter", LLAMA_NAMES)
    agrees(ours(tokens), adapted(tokens).logits, "peft.PeftModel", 1e-5)
    assert (load_llama(tmp_path / "base")(tokens) - ours(tokens)).abs().max() > 1e-3
    swapped = LLAMA_NAMES | {"self_attn.q_proj": "to_out", "self_attn.o_proj": "to_query"}  # negative control
    wrong = lora.load_adapter(load_llama(tmp_path / "base"), tmp_path / "adapter", swapped)
    assert (wrong(tokens) - ours(tokens)).abs().max() > 1e-3


def test_only_adapters_are_saved(tmp_path):
    model = moved(lora.add_adapters(llama(), ["to_query", "to_value"], 3, 5.0))
    lora.save_adapter(model, tmp_path / "a")
    saved = load_file(tmp_path / "a/adapter_model.safetensors")
    numbers = sum(weight.numel() for weight in saved.values())
    assert numbers == lora.count_trained(model) and all(".lora_" in name for name in saved)
    assert (tmp_path / "a/adapter_model.safetensors").stat().st_size < 4 * numbers + 2000
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    lora.save_adapter(lora.merge(model), tmp_path / "b")
    assert all(torch.equal(saved[k], w) for k, w in load_file(tmp_path / "b/adapter_model.safetensors").items())
    again = lora.load_adapter(remade(lora.unmerge(model)), tmp_path / "a", {})
    tokens = torch.randint(29, (2, 9))
    assert torch.equal(again(tokens), model(tokens))


def remade(model: nn.Module) -> nn.Module:
    """The base of a model with adapters, on its own."""
    return lora.remove_adapters(copy.deepcopy(model))


# the program


def test_main_adapts_saves_and_reads_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lora, "TRAIN_STEPS", 2)
    monkeypatch.setattr(lora, "TUNE_STEPS", 6)
    for name, shift in (("text", 0), ("code", 128)):
        monkeypatch.setattr(lora, name, lambda held_out=False, shift=shift: torch.arange(700) % 128 + shift)
    lora.main()
    lora.reload()
    assert matplotlib.image.imread(tmp_path / "losses.png").ndim == 3
    lines = capsys.readouterr().out.splitlines()
    found = {line.partition(":")[0].strip(): line.partition(":")[2] for line in lines}
    bits = {name: line.split()[3] for name, line in found.items() if "on code" in line}
    weights = next(name for name in bits if name.startswith("LoRA"))
    assert bits["before"] == bits["unmerged and removed"] != bits[weights] == bits["merged"]
    assert found["read from disk"].split()[0] == bits["merged"]


# wrong input


def written(tmp_path, config=(), shape=None, half=False, **more):
    """A folder with an adapter of ours, changed."""
    model = lora.add_adapters(llama(), ["to_query"], 3, 5.0)
    lora.save_adapter(model, tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(config)))
    state = {k: torch.zeros(shape) if shape and "lora_B" in k else v for k, v in lora.adapter_state(model).items()}
    if half:
        state = {k: v for k, v in state.items() if "lora_A" in k}
    save_file(state | more, tmp_path / "adapter_model.safetensors")
    return tmp_path


def emptied(folder):
    save_file({}, folder / "adapter_model.safetensors")
    return folder


def merged_twice():
    lora.merge(lora.merge(lora.add_adapters(llama(), ["up"], 3, 5.0)))


def unequal() -> nn.Module:
    model = lora.add_adapters(llama(), ["up"], 3, 5.0)
    lora.adapters(model)["blocks.0.up"].alpha = 6.0
    return model


def quantised() -> nn.Module:
    made = nn.Linear(7, 11)
    made.weight = nn.Parameter(torch.zeros(11, 7, dtype=torch.int8), requires_grad=False)
    return made


WRONG = {
    "rank": lambda _: lora.LoRA(nn.Linear(7, 11), 0, 5.0),
    "alpha": lambda _: lora.LoRA(nn.Linear(7, 11), 3, 0.0),
    "dropout of 1": lambda _: lora.LoRA(nn.Linear(7, 11), 3, 5.0, 1.0),
    "negative dropout": lambda _: lora.LoRA(nn.Linear(7, 11), 3, 5.0, -0.1),
    "kind of layer": lambda _: lora.LoRA(nn.Embedding(7, 11), 3, 5.0),
    "quantised": lambda _: lora.LoRA(quantised(), 3, 5.0),
    "no such name": lambda _: lora.add_adapters(llama(), ["to_query", "q_proj"], 3, 5.0),
    "no names": lambda _: lora.add_adapters(llama(), [], 3, 5.0),
    "wrapped twice": lambda _: lora.add_adapters(lora.add_adapters(llama(), ["up"], 3, 5.0), ["up"], 3, 5.0),
    "no adapters": lambda _: lora.merge(llama()),
    "merged twice": lambda _: merged_twice(),
    "not merged": lambda _: lora.unmerge(lora.add_adapters(llama(), ["up"], 3, 5.0)),
    "fuse nothing": lambda _: lora.fuse([]),
    "fuse other inputs": lambda _: lora.fuse([lora.LoRA(nn.Linear(i, 11), 3, 5.0) for i in (7, 8)]),
    "similarity": lambda _: lora.similarity(torch.zeros(3, 7), torch.zeros(3, 8)),
    "no matrix": lambda _: lora.similarity(torch.zeros(3, 7), torch.zeros(7)),
    "save two ranks": lambda path: lora.save_adapter(unequal(), path),
    "save no adapter": lambda path: lora.save_adapter(llama(), path),
    "other shapes": lambda path: lora.load_adapter(llama(), written(path, shape=(13, 3)), {}),
    "other rank": lambda path: lora.load_adapter(llama(), written(path, {"r": 4}), {}),
    "dora": lambda path: lora.load_adapter(llama(), written(path, {"use_dora": True}), {}),
    "rank by layer": lambda path: lora.load_adapter(llama(), written(path, {"rank_pattern": {"up": 4}}), {}),
    "pissa": lambda path: lora.load_adapter(llama(), written(path, {"init_lora_weights": "pissa"}), {}),
    "alora": lambda path: lora.load_adapter(llama(), written(path, {"alora_invocation_tokens": [1]}), {}),
    "no weights": lambda path: lora.load_adapter(llama(), emptied(written(path)), {}),
    "no config": lambda path: lora.load_adapter(llama(), path, {}),
    "more weights": lambda path: lora.load_adapter(llama(), written(path, x=torch.zeros(2)), {}),
    "half of the weights": lambda path: lora.load_adapter(llama(), written(path, half=True), {}),
    "layers of another model": lambda path: lora.load_adapter(llama(), written(path), {"blocks": "layers"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="expected, given|expected in"):
        WRONG[name](tmp_path)


def test_a_refused_adapter_leaves_the_answers_as_they_were(tmp_path):
    model, tokens = llama(), torch.randint(29, (2, 9))
    before, keys = model(tokens), set(model.state_dict())
    with pytest.raises(ValueError, match=r"B of blocks.0.to_query, \(12, 3\) is expected, given \(13, 3\)"):
        lora.load_adapter(model, written(tmp_path, shape=(13, 3)), {})
    assert set(model.state_dict()) == keys and torch.equal(model(tokens), before)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_what_an_adapter_leaves_out_has_the_defaults_of_peft(tmp_path):
    model = lora.add_adapters(llama(), ["to_query"], 8, 5.0)
    lora.save_adapter(model, tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({"peft_type": "LORA", "target_modules": ["to_query"]}))
    loaded, theirs = lora.adapters(lora.load_adapter(llama(), tmp_path, {})), LoraConfig()
    found = {(one.rank, one.alpha, one.dropout.p) for one in loaded.values()}
    assert found == {(theirs.r, theirs.lora_alpha, theirs.lora_dropout)} == {(8, 8, 0.0)}


def test_only_the_named_layer_gets_an_adapter(tmp_path):
    """Another path that ends alike is no place for it."""
    inner = nn.Module()
    inner.proj = nn.Linear(7, 7)
    outer = nn.Module()
    outer.proj, outer.inner = nn.Linear(7, 7), inner
    state = {f"base_model.model.proj.lora_{part}.weight": torch.ones(*shape) for part, shape in SHAPES.items()}
    save_file(state, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    assert list(lora.adapters(lora.load_adapter(outer, tmp_path, {}))) == ["proj"]


SHAPES = {"A": (2, 7), "B": (7, 2)}


def test_a_trained_head_is_named_in_a_short_line(tmp_path):
    many = {f"base_model.model.layers.{i}.up.lora_{part}.weight": torch.ones(2) for i in range(99) for part in "AB"}
    folder = written(tmp_path, {"modules_to_save": ["lm_head"]}, **many)
    with pytest.raises(ValueError, match=r"modules_to_save None is expected, given \['lm_head'\]") as error:
        lora.load_adapter(llama(), folder, {})
    assert len(str(error.value)) < 300


# what the page says about peft


@pytest.mark.claim("lora-fan-in")
@pytest.mark.parametrize("kind, given", [("Linear", True), ("Conv1D", False)])
def test_library_peft_corrects_fan_in_fan_out_with_a_warning(kind, given):
    model = nn.Sequential(nn.Linear(4, 4) if kind == "Linear" else Conv1D(4, 4))
    config = LoraConfig(r=2, target_modules=["0"], fan_in_fan_out=given)
    with pytest.warns(UserWarning, match="fan_in_fan_out is set to"):
        wrapped = get_peft_model(model, config)
    assert wrapped.base_model.model[0].fan_in_fan_out is not given


@pytest.mark.claim("lora-half-base")
def test_library_peft_keeps_adapters_of_a_bfloat16_base_in_float32():
    wrapped = get_peft_model(nn.Sequential(nn.Linear(4, 4).bfloat16()), LoraConfig(r=2, target_modules=["0"]))
    layer = wrapped.base_model.model[0]
    assert layer.weight.dtype == torch.bfloat16
    assert layer.lora_A["default"].weight.dtype == layer.lora_B["default"].weight.dtype == torch.float32


def test_library_peft_starts_with_a_zero_b():
    layer = get_peft_model(nn.Sequential(nn.Linear(4, 4)), LoraConfig(r=2, target_modules=["0"])).base_model.model[0]
    assert not layer.lora_B["default"].weight.any() and layer.lora_A["default"].weight.all()


@pytest.mark.claim("lora-dora")
def test_library_dora_divides_rows_by_their_lengths():
    """W' = m (W + scale B A) / its rows' lengths, with one m for each output."""
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["0"], use_dora=True)
    layer = get_peft_model(nn.Sequential(nn.Linear(7, 5, bias=False)), config).base_model.model[0]
    nn.init.normal_(layer.lora_B["default"].weight)
    length = layer.lora_magnitude_vector["default"].weight
    assert length.shape == (5,) and length.requires_grad
    nn.init.uniform_(length, 0.5, 2.0)
    weight = layer.weight + 3 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    x = torch.randn(4, 7)
    torch.testing.assert_close(layer(x), x @ (length[:, None] * weight / weight.norm(dim=1, keepdim=True)).T)
    layer(x).sum().backward()
    found = layer.lora_B["default"].weight.grad
    for constant in (True, False):  # the length of a row, in the derivative
        A = layer.lora_A["default"].weight.detach()
        B = layer.lora_B["default"].weight.detach().requires_grad_()
        row = layer.weight.detach() + 3 * B @ A
        size = row.norm(dim=1, keepdim=True)
        (x @ (length.detach()[:, None] * row / (size.detach() if constant else size)).T).sum().backward()
        assert torch.allclose(B.grad, found, rtol=1e-4, atol=1e-5) == constant


# what the page says of faults


@pytest.mark.claim("lora-fault-dropout")
def test_dropout_before_both_paths_damages_the_base():
    """The noise on the input is sqrt(p / (1 - p)) times as long as the input; in eval there is none."""
    x = torch.randn(200_000, dtype=DOUBLE)
    noise = F.dropout(x, 0.1) - x
    assert (noise.norm() / x.norm()).item() == pytest.approx(math.sqrt(0.1 / 0.9), rel=0.02)
    assert math.sqrt(0.1 / 0.9) == pytest.approx(1 / 3)
    assert torch.equal(F.dropout(x, 0.1, training=False), x)


@pytest.mark.claim("lora-fault-factor")
def test_merging_without_the_factor_loses_half():
    for alpha, share in ((16.0, 0.5), (8.0, 1.0)):
        adapter = perturbed(lora.LoRA(layer("Linear", 9, 11), 8, alpha))
        torch.testing.assert_close(adapter.B @ adapter.A, share * adapter.delta())


@pytest.mark.claim("lora-fault-transposed")
def test_a_square_conv1d_with_the_change_the_wrong_way_round():
    """GPT-2's shapes, and the distance to the right weight over the size of the change."""
    block = GPT2LMHeadModel(GPT2_CONFIG).transformer.h[0]
    shapes = {name: m.weight.shape for name, m in block.named_modules() if isinstance(m, Conv1D)}
    square = {name for name, shape in shapes.items() if shape[0] == shape[1]}
    assert square == {"attn.c_proj"} and len(shapes) == 4
    adapter = lora.LoRA(layer("Conv1D", 300, 300), 8, 16.0)
    nn.init.normal_(adapter.B)
    right, wrong = adapter.delta(), adapter.delta().T
    assert ((wrong - right).norm() / right.norm()).item() == pytest.approx(math.sqrt(2), rel=0.05)


@pytest.mark.claim("lora-fault-frozen")
def test_what_is_not_frozen_is_not_in_the_file(tmp_path, results):
    base, tokens, answers = llama(), torch.randint(29, (2, 9)), {}
    for frozen in (True, False):
        model = lora.add_adapters(copy.deepcopy(base).train(), ["to_query", "to_value"], 3, 5.0)
        if not frozen:  # the fault: wrapped layers are frozen all the same
            inside = {id(p) for adapter in lora.adapters(model).values() for p in adapter.layer.parameters()}
            for p in model.parameters():
                p.requires_grad_(id(p) not in inside)
        assert (lora.count_trained(model) == 2 * 3 * (12 + 12 + 12 + 4)) == frozen
        train(model, torch.arange(29).repeat(20), 5, rate=1e-2)
        lora.save_adapter(model, tmp_path / str(frozen))
        again = lora.load_adapter(copy.deepcopy(base), tmp_path / str(frozen), {})
        answers[frozen] = (model.eval()(tokens) - again.eval()(tokens)).abs().max().item()
    assert answers[True] < 1e-6 and answers[False] > 1e-2
    assert results("LLM/LORA")["count.qv_8"] == 4 * 8 * (192 + 192 + 192 + 64)


@pytest.mark.claim("lora-fault-rslora")
def test_an_adapter_of_rank_64_without_its_factor(tmp_path):
    """Its alpha is 64: with the root of the rank it adds alpha / 8, without it alpha / 64."""
    base, scales = nn.Sequential(nn.Linear(70, 66)), {}
    lora.save_adapter(lora.add_adapters(copy.deepcopy(base), ["0"], 64, 64.0), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    for root in (True, False):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"use_rslora": root}))
        adapter = lora.load_adapter(copy.deepcopy(base), tmp_path, {})[0]
        scales[root] = adapter.alpha / adapter.rank
    assert scales == {True: 64 / 8, False: 64 / 64} and scales[False] / scales[True] == 1 / 8
