"""/servers: everything about servers and what belongs to one."""
