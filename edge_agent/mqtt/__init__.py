"""Connections to MQTT brokers: the fleet's, and a local one that readings come from."""
