"""Pages for people: what the coordinator's database says, live, and the changes that its commands make."""
