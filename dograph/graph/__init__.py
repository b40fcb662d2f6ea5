"""The domain graph, and the differentiable solver of its weights."""
