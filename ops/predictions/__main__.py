"""Look after the prediction log: read it, take from it, attach what came true."""

import argparse
import os
import sys
from collections.abc import Sequence

from contract.errors import ContractError
from contract.predictions.settings import LogSettings
from contract.settings import read_settings
from ops.predictions import export, migrate, prune, recover, ship, stats, tail, truth
from ops.predictions.command import CommandError

COMMANDS = {
    "migrate": migrate,
    "ship": ship,
    "recover": recover,
    "export": export,
    "prune": prune,
    "truth": truth,
    "tail": tail,
    "stats": stats,
}
INTERRUPTED = 130  # as shells tell of Ctrl-C


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ops.predictions", description=(__doc__ or "").splitlines()[0]
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        purpose = (module.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=purpose, description=purpose)
        command.set_defaults(run=module.run)
        module.add_arguments(command)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal may not know a category's letters
    try:
        options.run(options, read_settings(LogSettings))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (ContractError, CommandError, OSError) as error:
        sys.exit(f"ERROR: {error}")


if __name__ == "__main__":
    main()
