"""The graph of domains, and the differentiable solvers of its weights."""
