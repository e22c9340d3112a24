"""A cloud of simulated hosts under virtual time: the load on it and what is measured. The commands build the cloud."""
