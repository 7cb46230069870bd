"""`edgeflock demo`: broker, coordinator and agents, as shipped, learn on this machine for a minute."""
