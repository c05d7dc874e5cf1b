"""The search: what readers type leads to the place that answers it, posts before labs before source."""

import gzip
import json
import re

import pytest

from theme.site import search

DDPM, GUIDED, LDM, DECODER = (
    "posts/Diffusion/",
    "posts/Classifier_Guided_Diffusion/",
    "posts/StableDiffusion/",
    "posts/LLM/Decoder-Only/",
)
ROPE, METRICS, T5, SPAN = (
    "posts/LLM/ROPE/",
    "posts/LLM/EvaluationMetricsLLM/",
    "posts/LLM/Encoder-Decoder/",
    "posts/LLM/SpanCorruption/",
)
CFG, NCSN, CLIP, GLIP, LORA = "posts/CFG/", "posts/NCSN/", "posts/CLIP/", "posts/GLIP/", "posts/LLM/LORA/"
DECODING = "posts/LLM/Decoding/"
BERT, ROBERTA, PERFORMER = "posts/LLM/BERT/", "posts/LLM/Roberta/", "posts/LLM/Performer/"

# each query, and the beginnings of the addresses that answer it: a section, or a page with $ for the page itself
QUERIES = {
    "kv cache": [f"{DECODER}#the-cache"],
    "learning rate warmup": [f"{BERT}#", f"{T5}#", f"{CLIP}#training", f"{DECODER}#training", f"{DDPM}#at-full-size"],
    "predict x0 vs eps": [f"{DDPM}#three-ways"],
    "mode collapse": [f"{GUIDED}#", f"{CFG}#"],
    "ᾱ": [f"{DDPM}$", f"{DDPM}#adding-noise"],
    "alpha bar": [f"{DDPM}$", f"{DDPM}#adding-noise"],
    "q_sample": [f"{DDPM}#adding-noise"],
    "yarn": [f"{ROPE}#"],
    "guidance_scale": [f"{CFG}#"],
    "speculative decoding": [f"{DECODING}#drafting", f"{DECODING}#does-speculative", f"{DECODING}$"],
    "top p": [f"{DECODING}#choosing-a-token", f"{DECODING}#does-temperature", f"{DECODING}#what-do-top-k"],
    "why -1 to 1": [f"{DDPM}#do-pixels-run"],
    "ddim eta": [f"{DDPM}#drawing-faster"],
    "cosine schedule": [f"{DDPM}#why-do-ddim", f"{DDPM}#adding-noise"],
    "negative prompt": [f"{CFG}#what-is-a-negative-prompt"],
    "classifier guidance": [f"{GUIDED}"],
    "classifier free guidance": [f"{CFG}"],
    "langevin dynamics": [f"{NCSN}#drawing"],
    "denoising score matching": [f"{NCSN}#learning-a-score", f"{NCSN}#noise-helps"],
    "sde": [f"{NCSN}#the-same-network"],
    "vae": [f"{LDM}#the-autoencoder"],
    "0.18215": [f"{LDM}#the-scale"],
    "inpainting": [f"{CFG}#filling-holes"],
    "super resolution": [f"{CFG}#filling-holes"],
    "v prediction": [f"{DDPM}#three-ways", f"{DDPM}#exercises"],
    "ema": [f"{DDPM}#training"],
    "lora alpha": [f"{LORA}#what-alpha-does", f"{LORA}#does-alpha"],
    "lora learning rate": [f"{LORA}#which-learning-rate"],
    "merge adapter": [f"{LORA}$", f"{LORA}#what-merging", f"{LORA}#may-i-merge", f"{LORA}#is-the-adapter"],
    "qlora": [f"{LORA}#what-is-qlora"],
    "rope": [f"{ROPE}$"],
    "ntk": [f"{ROPE}#longer-texts", f"{ROPE}#is-the-exponent"],
    "long context": [f"{ROPE}#longer-texts", f"{DECODER}#may-a-text"],
    "interleaved or half split": [f"{ROPE}#two-layouts", f"{ROPE}#which-layout"],
    "padding mask": [
        f"{CLIP}#do-i-need",
        f"{DECODER}#what-about-padding",
        f"{ROBERTA}#does-a-padding",
        f"{PERFORMER}#may-i-mask",
    ],
    "flash attention": [f"{DECODING}#is-this-flashattention", f"{DECODER}#is-this-flashattention"],
    "grouped query attention": [f"{DECODER}#which-query-heads", f"{DECODER}#gpt-2-and-llama", f"{DECODER}#two-blocks"],
    "rmsnorm": [f"{DECODER}#is-rmsnorm", f"{DECODER}#two-blocks"],
    "perplexity": [f"{METRICS}#next-tokens", f"{DECODER}#what-is-perplexity"],
    "bleu": [f"{METRICS}#bleu"],
    "rouge-l": [f"{METRICS}#rouge"],
    "pass@k": [f"{METRICS}#programs", f"{METRICS}#what-is-passk"],
    "expected calibration error": [f"{METRICS}#classes"],
    "bertscore": [f"{METRICS}#bertscore"],
    "beam search": [f"{T5}#beam-search"],
    "relative position bias": [f"{T5}#distances", f"{T5}#does-cross"],
    "cross attention": [f"{T5}#"],
    "t5": [f"{T5}"],
    "sentinel": [f"{SPAN}#"],
    "wordpiece": [f"{BERT}#wordpiece"],
    "80 10 10 masking": [f"{BERT}#what-it-is-trained-on", f"{BERT}#ways-of-masking", f"{BERT}$"],
    "byte level bpe": [f"{ROBERTA}#byte-level"],
    "gradient accumulation": [f"{ROBERTA}#large-batches"],
    "dynamic masking": [f"{ROBERTA}#masks-drawn", f"{ROBERTA}#where-are-masks"],
    "random features": [f"{PERFORMER}#the-kernel", f"{PERFORMER}#how-many", f"{PERFORMER}$"],
    "contrastive loss": [f"{CLIP}#how-near", f"{CLIP}#a-large-batch"],
    "zero shot": [f"{CLIP}#using-it", f"{CLIP}#results"],
    "siglip": [f"{CLIP}#a-loss-without"],
    "giou": [f"{GLIP}#the-losses", f"{GLIP}#boxes", f"{GLIP}#anchors"],
    "average precision": [f"{GLIP}#how-good"],
}
FOUND = """(query) => {
  const box = document.getElementById("search-query");
  box.value = query;
  box.dispatchEvent(new Event("input"));
  return [...document.querySelectorAll("#search-results a")].map((link) => link.pathname.slice(1) + link.hash);
}"""


