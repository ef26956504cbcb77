"""Where the tree lies: beside this package in a clone, in `app` under it in an installation; and how to import from it.

Its top-level names (`model`, `errors`, `sources`, ...) collide with other people's. So the tree is first on the path
only while its modules are imported, and last afterwards, which is enough for what they import later.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HERE = Path(__file__).resolve().parent
#: Directory of `model.py` and the rooms.
TREE = _HERE / "app" if (_HERE / "app" / "cli.py").is_file() else _HERE.parent


@contextmanager
def first(*names: str) -> Iterator[None]:
    """Put the tree first on the path for as long as the block runs, last afterwards.

    Args:
        names: Top-level modules that are going to be imported from it.

    Raises:
        ImportError: Another module with one of these names was imported already.
    """
    for name in names:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if module is not None and not (file and Path(file).resolve().is_relative_to(TREE)):
            raise ImportError(f"another module named {name!r} was imported before gleand's own ({file or 'built in'})")
    sys.path.insert(0, str(TREE))
    try:
        yield
    finally:
        sys.path.remove(str(TREE))
        if str(TREE) not in sys.path:
            sys.path.append(str(TREE))
