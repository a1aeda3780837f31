"""How every command ends: one line for an error, an exit code that says what happened, a traceback only if asked."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer import core
from typer.exceptions import TyperException

from koinon.domain.errors import KoinonError

INTERRUPTED = 130


class Root(core.TyperGroup):
    """The whole command. `--debug` may stand anywhere; errors of Koinon and of usage become one line."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        given = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in given or bool(os.environ.get("KOINON_DEBUG"))
        given = [argument for argument in given if argument != "--debug"]
        extra.update(standalone_mode=False)
        extra["prog_name"] = self.name
        try:
            code = super().main(given, *rest, **extra)
        except KoinonError as error:
            if debug:
                raise
            _show(error, as_json="--json" in given)
            code = error.exit_code
        except TyperException as error:
            if error.format_message().startswith("Usage:"):  # a noun without a verb: its help
                print(error.format_message())
            else:
                _show(usage(error), as_json="--json" in given)
            code = 2
        except (typer.Abort, KeyboardInterrupt):
            print("\nStopped.", file=sys.stderr)
            code = INTERRUPTED
        except BrokenPipeError:
            # The reader (head, less) has seen enough; Python must not complain at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except Exception as error:
            if debug:
                raise
            _show(_bug(error), as_json="--json" in given)
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


def usage(error: TyperException) -> KoinonError:
    """A usage error as Koinon's errors are: what, where, what to do."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "koinon"
    what = error.format_message().strip()
    what += "" if what.endswith((".", "?")) else "."
    return KoinonError(what, where=command, todo=f"See {command} --help")


def _bug(error: Exception) -> KoinonError:
    if isinstance(error, OSError) and error.strerror:
        return KoinonError(f"{error.strerror}.", where=str(error.filename or "koinon"))
    return KoinonError(
        f"This is a mistake of Koinon itself ({type(error).__name__}: {error}).",
        where="koinon",
        todo="Run the command again with --debug and file what it prints.",
    )


def _show(error: KoinonError, *, as_json: bool) -> None:
    if as_json:
        text = json.dumps(
            {"error": {"code": error.slug(), "what": error.what, "where": error.where, "todo": error.todo}}
        )
    else:
        text = " ".join(str(error).split())
    print(text, file=sys.stderr)
