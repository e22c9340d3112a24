"""What every part stands on: web edge, database, RPC, clock, undo, shell. Imports nothing of ours from elsewhere."""
