"""Placement's API, to read: the hosts' reports and the ledger of allocations in its words. What it would write is
decided elsewhere, and answers 501.
"""
