"""The processes of a cloud on this machine, and how a machine becomes a part of one."""
