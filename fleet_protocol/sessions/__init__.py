"""Sessions of split learning: what a device and its helper say to each other, and how it passes the relay. Pure.

`device_end.DeviceEnd` is a session at its device, `helper_sessions.HelperSessions` are all of one helper; what they
send each other are the messages of `steps`.
"""
