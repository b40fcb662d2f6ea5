"""A recipe: composed from files, bounded, and checked by type before anything runs."""
