"""Clips of the embedded set's individuals: the same from the same seed, and true about who is where."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cloverleaf.data.mot import MotTable, mot_line, read_mot
from cloverleaf.data.procedural import make_clips
from cloverleaf.data.procedural.individuals import make_individuals
from cloverleaf.data.video_io import read_timed_frames
from cloverleaf.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips") / "made", seed=4, clips=2, frames=32, size=128, images=100)


def test_the_same_seed_draws_the_same_clips_and_another_other_ones(made: Path, tmp_path: Path) -> None:
    again = make_clips(tmp_path / "again", seed=4, clips=1, frames=32, size=128, images=100)
    for name in ("gt/gt.txt", "img1/000001.jpg", "img1/000032.jpg"):
        assert (again / "clip-01" / name).read_bytes() == (made / "clip-01" / name).read_bytes()
        assert (made / "clip-02" / name).read_bytes() != (made / "clip-01" / name).read_bytes()
    longer = make_clips(tmp_path / "again", seed=4, clips=1, frames=34, size=128, images=100)  # replaces its own
    assert len(list((longer / "clip-01" / "img1").iterdir())) == 34


def test_truth_is_about_the_individuals_of_the_embedded_set(made: Path) -> None:
    people = {person.identity: person for person in make_individuals(4, 4)}  # 100 images have four of a class
    for clip in ("clip-01", "clip-02"):
        truth = read_mot(made / clip / "gt" / "gt.txt")
        assert all(people[i].label + 1 == label for i, label in zip(truth.ids, truth.classes, strict=True))
        assert truth.frames.min() == 1 and truth.frames.max() == 32 and len(set(truth.ids.tolist())) >= 6
        assert np.all(truth.xyxy >= 0) and np.all(truth.xyxy <= 128)
        assert np.all((truth.scores > 0) == (truth.visibility >= 0.3))
        assert truth.visibility.min() < 0.7, "somebody is hidden"


def test_boxes_hold_their_individuals(made: Path) -> None:
    """Where an object's box is, the frame differs from another frame in which nobody is there."""
    truth = read_mot(made / "clip-01" / "gt" / "gt.txt")
    frames = [cv2.imread(str(path)).astype(float) for path in sorted((made / "clip-01" / "img1").iterdir())]
    ground = np.median([frame / frame.mean() for frame in frames], axis=0)
    inside, outside = [], []
    for number, frame in enumerate(frames, 1):
        covered = np.zeros(frame.shape[:2], bool)
        for x1, y1, x2, y2 in truth.xyxy[truth.frames == number].astype(int):
            covered[y1:y2, x1:x2] = True
        difference = np.abs(frame / frame.mean() - ground).mean(2)
        inside.append(difference[covered].mean())
        outside.append(difference[~covered].mean())
    assert np.mean(inside) > 2.5 * np.mean(outside)


def test_video_has_every_frame_at_its_time(made: Path) -> None:
    timed = list(read_timed_frames(made / "clip-01" / "clip-01.mp4"))
    assert [round(time, 6) for time, _ in timed] == [round(k / 25, 6) for k in range(32)]
    still = cv2.imread(str(made / "clip-01" / "img1" / "000020.jpg"))[:, :, ::-1]
    assert np.abs(timed[19][1].astype(float) - still).mean() < 6


def test_wrong_values_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 clips"):
        make_clips(tmp_path / "none", clips=0)
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(DataError, match="not empty"):
        make_clips(tmp_path)


def test_mot_files_survive_a_round_trip(tmp_path: Path) -> None:
    rows = [[2, 7, 1.25, 2, 30.5, 40, 0.9, 3, 0.5], [1, 9, 0, 0, 12345.67, 1, 1, -1, -1]]
    path = tmp_path / "rows.txt"
    path.write_text("\n".join(MotTable.from_rows(rows).lines()))
    back = read_mot(path)
    assert (
        back.lines() == path.read_text().splitlines() == ["1,9,0,0,12345.67,1,1,-1,-1", "2,7,1.25,2,30.5,40,0.9,3,0.5"]
    )
    path.write_text("1,1,5,6,7,8,0.5,-1,-1,-1\n\n2,1,5,6,7,8\n")  # MOTChallenge's results, and the fewest columns
    assert read_mot(path).scores.tolist() == [0.5, 1] and read_mot(path).classes.tolist() == [-1, -1]
    path.write_text("")
    assert len(read_mot(path)) == 0
    path.write_text(mot_line(1, 1, [3, 4, 0.004, 7], 0.5))  # thinner than a line can say
    assert read_mot(path).xywh.tolist() == [[3, 4, 0.01, 7]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,1,0,0,5", "line 1 has 5 columns"),
        ("1,1,0,0,5,5\n1,x,0,0,5,5", "line 2 is no row of numbers"),
        ("0,1,0,0,5,5", "line 1 is out of range"),
        ("1,1,0,0,nan,5", "out of range"),
        ("1,1,0,0,0,5", "out of range"),
        ("1e12,1,0,0,5,5", "frames are whole numbers from 1 to 10000000"),
        ("1,1e30,0,0,5,5", "out of range"),
        ("1,1,0,0,5,5,1,2.5,1", "classes whole numbers"),
        ("3,1,0,0,5,5\n3,1,9,9,5,5", "track 1 has two boxes in frame 3"),
    ],
)
def test_wrong_mot_files_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_mot(path)
