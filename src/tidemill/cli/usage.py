"""Wrong usage of the command line as errors of the catalog: one sentence, with the nearest name that exists."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import typer
from typer.core import TyperGroup

from tidemill.errors import ConfigError
from tidemill.resources import checkout

PROGRAM = "./tidemill" if checkout() else "tidemill"
_LEAST_SIMILAR = 0.4
"""Of difflib's ratio, 0 to 1: from here on a name may be what a person meant."""


class Commands(TyperGroup):
    """A group of commands that answers an unknown name with the nearest one."""

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> tuple[str | None, object, list[str]]:  # type: ignore[override]
        """The command that the first word names, and the words after it.

        Raises:
            ConfigError: there is no such command.
        """
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            raise ConfigError(
                "TM-CLI-UNKNOWN-COMMAND", value=args[0], hint=nearest(args[0], known), command=ctx.command_path
            )
        return super().resolve_command(ctx, args)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most similar, as the beginning of a remedy; empty if none is similar."""
    similar = get_close_matches(name, list(known), n=1, cutoff=_LEAST_SIMILAR)
    return f"the nearest is {similar[0]}; " if similar else ""


def usage_error(error: typer.TyperException) -> ConfigError:
    """What typer rejects in the words of the command line, as an error of the catalog."""
    context: typer.Context | None = getattr(error, "ctx", None)
    command = context.command_path if context is not None else PROGRAM
    # Typer exports no class for an unknown option; only that error lists possibilities.
    option = getattr(error, "option_name", None) if hasattr(error, "possibilities") else None
    if option is not None and context is not None:
        known = [name for parameter in context.command.get_params(context) for name in parameter.opts]
        return ConfigError("TM-CLI-UNKNOWN-OPTION", value=option, hint=nearest(option, known), command=command)
    message = " ".join(error.format_message().split()).rstrip(".")
    return ConfigError("TM-CLI-USAGE", value=message[:1].lower() + message[1:], command=command)
