"""Open JupyterLab on a copy of the notebooks, or the page of all explorers: on this machine only, with a token.

python -m kit.lab                    JupyterLab, on my_notebooks/00_start_here.ipynb
python -m kit.lab --refresh          the same, with every notebook fresh; yours are kept in my_notebooks/before
python -m kit.lab --play             one page with all explorers, no code
python -m kit.lab --no-browser ...   anything else is passed on to JupyterLab
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kit.lab import copies

ROOT = Path(__file__).resolve().parents[2]
COPIES = "my_notebooks"
FIRST = f"/lab/tree/{COPIES}/00_start_here.ipynb"
PLAY = "/voila/render/kit/lab/play.ipynb"


def command(play: bool, more: Sequence[str]) -> list[str]:
    """Return the arguments for JupyterLab."""
    root = getattr(os, "geteuid", lambda: 1)() == 0  # in a container one often is, and Jupyter then wants to be told
    return [
        *(
            "--ServerApp.ip=localhost",
            f"--ServerApp.root_dir={ROOT}",
            f"--LabApp.default_url={PLAY if play else FIRST}",
        ),
        *(["--allow-root"] if root else []),
        *more,
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m kit.lab", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--refresh", action="store_true", help="begin again with every notebook; yours are kept")
    parser.add_argument("--play", action="store_true", help="one page with all explorers, no code")
    options, more = parser.parse_known_args(arguments)
    try:
        said = copies.bring(ROOT / "notebooks", ROOT / COPIES, refresh=options.refresh)
    except OSError as error:
        parser.exit(1, f"{error}\n")
    for line in said:
        sys.stderr.write(line + "\n")
    from jupyterlab.labapp import main as lab

    lab(command(options.play, more))


if __name__ == "__main__":
    main()
