"""Tokens to batches: domains, sampler, DataMixer."""
