"""`edgeflock demo`: a broker, a coordinator and a fleet of agents on this machine, as shipped, learning for a minute."""
