"""Writers of annotation formats: COCO JSON, YOLO text, Pascal VOC XML."""
