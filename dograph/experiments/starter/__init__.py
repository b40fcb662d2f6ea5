"""What `dograph init` copies: a recipe, a mixer, and a page on both, which run as they are."""
