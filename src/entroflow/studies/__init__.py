"""Studies on Ray: tasks × algorithms × settings × seeds, and searches of settings, on one machine or many."""

from .report import Outcome
from .study import Needs, Search, Study, Trial, read

__all__ = ["Needs", "Outcome", "Search", "Study", "Trial", "read"]
