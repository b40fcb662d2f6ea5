"""A run as one HTML page: what was drawn and why, what it gave, and what it cost."""
