"""From a trained model to one that runs elsewhere: folding, and export with verification."""

from cloverleaf.deploy.fuse import fuse

__all__ = ["fuse"]
