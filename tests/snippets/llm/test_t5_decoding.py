"""Decoding of T5: every step against the whole, greedy, sampling and beam search against transformers' generate."""

import itertools

import pytest
import torch
from transformers import TopPLogitsWarper

from snippets.llm import t5, t5_decoding
from snippets.llm.t5_decoding import beam_search, begin, cut, likeliest, sampler, step, store_by_input, write
from snippets.llm.t5_folders import load_t5
from tests.snippets.llm.t5_models import KINDS, THEIRS
from tests.snippets.oracles import perturbed

LIBRARY = "transformers.T5ForConditionalGeneration"
ROOM = 12


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    models = {}
    for kind in KINDS:
        path = tmp_path_factory.mktemp(kind)
        THEIRS[kind].save_pretrained(path)
        models[kind] = load_t5(path)
    return models


@pytest.fixture
def batch():
    """Five sources of 2 to 7 tokens."""
    real = torch.arange(7) < torch.tensor([7, 4, 7, 2, 6])[:, None]
    source = torch.randint(2, 41, (5, 7), generator=torch.Generator().manual_seed(3))
    return {"source": source.masked_fill(~real, 0), "real": real}


def small(**others):
    sizes = {"vocabulary": 41, "width": 24, "head_width": 5, "hidden": 20, "num_layers": 2, "decoder_layers": 3}
    sizes |= {"num_heads": 4, "buckets": 8, "max_distance": 20}
    torch.manual_seed(1)
    return perturbed(t5.T5(t5.Config(**(sizes | others)))).double()


def generated(model, batch, **settings):
    """What the library writes: tokens, and scores of beams. Without a cache where its decoder is the deeper one."""
    config = model.config
    given = {"input_ids": batch["source"], "attention_mask": batch["real"].long(), "max_new_tokens": ROOM}
    given |= {"use_cache": config.num_decoder_layers <= config.num_layers, "do_sample": False}
    out = model.generate(**given, **settings, return_dict_in_generate=True, output_scores=True)
    return [cut(row[1:], 1) for row in out.sequences.tolist()], getattr(out, "sequences_scores", None)


# the cache


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_every_step_equals_the_whole(padded, batch):
    model, real = small(), batch["real"] if padded else None
    written = torch.randint(41, (5, 3, 6))  # three beams, each with a text of its own
    fixed = begin(model, batch["source"], real, 3, 6)
    for place in torch.arange(6).split(1):
        logits = step(model, written[:, :, place.item()], place, *fixed)
        for beam in range(3):
            whole = model(batch["source"], written[:, beam, : place.item() + 1], real)[:, -1]
            assert (logits[:, beam] - whole).abs().max() < 1e-12
    fixed = begin(model, batch["source"], real, 3, 6)
    late = fixed[0], torch.zeros_like(fixed[1]).masked_fill(fixed[1].isinf(), float("-inf")), fixed[2]
    for place in torch.arange(6).split(1):
        logits = step(model, written[:, :, place.item()], place, *late)
    assert (logits[:, 2] - whole).abs().max() > 0.01  # negative control: no bias


@torch.no_grad()
@pytest.mark.claim("encdec-cached-bias")
def test_the_bias_of_a_step_is_that_of_its_place(batch):
    """A step that takes the row of place 0, as public code did, gives other logits, though not at the first step."""
    model, written = small(), torch.randint(41, (5, 1, 4))
    caches, bias, real = begin(model, batch["source"], batch["real"], 1, 4)
    wrong = bias[:, :1].expand_as(bias).masked_fill(bias.isinf(), float("-inf"))
    wrong = torch.where(bias.isinf(), bias, model.decoder.bias.table.weight[0][:, None, None].expand_as(bias))
    errors = []
    for place in torch.arange(4).split(1):
        logits = step(model, written[:, :, place.item()], place, caches, wrong, real)
        whole = model(batch["source"], written[:, 0, : place.item() + 1], batch["real"])[:, -1]
        errors.append((logits[:, 0] - whole).abs().max().item())
    assert errors[0] < 1e-12 and min(errors[1:]) > 0.01


@torch.no_grad()
def test_reordered_beams_go_on_from_what_was_written(batch):
    model = small()
    written, beam = torch.randint(41, (5, 3, 4)), torch.randint(3, (5, 3))
    fixed = begin(model, batch["source"], batch["real"], 3, 4)
    for place in torch.arange(3).split(1):
        step(model, written[:, :, place.item()], place, *fixed)
    for cache in fixed[0]:
        cache.reorder(beam, 3)
    chosen = torch.take_along_dim(written, beam[:, :, None], dim=1)
    chosen[:, :, 3] = written[:, :, 3]
    logits = step(model, chosen[:, :, 3], torch.tensor([3]), *fixed)
    whole = torch.stack([model(batch["source"], chosen[:, n], batch["real"])[:, -1] for n in range(3)], dim=1)
    assert (logits - whole).abs().max() < 1e-12


