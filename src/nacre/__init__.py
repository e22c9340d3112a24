"""Nacre: a compute cloud in one package."""

__version__ = "0.1.0"
