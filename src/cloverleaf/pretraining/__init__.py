"""Masked-image pre-training of backbones (SparK, arXiv 2301.03580; as Gold-YOLO uses it, arXiv 2309.11331)."""
