"""What the examples take on the command line."""

from __future__ import annotations

import argparse


def arguments(description: str | None) -> argparse.Namespace:
    """The text to train on, and for how many steps."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--text", default="environment", help="folder of text (environment)")
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps (100)")
    return parser.parse_args()
