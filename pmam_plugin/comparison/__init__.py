"""Comparisons: rows of one table, each an experiment with overrides, trained over seeds and held against each other."""

from pmam_plugin.comparison.page import write_comparison
from pmam_plugin.comparison.plan import Comparison, Row, Run, load_comparison
from pmam_plugin.comparison.statistics import markdown, summarise
from pmam_plugin.comparison.training import train_all

__all__ = ["Comparison", "Row", "Run", "load_comparison", "markdown", "summarise", "train_all", "write_comparison"]
