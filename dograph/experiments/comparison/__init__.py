"""Finished runs to one table, one page and one TensorBoard: which mixture is better, how sure."""
