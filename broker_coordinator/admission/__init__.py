"""Messages and a view of the fleet in, a typed decision out. Pure."""
