"""What the Makefile calls: set-up, labs, new posts."""
