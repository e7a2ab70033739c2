"""``python -m convext info``."""

from __future__ import annotations

import convext


def print_info() -> int:
    """Prints build information and the kernels of this machine."""
    for name, value in convext.build_info().items():
        print(f"{name + ':':<20} {', '.join(value) if isinstance(value, list) else value}")
    print("\nkernels, in the order in which they are tried:")
    for kernel in convext.available_kernels(all_isas=True):
        note = "" if kernel.available else "  (not on this CPU)"
        print(f"  {kernel.qualified_name:<24} {kernel.description}{note}")
    return 0
