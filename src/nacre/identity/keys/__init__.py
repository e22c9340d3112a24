"""The cloud's keys: in the database, sealed by a key that each control has from its operator (ADR 0013)."""
