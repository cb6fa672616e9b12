"""Recovery of planted dictionaries, shoal beside its peers, in process-CPU seconds.

`datasets` makes the worlds, each file of `solvers` is one method, `objective` runs and clocks
it, `table` and `figure` show the rows. A new method is one file in `solvers`.
"""
