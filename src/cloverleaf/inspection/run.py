"""All inspections of a model, and the folder that they leave."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cloverleaf import atomic
from cloverleaf.errors import ConfigError, suggest
from cloverleaf.inspection import decoder, inversion, similarity
from cloverleaf.inspection.finding import Finding, Inspection
from cloverleaf.inspection.subject import InspectOptions, Subject, open_model, read_squares
from cloverleaf.models.detector import Detector
from cloverleaf.predict.device import resolve_device
from cloverleaf.predict.results import make_folder

FILE = "inspect.json"
INSPECTIONS: Mapping[str, Inspection] = {
    "inversion": Inspection(inversion.refusal, inversion.run),
    "decoder": Inspection(decoder.refusal, decoder.run),
    "similarity": Inspection(similarity.refusal, similarity.run),
}


@dataclass(frozen=True, slots=True)
class InspectResult:
    """What was found.

    Attributes:
        folder: with pictures and ``inspect.json``.
        findings: by kind.
        left_out: kinds that do not apply, and why.
    """

    folder: Path
    findings: Mapping[str, Finding]
    left_out: Mapping[str, str]


def inspect(
    model: str | os.PathLike[str] | Detector,
    images: Sequence[str | os.PathLike[str]],
    output: Path,
    options: InspectOptions | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> InspectResult:
    """Look into a model: what its backbone keeps of images, and how alike its maps are.

    Args:
        model: a weights file, a name (freshly initialised then) or a detector.
        images: files, folders or globs.
        output: folder for pictures and ``inspect.json``; made if missing.
        options: see there.
        say: told about the progress.

    Raises:
        CheckpointError, UnknownModelError: there is no such model.
        ConfigError: options that do not fit the model or each other.
        DataError: no images, or the folder cannot be made.
    """
    options = options or InspectOptions()
    _check(options)
    device = resolve_device(options.device)
    name, detector = open_model(model, options.seed)
    stride = detector.max_stride
    if options.image_size < stride or options.image_size % stride:
        raise ConfigError(
            f"image size {options.image_size} does not fit {name}", f"its coarsest map has stride {stride}",
            f"use a multiple of {stride}, such as {max(options.image_size // stride, 1) * stride}",
        )  # fmt: skip
    pictures, sources = read_squares(images, options.image_size, options.max_images, say)
    subject = Subject(name, detector.to(device), pictures, sources, device)
    left_out = {kind: reason for kind, one in INSPECTIONS.items() if (reason := one.refusal(subject))}
    for kind in options.only or ():
        if kind in left_out:
            raise ConfigError(f"{kind} is not possible here", left_out[kind], "choose such a model, or another kind")
    folder = make_folder(output)
    findings: dict[str, Finding] = {}
    for kind in options.only or INSPECTIONS:
        if kind not in left_out:
            say(f"{kind} ...")
            findings[kind] = INSPECTIONS[kind].run(subject, options, folder, say)
    shown = {kind: why for kind, why in left_out.items() if options.only is None}
    _write(folder / FILE, subject, options, findings, shown)
    return InspectResult(folder, findings, shown)


def _check(options: InspectOptions) -> None:
    """Refuse what is unknown or has no effect."""
    for kind in options.only or ():
        if kind not in INSPECTIONS:
            raise ConfigError(f"no inspection {kind!r}", "it is not one of them", suggest(kind, INSPECTIONS))
    if options.only is not None and "decoder" not in options.only:
        for option, value in (("fit_decoder", options.fit_decoder), ("compare", options.compare)):
            if value is not None:
                raise ConfigError(
                    f"--{option.replace('_', '-')} has no effect", "decoders are not among --only",
                    "add decoder there, or leave it out",
                )  # fmt: skip


def _write(
    path: Path, subject: Subject, options: InspectOptions, findings: Mapping[str, Finding], left_out: Mapping[str, str]
) -> None:
    facts = {
        "model": subject.name,
        "options": asdict(options),
        "images": list(subject.sources),
        **{kind: {"notes": list(one.notes), **one.facts} for kind, one in findings.items()},
        "left_out": dict(left_out),
    }
    atomic.write_json(path, facts, indent=2)
