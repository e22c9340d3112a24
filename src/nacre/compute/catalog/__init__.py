"""What operators and users keep ready for servers: flavors, key pairs, quotas, aggregates, server groups."""
