"""How a process is reached and how it ends: sockets, TLS, its health, signals."""
