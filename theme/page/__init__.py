"""What a page may contain: how each notation is written, what is wrong with one, and the HTML it becomes."""
