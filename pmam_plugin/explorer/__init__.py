"""The prototype explorer: a page that shows and plays what every prototype of a run stands for."""

from pmam_plugin.explorer.collect import collect
from pmam_plugin.explorer.page import Excerpt, PrototypeIteration, PrototypeReport, write_prototype_report

__all__ = ["Excerpt", "PrototypeIteration", "PrototypeReport", "collect", "write_prototype_report"]
