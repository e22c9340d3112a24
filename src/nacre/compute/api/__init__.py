"""Nova's HTTP API v2.1: what clients send becomes calls of the compute services, what they know becomes JSON.

`microversions` is the one table of what each version knows; `validation` and the views read it. `service` joins all.
"""
