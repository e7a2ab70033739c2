"""``python -m convext info``."""

from __future__ import annotations

import convext


def print_info() -> int:
    """Prints build information and the kernels of this machine."""
    for name, value in convext.build_info().items():
        print(f"{name + ':':<20} {', '.join(value) if isinstance(value, list) else value}")
    for device, machine in (("cpu", "CPU"), ("cuda", "machine")):
        kernels = convext.available_kernels(device, all_isas=True)
        if not kernels:
            continue
        print(f"\n{device.upper()} kernels, in the order in which they are tried:")
        for kernel in kernels:
            note = "" if kernel.available else f"  (not on this {machine})"
            print(f"  {kernel.qualified_name:<24} {kernel.description}{note}")
    return 0
