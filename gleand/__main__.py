"""The launcher: puts the tree first on the path, since top-level `daemon` and `api` collide with other people's."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    """Run the command line; returns the exit code. The tree is `gleand/app` in a wheel, the parent in a clone."""
    here = Path(__file__).resolve().parent
    root = here / "app"
    sys.path.insert(0, str(root if (root / "cli.py").is_file() else here.parent))
    import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
