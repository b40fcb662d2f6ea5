"""Recipes → runs → comparisons: what the command line starts."""
