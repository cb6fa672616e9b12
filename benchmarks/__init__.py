"""Measurements that take longer than a test should. Run from the root of the repository."""
