"""From logits to text: samplers and generation against transformers, the fast step, drafted tokens."""

import inspect
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy import stats
from transformers.generation import GenerationMixin, logits_process

from snippets.llm import decoder_only as decoder
from snippets.llm import decoding
from tests.snippets.llm.decoders import KINDS, LOADERS, THEIRS, small

# samplers


def logits_of(kind):
    """Logits (5, 41) of some kind."""
    logits = 3 * torch.randn(5, 41)
    if kind == "ties":
        return logits.round()
    if kind == "forbidden":
        return logits.masked_fill(torch.rand(5, 41) < 0.7, -math.inf)
    return torch.full((5, 41), 0.7) if kind == "equal" else logits


EVERY_LOGITS = pytest.mark.parametrize("logits_kind", ["random", "ties", "forbidden", "equal"])


def warped(name, logits, given):
    """What one of transformers' warpers makes of logits."""
    return getattr(logits_process, f"{name}LogitsWarper")(given)(None, logits)


SAMPLERS = {
    "Temperature": (decoding.temper, (0.05, 0.7, 1.0, 3.0)),
    "TopK": (decoding.keep_top_k, (1, 2, 7, 40, 41, 1000)),
    "TopP": (decoding.keep_top_p, (1e-9, 0.1, 0.5, 0.9, 0.999, 1.0)),
    "MinP": (decoding.keep_min_p, (0.0, 1e-9, 0.02, 0.3, 1.0)),
}


def same(ours, theirs, name, agrees):
    """Logits agree: -inf at the same places, and the rest exactly."""
    assert torch.equal(ours.isinf(), theirs.isinf())
    oracle = f"transformers.{name}LogitsWarper"
    agrees(ours.masked_fill(ours.isinf(), 0), theirs.masked_fill(theirs.isinf(), 0), oracle, 0)


@EVERY_LOGITS
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_equal_transformers(name, logits_kind, agrees):
    sampler, values = SAMPLERS[name]
    logits = logits_of(logits_kind)
    before, outs = logits.clone(), []
    for value in values:
        outs.append(sampler(logits, value))
        same(outs[-1], warped(name, logits, value), name, agrees)
        assert torch.equal(logits, before) and not outs[-1].isinf().all(dim=-1).any()
    if logits_kind != "equal":  # negative control: another value, another result
        assert not torch.equal(outs[1], warped(name, logits, values[-2]))


@given(
    st.lists(st.sampled_from([-math.inf, -8.0, -1.0, 0.0, 0.25, 2.0]) | st.floats(-20, 20, width=32), max_size=9),
    st.integers(1, 12),
    st.floats(1e-6, 1.0),
    st.floats(0.05, 5.0),
)
def test_samplers_equal_transformers_on_any_logits(some, k, p, temperature):
    logits = torch.tensor([[0.0, *some]])
    for name, value in (("TopK", k), ("TopP", p), ("MinP", p), ("Temperature", temperature)):
        assert torch.equal(SAMPLERS[name][0](logits, value), warped(name, logits, value)), name


@pytest.mark.equation("decoding-temperature", of=(decoding.Sampling.probabilities, decoding.temper))
def test_temperature_is_a_power_of_probabilities(formula):
    """p^(1 / T), made to add up to 1; towards 0 the likeliest, towards infinity all alike."""
    logits = logits_of("random").double()
    row = logits[3, :9]
    names = {"p_v": decoding.Sampling(0.7).probabilities(row[None])[0], r"\ell_v": row, r"\tau": 0.7}
    formula("decoding-temperature").holds(names | {r"\ell_u": lambda u: row[u], "u": range(9)})
    power = logits.softmax(dim=-1) ** (1 / 0.7)
    expected = power / power.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(decoding.Sampling(0.7).probabilities(logits), expected, rtol=0, atol=1e-12)
    assert (decoding.Sampling(1 / 0.7).probabilities(logits) - expected).abs().max() > 0.01
    torch.testing.assert_close(decoding.Sampling(1e-4).probabilities(logits), decoding.GREEDY.probabilities(logits))
    alike = torch.full((5, 41), 1 / 41).double()
    torch.testing.assert_close(decoding.Sampling(1e9).probabilities(logits), alike, rtol=0, atol=1e-8)


@pytest.mark.equation("decoding-top-p", of=decoding.keep_top_p)
@pytest.mark.equation("decoding-min-p", of=decoding.keep_min_p)
def test_what_is_kept_is_its_formula(formula):
    row = logits_of("random").double()[3, :9]
    ordered, probability = row.softmax(dim=0).sort(descending=True).values, row.softmax(dim=0)
    kept = decoding.keep_top_p(row[None], 0.9)[0]
    names = {"m": kept.isfinite().sum(), "n": range(1, 10), "p_{(i)}": lambda i: ordered[i - 1], "p": 0.9}
    formula("decoding-top-p").holds(names, apart=r"\text{keep the first } m")
    assert 1 < kept.isfinite().sum() < 8 and torch.equal(kept[kept.isfinite()], row[kept.isfinite()])
    kept = decoding.keep_min_p(row[None], 0.1)[0]
    names = {"p_v": probability, r"p_\text{min}": 0.1, "p_u": lambda u: probability[u], "u": range(9)}
    formula("decoding-min-p").agrees(kept.isfinite(), names, apart=r"\text{keep } v \text{ where }")
    assert torch.equal(kept[kept.isfinite()], row[kept.isfinite()])


