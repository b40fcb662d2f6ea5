"""Text to tokens on disk: readers, the environment corpus, tokenizers and `prepare`."""
