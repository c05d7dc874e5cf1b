"""Weights, operations and bytes of decoder-only models: formulas, published sizes, PyTorch's own counter."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from snippets.llm import decoder_only as decoder
from snippets.llm.sizes import bytes_read, count_parameters, flops
from tests.snippets.llm.decoders import CLASSES, KINDS, small

REAL = {  # the sizes of published models, and how many weights their cards and papers give them
    "GPT-2": ("gpt2", decoder.Config(50257, 1024, 768, 3072, 12, 12, 12, True), 124_439_808),
    "Llama 2 7B": ("llama", decoder.Config(32_000, 4096, 4096, 11_008, 32, 32, 32, False), 6_738_415_616),
    "Llama 3 8B": ("llama", decoder.Config(128_256, 8192, 4096, 14_336, 32, 32, 8, False), 8_030_261_248),
}
PUBLISHED = {  # of transformers, by the same names
    "GPT-2": (GPT2LMHeadModel, GPT2Config()),
    "Llama 2 7B": (LlamaForCausalLM, LlamaConfig(vocab_size=32_000, hidden_size=4096, intermediate_size=11_008)),
    "Llama 3 8B": (
        LlamaForCausalLM,
        LlamaConfig(vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_key_value_heads=8),
    ),
}


def numbers(model):
    """How many weights a model has, a shared one once."""
    return sum(p.numel() for p in model.parameters())


SIZES = {"V": 41, "W": 24, "L": 3, "G": 2, "D": 6, "F": 20}  # of `small`


@pytest.mark.equation("decoder-parameters", of=count_parameters)
@pytest.mark.equation("decoder-flops", of=flops)
@pytest.mark.equation("decoder-traffic", of=bytes_read)
def test_counts_are_their_formulas(formula):
    config = small(tied=True).config
    counts = count_parameters(config)
    names = {r"N_\text{Llama}": counts["llama"], r"N_\text{GPT-2}": counts["gpt2"], "C": 17}
    formula("decoder-parameters").holds(SIZES | names, relations=2)
    formula("decoder-flops").holds(SIZES | {r"\text{FLOP for a token}": flops(config, 11), "S": 11})
    sizes = {letter: SIZES[letter] for letter in "LGD"}
    names = {r"\text{bytes for a token}": bytes_read(config, 11, 4), "b": 4, r"N_\text{w}": counts["llama"]}
    formula("decoder-traffic").holds(sizes | names | {"S": 11}, apart=r"b \text{ bytes a number.}")


@pytest.mark.parametrize("name", REAL)
def test_counts_are_those_of_published_models(name, agrees):
    kind, config, published = REAL[name]
    model, settings = PUBLISHED[name]
    with torch.device("meta"):  # no memory is taken
        ours, theirs = (decoder.GPT2 if kind == "gpt2" else decoder.Llama)(config), model(settings)
    assert count_parameters(config)[kind] == numbers(ours) == published
    agrees(count_parameters(config)[kind], numbers(theirs), CLASSES[kind], 0)


@KINDS
@pytest.mark.parametrize("others", [{}, {"tied": True}, {"num_key_heads": 4, "num_layers": 1}], ids=str)
def test_counts_are_those_of_our_models(kind, others):
    model = small(kind, **others)
    assert count_parameters(model.config)[kind] == numbers(model)


@torch.no_grad()
@pytest.mark.parametrize("seen", [1, 2, 17])
def test_flops_are_what_torch_counts(seen, agrees):
    """Of a step with a cache. torch counts products of matrices: norms, rotation, softmax and SiLU are left out."""
    model = small()
    cache = decoder.empty_cache(model, 1, 17)
    if seen > 1:
        model(torch.randint(41, (1, seen - 1)), cache)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # else attention is not counted
        model(torch.randint(41, (1, 1)), cache)
    agrees(flops(model.config, seen), counter.get_total_flops(), "torch.utils.flop_counter.FlopCounterMode", 0)
    assert flops(model.config, seen + 1) != counter.get_total_flops()


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_bytes_read_are_the_sizes_of_what_a_step_reads(tied, dtype):
    model = small(tied=tied).to(dtype)
    cache = decoder.empty_cache(model, 1, 17)
    model(torch.randint(41, (1, 11)), cache)
    tensors = [p for name, p in model.named_parameters() if name != "token.weight" or tied]
    tensors += [x[:, :, :11] for one in cache for x in (one.keys, one.values)]
    if not tied:
        tensors.append(model.token.weight[3])  # one row; in a tied model it is among those of the head
    expected = sum(x.numel() * x.element_size() for x in tensors)
    assert bytes_read(model.config, 11, torch.finfo(dtype).bits // 8) == expected
    assert bytes_read(model.config, 11) == expected * 4 // (torch.finfo(dtype).bits // 8)


@pytest.mark.claim("decoder-sizes")
def test_sizes_of_known_models(results):
    lab = results("LLM/Decoder-Only")
    for name, (kind, config, published) in zip(("gpt2", "llama2_7b", "llama3_8b"), REAL.values(), strict=True):
        assert lab[f"parameters.{name}"] == published == count_parameters(config)[kind]
        cached = 2 * 2 * config.num_layers * config.num_key_heads * config.head_dim / 1024
        assert lab[f"cache_kib.{name}"] == cached
    assert lab["parameters.ours"] == count_parameters(decoder.Config())["llama"] and lab["cache_kib.ours"] == 1
    assert lab["cache_kib.llama2_7b"] == 4 * lab["cache_kib.llama3_8b"]
    known = {"llama2_7b": REAL["Llama 2 7B"][1], "llama3_8b": REAL["Llama 3 8B"][1], "ours": decoder.Config()}
    for name, config in known.items():
        full = flops(config, config.context)
        assert lab[f"gigaflops.{name}"] == pytest.approx(full / 1e9)
        assert lab[f"attention_share.{name}"] == pytest.approx(1 - flops(config, 0) / full)
    more = 4096 * (128_256 - 32_000) * 2
    assert more == pytest.approx(0.8e9, rel=0.05) and 128_256 / 32_000 == pytest.approx(4, abs=0.01)
