"""Data that needs no download: real digits, mixtures with closed forms, drawn scenes, English text."""
