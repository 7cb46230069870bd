"""`edgeflock simulate --docker`: a fleet in containers, each with what its profile says that the device has."""