@pytest.mark.parametrize("p", [0.05, 0.37, 0.9, 0.999])
def test_top_p_keeps_the_fewest_that_reach_it(p):
    logits = logits_of("random").double()
    for row, kept in zip(logits.softmax(dim=-1), decoding.keep_top_p(logits, p), strict=True):
        order, total, chosen = row.argsort(descending=True).tolist(), 0.0, set()
        while total < p:
            chosen.add(order[len(chosen)])
            total += row[order[len(chosen) - 1]].item()
        assert chosen == set(kept.isfinite().nonzero()[:, 0].tolist())
    for count, exactly in ((1, 0.25), (2, 0.5), (3, 0.75)):  # of four that have a quarter each
        assert decoding.keep_top_p(torch.zeros(2, 4), exactly).isfinite().sum(dim=1).tolist() == [count] * 2


def test_min_p_keeps_what_is_likely_enough():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().repeat(2, 1)
    assert decoding.keep_min_p(logits, 0.6).isfinite().tolist() == [[True, True, False, False]] * 2
    assert decoding.keep_min_p(logits, 0.4).isfinite().tolist() == [[True, True, True, False]] * 2
    assert decoding.keep_min_p(logits, 0.0).isfinite().all()


@pytest.mark.claim("decoding-ties")
def test_top_k_keeps_ties_and_top_p_cuts_between_them():
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    assert decoding.keep_top_k(logits, 2).isfinite().sum(dim=1).tolist() == [3, 2]
    equal = torch.zeros(1, 4)  # a quarter each
    assert decoding.keep_top_p(equal, 0.5).isfinite().sum() == 2 and decoding.keep_top_k(equal, 2).isfinite().all()


SAMPLINGS = [
    decoding.Sampling(),
    decoding.Sampling(0.7, 9),
    decoding.Sampling(1.3, None, 0.8),
    decoding.Sampling(1.5, None, 1.0, 0.2),
    decoding.Sampling(2.0, 20, 0.7, 0.1),
]


@EVERY_LOGITS
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_sampling_is_transformers_chain(sampling, logits_kind):
    logits = theirs = logits_of(logits_kind)
    theirs = warped("Temperature", theirs, sampling.temperature)
    if sampling.top_k:
        theirs = warped("TopK", theirs, sampling.top_k)
    theirs = warped("MinP", warped("TopP", theirs, sampling.top_p), sampling.min_p).softmax(dim=-1)
    probabilities = sampling.probabilities(logits)
    assert torch.equal(probabilities, theirs)
    first, second = (torch.Generator().manual_seed(7) for _ in range(2))
    for _ in range(3):
        drawn = sampling.draw(logits, first)
        assert drawn.shape == (5, 1) and torch.equal(drawn, torch.multinomial(theirs, 1, generator=second))


def test_the_order_of_samplers_matters():
    """The order of transformers, which the chain has, is not the other one: top-p before the temperature."""
    logits = logits_of("random")
    other = (decoding.keep_top_p(logits, 0.7) / 2.0).softmax(dim=-1)
    assert (decoding.Sampling(2.0, None, 0.7).probabilities(logits) - other).abs().max() > 0.01


def test_temperature_0_is_the_likeliest():
    logits = logits_of("random")
    assert torch.equal(decoding.GREEDY.draw(logits), logits.argmax(dim=-1, keepdim=True))
    probabilities = decoding.GREEDY.probabilities(logits)
    assert torch.equal(probabilities.argmax(dim=-1), logits.argmax(dim=-1))
    assert torch.equal(probabilities.sum(dim=-1), torch.ones(5)) and set(probabilities.unique().tolist()) == {0, 1}
    ties = torch.tensor([[0.0, 2.0, 2.0, 1.0]])
    assert decoding.GREEDY.probabilities(ties).argmax().item() == decoding.GREEDY.draw(ties).item()


# generation


def continued(theirs, prompt, num_new, sampling):
    """What transformers' generate makes of a prompt, with nothing set but our sampling."""
    chosen = {"do_sample": sampling.temperature > 0, "max_new_tokens": num_new, "pad_token_id": 0}
    if chosen["do_sample"]:
        chosen |= {"temperature": sampling.temperature, "top_k": sampling.top_k or 0, "top_p": sampling.top_p}
        chosen |= {"min_p": sampling.min_p}
    return theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **chosen)


@pytest.mark.parametrize("sampling", [decoding.GREEDY, *SAMPLINGS], ids=str)
@pytest.mark.parametrize("key", [("gpt2", "tied"), ("llama", "grouped")], ids="-".join)
def test_generate_equals_transformers(key, sampling, tmp_path, agrees):
    THEIRS[key].save_pretrained(tmp_path)
    ours, prompt = LOADERS[key[0]](tmp_path), torch.randint(41, (5, 4))
    written = decoder.generate(ours, prompt, 11, sampling.draw, torch.Generator().manual_seed(3))
    torch.manual_seed(3)
    theirs = continued(THEIRS[key], prompt, 11, sampling)
    agrees(written, theirs, "transformers.GenerationMixin.generate", 0)
    if sampling.temperature:
        other = decoder.generate(ours, prompt, 11, sampling.draw, torch.Generator().manual_seed(4))
        assert not torch.equal(other, theirs)  # negative control: another seed
        torch.manual_seed(3)
        assert torch.equal(decoder.generate(ours, prompt, 11, sampling.draw), theirs)  # the global generator


@torch.no_grad()
@pytest.mark.parametrize("length", [0, 1, 7])
def test_fast_step_equals_the_model(length, agrees):
    """Also with a cache in which something else stands behind: it is not seen."""
    model, tokens = small(), torch.randint(41, (1, 17))
    cache = decoder.empty_cache(model, 1, 17)
    for one in cache:
        one.keys.normal_()
        one.values.normal_()
    if length:
        model(tokens[:, :length], cache)
    steps = [decoding.fast_step(model, tokens[0, i : i + 1], torch.tensor([i]), cache) for i in range(length, 17)]
    torch.testing.assert_close(torch.stack(steps), model(tokens)[0, length:], rtol=0, atol=1e-10)
    late = decoding.fast_step(model, tokens[0, 9:10], torch.tensor([10]), cache)
    assert (late - steps[9 - length]).abs().max() > 1e-3


