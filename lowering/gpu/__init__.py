"""Kernels for GPUs: mapping of loops to blocks and threads, verification, LLVM text for devices."""
