"""Random predictions of anchor-free heads, and their assignment by loops, for tests of assigners and losses."""

import torch

from cloverleaf.ops.points import cell_middles, level_sizes
from cloverleaf.structures import Targets


def dense_predictions(batch, size_hw, classes, strides=(8, 16, 32), per_cell=1, seed=0, dtype=torch.float32):
    """Logits ``(B, P, K)``, boxes ``(B, P, 4)`` in pixels and distances ``(B, P, 4)`` in cells."""
    rng = torch.Generator().manual_seed(seed)
    points, stride = points_of(size_hw, strides, per_cell, dtype)
    logits = torch.randn(batch, len(points), classes, generator=rng, dtype=torch.float64).to(dtype) - 1
    distances = 2 + torch.randn(batch, len(points), 4, generator=rng, dtype=torch.float64).to(dtype)
    boxes = torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1) * stride
    return logits, boxes, distances


def points_of(size_hw, strides, per_cell=1, dtype=torch.float32):
    """Middles in cells and strides of all positions: stride, then anchor, then row, then column."""
    points, stride = (part.to(dtype) for part in cell_middles(strides, size_hw))
    counts = [height * width for height, width in level_sizes(strides, size_hw)]
    both = torch.cat([part.repeat(per_cell, 1) for part in torch.cat((points, stride), 1).split(counts)])
    return both[:, :2], both[:, 2:]


def rows_of_points(found):
    """(image, position, target) -> score."""
    names = ("image_index", "position", "target_index")
    keys = zip(*(getattr(found, name).tolist() for name in names), strict=True)
    return dict(zip(keys, found.score.tolist(), strict=True))


def iou_of(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    areas = [max(x[2] - x[0], 0.0) * max(x[3] - x[1], 0.0) for x in (a, b)]
    return width * height / (sum(areas) - width * height + 1e-9)


def looped(targets, logits, boxes, strides, size_hw, candidates_of, overlap_of, score_of):
    """The assignment by the words of the publication, one image, object and position after the other.

    Args:
        candidates_of: (target, image) -> positions.
        overlap_of: (target, image, position) -> overlap that settles disputes.
        score_of: list of (target, position) of an image, image -> scores.
    """
    result = {}
    for image in range(targets.num_images):
        members = [t for t in range(len(targets)) if targets.image_index[t] == image]
        wanted = {}
        for target in members:
            for position in candidates_of(target, image):
                wanted.setdefault(position, []).append(target)
        pairs = []
        for position, takers in sorted(wanted.items()):
            best = takers[0]
            if len(takers) > 1:
                best = max(members, key=lambda t, p=position: (overlap_of(t, image, p), -t))
            pairs.append((best, position))
        for (target, position), score in zip(pairs, score_of(pairs, image), strict=True):
            result[image, position, target] = score
    return result


def looped_task_aligned(targets, logits, boxes, strides, size_hw, topk, per_cell=1):
    points, stride = points_of(size_hw, strides, per_cell, boxes.dtype)
    middles, wanted = (points * stride).tolist(), targets.boxes_xyxy.tolist()
    probability, predicted = logits.sigmoid().tolist(), boxes.tolist()

    def overlap(target, image, position):
        return iou_of(wanted[target], predicted[image][position])

    def metric(target, image, position):
        return probability[image][position][int(targets.labels[target])] * overlap(target, image, position) ** 6

    def candidates(target, image):
        x1, y1, x2, y2 = wanted[target]
        inside = [p for p, (x, y) in enumerate(middles) if min(x - x1, y - y1, x2 - x, y2 - y) > 1e-9]
        ranked = sorted(inside, key=lambda p: (-metric(target, image, p), p))[:topk]
        return [p for p in ranked if metric(target, image, p) > 0]

    def scores(pairs, image):
        values = {pair: (metric(pair[0], image, pair[1]), overlap(pair[0], image, pair[1])) for pair in pairs}
        for target, position in pairs:
            own = [value for pair, value in values.items() if pair[0] == target]
            best_metric, best_iou = max(m for m, _ in own), max(u for _, u in own)
            yield values[target, position][0] * best_iou / (best_metric + 1e-9)

    return looped(targets, logits, boxes, strides, size_hw, candidates, overlap, scores)


def looped_atss(targets, logits, boxes, strides, size_hw, topk):
    points, stride = points_of(size_hw, strides, 1, boxes.dtype)
    middles, half, predicted = (points * stride).tolist(), (2.5 * stride)[:, 0].tolist(), boxes.tolist()
    anchors = [(x - h, y - h, x + h, y + h) for (x, y), h in zip(middles, half, strict=True)]
    wanted = targets.boxes_xyxy.tolist()
    ends = torch.tensor([h * w for h, w in level_sizes(strides, size_hw)]).cumsum(0).tolist()

    def candidates(target, image):
        x1, y1, x2, y2 = wanted[target]
        near = []
        for start, end in zip([0, *ends], ends, strict=False):
            square = [((x - (x1 + x2) / 2) ** 2 + (y - (y1 + y2) / 2) ** 2) for x, y in middles[start:end]]
            near += [start + p for p in sorted(range(end - start), key=lambda p, s=square: (s[p], p))[:topk]]
        ious = torch.tensor([iou_of(anchors[p], wanted[target]) for p in near], dtype=torch.float64)
        limit = ious.mean() + ious.std() if len(ious) > 1 else ious.mean()
        good = [p for p, iou in zip(near, ious, strict=True) if iou > limit]
        return [
            p for p in good if min(middles[p][0] - x1, middles[p][1] - y1, x2 - middles[p][0], y2 - middles[p][1]) > 0
        ]

    def overlap(target, image, position):
        return iou_of(wanted[target], anchors[position])

    def scores(pairs, image):
        return [iou_of(wanted[target], predicted[image][position]) for target, position in pairs]

    return looped(targets, logits, boxes, strides, size_hw, candidates, overlap, scores)


def repeated(targets, index, image_index=None, num_images=None):
    """Some of the targets."""
    return Targets(
        targets.boxes_xyxy[index], targets.labels[index],
        targets.image_index[index] if image_index is None else image_index,
        targets.num_images if num_images is None else num_images,
    )  # fmt: skip
