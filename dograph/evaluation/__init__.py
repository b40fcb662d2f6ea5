"""Checkpoint to numbers."""
