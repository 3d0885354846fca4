"""Readers of annotation formats: COCO JSON, YOLO text, Pascal VOC XML; each streams the same records."""
