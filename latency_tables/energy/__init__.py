"""Energy of networks, from a real power meter: windows of a second or more, idle power subtracted."""
