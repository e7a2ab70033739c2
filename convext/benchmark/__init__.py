"""The benchmark behind ``python -m convext bench``.

One idea to a module: `shapes` reads the layers of networks from files, `suite` makes jobs of them, `workload` makes a
job's tensors, `peers` holds the other libraries, `timing` times functions in turns, `machine` measures peak and
bandwidth, `runner` turns a job into results, `report` and `pictures` show them.
"""
