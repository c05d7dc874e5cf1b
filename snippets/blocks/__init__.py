"""Layers and measures that several posts share."""
