"""Statements with many rows, run by the driver: Core writes them once, and its work for each row is left out.

Transactions, errors and events are SQLAlchemy's all the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Executable
from sqlalchemy.sql.compiler import SQLCompiler

Row = dict[str, Any]  # Any: column values
_Process = Callable[[Any], Any] | None  # Any: column values


def run_many(conn: Connection, stmt: Executable, rows: Sequence[Row]) -> int:
    """Run a statement for each row; all have the same names. Returns how many rows of the database it met."""
    compiled = _compiled(stmt, conn.dialect, tuple(rows[0]))
    if compiled is None:
        return int(conn.execute(stmt, rows).rowcount)
    sql, how = compiled
    given = [tuple([row[name] if process is None else process(row[name]) for name, process in how]) for row in rows]
    return int(conn.exec_driver_sql(sql, given).rowcount)


@functools.lru_cache(maxsize=64)
def _compiled(
    stmt: Any, dialect: Dialect, names: tuple[str, ...]
) -> tuple[str, tuple[tuple[str, _Process], ...]] | None:  # Any: Executable has no compile
    """The text, and for each of its places the name and what makes a value of the driver's; None: places have names."""
    compiled: SQLCompiler = stmt.compile(dialect=dialect, column_keys=list(names))
    if compiled.positiontup is None or set(compiled.positiontup) != set(names):
        return None
    types = ((name, compiled.binds[name].type) for name in compiled.positiontup)
    return str(compiled), tuple((name, kind.dialect_impl(dialect).bind_processor(dialect)) for name, kind in types)
