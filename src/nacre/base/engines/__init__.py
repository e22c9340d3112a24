"""The database engines behind `base/db.py`, and the group commit that both write by."""
