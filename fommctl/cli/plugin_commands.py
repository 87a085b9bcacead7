"""Commands of plugins: listed by --help from their specs, built when they are called."""

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

from fommctl.errors import FommctlError

if TYPE_CHECKING:
    from fommctl.host import Host

PANEL = "Commands of plugins"
logger = logging.getLogger("fommctl.cli")


class GroupWithPlugins(TyperGroup):
    """The built-in commands, then those of plugins. The host is loaded only where a plugin's command may be meant."""

    @cached_property
    def host(self) -> "Host":
        from fommctl.host import load_host

        host = load_host(check=False)
        for name in sorted(set(host.names("command")) & set(self.commands)):
            owner = host.owner("command", name)
            logger.warning("the command %r of %s is left out: fommctl has one of this name", name, owner)
        return host

    def list_commands(self, ctx: Any) -> list[str]:
        return [*self.commands, *(name for name in self.host.names("command") if name not in self.commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """For --help and completion: of a plugin's command only its name and summary, for building it may be slow."""
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        if cmd_name not in self.host.names("command"):
            return None
        spec = self.host.commands.get(cmd_name)
        summary = spec.summary if spec else "Offered by two plugins: see 'fommctl plugins list'."
        return TyperCommand(cmd_name, help=summary, rich_help_panel=PANEL)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """For a call: builds the command of a plugin."""
        name = args[0]
        if name in self.commands or name not in self.host.names("command"):
            return super().resolve_command(ctx, args)
        build = self.host.find("command", name).build
        try:
            command = typer.main.get_command(build())
        except FommctlError:
            raise
        except Exception as error:
            owner = self.host.owner("command", name)
            message = f"the command {name!r} of {owner} cannot be built: {type(error).__name__}: {error}"
            raise FommctlError(message, "Tell the authors of the plugin; --debug shows the traceback.") from error
        # A typer application of its own would offer to install the completion of the whole program.
        command.params = [each for each in command.params if each.name not in ("install_completion", "show_completion")]
        return name, command, args[1:]
