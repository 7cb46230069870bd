"""A simulated fleet whose updates are summed behind masks: the shipped coordinator and mask helpers in virtual time."""
