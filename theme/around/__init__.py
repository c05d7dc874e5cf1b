"""What stands around a page: badges, date, Verified panel, downloads, and the cards of the index."""
