"""The only wiring: makes the objects of a role and joins them by a transport. Nothing else constructs across services.

A role is built over any transport: the network's in `nacre up`, the in-memory one in tests and simulations.
`control.py` and `node.py` are one role each, so that a process loads only its own.
"""