@pytest.mark.parametrize("sampling", [decoding.GREEDY, SAMPLINGS[-1]], ids=str)
@pytest.mark.parametrize(("length", "num_new"), [(1, 16), (7, 10), (7, 1)])
def test_fast_generation_equals_generate(length, num_new, sampling):
    model, prompt = small(), torch.randint(41, (1, length))
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    expected = decoder.generate(model, prompt, num_new, sampling.draw, generators[0])
    fast = decoding.generate_fast(model, prompt, num_new, decoding.fast_step, sampling.draw, generators[1])
    assert torch.equal(fast, expected) and fast.shape == (1, length + num_new)


def test_matvec_is_a_product():
    weight, x = torch.randn(9, 5).double(), torch.randn(5).double()
    torch.testing.assert_close(decoding.matvec(weight, x), weight @ x)


# speculative decoding


V = 5  # tokens of the tests of accept


def distributions(drafted=3):
    """Probabilities of a target (K + 1, V) and of a draft (K, V) that differ much, in float64."""
    target, draft = torch.randn(drafted + 1, V).double(), torch.randn(drafted, V).double()
    return (1.5 * target).softmax(dim=-1), (1.5 * draft).softmax(dim=-1)


def always_accept(target, draft, drafted, generator=None):
    """Wrong: it keeps every drafted token."""
    return torch.cat([drafted, torch.multinomial(target[-1], 1, generator=generator)])


def no_residual(target, draft, drafted, generator=None):
    """Wrong: where a token is refused, it draws from the whole target."""
    for i, token in enumerate(drafted.tolist()):
        if torch.rand((), generator=generator) >= target[i, token] / draft[i, token]:
            return torch.cat([drafted[:i], torch.multinomial(target[i], 1, generator=generator)])
    return always_accept(target, draft, drafted, generator)


def fit(counts, expected):
    """p-value of a chi-square test of counts against probabilities; cells that expect fewer than 5 are one."""
    counts, expected = (torch.as_tensor(x, dtype=torch.float64).flatten() for x in (counts, expected))
    expected = expected * counts.sum()
    rare = expected < 5
    observed = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    some = expected > 0
    assert observed[~some].sum() == 0 and some.sum() > 1
    return stats.chisquare(observed[some], expected[some]).pvalue


def rounds(accept, target, draft, times):
    """What a way to accept makes of drafted tokens, again and again."""
    drafted = torch.multinomial(draft, times, replacement=True)  # (K, times)
    return [accept(target, draft, drafted[:, i]).tolist() for i in range(times)]


def fits_by_place(accept, target, draft, times=3000):
    """For each place of a round, the p-value of the tokens that came to stand there against the target."""
    found = rounds(accept, target, draft, times)
    values = []
    for place in range(len(target)):
        here = torch.tensor([tokens[place] for tokens in found if len(tokens) > place], dtype=torch.long)
        values.append(fit(here.bincount(minlength=V), target[place]))
    return values


def kept_below(target, draft, x, monkeypatch):
    """The largest random number at which the one drafted token x stays, by halving."""
    low, high = 0.0, 1.0
    for _ in range(45):
        chance = (low + high) / 2
        monkeypatch.setattr(torch, "rand", lambda *_, chance=chance, **__: torch.tensor([chance], dtype=torch.float64))
        tokens = decoding.accept(target, draft, torch.tensor([x]))
        low, high = (chance, high) if len(tokens) == 2 and tokens[0] == x else (low, chance)
    return low


@pytest.mark.equation("decoding-accept", of=decoding.accept)
@pytest.mark.equation("decoding-residual", of=decoding.accept)
@pytest.mark.equation("decoding-rate", of=decoding.accept)
def test_accept_is_its_formulas(formula, monkeypatch):
    """One drafted token; where the random numbers that are drawn are known, accept's decision can be read off."""
    target, draft = distributions(1)
    chances = torch.tensor([kept_below(target, draft, x, monkeypatch) for x in range(V)], dtype=torch.float64)
    assert 0 < (chances < 0.999).sum() < V
    names = {"p": lambda x: target[0, x.long()], "q": lambda x: draft[0, x.long()]}
    formula("decoding-accept").holds(names | {"a(x)": chances, "x": torch.arange(V)})
    formula("decoding-rate").holds(names | {r"\alpha": draft[0] @ chances, "x": range(V)})
    drawn_from = []
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.ones(1).double())  # always refused
    monkeypatch.setattr(torch, "multinomial", lambda p, *_, **__: drawn_from.append(p) or torch.tensor([3]))
    refused = int((target[0] < draft[0]).nonzero()[0])
    assert decoding.accept(target, draft, torch.tensor([refused])).tolist() == [3]
    names |= {"p'(x)": drawn_from[0] / drawn_from[0].sum(), "x": torch.arange(V), "y": range(V)}
    formula("decoding-residual").holds(names)


@pytest.mark.equation("decoding-round", of=decoding.accept)
def test_tokens_of_a_round_are_their_formula(formula, monkeypatch):
    """Over all ways in which three drafted tokens stay or do not, each with probability 0.85."""
    target = torch.full((4, V), 0.2).double()
    draft, drafted, mean = target[:3] / 0.85, torch.tensor([1, 0, 4]), 0.0  # ratios of 0.85
    for stays in itertools.product([True, False], repeat=3):
        chance = torch.tensor([0.84 if stay else 0.86 for stay in stays]).double()
        monkeypatch.setattr(torch, "rand", lambda *_, chance=chance, **__: chance)
        tokens = decoding.accept(target, draft, drafted)
        assert tokens[:-1].tolist() == drafted[: len(tokens) - 1].tolist()
        mean += math.prod(0.85 if stay else 0.15 for stay in stays) * len(tokens)
    names = {r"1 + \alpha + \dots + \alpha^K": mean, r"\alpha": 0.85, "K": 3}
    formula("decoding-round").holds(names, apart=r"\text{ tokens.}")


