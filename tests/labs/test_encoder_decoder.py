"""The lab of the encoder-decoder reaches its bars, and bears out what the post says of it."""

from tests.labs.spread import greater, paired, seeds, tie

LAB = "LLM/Encoder-Decoder"
TASKS = ("digits", "words", "iso", "date", "reverse", "question")
PLACES, STARTS = ("pre", "post"), ("warm", "cold")
