"""What the text names leads to it: functions of the page to their block, libraries and their classes to their source.

An abbreviation says what it stands for, by pointer, touch and keyboard, where the page names it first.
"""

import html
import re
import xml.etree.ElementTree as etree
from functools import cache
from importlib import metadata

from markdown.treeprocessors import Treeprocessor

from theme.page import words
from theme.page.code import aside
from theme.page.listings import block_id
from theme.page.pages import INCLUDE
from theme.page.sections import marked
from theme.page.source import Source, once_per_version

GITHUB = "https://github.com"
SOURCES = {  # of packages: where the version is in the address, what the tests ran is what is linked
    "diffusers": f"{GITHUB}/huggingface/diffusers/blob/v{{version}}/src/diffusers/",
    "performer_pytorch": f"{GITHUB}/lucidrains/performer-pytorch/blob/main/performer_pytorch/",
    "rouge_score": f"{GITHUB}/google-research/google-research/blob/master/rouge/",
    "sacrebleu": f"{GITHUB}/mjpost/sacrebleu/blob/v{{version}}/sacrebleu/",
    "transformers": f"{GITHUB}/huggingface/transformers/blob/v{{version}}/src/transformers/",
}
LIBRARIES = {
    "bert_score": f"{GITHUB}/Tiiiger/bert_score",
    "diffusers": "https://huggingface.co/docs/diffusers",
    "nltk": "https://www.nltk.org",
    "peft": "https://huggingface.co/docs/peft",
    "PyTorch": "https://docs.pytorch.org/docs/stable/",
    "rouge_score": f"{GITHUB}/google-research/google-research/tree/master/rouge",
    "sacrebleu": f"{GITHUB}/mjpost/sacrebleu",
    "sacreBLEU": f"{GITHUB}/mjpost/sacrebleu",
    "safetensors": "https://huggingface.co/docs/safetensors",
    "scikit-learn": "https://scikit-learn.org",
    "tokenizers": "https://huggingface.co/docs/tokenizers",
    "torchmetrics": "https://lightning.ai/docs/torchmetrics",
    "transformers": "https://huggingface.co/docs/transformers",
}
AMBIGUOUS = {"tokenizers", "transformers"}  # in prose these are also plain words: linked where "library" stands before
CLASSES = """
diffusers/guiders/adaptive_projected_guidance.py: AdaptiveProjectedGuidance
diffusers/guiders/auto_guidance.py: AutoGuidance
diffusers/guiders/classifier_free_guidance.py: ClassifierFreeGuidance
diffusers/models/attention.py: BasicTransformerBlock
diffusers/models/autoencoders/vae.py: VectorQuantizer
diffusers/models/autoencoders/vq_model.py: VQModel
diffusers/models/controlnets/controlnet.py: ControlNetModel
diffusers/models/controlnets/multicontrolnet.py: MultiControlNetModel
diffusers/models/embeddings.py: get_2d_sincos_pos_embed
diffusers/models/transformers/dit_transformer_2d.py: DiTTransformer2DModel
diffusers/models/unets/unet_2d.py: UNet2DModel
diffusers/models/unets/unet_2d_condition.py: UNet2DConditionModel
diffusers/pipelines/controlnet/pipeline_controlnet.py: StableDiffusionControlNetPipeline
diffusers/pipelines/stable_diffusion/pipeline_stable_diffusion.py: StableDiffusionPipeline
diffusers/schedulers/scheduling_ddim.py: DDIMScheduler
diffusers/schedulers/scheduling_ddpm.py: DDPMScheduler
diffusers/schedulers/scheduling_edm_euler.py: EDMEulerScheduler
diffusers/schedulers/scheduling_flow_match_euler_discrete.py: FlowMatchEulerDiscreteScheduler
diffusers/schedulers/scheduling_sde_ve.py: ScoreSdeVeScheduler
performer_pytorch/performer_pytorch.py: SelfAttention
rouge_score/scoring.py: BootstrapAggregator
sacrebleu/metrics/bleu.py: BLEU
sacrebleu/metrics/chrf.py: CHRF
transformers/models/bert/modeling_bert.py: BertForMaskedLM BertForPreTraining BertForQuestionAnswering
transformers/models/bert/modeling_bert.py: BertForSequenceClassification BertModel
transformers/models/bert/tokenization_bert.py: BertTokenizer
transformers/models/clip/image_processing_clip.py: CLIPImageProcessor
transformers/models/clip/modeling_clip.py: CLIPModel CLIPTextModel CLIPTextModelWithProjection
transformers/models/clip/tokenization_clip.py: CLIPTokenizer
transformers/models/gpt2/modeling_gpt2.py: GPT2LMHeadModel
transformers/models/grounding_dino/modeling_grounding_dino.py: GroundingDinoForObjectDetection
transformers/models/llama/modeling_llama.py: LlamaForCausalLM LlamaRotaryEmbedding
transformers/models/mt5/modeling_mt5.py: MT5ForConditionalGeneration
transformers/models/phi/modeling_phi.py: PhiAttention
transformers/models/roberta/modeling_roberta.py: RobertaForMaskedLM RobertaForQuestionAnswering
transformers/models/roberta/modeling_roberta.py: RobertaForSequenceClassification RobertaForTokenClassification
transformers/models/roberta/modeling_roberta.py: RobertaModel
transformers/models/roberta/tokenization_roberta.py: RobertaTokenizer
transformers/models/siglip/modeling_siglip.py: SiglipModel
transformers/models/t5/modeling_t5.py: T5ForConditionalGeneration
transformers/models/t5/tokenization_t5.py: T5Tokenizer
"""
PYTORCH = "https://docs.pytorch.org/docs/stable/search.html?q="
MODULES = {"torch": "torch", "nn": "torch.nn", "F": "torch.nn.functional"}
ABBREVIATIONS = {
    "ALiBi": "attention with linear biases",
    "ASCII": "American Standard Code for Information Interchange: 128 characters",
    "BERT": "Bidirectional Encoder Representations from Transformers",
    "BLEU": "Bilingual Evaluation Understudy",
    "BPE": "byte pair encoding",
    "CFG": "classifier-free guidance",
    "CLIP": "Contrastive Language-Image Pre-training",
    "DDIM": "denoising diffusion implicit models",
    "DDPM": "denoising diffusion probabilistic models",
    "DiT": "diffusion transformer",
    "EMA": "exponential moving average",
    "FID": "Fréchet inception distance",
    "FLOP": "floating-point operation",
    "GAN": "generative adversarial network",
    "GANs": "generative adversarial networks",
    "GELU": "Gaussian error linear unit",
    "GIoU": "generalised intersection over union",
    "GLIP": "Grounded Language-Image Pre-training",
    "GLU": "gated linear unit",
    "GPT": "generative pre-trained transformer",
    "GPU": "graphics processing unit",
    "GQA": "grouped-query attention",
    "IoU": "intersection over union",
    "KL": "Kullback-Leibler divergence",
    "LPIPS": "learned perceptual image patch similarity",
    "LoRA": "low-rank adaptation",
    "MCC": "Matthews correlation coefficient",
    "METEOR": "Metric for Evaluation of Translation with Explicit Ordering",
    "MLM": "masked language modelling",
    "MLP": "multilayer perceptron: linear layers with a nonlinearity between them",
    "NCSN": "noise conditional score network",
    "NSP": "next sentence prediction",
    "ODE": "ordinary differential equation",
    "PSNR": "peak signal-to-noise ratio",
    "RNNs": "recurrent neural networks",
    "ROUGE": "Recall-Oriented Understudy for Gisting Evaluation",
    "ReLU": "rectified linear unit",
    "RoPE": "rotary position embedding",
    "SDE": "stochastic differential equation",
    "SiLU": "sigmoid linear unit",
    "TER": "translation edit rate",
    "VAE": "variational autoencoder",
    "ViT": "vision transformer",
}
WORDS = re.compile(
    r"(?<![\w-])(?:(?:"
    + "|".join(sorted(map(re.escape, (LIBRARIES.keys() - AMBIGUOUS) | ABBREVIATIONS.keys()), key=len, reverse=True))
    + rf")|(?<=library )(?:{'|'.join(sorted(AMBIGUOUS))}))(?![\w-])"
)


