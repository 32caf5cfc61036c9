"""The layers that hold an untrusted process, one file each; Linux on x86-64 and aarch64, through ctypes alone."""