def test_accepted_tokens_have_the_targets_distribution():
    target, draft = distributions()
    assert min(fits_by_place(decoding.accept, target, draft)) > 1e-3
    assert fits_by_place(always_accept, target, draft)[0] < 1e-6
    assert fits_by_place(no_residual, target, draft)[0] < 1e-6


def test_a_refused_token_is_replaced_from_what_is_missing():
    """max(0, p - q), made to add up to 1: tokens that the draft gives too often never come after a refusal."""
    target, draft = torch.full((2, V), 0.2).double(), torch.tensor([[0.5, 0.3, 0.1, 0.1, 0.0]]).double()
    found = rounds(decoding.accept, target, draft, 3000)
    replaced = torch.tensor([tokens[0] for tokens in found if len(tokens) == 1])
    missing = (target[0] - draft[0]).clamp(min=0)
    assert fit(replaced.bincount(minlength=V), missing / missing.sum()) > 1e-3
    assert not set(replaced.tolist()) & {0, 1}
    whole = torch.tensor([tokens[0] for tokens in rounds(no_residual, target, draft, 3000) if len(tokens) == 1])
    assert whole.bincount(minlength=V)[:2].sum() > 100  # negative control


def test_the_rate_of_acceptance_is_the_overlap():
    """sum of min(p, q) = 1 - total variation, within four standard errors."""
    target, draft = distributions(1)
    rate = torch.minimum(target[0], draft[0]).sum().item()
    assert rate == pytest.approx(1 - (target[0] - draft[0]).abs().sum().item() / 2)
    kept = sum(len(tokens) == 2 for tokens in rounds(decoding.accept, target, draft, 3000)) / 3000
    error = math.sqrt(rate * (1 - rate) / 3000)
    assert 0.1 < rate < 0.9 and abs(kept - rate) < 4 * error
    assert abs(kept - (target[0] * draft[0]).sum().item()) > 8 * error  # the rate of two draws that agree


@pytest.mark.parametrize("drafted", [1, 3, 6])
def test_tokens_of_a_round(drafted):
    """(1 - a^(K + 1)) / (1 - a) on average where each drafted token stays with probability a."""
    target, rate = torch.full((drafted + 1, V), 0.2).double(), 0.85
    draft = torch.tensor([0.35, 0.2, 0.2, 0.2, 0.05]).double().expand(drafted, V)
    expected = (1 - rate ** (drafted + 1)) / (1 - rate)
    lengths = torch.tensor([len(tokens) for tokens in rounds(decoding.accept, target, draft, 2000)]).double()
    error = lengths.std().item() / math.sqrt(2000)
    assert abs(lengths.mean().item() - expected) < 4 * error
    assert abs(lengths.mean().item() - (1 - rate**drafted) / (1 - rate)) > 4 * error  # without the one more


def test_accept_keeps_what_precedes_the_first_refusal():
    sure = torch.eye(V).double()
    target, drafted = sure[[0, 1, 2, 3]], torch.tensor([0, 4, 2])
    assert decoding.accept(target, sure[drafted], drafted).tolist() == [0, 1]  # 2 is not kept: it came after 4
    assert decoding.accept(target, sure[:3], torch.arange(3)).tolist() == [0, 1, 2, 3]
    assert decoding.accept(target[:1], sure[:0], torch.arange(0)).tolist() == [0]  # nothing drafted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rounding_may_leave_nothing_that_is_missing(dtype, monkeypatch):
    """Where target and draft are equal but for rounding, a refusal finds nothing missing and draws from the target."""
    target = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]], dtype=dtype)
    draft = target[:1] * (1 + 2 * torch.finfo(dtype).eps)  # adds up to a little more than 1
    assert not (target[:1] > draft).any() and (target[0, :2] < draft[0, :2]).all()
    monkeypatch.setattr(torch, "rand", lambda *size, generator, device: torch.ones(size))  # refuses all that it may
    found = [decoding.accept(target, draft, torch.tensor([1])).tolist() for _ in range(300)]
    counts = torch.tensor(found).flatten().bincount(minlength=3)
    assert {len(tokens) for tokens in found} == {1} and counts[2] == 0 and abs(counts[0] - 75) < 40


def test_the_generator_decides():
    target, draft = distributions()
    drafted = torch.multinomial(draft, 1)[:, 0]
    first, again = ([decoding.accept(target, draft, drafted, one).tolist() for _ in range(40)]
                    for one in (torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)))  # fmt: skip
    assert first == again and len({tuple(tokens) for tokens in first}) > 2


SPECULATED = decoding.Sampling(temperature=0.8, top_p=0.95)


def two_models(kind, vocabulary=3):
    """A target and a draft of one layer that disagree, with logits far from equal."""
    sizes = {"vocabulary": vocabulary, "width": 8, "hidden": 6, "num_heads": 2, "num_key_heads": 1, "num_layers": 1}
    target, draft = small(kind, **sizes), small("gpt2", **sizes | {"context": 13})
    target.head.weight.data *= 2
    draft.head.weight.data *= 2
    return target, draft


@torch.no_grad()
def exact(model, prompt, num_new):
    """The probability of each continuation (V,) * num_new of a prompt, from a pass over all of them."""
    ends = torch.tensor(list(itertools.product(range(3), repeat=num_new)))
    texts = torch.cat([prompt.expand(len(ends), -1), ends], dim=1)
    logits = model(texts)[:, prompt.shape[1] - 1 : -1]
    factors = SPECULATED.probabilities(logits.flatten(0, 1)).view(len(ends), num_new, 3)
    return factors.gather(2, ends[:, :, None])[:, :, 0].prod(dim=1).view([3] * num_new)