@pytest.fixture
def found(tab):
    """What a query finds: addresses, the first one first."""
    tab.go("")
    tab.page.keyboard.press("/")
    tab.page.get_by_role("searchbox").fill("noise")
    tab.page.locator("#search-results a").first.wait_for()
    return lambda query: tab.page.evaluate(FOUND, query)


def answers(address: str, expected: list[str]) -> bool:
    return any(address.startswith(one) for one in expected) or f"{address}$" in expected


def test_sixty_queries_find_what_answers_them(found):
    first, places = {query: found(query)[:3] for query in QUERIES}, {}
    for query, expected in QUERIES.items():
        places[query] = next((n for n, one in enumerate(first[query], 1) if answers(one, expected)), None)
    told = "\n".join(f"{query!r} is at {place}: {first[query]}" for query, place in places.items() if place != 1)
    assert len(QUERIES) == 60 and None not in places.values(), told
    assert sum(place == 1 for place in places.values()) >= 55, told


def test_posts_come_before_labs_before_source(found, site):
    index = json.loads((site.folder / "search/index.json").read_text())
    kinds = {url: kind for url, _, kind, *_ in index}
    for query in ("noise", "q_sample", "sample", "loss", "attention"):
        shown = [kinds[one.partition("#")[0]] for one in found(query)]
        assert shown == sorted(shown) and shown[0] == search.POST, query
    shown = " ".join(
        one for url, _, kind, entries, _ in index if kind != search.SOURCE for entry in entries for one in entry
    )
    names = (one[1] for *_, kind, entries, _ in index if kind == search.SOURCE for one in entries if "_" in one[1])
    source = found(next(name for name in names if name not in shown))
    assert re.fullmatch(r"source/snippets/.*/#L\d+", source[0]), source


def test_the_index_is_small_and_has_names_and_symbols(site):
    assert len(gzip.compress((site.folder / "search/index.json").read_bytes())) <= 400 * 1024
    index = {
        url: {one[0]: one for one in sections}
        for url, _, _, sections, _ in json.loads((site.folder / "search/index.json").read_text())
    }
    ddpm = index[DDPM]
    assert "q_sample" in ddpm["adding-noise"][4].split() and "ᾱ" in ddpm[""][2]
    assert not any("tested claim" in one[2] or "@inproceedings" in one[2] for one in ddpm.values())


def test_a_section_is_made_of_its_markup():
    code = '<div class="highlight"><pre><span></span><code><i data-late="3">def x_y(a):\n    return UNet(b_c) &lt; in_\n</i></code></pre></div>'
    body = f'<p>A <i class="katex" data-late="1">ᾱt</i> &amp;<br>b <a class="claim" href="#">✓</a></p>{code}'
    fold = f'<details class="fold"><summary>x · y</summary>{code.replace("x_y", "folded_y")}</details>'
    page = f'<p>top</p><h1 id="t">Title</h1><p>first</p><h2 id="s">One<a class="headerlink" href="#s">#</a></h2>{body}{fold}'
    assert search.sections("Title", page) == [
        ["", "Title", "top first", "", ""],
        ["s", "One", "A ᾱt & b", "UNet b_c folded_y in_", "x_y"],
    ]
