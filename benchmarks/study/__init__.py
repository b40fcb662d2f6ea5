"""The study of mixtures: cases × methods × seeds, compared, and the page of results."""
