"""The GPUs of this machine: what NVML says of them."""
