"""Devices that programs run on beside the CPU, and how they are driven."""