def speculated(models, prompt, num_new, times):
    """How often each continuation came."""
    counts = torch.zeros([3] * num_new)
    for _ in range(times):
        pair = models[0], decoding.NetworkDraft(models[1], SPECULATED)
        tokens, _, _ = decoding.speculate(pair, prompt, num_new, SPECULATED, 3)
        counts[tuple(tokens[0, prompt.shape[1] :].tolist())] += 1
    return counts


def test_speculative_texts_have_the_targets_distribution(monkeypatch):
    """Exact enumeration: all texts of four new tokens together, and the first token alone."""
    models, prompt = two_models("llama"), torch.tensor([[0, 2, 1]])
    wanted, other = exact(models[0], prompt, 4), exact(models[1], prompt, 4)
    assert wanted.sum() == pytest.approx(1) and (wanted - other).abs().sum() > 0.5
    counts = speculated(models, prompt, 4, 600)
    assert fit(counts, wanted) > 1e-3 and fit(counts.sum(dim=(1, 2, 3)), wanted.sum(dim=(1, 2, 3))) > 1e-3
    for wrong in (always_accept, no_residual):
        monkeypatch.setattr(decoding, "accept", wrong)
        assert fit(speculated(models, prompt, 4, 400), wanted) < 1e-6, wrong.__name__


def greedy_counts(models, wanted, length, num_drafted):
    """How many tokens greedy rounds draft and keep, from texts that are read whole: no cache, no probabilities."""
    drafts, stayed, end = 0, 0, wanted.shape[1]
    while length < end:
        ahead = min(num_drafted, end - length - 1)
        guess = decoder.generate_without_cache(models[1], wanted[:, :length], ahead) if ahead else wanted[:, :length]
        equal = (guess[0, length:] == wanted[0, length : length + ahead]).tolist()
        kept = (equal + [False]).index(False)
        drafts, stayed, length = drafts + ahead, stayed + kept, length + kept + 1
    return drafts, stayed


@pytest.mark.parametrize("num_drafted", [1, 3, 20])
@pytest.mark.parametrize(("length", "num_new"), [(3, 1), (3, 10), (1, 12), (12, 1), (7, 2)])
def test_greedy_speculation_is_greedy(num_drafted, length, num_new):
    """Up to the edge of the context; the draft changes the number of passes and nothing else."""
    found = []
    for kind, vocabulary in (("llama", 3), ("gpt2", 41)):
        models, prompt = two_models(kind, vocabulary), torch.randint(vocabulary, (1, length))
        tokens, drafts, stayed = decoding.speculate(
            (models[0], decoding.NetworkDraft(models[1], decoding.GREEDY)),
            prompt,
            num_new,
            decoding.GREEDY,
            num_drafted,
        )
        wanted = decoder.generate_without_cache(models[0], prompt, num_new)
        assert torch.equal(tokens, wanted)
        assert (drafts, stayed) == greedy_counts(models, wanted, length, num_drafted)
        found.append((drafts, stayed))
    assert num_new < 10 or any(stayed for _, stayed in found) and any(stayed < drafts for drafts, stayed in found)


@KINDS
def test_the_same_model_twice_accepts_everything(kind):
    """11 new tokens by 3 drafted ones: rounds of 4, 4 and, since the last token is never drafted, 3."""
    model, passes, prompt = small(kind), [], torch.randint(41, (1, 5))
    model.register_forward_hook(lambda module, given, out: passes.append(given[0].shape[1]))
    pair = model, decoding.NetworkDraft(model, SPECULATED)
    tokens, drafts, stayed = decoding.speculate(pair, prompt, 11, SPECULATED, 3)
    assert tokens.shape == (1, 16) and drafts == stayed == 8
    assert passes == [5, 1, 1, 5 + 3, 2, 1, 1, 4, 2, 1, 3]  # nothing is read twice by one of the two
    tokens, drafts, stayed = decoding.speculate(pair, prompt, 1, SPECULATED, 3)
    assert tokens.shape == (1, 6) and drafts == stayed == 0


