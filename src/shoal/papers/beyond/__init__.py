"""Questions the papers leave open: how wide the basins are, how many samples it takes."""
