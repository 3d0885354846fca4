"""Augmentation: pure functions of a `Sample` and of numbers that were drawn before."""
