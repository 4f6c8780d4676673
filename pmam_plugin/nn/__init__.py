"""Blocks that models are built from, one idea each: layers and heads, masks, the moving average, low-rank adapters.

What they compute with is here too: geometry of intervals, precision, and the CPU's kernels.
"""
