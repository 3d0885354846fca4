"""All inspections of a model, and the folder that they leave."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cloverleaf import atomic
from cloverleaf.errors import ConfigError, suggest
from cloverleaf.inspection import decoder, implicit, inversion, similarity
from cloverleaf.inspection.finding import Finding, Inspection
from cloverleaf.inspection.subject import InspectOptions, Subject, no_squares, open_model, read_squares
from cloverleaf.models.detector import Detector
from cloverleaf.predict.device import resolve_device
from cloverleaf.predict.results import make_folder, new_folder

FILE = "inspect.json"
INSPECTIONS: Mapping[str, Inspection] = {
    "inversion": Inspection(inversion.refusal, inversion.run),
    "decoder": Inspection(decoder.refusal, decoder.run),
    "similarity": Inspection(similarity.refusal, similarity.run),
    "implicit": Inspection(implicit.refusal, implicit.run, needs_images=False),
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
    images: Sequence[str | os.PathLike[str]] = (),
    output: Path | None = None,
    options: InspectOptions | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> InspectResult:
    """Look into a model: what it has learned, what its backbone keeps of images, and how alike its maps are.

    Args:
        model: a weights file, a name (freshly initialised then) or a detector.
        images: files, folders or globs; without any, only what is learned can be shown.
        output: folder for pictures and ``inspect.json``, made if missing; None for a new one in ``runs``.
        options: see there.
        say: told about the progress.

    Raises:
        CheckpointError, UnknownModelError: there is no such model.
        ConfigError: options that do not fit the model or each other.
        DataError: no images, or the folder cannot be made.
    """
    options = options or InspectOptions()
    _check(options, bool(images))
    device = resolve_device(options.device)
    opened = [open_model(one, options.seed) for one in (model, options.compare) if one is not None]
    for name, detector in opened if images else ():
        _check_size(name, detector, options.image_size)
    pictures, sources = (
        read_squares(images, options.image_size, options.max_images, say) if images else no_squares(options.image_size)
    )
    subjects = [Subject(name, detector.to(device), pictures, sources, device) for name, detector in opened]
    subject = replace(subjects[0], compared=subjects[1]) if len(subjects) > 1 else subjects[0]
    left_out = _left_out(subject, options)
    folder = make_folder(output) if output is not None else new_folder(Path("runs/inspect"))
    findings: dict[str, Finding] = {}
    for kind in options.only or INSPECTIONS:
        if kind not in left_out:
            say(f"{kind} ...")
            findings[kind] = INSPECTIONS[kind].run(subject, options, folder, say)
    _write(folder / FILE, subject, options, findings, left_out)
    return InspectResult(folder, findings, left_out)


def _left_out(subject: Subject, options: InspectOptions) -> dict[str, str]:
    """Kinds that do not apply and why; refuses those that were asked for by name, and options that are for them."""
    wanted = options.only or tuple(INSPECTIONS)
    left_out = {kind: reason for kind in wanted if (reason := _refusal(kind, subject, options))}
    asked = {*(options.only or ()), *(["decoder"] if options.fit_decoder or options.compare else [])}
    for kind, reason in left_out.items():
        if kind in asked or len(left_out) == len(wanted):
            raise ConfigError(f"{kind} is not possible here", reason, "choose what fits, or leave it out")
    return left_out


def _refusal(kind: str, subject: Subject, options: InspectOptions) -> str | None:
    if INSPECTIONS[kind].needs_images and not subject.sources:
        return "it looks at images and none are given; name some with --images"
    return INSPECTIONS[kind].refusal(subject, options)


def _check_size(name: str, detector: Detector, side: int) -> None:
    stride = detector.max_stride
    if side < stride or side % stride:
        raise ConfigError(
            f"image size {side} does not fit {name}", f"its coarsest map has stride {stride}",
            f"use a multiple of {stride}, such as {max(side // stride, 1) * stride}",
        )  # fmt: skip


def _check(options: InspectOptions, with_images: bool) -> None:
    """Refuse what is unknown or has no effect."""
    usual = InspectOptions()
    for option in ("image_size", "max_images"):
        if not with_images and getattr(options, option) != getattr(usual, option):
            raise ConfigError(
                f"--{option.replace('_', '-')} has no effect", "no images are given",
                "name some with --images, or leave it out",
            )  # fmt: skip
    if options.only is not None and len(set(options.only)) != max(len(options.only), 1):
        raise ConfigError(
            f"--only {','.join(options.only)!r} is not valid", "it names a kind twice, or none",
            f"choose from {', '.join(INSPECTIONS)}, or leave it out for all",
        )  # fmt: skip
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