@cache
def classes() -> dict[str, str]:
    """Addresses of classes of libraries, in the version that is installed."""
    found = {}
    for line in CLASSES.strip().splitlines():
        path, _, names = line.partition(": ")
        package, _, rest = path.partition("/")
        address = SOURCES[package].format(version=metadata.version(package)) + rest
        found |= {name: f"{address}#:~:text={name}" for name in names.split()}
    return found


@once_per_version
def defined(path) -> list[tuple[int, str]]:
    """Line and name of each function and class at the top level of a module."""
    lines = path.read_text(encoding="utf-8").split("\n")
    found = [(number, re.match(r"(?:def|class) (\w+)", line)) for number, line in enumerate(lines, 1)]
    return [(number, match[1]) for number, match in found if match]


def blocks_of(source: Source) -> dict[str, str]:
    """The anchor of the block in which a page shows a function or class, by its name."""
    found: dict[str, str] = {}
    for include in INCLUDE.finditer(source.text):
        if aside(include["path"]):
            continue  # a solution is for the reader to unfold
        path = source.root / include["path"]
        first, last = marked(path)[0].get(include["section"], (0, 0)) if path.is_file() else (0, 0)
        for line, name in defined(path) if last else ():
            if first < line < last:
                found.setdefault(name, f"#{block_id(include['path'], include['section'])}")
    return found


