"""Two runs never write to one folder."""

from __future__ import annotations

import multiprocessing
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import cloverleaf as cl
from cloverleaf.errors import ConfigError, DataError
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.recipes.resolve import resolve
from cloverleaf.training.checkpoint import check_same_labels
from cloverleaf.training.config_io import nest, write_config
from cloverleaf.training.run_dir import create, held
from cloverleaf.weights.format import save

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no locks on folders")


def test_a_folder_is_held_by_one_run_and_by_none_of_its_loader_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    done = context.Event()
    with held(tmp_path):
        worker = context.Process(target=done.wait, args=(60,))
        worker.start()
        with pytest.raises(ConfigError, match="in use by another process"), held(tmp_path):
            pytest.fail("held twice")
    try:
        with held(tmp_path):  # the worker still lives
            assert worker.is_alive() and not list(tmp_path.iterdir())
    finally:
        done.set()
        worker.join()
    with pytest.raises(ZeroDivisionError), held(tmp_path):
        raise ZeroDivisionError
    with held(tmp_path), held(tmp_path / "missing"):
        pass


def test_a_run_that_goes_on_is_not_resumed(tmp_path: Path) -> None:
    config, _ = resolve(nest({"data.source": str(tmp_path), "output": str(tmp_path / "run")}), recipe="small")
    create(tmp_path / "run")
    write_config(config, tmp_path / "run" / "config.yaml")
    with held(tmp_path / "run"), pytest.raises(ConfigError, match="in use by another process"):
        cl.train(output=tmp_path / "run", resume=True)


def test_a_run_is_not_resumed_on_other_labels(tmp_path: Path) -> None:
    began = WeightsMetadata(class_names=("a",), tag_names=("dim", "warm"), identities=(1, 2))
    check_same_labels(tmp_path, began)  # no epoch has ended yet
    (tmp_path / "weights").mkdir()
    model = cl.create_model("csp-tiny+c2f-pan+dense", num_classes=1, backbone={"width": 0.125}, neck={"width": 0.125})
    save(model, tmp_path / "weights" / "last.safetensors", metadata=began)
    check_same_labels(tmp_path, began)
    for changes, words in (({"identities": (1, 3)}, "identities"), ({"tag_names": ("warm", "dim")}, "tag names")):
        with pytest.raises(DataError, match=words):
            check_same_labels(tmp_path, replace(began, **changes))
