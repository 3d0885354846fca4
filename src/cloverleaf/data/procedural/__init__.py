"""The embedded dataset: scenes of shapes, drawn from a seed."""

from cloverleaf.data.procedural.make import MARKER, make_shapes
from cloverleaf.data.procedural.shapes import SHAPES

__all__ = ["MARKER", "SHAPES", "make_shapes"]
