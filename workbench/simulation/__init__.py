"""A fleet in virtual time: the shipped cores of agents and coordinator on a discrete-event clock."""
