"""What operators and networks cost on a device: profiles, measured tables, the profiler."""

from hwnas.latency_tables.device import Device, list_devices, load_device

__all__ = ["Device", "list_devices", "load_device"]
