"""How Markdown becomes the site: Python-Markdown extensions, build hooks, overrides, CSS."""
