"""Objectives: each a pure function with a thin module over it."""