def test_what_cannot_be_written_is_refused(batch):
    model = small()
    for beams, room in ((0, 5), (21, 5), (2, 0)):
        with pytest.raises(ValueError, match="from 1 to 20 beams and room for a token are expected"):
            begin(model, batch["source"], None, beams, room)
    with pytest.raises(ValueError, match="a real token in each source"):
        begin(model, batch["source"], torch.zeros(5, 7, dtype=torch.bool), 1, 5)
    with pytest.raises(ValueError, match="early or patient"):
        beam_search(model, batch["source"], None, 5, early=True, patient=True)
    for temperature, top_p in ((0, 0.5), (1, 0), (1, 1.1)):
        with pytest.raises(ValueError, match="a temperature above 0"):
            sampler(temperature, top_p, torch.Generator())


# the same tokens as the library


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_equal_transformers(kind, ours, batch):
    expected, _ = generated(THEIRS[kind], batch)
    assert write(ours[kind], **batch, room=ROOM) == expected
    alone = {name: part[3:4, :2] for name, part in batch.items()}  # a row of the batch by itself
    assert write(ours[kind], **alone, room=ROOM) == expected[3:4]
    assert write(ours[kind], alone["source"], None, ROOM) == expected[3:4]


def test_some_rows_end_before_others(ours, batch):
    """The comparison with the library has ends in the middle, and rows that are cut off."""
    lengths = [len(row) for kind in KINDS for row in write(ours[kind], **batch, room=ROOM)]
    assert any(1 < length < ROOM for length in lengths) and 1 in lengths and ROOM in lengths


@pytest.mark.claim("encdec-generate")
@pytest.mark.parametrize("kind", KINDS)
def test_beams_equal_transformers(kind, ours, batch, agrees):
    settings = [*itertools.product((4,), (0.0, 1.0, 2.0), (True, False, "never")), (2, -1.0, "never"), (3, 0.6, False)]
    for beams, penalty, stopping in settings:
        options = {"num_beams": beams, "length_penalty": penalty, "early_stopping": stopping}
        expected, scores = generated(THEIRS[kind], batch, **options, num_return_sequences=beams)
        given = {"early": stopping is True, "patient": stopping == "never"}
        found = beam_search(ours[kind], **batch, room=ROOM, beams=beams, length_penalty=penalty, **given)
        assert [tokens for row in found for tokens, _ in row] == expected, options
        mine = [score for row in found for _, score in row]
        library = "transformers.MT5ForConditionalGeneration" if kind == "mt5" else LIBRARY
        agrees(mine, scores, library, 1e-4)


@torch.no_grad()
def test_the_settings_of_beams_matter(ours, batch):
    """Negative control: each setting changes what is found, so that the comparison could fail."""

    def found(**given):
        return [row[0][0] for kind in KINDS for row in beam_search(ours[kind], **batch, room=ROOM, **given)]

    usual = found()
    assert found(beams=2) != usual and found(length_penalty=0.0) != usual and found(length_penalty=2.0) != usual
    assert found(early=True) != usual
    many = torch.randint(2, 41, (200, 5), generator=torch.Generator().manual_seed(0))
    given = {"source": many, "real": None, "room": ROOM, "length_penalty": 2.0, "beams": 2}
    found = [beam_search(ours["v1.1"], **given, patient=patient) for patient in (False, True)]
    assert [row[0][0] for row in found[0]] != [row[0][0] for row in found[1]]


def test_one_beam_is_greedy(ours, batch):
    for kind in KINDS:
        rows = beam_search(ours[kind], **batch, room=ROOM, beams=1)
        assert [row[0][0] for row in rows] == write(ours[kind], **batch, room=ROOM)


@torch.no_grad()
@pytest.mark.equation("encdec-score", of=beam_search)
def test_scores_are_their_formula(formula, batch):
    model = small().float()
    (tokens, score), *_ = beam_search(model, **batch, room=5, beams=3, length_penalty=0.7)[1]
    written = torch.tensor([[0, *tokens[:-1]]])
    p = model(batch["source"][1:2, :4], written)[0].softmax(dim=-1)
    p = p[torch.arange(len(tokens)), tokens]
    names = {"z": torch.tensor(score), r"\alpha": 0.7, "T": len(tokens), "p_t": lambda t: p[t], "t": range(len(tokens))}
    formula("encdec-score").holds(names, tolerance=1e-6)  # beams add up in float32


# sampling, storage, compiling


