"""The gather-and-distribute neck of Gold-YOLO (arXiv 2309.11331), one file per mechanism."""
