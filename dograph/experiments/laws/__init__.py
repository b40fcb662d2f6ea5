"""Mixing laws: from fixed mixtures and their losses to the mixture for any target."""
