"""Check what a run rests on, before it begins: params.yaml, and a git repository with a commit."""

import subprocess
import sys

from contract.errors import ContractError
from contract.params import load_params


def main() -> None:
    try:
        load_params()
    except ContractError as error:
        sys.exit(f"ERROR: {error}")
    head = ["git", "rev-parse", "--quiet", "--verify", "HEAD"]
    if subprocess.run(head, capture_output=True).returncode:
        sys.exit(
            "ERROR: this folder is no git repository with a commit, which DVC needs. "
            "Make one: git init && git add --all && git commit --message start"
        )


if __name__ == "__main__":
    main()
