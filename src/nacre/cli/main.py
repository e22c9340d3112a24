"""The `nacre` command. Each subcommand's module is imported when it is asked for, so that `--help` costs nothing."""

import importlib
import sys

import click

from nacre.base.errors import Interrupted, NacreError

#: Name -> (module, attribute, one line of help; "": not listed).
COMMANDS = {
    "up": ("nacre.cli.up", "up", "Start the cloud on this machine."),
    "control": ("nacre.cli.processes.run", "control", "Run a further control process, over the cloud's PostgreSQL."),
    "token": ("nacre.cli.processes.join", "token", "Tokens by which machines become hosts of the cloud."),
    "join": ("nacre.cli.processes.join", "join", "Make this machine a host of a cloud, with a token of it."),
    "down": ("nacre.cli.up", "down", "Stop the cloud's processes; servers keep running."),
    "status": ("nacre.cli.status", "status", "Show what runs, and whether it answers."),
    "demo": ("nacre.cli.demo", "demo", "From nothing to a shell in a guest."),
    "doctor": ("nacre.cli.doctor", "doctor", "Check this machine; each failure names its cure."),
    "plan": ("nacre.cli.plan", "plan", "Show where servers would go now, or why not."),
    "trace": ("nacre.cli.trace", "trace", "Show where a server's time went."),
    "simulate": ("nacre.cli.simulate", "simulate", "Many simulated hosts under load, in virtual time."),
    "db": ("nacre.cli.database", "db", "The database's schema."),
    "host": ("nacre.cli.hosts", "host", "The hosts: list, drain, remove, accept; orphans, adopt, forget."),
    "keys": ("nacre.cli.keys", "keys", "The keys of tokens, credentials and joins: list, rotate, reseal."),
    "supervise": ("nacre.cli.supervisor", "supervise", ""),
    "node": ("nacre.cli.processes.run", "node", ""),
}


class Commands(click.Group):
    """The group, over the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, (_, _, text) in COMMANDS.items() if text]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items() if text])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nacre")
def group() -> None:
    """Nacre: a whole compute cloud. Start with `nacre up`."""


def main() -> None:
    """The entry point: errors of ours are one line, not a traceback."""
    try:
        group(prog_name="nacre")
    except (NacreError, Interrupted) as error:
        from nacre.cli.client import plain

        lines = error.message.split("\n")  # ours; whatever else a terminal obeys may be another's
        click.echo("nacre: " + "\n".join(plain(line) for line in lines), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
