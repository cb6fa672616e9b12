"""Nguyen, Wong and Hegde 2018/2019: what Theorems 3 and 4 promise, and what happens."""