class Named(Treeprocessor):
    """Links of names, and abbreviations where a page has them first."""

    def __init__(self, source: Source):
        self.source = source

    def run(self, root: etree.Element) -> None:
        """Link code spans, then libraries and abbreviations of the text; only posts have them."""
        if not self.source.key:
            return
        known = blocks_of(self.source) | classes()
        self._link_code(root, known)
        seen = set()
        words.replace(root, WORDS, lambda match: self._first(match[0], seen))

    def _link_code(self, element: etree.Element, known: dict[str, str]) -> None:
        if element.tag in words.UNTOUCHED:
            return
        for at, child in enumerate(list(element)):
            self._link_code(child, known)
            address = address_of(html.unescape(child.text or ""), known) if child.tag == "code" else ""
            if address and not len(child):
                link = etree.Element("a", {"class": "named", "href": address})
                link.tail, child.tail = child.tail, None
                link.append(child)
                element[at] = link

    def _first(self, name: str, seen: set[str]) -> etree.Element | None:
        if name in seen:
            return None
        seen.add(name)
        if name in LIBRARIES:
            return etree.Element("a", {"class": "cited", "href": LIBRARIES[name]})
        return etree.Element("abbr", {"title": ABBREVIATIONS[name], "tabindex": "0"})


def address_of(code: str, known: dict[str, str]) -> str:
    """Where a code span such as `load_clip(folder)`, `DDIMScheduler` or `torch.cat` leads, or ""."""
    found = re.fullmatch(r"(\w+)(\(.*\)|\.from_pretrained)?", code, re.S)
    if found and found[1] in known and (found[2] or "_" in found[1] or found[1] != found[1].lower()):
        return known[found[1]]
    if code in LIBRARIES:
        return LIBRARIES[code]
    found = re.fullmatch(r"(torch|nn|F)(\.[\w.]+)(?:\(.*\))?", code, re.S)
    return f"{PYTORCH}{MODULES[found[1]]}{found[2]}" if found else ""
