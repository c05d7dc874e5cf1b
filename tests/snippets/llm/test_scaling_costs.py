"""Each formula of costs against what it counts: weights, tensors that are kept, or a sum written out."""

import pytest
import torch

from snippets.llm import scaling_costs as page
from snippets.llm.decoder_only import Config, Llama
from snippets.llm.sizes import count_parameters


def llama(size: page.Size) -> Config:
    return Config(
        vocabulary=size.vocabulary,
        context=32,
        width=size.width,
        hidden=size.hidden,
        num_layers=size.layers,
        num_heads=size.heads,
        num_key_heads=size.keys * size.heads // size.width,
        tied=size.tied,
    )


SMALL = page.Size(layers=3, width=48, keys=24, hidden=100, heads=4, vocabulary=61)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_those_of_the_llama(tied):
    size = page.Size(3, 48, 24, 100, 4, 61, tied)
    model = Llama(llama(size))
    assert size.weights == sum(p.numel() for p in model.parameters())
    assert size.block == sum(p.numel() for p in model.blocks[0].parameters())


@pytest.mark.parametrize(
    ("name", "weights"), [("1 B", 1_235_814_400), ("8 B", 8_030_261_248), ("70 B", 70_553_706_496)]
)
def test_the_large_ones_have_the_sizes_of_llama_3(name, weights):
    assert page.SIZES[name].weights == weights == count_parameters(llama(page.SIZES[name]))["llama"]


def test_the_small_ones_have_about_the_size_that_they_are_called():
    assert page.SIZES["1 M"].weights == pytest.approx(1.06e6, rel=0.03)
    assert page.SIZES["125 M"].weights == pytest.approx(123.6e6, rel=0.01)


@pytest.mark.equation("scaling-state", of=page.state_bytes)
def test_state_is_what_adamw_holds(formula):
    model = Llama(llama(SMALL))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.randint(61, (2, 5))).sum().backward()
    optimizer.step()
    state = [t for one in optimizer.state.values() for name, t in one.items() if name != "step"]
    held = [*model.parameters(), *(p.grad for p in model.parameters()), *state]
    assert page.state_bytes(SMALL.weights) == sum(t.numel() * t.element_size() for t in held)
    formula("scaling-state").holds({"M": page.state_bytes(SMALL.weights, 4), "n": SMALL.weights, "S": 4})


def kept(size: page.Size, batch: int, length: int) -> int:
    """Bytes of what autograd keeps in a block, each tensor once, weights and angles aside."""
    model = Llama(llama(size))
    cos, sin = model.turns(slice(0, length), model.token.weight)
    own = {t.untyped_storage().data_ptr() for t in (cos, sin, *model.parameters())}
    found = {}

    def pack(t):
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = t, storage.nbytes()  # t is held, so that its place is not used again
        return t

    x = torch.randn(batch, length, size.width, requires_grad=True) * 1
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model.blocks[0](x, cos, sin)
    return sum(nbytes for _, nbytes in found.values())


@pytest.mark.equation("scaling-kept", of=page.block_bytes)
def test_a_block_keeps_what_autograd_saves(formula):
    for size in (SMALL, page.Size(1, 64, 16, 80, 4, 61), page.Size(1, 72, 36, 100, 6, 61)):
        assert page.block_bytes(size, 3 * 17) == kept(size, 3, 17)
    names = {"W": 48, "K": 24, "F": 100, "H": 4, "t": 51, "b": 4}
    formula("scaling-kept").holds(names | {"k": page.block_bytes(SMALL, 51)})


def test_recomputing_keeps_an_input_a_layer():
    assert page.activation_bytes(SMALL, 51, recomputed=False) == 3 * page.block_bytes(SMALL, 51)
    assert page.activation_bytes(SMALL, 51, recomputed=True) == 2 * 4 * 51 * 48 + page.block_bytes(SMALL, 51)
    assert page.gathered_bytes(SMALL) == 2 * (2 * 61 * 48 + 48 + 2 * SMALL.block)


@pytest.mark.equation("scaling-copies", of=page.copies_bytes)
def test_copies_send_each_gradient_twice_around_a_ring(formula):
    """A ring of P: P - 1 steps to add up, P - 1 to hand on, a P-th of all gradients in each."""
    for processes in (1, 2, 5):
        ring = sum(4 * 1000 / processes for _ in range(2 * (processes - 1)))
        assert page.copies_bytes(1000, processes) == pytest.approx(ring)
    formula("scaling-copies").holds({"c": page.copies_bytes(1000, 5), "P": 5, "b": 4, "n": 1000})


@pytest.mark.equation("scaling-shards", of=page.shards_bytes)
def test_shards_send_weights_for_each_pass_and_gradients_once(formula):
    size, passes = SMALL, 0
    for _ in range(3):  # rounds
        passes += 2 * (size.rest + size.layers * size.block)  # forward
        passes += 2 * size.layers * size.block  # backward
    own = (passes + 4 * size.weights) / 5
    assert page.shards_bytes(size, 5, rounds=3) == pytest.approx(4 * own)  # a process sends on the parts of 4 of 5
    names = {"P": 5, "A": 3, "b": 2, "L": 3, r"n_\text{b}": size.block, r"n_\text{r}": size.rest, "n": size.weights}
    formula("scaling-shards").holds(names | {"s": page.shards_bytes(size, 5, rounds=3)})


@pytest.mark.equation("scaling-tensor", of=page.tensor_bytes)
def test_tensor_parallelism_sums_four_activations(formula):
    assert page.tensor_bytes(48, 51, 5) == pytest.approx(4 * page.copies_bytes(51 * 48, 5, number=2))
    formula("scaling-tensor").holds({"a": page.tensor_bytes(48, 51, 5), "P": 5, "b": 2, "t": 51, "W": 48})


@pytest.mark.equation("scaling-enough", of=page.fewest_tokens)
def test_with_enough_tokens_computing_takes_as_long_as_sending(formula):
    tokens = page.fewest_tokens(4e14, 5e10)
    size, many = page.SIZES["8 B"], 10**6
    sending = page.shards_bytes(page.Size(**{**vars(size), "vocabulary": 1}), many) / 5e10
    computing = 6 * (size.layers * size.block) * tokens / 4e14
    assert sending == pytest.approx(computing, rel=1e-3)
    formula("scaling-enough").holds({r"t_\text{min}": tokens, "b": 2, "f": 4e14, r"\beta": 5e10})


@pytest.mark.equation("scaling-idle", of=page.idle_share)
def test_the_stages_of_a_pipeline_wait(formula):
    """Played through: round r is in stage s at time r + s, so all ends after rounds + stages - 1."""
    stages, rounds = 4, 9
    busy = {(stage, number + stage) for stage in range(stages) for number in range(rounds)}
    ends = 1 + max(time for _, time in busy)
    assert page.idle_share(stages, rounds) == pytest.approx(1 - len(busy) / (stages * ends))
    formula("scaling-idle").holds({"w": page.idle_share(stages, rounds), "q": stages, "A": rounds})


@pytest.mark.equation("scaling-hours", of=page.hours)
def test_hours_are_six_operations_a_weight_and_token(formula):
    assert page.hours(1e9, 20e9, 1e15) == pytest.approx(1.2e20 / 1e15 / 3600)
    formula("scaling-hours").holds({"h": page.hours(7e9, 2e12, 4e14), "n": 7e9, "N": 2e12, "f": 4e14})