def test_samples_have_the_librarys_probabilities():
    logits = torch.tensor([[2.0, 1.0, 0.5, -1.0, 0.0]])
    generator = torch.Generator().manual_seed(0)
    for temperature, top_p in ((0.7, 0.8), (1.5, 0.6), (1.0, 1.0), (1.0, 1e-6)):
        pick = sampler(temperature, top_p, generator)
        drawn = torch.stack([pick(logits.expand(4000, -1))]).flatten()
        kept = logits / temperature
        kept = TopPLogitsWarper(top_p)(None, kept) if top_p < 1 else kept
        expected = kept.softmax(dim=-1)[0]
        share = torch.bincount(drawn, minlength=5) / len(drawn)
        assert (share - expected).abs().max() < 4 * (0.25 / len(drawn)) ** 0.5
        assert not share[expected == 0].any()
    assert likeliest(logits).tolist() == [0]


def test_sampled_rows_end_and_repeat_by_seed(ours, batch):
    def drawn(seed):
        return write(ours["v1.1"], **batch, room=ROOM, pick=sampler(1.0, 0.9, torch.Generator().manual_seed(seed)))

    assert drawn(1) == drawn(1) != drawn(2)
    assert all(1 not in row[:-1] and 1 <= len(row) <= ROOM for row in drawn(1))


@torch.no_grad()
def test_other_storage_writes_the_same(ours, batch):
    for kind in KINDS:
        fast = store_by_input(ours[kind])
        assert write(fast, **batch, room=ROOM) == write(ours[kind], **batch, room=ROOM)
        assert fast.head.weight.stride() == (1, 41) and ours[kind].head.weight.stride()[1] == 1
        many = t5_decoding.ordered(ours[kind], rows=20)
        found = beam_search(many, **batch, room=ROOM)
        assert [row[0][0] for row in found] == [row[0][0] for row in beam_search(ours[kind], **batch, room=ROOM)]
    with pytest.raises(ValueError, match="float32 weights on a CPU"):
        t5_decoding.ordered(small(), rows=1)


@torch.no_grad()
def test_the_step_compiles_once(ours, batch):
    """Every step has the same shapes: the second one is not compiled again."""
    compiled = torch.compile(step, backend="eager", fullgraph=True)
    with torch.compiler.set_stance("default"):
        assert write(ours["v1.1"], **batch, room=ROOM, step=compiled) == write(ours["v1.1"], **batch, room=ROOM)


@pytest.mark.claim("encdec-deep-decoder")
def test_library_cannot_cache_a_decoder_deeper_than_its_encoder(batch):
    deep, given = THEIRS["v1.0"], {"input_ids": batch["source"], "max_new_tokens": 3}
    assert deep.config.num_decoder_layers > deep.config.num_layers
    with pytest.raises(IndexError):
        deep.generate(**given)
    deep.generate(**given, use_cache=False)


@torch.no_grad()
@pytest.mark.claim("encdec-copies")
def test_library_copies_the_source_for_each_beam_and_reorders_it(batch, monkeypatch):
    """Ours keeps one copy of a source's keys; transformers has one for each beam, and reorders them at each step."""
    from transformers import EncoderDecoderCache

    seen = []
    reorder = EncoderDecoderCache.reorder_cache

    def watched(self, beam):
        before = self.cross_attention_cache.layers[0].keys
        reorder(self, beam)
        after = self.cross_attention_cache.layers[0].keys
        seen.append((len(before), before.data_ptr() != after.data_ptr()))

    monkeypatch.setattr(EncoderDecoderCache, "reorder_cache", watched)
    generated(THEIRS["flan"], batch, num_beams=3)
    assert seen and all(rows == 15 and moved for rows, moved in seen)
    caches, _, _ = begin(small(), batch["source"], batch["real"], 3, 4)
    assert len(caches[0].source[0]) == 5


@torch.no_grad()
@pytest.mark.claim("encdec-tree")
def test_the_tree_of_the_page():
    """Greedy decoding takes a, though b and z together are likelier; scores as printed under By hand."""
    a, b, x, y, z, end = 5, 6, 7, 8, 9, 1
    follows = {0: {a: 0.6, b: 0.4}, a: {x: 0.4, y: 0.3, 10: 0.3}, b: {z: 0.9, x: 0.1}}

    def tree(model, token, place, *fixed):
        p = torch.zeros(*token.shape, 41)
        for row, beams in enumerate(token.tolist()):
            for n, last in enumerate(beams):
                for word, chance in follows.get(last if place < 2 else None, {end: 1.0}).items():
                    p[row, n, word] = chance
        return p.log()

    model, source = small(), torch.randint(2, 41, (1, 7))
    assert write(model, source, None, 3, step=tree) == [[a, x, end]]
    for penalty, score in ((1.0, -0.3406), (0.0, -1.0217)):
        tokens, found = beam_search(model, source, None, 3, beams=2, length_penalty=penalty, step=tree)[0][0]
        assert tokens == [b, z, end] and found == pytest.approx(score, abs=6e-5)
    assert -2 > -3 and -2 / 4 < -3 / 8 == -0.375
