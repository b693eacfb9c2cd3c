"""The how-to of the command line: its commands print what it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs/howto/command-line.md"


def read_blocks() -> list[tuple[str, str]]:
    """Return commands, and what stands in the block behind them, "" if there is none."""
    found = re.findall(r"^```(bash|text)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    blocks: list[tuple[str, str]] = []
    for kind, text in found:
        if kind == "bash":
            blocks.append((text, ""))
        else:
            blocks[-1] = (blocks[-1][0], text)
    return blocks


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash and coreutils")
@pytest.mark.skipif(os.sysconf("SC_PAGESIZE") != 4096, reason="counts pages of 4 KiB")
@pytest.mark.usefixtures("told_pages")
def test_commands_print_what_the_page_says(tmp_path: Path) -> None:
    """From top to bottom, in one folder."""
    python = f"{sys.executable} -P"
    prelude = f'set -e\nsparsearray() {{ {python} -m sparsearray "$@"; }}\npython() {{ {python} "$@"; }}\n'
    blocks = read_blocks()
    assert len(blocks) == 5
    for commands, expected in blocks:
        done = subprocess.run(
            ["bash", "-c", prelude + commands],  # noqa: S607
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == expected


def test_the_page_names_all_commands() -> None:
    """Those that the help lists."""
    command = [sys.executable, "-P", "-m", "sparsearray", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^    (\w+) ", shown, re.MULTILINE)
    assert len(commands) == 6
    for name in commands:
        assert f"| `sparsearray {name}" in PAGE.read_text()
