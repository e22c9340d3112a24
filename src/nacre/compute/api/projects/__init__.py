"""What a project may have and has: limits, quotas, usage, server groups."""
