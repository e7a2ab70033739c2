"""The commands of ``python -m convext``, a file each."""
