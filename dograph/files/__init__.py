"""Files that survive crashes and are read without trust: locks, digests, JSON, YAML, names."""
