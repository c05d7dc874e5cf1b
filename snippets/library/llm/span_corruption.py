"""Span corruption for T5 by transformers: sentinels go by their names, the loss is the model's own."""

# --8<-- [start:library]
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration


def corrupt_by_names(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], mask: list[bool]
) -> tuple[list, list]:
    """Input and target ids of a text whose mask begins with text and ends with a span, each with its end."""
    source, target, span = [], [], -1
    for place, (token, hidden) in enumerate(zip(ids, mask, strict=True)):
        if hidden and not mask[place - 1]:
            span += 1
            sentinel = tokenizer.convert_tokens_to_ids(f"<extra_id_{span}>")
            source.append(sentinel)
            target.append(sentinel)
        (target if hidden else source).append(token)
    return [*source, tokenizer.eos_token_id], [*target, tokenizer.eos_token_id]


def loss_by_transformers(model: T5ForConditionalGeneration, source, target) -> float:
    """The mean cost of inputs and targets, two tensors of ids; the model shifts the targets itself."""
    return model(input_ids=source, labels=target).loss.item()


# --8<-- [end:library]
