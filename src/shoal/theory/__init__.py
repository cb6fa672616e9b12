"""Theorems in numbers: what they ask for, what they promise, what is measured."""
