"""What administrators see of the hosts: services, hypervisors, aggregates, availability zones."""
