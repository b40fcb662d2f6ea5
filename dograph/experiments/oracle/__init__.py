"""The best fixed mixture of a recipe's domains: a sweep, a Gaussian process, a validation."""