def test_speculation_repeats_with_its_generator():
    models, prompt = two_models("llama"), torch.tensor([[0, 2, 1]])
    pair = models[0], decoding.NetworkDraft(models[1], SPECULATED)
    found = [
        decoding.speculate(pair, prompt, 9, SPECULATED, 3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    assert torch.equal(found[0][0], found[1][0]) and found[0][1:] == found[1][1:]
    assert not torch.equal(found[0][0], found[2][0])
    assert torch.equal(found[0][0][:, :3], prompt)


@pytest.mark.claim("decoding-sampler-order")
def test_library_temperature_comes_before_top_k_top_p_and_min_p():
    source = inspect.getsource(GenerationMixin._get_logits_processor)
    places = [source.index(f"{name}LogitsWarper(") for name in ("Temperature", "TopK", "TopP", "MinP")]
    assert places == sorted(places)


@pytest.mark.claim("decoding-contiguous")
def test_library_safetensors_refuses_matrices_stored_by_input(tmp_path):
    model = small()
    save_file({"up": model.blocks[0].up.weight.detach()}, tmp_path / "before.safetensors")
    decoding.store_by_input(model)
    with pytest.raises(ValueError, match="non contiguous"):
        save_file({"up": model.blocks[0].up.weight.detach()}, tmp_path / "after.safetensors")


@pytest.mark.claim("decoding-fault-top-p")
def test_top_p_without_the_token_that_crosses_it():
    def wrong(probabilities):
        rising = torch.tensor(sorted(probabilities), dtype=torch.float64)
        drop = rising.cumsum(0) - rising < 1 - 0.9
        drop[-1] = False
        return int((~drop).sum())

    for probabilities, right, faulty in (((0.6, 0.35, 0.05), 2, 1), ((0.92, 0.05, 0.03), 1, 1)):
        logits = torch.tensor([probabilities], dtype=torch.float64).log()
        assert decoding.keep_top_p(logits, 0.9).isfinite().sum() == right and wrong(probabilities) == faulty


@pytest.mark.claim("decoding-fault-refusal")
def test_what_the_draft_likes_comes_too_often():
    """By the formulas: 0.7 in place of 0.5; and by counting."""
    target, draft = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).double(), torch.tensor([[0.9, 0.1]]).double()
    rate = torch.minimum(target[0], draft[0]).sum().item()
    assert min(0.5, 0.9) + (1 - rate) * 0.5 == pytest.approx(0.7)
    for accept, share in ((decoding.accept, 0.5), (no_residual, 0.7)):
        first = [tokens[0] for tokens in rounds(accept, target, draft, 2000)]
        assert abs(first.count(0) / 2000 - share) < 4 * math.sqrt(share * (1 - share) / 2000)


# drafts


def counted(codes, past, order, discount):
    """Probabilities (256,) by the definition: counts of each order, less a discount, which the shorter one shares."""
    probability = [1 / 256] * 256
    for n in range(order):
        if n > len(past):
            break
        context, follow = past[len(past) - n :], {}
        for i in range(n, len(codes)):
            if codes[i - n : i] == context:
                follow[codes[i]] = follow.get(codes[i], 0) + 1
        if not follow:
            break
        total = sum(follow.values())
        left = discount * len(follow) / total
        probability = [left * p + max(follow.get(b, 0) - discount, 0) / total for b, p in enumerate(probability)]
    return torch.tensor(probability, dtype=torch.float64)


@pytest.mark.parametrize("order", [1, 3, 5])
@pytest.mark.parametrize("past", [[], [1], [2, 0, 1], [0, 1, 2, 0, 1], [9, 9, 9, 1]], ids=str)
def test_counted_rows_are_their_definition(order, past):
    codes = torch.randint(3, (60,)) * torch.randint(1, 3, (60,))
    draft = decoding.CountedDraft(codes, decoding.Sampling(), order, 0.6)
    row = torch.from_numpy(draft.row(past))
    torch.testing.assert_close(row, counted(codes.tolist(), past, order, 0.6), rtol=0, atol=1e-12)
    assert row.sum().item() == pytest.approx(1) and row.min() > 0
    if len(past) > 2 and order > 1:  # negative control: another discount
        assert (row - counted(codes.tolist(), past, order, 0.3)).abs().max() > 1e-3


def test_a_counted_draft_draws_from_its_rows():
    """The rows that it returns are those after the text and after its own tokens, through the sampling."""
    codes, sampling = torch.randint(4, (300,)), decoding.Sampling(0.7, top_k=3)
    draft = decoding.CountedDraft(codes, sampling, 3)
    text = codes[None, 20:29]
    drafted, rows = draft(text, 4, torch.Generator().manual_seed(2))
    assert drafted.shape == (4,) and rows.shape == (4, 256)
    for i in range(4):
        past = text[0].tolist() + drafted[:i].tolist()
        expected = sampling.probabilities(torch.from_numpy(draft.row(past)).log().float()[None])[0]
        assert torch.equal(rows[i], expected) and expected[drafted[i]] > 0
    again, _ = draft(text, 4, torch.Generator().manual_seed(2))
    seeds = [draft(text, 4, torch.Generator().manual_seed(seed))[0].tolist() for seed in range(9)]
    assert torch.equal(again, drafted) and len(set(map(tuple, seeds))) > 2


def test_counted_texts_have_the_targets_distribution(monkeypatch):
    """A draft that knows nothing of the model: counts of other codes."""
    model = small(vocabulary=256, num_layers=1, context=17)
    prompt, sampling = torch.tensor([[0, 2, 1]]), decoding.Sampling(1.0, top_k=3)
    with torch.no_grad():
        wanted = sampling.probabilities(model(prompt)[:, -1])[0]
    likely = wanted.nonzero()[:, 0]
    codes = likely[(torch.rand(400) ** 3 * 3).long()]  # the first of the three most often
    draft = decoding.CountedDraft(codes, sampling, 3)

    def first(times):
        tokens = [decoding.speculate((model, draft), prompt, 2, sampling, 1)[0][0, 3] for _ in range(times)]
        return torch.stack(tokens).bincount(minlength=256)

    assert fit(first(300), wanted) > 1e-3
    monkeypatch.setattr(decoding, "accept", always_accept)
    assert fit(first(200), wanted) < 1e-6


@torch.no_grad()
def test_a_network_draft_forgets_what_was_refused_and_reads_another_text():
    """Its rows are those of the network on the whole text, whatever it has read before."""
    model, sampling = small(), decoding.Sampling(0.8)
    draft = decoding.NetworkDraft(model, sampling)
    first, second = torch.randint(41, (1, 5)), torch.randint(41, (1, 7))
    kept, _ = draft(first, 3, torch.Generator().manual_seed(1))
    all_stay = torch.cat([first, kept[None], torch.randint(41, (1, 1))], dim=1)
    one_stays = torch.cat([first, kept[None, :1], (kept[None, 1:2] + 1) % 41], dim=1)
    for text in (first, all_stay, first, one_stays, second, second[:, :2]):
        drafted, rows = draft(text, 3, torch.Generator().manual_seed(1))
        whole = torch.cat([text, drafted[None]], dim=1)
        expected = sampling.probabilities(model(whole)[0, text.shape[1] - 1 : -1])
        torch.testing.assert_close(rows, expected, rtol=0, atol=1e-10)
    assert draft.read.shape == (1, 5) and draft.cache[0].length == 4  # the last token was drawn, and not read


@torch.no_grad()
def test_the_fast_step_writes_before_it_takes_a_view():
    """The rule of the page: no name of a view of the cache stands before the line that writes."""
    lines = inspect.getsource(decoding.fast_step).splitlines()
    writes = [i for i, line in enumerate(lines) if "[:, :, place] =" in line]
    views = [i for i, line in enumerate(lines) if "one.keys[0]" in line or "one.values[0]" in line]
    assert len(writes) == 2 and views and max(writes) < min(views)


def test_storage_changes_no_number():
    model, tokens = small(), torch.randint(41, (5, 7))
    with torch.no_grad():
        before = model(tokens)
        decoding.store_by_input(model)
        torch.testing.assert_close(model(tokens), before, rtol=0, atol=1e-12)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    assert all(p.stride() == (1, p.shape[0]) for p in matrices) and len(matrices) == 23


# the program


def test_main_prints(tmp_path, monkeypatch, capsys):
    """With a smaller model, two steps of training and, in place of a compiled step, the step itself."""
    config, threads = decoder.Config(context=320, width=24, hidden=20, num_layers=1), torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(decoding, "TRAIN_STEPS", 2)
    monkeypatch.setattr(decoding, "Config", lambda **sizes: config)
    monkeypatch.setattr(decoding, "text", lambda held_out=False: torch.arange(600) % 256)
    monkeypatch.setattr(decoding.shutil, "which", lambda name: name)
    monkeypatch.setattr(torch, "compile", lambda step, dynamic: step)
    decoding.main()
    torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert out.count("tokens a second") == 3 and "the same tokens: True" in out
    assert out.count("Sampling(") == 3 and out.count(": Return the") == 3


# wrong input

TOKENS, FLAT = torch.zeros(1, 7, dtype=torch.long), torch.full((4, 3), 1 / 3)
MODEL, OLD = small(), small("gpt2")
LOGITS = torch.zeros(2, 5)


def drafting(model):
    """A draft of a network, greedily."""
    return decoding.NetworkDraft(model, decoding.GREEDY)


WRONG = {
    "greedy NaN": (lambda: decoding.GREEDY.draw(LOGITS * math.nan), "numbers are expected, given NaN"),
    "sampled NaN": (lambda: decoding.Sampling().draw(LOGITS * math.nan), "numbers are expected, given NaN"),
    "drafted -1": (lambda: decoding.accept(FLAT, FLAT[:3], TOKENS[0, :3] - 1), "from 0 to 2 are expected, given -1"),
    "temper 0": (lambda: decoding.temper(LOGITS, 0.0), "a temperature above 0 is expected, given 0.0"),
    "temper": (lambda: decoding.temper(LOGITS, -1.0), "a temperature above 0 is expected, given -1.0"),
    "temper NaN": (lambda: decoding.temper(LOGITS, math.nan), "a temperature above 0 is expected, given nan"),
    "k": (lambda: decoding.keep_top_k(LOGITS, 0), "k >= 1 is expected, given 0"),
    "top-p 0": (lambda: decoding.keep_top_p(LOGITS, 0.0), "a p above 0 and up to 1 is expected, given 0.0"),
    "top-p": (lambda: decoding.keep_top_p(LOGITS, 1.1), "a p above 0 and up to 1 is expected, given 1.1"),
    "top-p NaN": (lambda: decoding.keep_top_p(LOGITS, math.nan), "up to 1 is expected, given nan"),
    "min-p": (lambda: decoding.keep_min_p(LOGITS, -0.1), "a p from 0 to 1 is expected, given -0.1"),
    "min-p above": (lambda: decoding.keep_min_p(LOGITS, 1.1), "a p from 0 to 1 is expected, given 1.1"),
    "temperature": (lambda: decoding.Sampling(-0.5), "a temperature of at least 0 is expected, given -0.5"),
    "temperature NaN": (lambda: decoding.Sampling(math.nan), "a temperature .* expected, given nan"),
    "sampling k": (lambda: decoding.Sampling(top_k=0), "k >= 1 is expected, given 0"),
    "sampling top-p": (lambda: decoding.Sampling(top_p=0.0), "a p above 0 and up to 1 is expected, given 0.0"),
    "sampling top-p NaN": (lambda: decoding.Sampling(top_p=math.nan), "up to 1 is expected, given nan"),
    "sampling min-p": (lambda: decoding.Sampling(min_p=1.5), "a p from 0 to 1 is expected, given 1.5"),
    "greedy top-p": (lambda: decoding.Sampling(0.0, top_p=5.0), "up to 1 is expected, given 5.0"),
    "two vocabularies": (
        lambda: decoding.speculate((MODEL, drafting(small(vocabulary=43))), TOKENS, 3, decoding.GREEDY),
        r"draft \(K, V\) and drafted .* given \(3, 41\), \(2, 43\)",
    ),
    "two texts": (
        lambda: decoding.generate_fast(MODEL, TOKENS.expand(2, 7), 2, decoding.fast_step),
        "one text and a model without a window are expected, given 2 and None",
    ),
    "too much, fast": (
        lambda: decoding.generate_fast(MODEL, TOKENS, 11, decoding.fast_step),
        "given 7 and 11 new ones",
    ),
    "target": (
        lambda: decoding.accept(FLAT, FLAT, TOKENS[0, :4]),
        r"target \(K \+ 1, V\), .* given \(4, 3\), \(4, 3\)",
    ),
    "draft": (
        lambda: decoding.accept(FLAT, FLAT[:2], TOKENS[0, :3]),
        r"draft \(K, V\) .* given \(4, 3\), \(2, 3\)",
    ),
    "vocabularies": (lambda: decoding.accept(FLAT, FLAT[:3, :2], TOKENS[0, :3]), r"expected, given \(4, 3\), \(3, 2\)"),
    "texts": (
        lambda: decoding.speculate((MODEL, drafting(OLD)), TOKENS.expand(2, 7), 2, decoding.GREEDY),
        "one text and num_drafted >= 1 are expected, given 2 and 4",
    ),
    "nothing drafted": (
        lambda: decoding.speculate((MODEL, drafting(OLD)), TOKENS, 2, decoding.GREEDY, 0),
        "one text and num_drafted >= 1 are expected, given 1 and 0",
    ),
    "draft's context": (
        lambda: decoding.speculate((MODEL, drafting(small(context=9))), TOKENS, 9, decoding.GREEDY),
        "no more positions than the context and the cache have are expected, given context 9, .* 9 \\+ 1",
    ),
    "target's context": (
        lambda: decoding.speculate((small(context=9), drafting(MODEL)), TOKENS, 3, decoding.GREEDY),
        "at most 9 tokens, the context, are expected, given 7 and 3 new ones",
    ),
    "order": (lambda: decoding.CountedDraft(TOKENS[0], decoding.GREEDY, 8), r"order from 1 to 7 .* given order 8"),
    "no order": (lambda: decoding.CountedDraft(TOKENS[0], decoding.GREEDY, 0), r"order from 1 to 7 .* given order 0"),
    "few codes": (lambda: decoding.CountedDraft(TOKENS[0, :4], decoding.GREEDY), r"given order 5 and \(4,\)"),
    "codes of a batch": (lambda: decoding.CountedDraft(TOKENS, decoding.GREEDY), r"given order 5 and \(1, 7\)"),
    "no bytes": (lambda: decoding.CountedDraft(TOKENS[0] + 256, decoding.GREEDY), "from 0 to 255 are expected"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()


# what the page works out by hand, and says of faults


@pytest.mark.claim("decoding-by-hand")
def test_the_example_by_hand():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    p = decoding.Sampling().probabilities(logits)
    expected = {
        decoding.Sampling(): [0.6439, 0.2369, 0.0871, 0.0321],
        decoding.Sampling(0.5): [0.8650, 0.1171, 0.0158, 0.0021],
        decoding.Sampling(2.0): [0.4551, 0.2760, 0.1674, 0.1015],
        decoding.Sampling(top_k=2): [0.7311, 0.2689, 0.0, 0.0],
    }
    for sampling, row in expected.items():
        torch.testing.assert_close(sampling.probabilities(logits)[0], torch.tensor(row), rtol=0, atol=5.1e-5)
    assert p[0, :2].sum().item() == pytest.approx(0.8808, abs=1e-4)
    assert p[0, :3].sum().item() == pytest.approx(0.9679, abs=1e-4)
    assert decoding.keep_top_p(logits, 0.9).isfinite().sum() == 3
    assert 0.2 * p[0, 0].item() == pytest.approx(0.1288, abs=5.1e-5)
    assert decoding.keep_min_p(logits, 0.2).isfinite().sum() == 2
    target, draft = p.repeat(3, 1).double(), torch.tensor([[0.4, 0.4, 0.1, 0.1]]).double()
    assert (p[0, 1] / 0.4).item() == pytest.approx(0.5922, abs=2e-4)
    rate = torch.minimum(target[0], draft[0]).sum().item()
    assert rate == pytest.approx(0.7561, abs=1e-4) and 0.4 + 1 - rate == pytest.approx(0.6439, abs=1e-4)
    assert 1 + rate + rate**2 == pytest.approx(2.3278, abs=2e-4)
    found = [decoding.accept(target[:2], draft, torch.tensor([1])).tolist() for _ in range(1500)]
    stayed = sum(len(tokens) == 2 for tokens in found) / 1500
    assert abs(stayed - 0.5922) < 4 * math.sqrt(0.5922 * 0.4078 / 1500)
    assert {tokens[0] for tokens in found if len(tokens) == 1} == {0}


@pytest.mark.claim("decoding-fault-greedy-draft")
def test_a_greedy_draft_that_says_it_drew():
    target, draft = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).double(), torch.tensor([[0.9, 0.1]]).double()
    assert 0.5 / 0.9 == pytest.approx(0.56, abs=0.005)
    first = [decoding.accept(target, draft, draft[0].argmax()[None])[0].item() for _ in range(4000)]
    share = first.count(0) / 4000
    assert abs(share - 0.5 / 0.9) < 3.5 * math.sqrt(0.25 / 4000) and share - 0.5 > 3.5 * math.sqrt(0.25 / 4000)


@pytest.mark.claim("decoding-exact-draft")
def test_a_poor_draft_changes_nothing_but_the_number_that_stay():
    target = distributions(1)[0]
    for draft in (torch.full((1, V), 1 / V).double(), target[:1].flip(1), target[:1].clone()):
        found = rounds(decoding.accept, target, draft, 800)
        counts = torch.tensor([tokens[0] for tokens in found]).bincount(minlength=V)
        assert fit(counts, target[0]) > 1e-3
    assert sum(len(tokens) == 2 for tokens in found) == 800  # the last draft is the target itself


@pytest.mark.claim("decoding-fault-self")
@torch.no_grad()
def test_a_token_that_does_not_see_itself():
    lines, names = inspect.getsource(decoding.fast_step), dict(vars(decoding))
    exec(lines.replace("<= place", "< place"), names)
    model, tokens = small(), torch.randint(41, (1, 9))
    for length, silent in ((0, False), (8, True)):
        cache = decoder.empty_cache(model, 1, 17)
        if length:
            model(tokens[:, :length], cache)
        wrong = names["fast_step"](model, tokens[0, length : length + 1], torch.tensor([length]), cache)
        assert wrong.isfinite().all() == silent
    assert (wrong - model(tokens)[0, -1]).abs().max() > 0.01
