"""The command `metier`: its subcommands, and what exit codes and messages every ending gets.

Exit codes: 0 done, 1 a gate said no, 2 wrong input, 3 interrupted and resumable, 70 a bug (EX_SOFTWARE of sysexits.h).
"""

from __future__ import annotations

import gc
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, NoReturn

import typer

import metier
from metier.cli import (
    attention,
    audit,
    chat,
    comply,
    data,
    demo,
    doctor,
    export,
    gateway,
    import_config,
    init,
    packs,
    plan,
    release,
    run,
    serve,
    sweep,
    trace,
    vault,
)
from metier.errors import MetierError

__all__ = ["app", "main"]

_STOPPED = 3
_BUG = 70
_TYPER_STOPPED = 130
"""What typer makes of KeyboardInterrupt: 128 + SIGINT."""

_COLLECT_AFTER = (100_000, 20, 50)
"""Objects between two looks for cycles, and looks between those at older objects. Python's own (700, 10, 10) look some hundred times at the
million objects of a large vocabulary while it is being read: half of the seconds that this takes, and a fifth of those of the imports.
"""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(init.init)
app.command()(run.run)
app.add_typer(data.app, name="data")
app.command()(run.train)
app.command()(run.evaluate)
app.command()(attention.attention)
app.command()(plan.plan)
app.command()(sweep.sweep)
app.command()(comply.comply)
app.command()(comply.approve)
app.command()(release.release)
app.command()(release.releases)
app.command()(export.export)
app.command()(trace.trace)
app.command()(chat.chat)
app.add_typer(audit.app, name="audit")
app.command()(serve.serve)
app.add_typer(serve.keys, name="keys")
app.command("import-config")(import_config.import_config)
app.add_typer(packs.app, name="packs")
app.add_typer(vault.app, name="vault")
app.command()(gateway.gateway)
app.command()(demo.demo)
app.command()(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"metier {metier.__version__}")
        raise typer.Exit


@app.callback()
def root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")] = False) -> None:
    """Make a measured domain expert of a language model: data, training, evaluation, on this machine."""


class _Signals:
    """Turns SIGTERM into what Ctrl-C is, and remembers that one of them came, whatever a library made of it."""

    def __init__(self) -> None:
        self.came = False

    def listen(self) -> None:
        """Take over SIGINT and SIGTERM."""
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> NoReturn:
        self.came = True
        raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    gc.set_threshold(*_COLLECT_AFTER)
    signals = _Signals()
    signals.listen()
    code = _call(list(sys.argv[1:] if arguments is None else arguments), signals)
    if code == _STOPPED:
        _say("stopped; everything finished is kept; run the same command to go on")
    sys.exit(code)


def _call(arguments: list[str], signals: _Signals) -> int:
    try:
        code = app(arguments, prog_name="metier", standalone_mode=False)
    except KeyboardInterrupt:
        return _STOPPED
    except MetierError as error:
        if signals.came:
            return _STOPPED
        _say(f"error: {error}")
        return error.exit_code
    except typer.TyperException as error:
        _say(f"error: {error.format_message()}\n    -> metier --help, or --help after the command")
        return 2
    except Exception:  # noqa: BLE001 - the outermost edge
        if signals.came:
            return _STOPPED
        _say(f"{traceback.format_exc()}\nthis is a bug of metier {metier.__version__}; please report it with the lines above")
        return _BUG
    return _STOPPED if code == _TYPER_STOPPED else int(code or 0)


def _say(text: str) -> None:
    typer.echo(text, err=True)


if __name__ == "__main__":
    main()
