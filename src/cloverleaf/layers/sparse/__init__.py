"""Sparse convolution emulated by dense operators that know which cells are visible (SparK, arXiv 2301.03580)."""
