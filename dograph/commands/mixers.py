"""`--mixers`: code of one's own that a recipe may name."""

MIXERS_HELP = "a Python file, or a folder of them, whose classes the recipe may name"
