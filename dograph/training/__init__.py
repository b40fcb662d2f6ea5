"""Batches → losses → steps: the language model, the callback that mixes, checkpoints."""
