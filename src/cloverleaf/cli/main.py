"""The `cloverleaf` command: one thin file per verb, put together here; user errors are printed without a traceback."""

from __future__ import annotations

import errno
import logging
import sys
from typing import Annotated

import typer

from cloverleaf import __version__
from cloverleaf.cli.ablate import ablate
from cloverleaf.cli.data import app as data_app
from cloverleaf.cli.demo import demo
from cloverleaf.cli.export import export
from cloverleaf.cli.import_ import import_
from cloverleaf.cli.info import info
from cloverleaf.cli.inspect import inspect
from cloverleaf.cli.merge import merge
from cloverleaf.cli.models import models
from cloverleaf.cli.predict import predict
from cloverleaf.cli.pretrain import pretrain
from cloverleaf.cli.track import track
from cloverleaf.cli.train import train
from cloverleaf.cli.val import val
from cloverleaf.errors import CloverleafError, ConfigError, UnknownModelError

app = typer.Typer(
    name="cloverleaf",
    help="Train, judge and use real-time object detectors whose parts compose.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cloverleaf {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command("demo")(demo)
app.command("train")(train)
app.command("pretrain")(pretrain)
app.command("val")(val)
app.command("predict")(predict)
app.command("track")(track)
app.command("ablate")(ablate)
app.add_typer(data_app, name="data")
app.command("export")(export)
app.command("merge")(merge)
app.command("import")(import_)
app.command("info")(info)
app.command("inspect")(inspect)
app.command("models")(models)


_DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENAMETOOLONG,
}  # fmt: skip


def main() -> None:
    """Run the command line: exit code 0 good, 1 the work failed, 2 wrong usage."""
    logging.getLogger("cloverleaf").setLevel(logging.INFO)
    if logging.lastResort is not None:  # writes to whatever stderr is then, which a live display may have taken over
        logging.lastResort.setLevel(logging.INFO)
    try:
        app()
    except CloverleafError as error:
        _show(error)
        sys.exit(2 if isinstance(error, ConfigError | UnknownModelError) else 1)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        what = "a file or folder cannot be used" if error.filename is None else f"cannot use {error.filename}"
        _show(CloverleafError(what, str(error.strerror), "check the path, its permissions and the free disk space"))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _show(error: CloverleafError) -> None:
    """What, why and what to do, on stderr."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    console.print(Text(f"error: {error.what}", style="bold red"))
    if error.why:
        console.print(Text(f"  why: {error.why}"))
    if error.fix:
        console.print(Text(f"  fix: {error.fix}", style="green"))


if __name__ == "__main__":
    main()
