"""The embedded dataset: scenes of shapes, drawn from a seed, and clips in which the same individuals move."""

from cloverleaf.data.procedural.clips import make_clips
from cloverleaf.data.procedural.make import MARKER, make_shapes
from cloverleaf.data.procedural.shapes import SHAPES

__all__ = ["MARKER", "SHAPES", "make_clips", "make_shapes"]
