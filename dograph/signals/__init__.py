"""Losses to what was learnt: gradient sketches, their clusters and their kernel."""
