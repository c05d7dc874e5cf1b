"""The code that the pages print: one module a post, blocks and data that several posts share."""
