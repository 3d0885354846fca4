"""What a model has learned and what it keeps of its input, as pictures and numbers."""

from cloverleaf.inspection.run import INSPECTIONS, InspectResult, inspect
from cloverleaf.inspection.subject import InspectOptions

__all__ = ["INSPECTIONS", "InspectOptions", "InspectResult", "inspect"]
