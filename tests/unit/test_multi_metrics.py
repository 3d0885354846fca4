"""What tags and embeddings are judged by: hand-worked cases, and definitions written as loops."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from cloverleaf.evaluation.retrieval import RANKS, retrieval_metrics
from cloverleaf.evaluation.tags import tag_metrics


def test_tags_worked_by_hand() -> None:
    """Tag a is ranked +-+-: AP (1 + 2/3) / 2; b is on no image; c is on all; d is wrong everywhere."""
    probabilities = np.array([[0.9, 0.7, 0.6, 0.1], [0.8, 0.2, 0.3, 0.9], [0.4, 0.1, 0.9, 0.2], [0.3, 0.0, 0.5, 0.8]])
    true = np.array([[1, 0, 1, 1], [0, 0, 1, 0], [1, 0, 1, 1], [0, 0, 1, 0]], np.float32)
    found = tag_metrics(probabilities, true, ("a", "b", "c", "d"))
    assert found.counts.tolist() == [2, 0, 4, 2]
    np.testing.assert_allclose(found.ap, [5 / 6, np.nan, 1, (1 / 3 + 2 / 4) / 2], rtol=1e-6)
    np.testing.assert_allclose(found.precision, [1 / 2, 0, 1, 0])
    np.testing.assert_allclose(found.recall, [1 / 2, np.nan, 3 / 4, 0])
    np.testing.assert_allclose(found.f1, [1 / 2, 0, 6 / 7, 0])
    assert found.values == pytest.approx({
        "tag_mAP": (5 / 6 + 1 + 5 / 12) / 3, "tag_F1": 8 / 16, "tag_F1_macro": (1 / 2 + 6 / 7) / 3,
        "tag_chance": (_mean_of_orders(4, 2) + 1 + _mean_of_orders(4, 2)) / 3,
    })  # fmt: skip
    assert tag_metrics(probabilities, true, ("a", "b", "c", "d"), threshold=0.95).values["tag_F1"] == 0


def _mean_of_orders(count: int, right: int) -> float:
    """Average precision of so many images, of which so many have the tag, over all their orders."""
    found = [[place for place, k in enumerate(order, 1) if k < right] for order in permutations(range(count))]
    return float(np.mean([np.mean([k / place for k, place in enumerate(places, 1)]) for places in found]))


def test_tags_are_average_precision_by_definition() -> None:
    """AP = sum over thresholds of (recall gained) x (precision); equal probabilities are one threshold."""
    rng = np.random.default_rng(0)
    probabilities, true = rng.integers(0, 8, (60, 3)) / 8, rng.random((60, 3)) < 0.3
    expected = []
    for tag in range(3):
        area, before = 0.0, 0.0
        for threshold in sorted(set(probabilities[:, tag]), reverse=True):
            said = probabilities[:, tag] >= threshold
            recall = (said & true[:, tag]).sum() / true[:, tag].sum()
            area += (recall - before) * (said & true[:, tag]).sum() / said.sum()
            before = recall
        expected.append(area)
    np.testing.assert_allclose(tag_metrics(probabilities, true, "abc").ap, expected, rtol=1e-5)


def test_nothing_to_judge_is_undefined() -> None:
    tags = tag_metrics(np.zeros((0, 2)), np.zeros((0, 2)), ("a", "b"))
    assert np.isnan(list(tags.values.values())).all() and tags.to_json()["tags"][0]["AP"] is None
    for objects in (0, 3):
        alone = retrieval_metrics(np.ones((objects, 4)), np.arange(objects), np.arange(objects))
        assert np.isnan(list(alone.values.values())).all() and alone.without_match == objects
        assert alone.to_json()["all"] == {
            "queries": 0, "R1": None, "R5": None, "R10": None, "retrieval_mAP": None,
            "chance": dict.fromkeys(("R1", "R5", "R10", "retrieval_mAP")),
        }  # fmt: skip


def _brute_force(values: np.ndarray, who: np.ndarray, where: np.ndarray) -> dict[int, list[tuple[float, bool, int]]]:
    """Every query's gallery as (cosine, match, row), best first."""
    ranked = {}
    for query in range(len(values)):
        gallery = []
        for other in range(len(values)):
            if who[query] >= 0 and who[other] >= 0 and where[other] != where[query]:
                cosine = values[query] @ values[other] / np.linalg.norm(values[query]) / np.linalg.norm(values[other])
                gallery.append((float(cosine), bool(who[other] == who[query]), other))
        if any(match for _, match, _ in gallery):
            ranked[query] = sorted(gallery, key=lambda row: -row[0])
    return ranked


