"""Tracks: numbers that stay with individuals, files that are whole, scores that are right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import documented
from cloverleaf.data.mot import MotTable, mot_line, read_mot
from cloverleaf.data.procedural import make_clips
from cloverleaf.data.video_io import read_timed_frames, write_video
from cloverleaf.deploy.suppression import Suppression
from cloverleaf.errors import CloverleafError, ConfigError, DataError
from cloverleaf.models.catalog import create_model
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.predict.predictor import Predictor
from cloverleaf.structures import Detections
from cloverleaf.tracking.footage import open_footage
from cloverleaf.tracking.job import TrackJob, TrackOutcome, run_tracks
from cloverleaf.tracking.options import TrackOptions
from cloverleaf.tracking.scores import combined, score_tracks
from cloverleaf.tracking.setup import parse_appearance, tracking_predictor
from cloverleaf.tracking.tracker import Tracker, settled
from cloverleaf.weights.format import save
from multi_finder import MultiFinder

NAMES = tuple(f"kind {k}" for k in range(16))
FRAMES = 40


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips") / "made", seed=1, clips=2, frames=FRAMES, size=160, images=100)


class Oracle:
    """Stands for a predictor: the truth of a clip, frame after frame, shifted a little, with embeddings or without."""

    task = "detect"

    def __init__(self, truth: MotTable, *, embedded: bool) -> None:
        self.engine = SimpleNamespace(info=SimpleNamespace(name="oracle", embedding_strides=(8,) if embedded else ()))
        self._truth, self._frame = truth, 0
        rng = np.random.default_rng(0)
        self._looks = rng.normal(size=(400, 16)) if embedded else None
        self._rng = rng

    def detect(self, pictures: list[Any]) -> list[Detections]:
        return [self._next(picture.original_hw) for picture in pictures]

    def _next(self, image_hw: tuple[int, int]) -> Detections:
        self._frame += 1
        rows = (self._truth.frames == self._frame) & (self._truth.visibility > 0.15)
        xyxy = self._truth.xyxy[rows] + self._rng.normal(0, 0.5, (int(rows.sum()), 4))
        return found_at(
            xyxy, 0.2 + 0.7 * self._truth.visibility[rows], self._truth.classes[rows] - 1,
            None if self._looks is None else self._looks[self._truth.ids[rows]], image_hw,
        )  # fmt: skip


def found_at(
    xyxy: Any, scores: Any, labels: Any, looks: Any = None, image_hw: tuple[int, int] = (160, 160)
) -> Detections:
    order = np.argsort(-np.asarray(scores, np.float32))
    embeddings = None
    if looks is not None:
        looks = np.asarray(looks, np.float32)
        embeddings = (looks / np.linalg.norm(looks, axis=1, keepdims=True))[order]
    return Detections(
        np.asarray(xyxy, np.float32).reshape(-1, 4)[order], np.asarray(scores, np.float32)[order],
        np.asarray(labels, np.int64)[order], NAMES, image_hw, embeddings=embeddings,
    )  # fmt: skip


def tracked(frames: list[Detections], options: TrackOptions | None = None) -> list[list[int]]:
    tracker = Tracker(fps=25, options=options)
    return [seen.ids.tolist() for _, seen in settled((None, tracker.update(found)) for found in frames)]


def crossing(embedded: bool) -> list[Detections]:
    """One goes right and stops behind a pillar for two seconds; another of its class leaves there to the right."""
    here, there = np.array([20, 40, 50, 70]), np.array([90, 40, 120, 70])
    right, down = np.array([1, 0, 1, 0]), np.array([0, 60, 0, 60])
    boxes = [(here + 2 * k * right, [1, 0]) for k in range(20)]
    boxes += [(there + k * right, [0, 1]) for k in range(20)]
    boxes += [(there + down + (20 - k) * right, [1, 0]) for k in range(20)]
    frames = [found_at([box], [0.9], [3], [look] if embedded else None) for box, look in boxes]
    empty = found_at(np.zeros((0, 4)), [], [], np.zeros((0, 2)) if embedded else None)
    return [*frames[:20], *[empty] * 3, *frames[20:40], *[empty] * 50, *frames[40:]]


def test_embeddings_know_an_individual_again_where_motion_does_not() -> None:
    motion, looks = tracked(crossing(embedded=False)), tracked(crossing(embedded=True))
    assert [motion[k] for k in (0, 30, 110)] == [[1], [1], [2]]  # goes on as another, comes back as a third
    assert [looks[k] for k in (0, 30, 110)] == [[1], [2], [1]]
    assert tracked(crossing(embedded=True), TrackOptions(appearance=0)) == motion
    assert [tracked(crossing(embedded=True), TrackOptions(memory=1))[k] for k in (30, 110)] == [[2], [3]]


def test_every_frame_of_a_track_has_its_number_and_single_sights_have_none() -> None:
    box = np.array([20, 40, 50, 70])
    frames = [found_at([box + k], [0.9], [3]) for k in range(6)]
    frames[3] = found_at([box + 3, [100, 100, 130, 130]], [0.9, 0.8], [3, 3])
    assert tracked(frames) == [[1]] * 6
    weak = [found_at([box + k], [0.2], [3]) for k in range(6)]
    assert tracked(weak) == [[]] * 6  # weak detections begin no track,
    assert tracked([*frames[:3], *weak[3:]]) == [[1]] * 6  # but continue one
    changed = [found_at([box + k], [0.9], [3 + k // 3]) for k in range(6)]
    assert tracked(changed)[5] == [2] and tracked(changed, TrackOptions(across_classes=True))[5] == [1]
    twice = [found_at([box + k] * 2, [0.9, 0.8], [3, 4]) for k in range(6)]  # one box of two classes
    assert [sorted(ids) for ids in tracked(twice)] == [[1, 2]] * 6


@pytest.mark.parametrize("bad", [{"start": 0}, {"appearance": 1.5}, {"same": 1}, {"memory": -1}])
def test_options_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        TrackOptions(**bad)
    with pytest.raises(ConfigError, match="--appearance on is not known"):
        parse_appearance("on")


def test_scores_of_the_truth_are_one_and_a_switch_costs(clips: Path) -> None:
    truth = read_mot(clips / "clip-01" / "gt" / "gt.txt")
    perfect = score_tracks(truth, truth, FRAMES)
    for one in (perfect, combined([perfect, perfect])):
        assert (one.hota, one.deta, one.assa, one.mota, one.idf1, one.switches) == pytest.approx((1, 1, 1, 1, 1, 0))
    rows = np.column_stack([truth.frames, truth.ids, truth.xywh, truth.scores, truth.classes, truth.visibility])
    first = rows[0, 1]
    rows[(rows[:, 1] == first) & (rows[:, 0] > FRAMES // 2), 1] = 999
    switched = score_tracks(truth, MotTable.from_rows(rows), FRAMES)
    assert switched.switches == 1 and switched.deta == pytest.approx(1) and switched.assa < 1 > switched.idf1
    assert switched.tracks == perfect.tracks + 1 == perfect.individuals + 1
    rows[:, 7] += 1
    assert score_tracks(truth, MotTable.from_rows(rows), FRAMES).hota == pytest.approx(0, abs=0.2)
    assert score_tracks(truth, MotTable.from_rows(rows), FRAMES, across_classes=True).deta == pytest.approx(1)
    nothing = score_tracks(truth, MotTable.from_rows([]), FRAMES)
    assert (nothing.hota, nothing.mota, nothing.idf1, nothing.tracks) == (0, 0, 0, 0)


def test_scores_by_hand() -> None:
    """Two frames, one individual, seen in both under two numbers, and a box on something that is not counted."""
    truth = MotTable.from_rows([[f, 1, 0, 0, 10, 10, 1, 1, 1] for f in (1, 2)] + [[1, 2, 50, 50, 10, 10, 0, 1, 0.1]])
    found = MotTable.from_rows([[1, 5, 0, 0, 10, 10, 1, 1, -1], [2, 6, 0, 0, 10, 10, 1, 1, -1],
                                [1, 7, 50, 50, 10, 10, 1, 1, -1]])  # fmt: skip
    scores = score_tracks(truth, found, 2)
    assert scores.deta == pytest.approx(1) and scores.assa == pytest.approx(1 / 2)  # each: 1 / (1 + 1 missed + 0 wrong)
    assert scores.hota == pytest.approx(np.sqrt(1 / 2)) and scores.mota == pytest.approx(1 - 1 / 2)
    assert scores.idf1 == pytest.approx(2 * 1 / (2 + 2)) and scores.precision == pytest.approx(1)


def track_clips(clips: Path, folder: Path, *, embedded: bool, **job: Any) -> TrackOutcome:
    truths = [clips / f"clip-0{k}" / "gt" / "gt.txt" for k in (1, 2)]
    outcome = TrackOutcome()
    for k, truth in enumerate(truths, 1):
        oracle: Any = Oracle(read_mot(truth), embedded=embedded)
        one = TrackJob(folder / str(k), TrackOptions(), truths=(truth,), **job)
        source = clips / f"clip-0{k}" / f"clip-0{k}.mp4"
        outcome.scores.update(run_tracks(oracle, [source], one, lambda text: None).scores)
    return outcome


def test_files_of_a_run(clips: Path, tmp_path: Path) -> None:
    scores = track_clips(clips, tmp_path, embedded=True, json_file=True).scores
    motion = track_clips(clips, tmp_path / "motion", embedded=False, video=False).scores
    together, alone = combined(list(scores.values())), combined(list(motion.values()))
    assert together.idf1 > alone.idf1 + 0.03 and together.assa > alone.assa and together.switches < alone.switches
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == [
        "clip-01.json", "clip-01.mp4", "clip-01.txt", "scores.json",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "motion" / "1").iterdir()) == ["clip-01.txt", "scores.json"]
    content = json.loads((tmp_path / "1" / "clip-01.json").read_text())
    assert [frame["time"] for frame in content["frames"]] == [round(k / 25, 4) for k in range(FRAMES)]
    table = read_mot(tmp_path / "1" / "clip-01.txt")
    assert [(frame["frame"] + 1, track["id"]) for frame in content["frames"] for track in frame["tracks"]] == list(
        zip(table.frames.tolist(), table.ids.tolist(), strict=True)
    )
    assert {track["id"]: track["frames"] for track in content["tracks"]} == dict(
        zip(*(column.tolist() for column in np.unique(table.ids, return_counts=True)), strict=True)
    )
    drawn = [pixels for _, pixels in read_timed_frames(tmp_path / "1" / "clip-01.mp4")]
    plain = [pixels for _, pixels in read_timed_frames(clips / "clip-01" / "clip-01.mp4")]
    assert len(drawn) == FRAMES and all(
        (np.abs(a.astype(int) - b).max() > 60) == bool(len(frame["tracks"]))
        for a, b, frame in zip(drawn, plain, content["frames"], strict=True)
    )
    assert json.loads((tmp_path / "1" / "scores.json").read_text())["clip-01"] == scores["clip-01"].rounded()


def test_folders_of_frames_are_videos_too(clips: Path, tmp_path: Path) -> None:
    truth = clips / "clip-01" / "gt" / "gt.txt"
    oracle: Any = Oracle(read_mot(truth), embedded=False)
    lines: list[str] = []
    run_tracks(
        oracle, [clips / "clip-01"], TrackJob(tmp_path, TrackOptions(), video=False, truths=(truth,)), lines.append
    )
    assert f"{FRAMES} frames" in lines[0] and (tmp_path / "clip-01.txt").is_file()
    assert open_footage(clips / "clip-01").fps == 25 == open_footage(clips / "clip-01" / "img1").fps
    assert open_footage(clips / "clip-01" / "img1", fps=10).fps == 10


def empty_video(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def cut_video(path: Path) -> Path:
    with write_video(path, (64, 64), 25) as write:
        for k in range(30):
            write(np.full((64, 64, 3), 8 * k, np.uint8))
    path.write_bytes(path.read_bytes()[:-600])  # its index stands at the end
    return path


def mixed_frames(path: Path) -> Path:
    path.mkdir()
    for k, side in enumerate((64, 64, 80)):
        cv2.imwrite(str(path / f"{k}.png"), np.zeros((side, 64, 3), np.uint8))
    return path


def broken_frame(path: Path) -> Path:
    path.mkdir()
    cv2.imwrite(str(path / "1.png"), np.zeros((64, 64, 3), np.uint8))
    (path / "2.png").write_text("no image")
    return path


def no_frames(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize("make", [empty_video, cut_video, mixed_frames, broken_frame, no_frames, lambda path: path])
def test_bad_videos_are_told_and_leave_no_file(tmp_path: Path, make: Callable[[Path], Path], clips: Path) -> None:
    source = make(tmp_path / "bad.mp4")
    folder = tmp_path / "out"
    folder.mkdir()
    good = clips / "clip-01" / "img1"
    oracle: Any = Oracle(read_mot(clips / "clip-01" / "gt" / "gt.txt"), embedded=False)
    lines: list[str] = []
    outcome = run_tracks(oracle, [source, good], TrackJob(folder, TrackOptions(), json_file=True), lines.append)
    assert [item.source for item in outcome.unreadable] == [str(source)] and "not tracked" in lines[0]
    assert sorted(path.name for path in folder.iterdir()) == ["img1.json", "img1.mp4", "img1.txt"]


def test_nothing_found_is_no_error(tmp_path: Path, clips: Path) -> None:
    oracle: Any = Oracle(MotTable.from_rows([]), embedded=False)
    lines: list[str] = []
    truth = clips / "clip-01" / "gt" / "gt.txt"
    job = TrackJob(tmp_path, TrackOptions(), json_file=True, truths=(truth,))
    outcome = run_tracks(oracle, [clips / "clip-01" / "clip-01.mp4"], job, lines.append)
    assert "no tracks" in lines[0] and outcome.scores["clip-01"].hota == 0
    assert (tmp_path / "clip-01.txt").read_text() == ""
    assert json.loads((tmp_path / "clip-01.json").read_text())["tracks"] == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"truths": ("gt", "gt")}, ConfigError, "2 truths for 1 videos"),
        ({"truths": ("late",)}, DataError, "does not belong to the video"),
        ({"truths": ("uncounted",)}, DataError, "counts no box"),
        ({"truths": ("none",)}, DataError, "cannot read"),
        ({"fps": 0.0}, ConfigError, "out of range"),
        ({"fps": 30.0}, ConfigError, "--fps has no effect"),
        ({"need_embeddings": True}, ConfigError, "gives no embeddings"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_written(
    tmp_path: Path, clips: Path, change: dict[str, Any], error: type[CloverleafError], message: str
) -> None:
    files = {"gt": clips / "clip-01" / "gt" / "gt.txt"}
    for name, line in (("late", mot_line(999, 1, [0, 0, 5, 5], 1)), ("uncounted", mot_line(1, 1, [0, 0, 5, 5], 0))):
        files[name] = tmp_path / f"{name}.txt"
        files[name].write_text(line)
    if "truths" in change:
        change = {"truths": tuple(files.get(name, tmp_path / name) for name in change["truths"])}
    folder = tmp_path / "out"
    folder.mkdir()
    oracle: Any = Oracle(read_mot(files["gt"]), embedded=False)
    with pytest.raises(error, match=message):
        run_tracks(
            oracle, [clips / "clip-01" / "clip-01.mp4"], TrackJob(folder, TrackOptions(), **change), lambda text: None
        )
    assert not list(folder.iterdir())


def test_a_model_of_several_tasks_follows_by_its_embeddings(tmp_path: Path) -> None:
    """Through a real video and predictor: two colours take turns in one place."""
    colours = {0: (255, 255, 120), 1: (255, 120, 255)}
    with write_video(tmp_path / "turns.mp4", (96, 96), 10) as write:
        for k in range(36):
            frame = np.full((96, 96, 3), 20, np.uint8)
            if k % 12 >= 4:
                frame[30:70, 20 + k : 60 + k] = colours[k // 12 % 2]
            write(frame)
    numbers = []
    for options in (TrackOptions(), TrackOptions(appearance=0)):
        predictor = Predictor(MultiFinder(), confidence=0.5, image_size=96)  # type: ignore[arg-type]
        run_tracks(predictor, [tmp_path / "turns.mp4"], TrackJob(tmp_path, options, video=False), lambda text: None)
        table = read_mot(tmp_path / "turns.txt")
        numbers.append({int(frame - 1) // 12: int(one) for frame, one in zip(table.frames, table.ids, strict=True)})
    assert numbers == [{0: 1, 1: 2, 2: 1}, {0: 1, 1: 1, 2: 1}]


def test_across_classes_an_object_has_one_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file has suppressed its boxes already, class by class, they stay as they are."""
    narrow = {"backbone": {"width": 0.125}, "neck": {"width": 0.125}, "head": {"width": 0.125}}
    save(create_model("elan-tiny+elan-pan+anchor", num_classes=3, **narrow), tmp_path / "model.safetensors")
    found = [tracking_predictor(tmp_path / "model.safetensors", across_classes=across) for across in (False, True)]
    assert [predictor.class_agnostic for predictor in found] == [False, True]

    engine = found[0].engine
    engine.info = replace(engine.info, suppression=Suppression(confidence=0.05))
    monkeypatch.setattr("cloverleaf.tracking.setup.open_engine", lambda *_, **__: engine)
    assert not tracking_predictor("model.onnx", across_classes=True).class_agnostic


def test_documented_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    head = {"boxes": {"type": "anchor", "width": 0.125}, "tags": False, "embedding_dim": 8}
    narrow_parts = {"backbone": {"width": 0.125}, "neck": {"width": 0.125}, "head": head}
    model = create_model("elan-tiny+elan-pan+multi", num_classes=16, **narrow_parts)
    Path("runs/multi/weights").mkdir(parents=True)
    facts = WeightsMetadata(class_names=NAMES, image_size=64, task="multi")
    save(model, Path("runs/multi/weights/best.safetensors"), metadata=facts)

    def narrow(words: list[str]) -> list[str]:
        return [*words, "--clips", "2", "--frames", "4", "--size", "64"] if words[0] == "data" else words

    done: list[list[str]] = []
    documented.run_commands(documented.text_from("tracking.md", "Use"), narrow, done.append)
    assert [words[1] for words in done] == ["data", "track", "track", "track"]
    assert set(json.loads(Path("scored/scores.json").read_text())) == {"clip-01", "clip-02", "all"}
    assert Path("runs/track/clip-01.mp4").is_file() and not Path("motion-only/clip-01.mp4").exists()
    documented.run_snippets(documented.text_from("tracking.md", "From Python"))
