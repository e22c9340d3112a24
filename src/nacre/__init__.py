"""Nacre: a compute cloud in one package."""