def test_retrieval_equals_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloverleaf.evaluation.retrieval._VALUES_PER_BLOCK", 500)  # several blocks
    rng = np.random.default_rng(1)
    who, where = rng.integers(-1, 9, 70), rng.integers(0, 12, 70)
    who[3] = 50  # alone
    centres = rng.normal(size=(60, 6))
    values = (centres[who] + rng.normal(size=(70, 6))) * rng.uniform(0.1, 9, (70, 1))
    found = retrieval_metrics(values, who, where, trained=np.arange(4))
    ranked = _brute_force(values, who, where)

    def means(queries: list[int]) -> dict[str, float]:
        hits = {q: [match for _, match, _ in ranked[q]] for q in queries}
        means = {f"R{k}": np.mean([any(hits[q][:k]) for q in queries]) for k in RANKS}
        precisions = [
            np.mean([sum(row[: i + 1]) / (i + 1) for i, hit in enumerate(row) if hit]) for row in hits.values()
        ]
        return {**means, "retrieval_mAP": np.mean(precisions)}

    assert found.query.tolist() == list(ranked) and found.objects == (who >= 0).sum()
    assert found.without_match == found.objects - len(ranked) > 0
    assert found.all.values == pytest.approx(means(list(ranked)))
    for part, wanted in ((found.seen, True), (found.unseen, False)):
        assert part is not None and part.values == pytest.approx(means([q for q in ranked if (who[q] < 4) == wanted]))
    assert found.nearest.tolist() == [[row for _, _, row in ranked[q][:5]] for q in ranked]
    assert found.right.tolist() == [[match for _, match, _ in ranked[q][:5]] for q in ranked]
    np.testing.assert_allclose(found.similarity, [[s for s, _, _ in ranked[q][:5]] for q in ranked], atol=1e-5)


def test_chance_is_the_mean_of_all_orders() -> None:
    """One query, a gallery of five with two matches: by all 120 orders of the gallery."""
    who, where = np.array([7, 7, 7, 1, 2, 3]), np.array([0, 1, 2, 3, 4, 5])
    found = retrieval_metrics(np.eye(6), who, where)
    orders = [np.array(order) < 2 for order in permutations(range(5))]
    precision = [np.mean([hits[: i + 1].mean() for i in np.flatnonzero(hits)]) for hits in orders]
    assert found.all.queries == 3 and found.all.chance == pytest.approx({
        "R1": np.mean([hits[0] for hits in orders]), "R5": 1, "R10": 1, "retrieval_mAP": np.mean(precision)
    })  # fmt: skip
    assert retrieval_metrics(np.eye(2), np.zeros(2), np.arange(2)).all.chance["retrieval_mAP"] == 1


def test_objects_of_the_same_image_are_in_no_gallery() -> None:
    """The nearest of all is a twin in the same image, and places without a candidate are marked."""
    values = np.array([[1, 0], [1, 0], [0, 1], [0.9, 0.1]])
    found = retrieval_metrics(values, np.array([4, 5, 4, 6]), np.array([0, 0, 1, 1]))
    assert found.query.tolist() == [0, 2] and found.nearest.tolist() == [[3, 2, -1, -1], [0, 1, -1, -1]]
    assert found.right.tolist() == [[False, True, False, False], [True, False, False, False]]
    assert found.values == pytest.approx({"R1": 0.5, "R5": 1, "R10": 1, "retrieval_mAP": 0.75})
