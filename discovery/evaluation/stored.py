"""The tables of claims that come with the package, and what they say. No JAX.

``kairos reproduce`` fills tables and draws them; this only reads, for whoever wants the numbers.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from discovery.config import ConfigError, nearest
from discovery.evaluation.papers import find, packaged

if TYPE_CHECKING:
    from discovery.evaluation.claims import Conclusion
else:  # it brings SciPy
    Conclusion = Any


def rows(claim: str, size: str = "", folder: str | Path | None = None) -> dict[str, list[Any]]:
    """All rows of a claim's tables.

    Args:
      claim: such as ``claim-1``; ``kairos list`` names them.
      size: by default the first that the claim has, ``cpu``.
      folder: of the tables, by default those of the package.

    Returns:
      Name of a table -> its rows, named tuples; none where nothing was measured yet.

    Raises:
      ConfigError: no such claim or size.
      TableError: a table is cut or of another kind.

    Example:
      >>> sorted(rows("claim-1"))
      ['levels', 'searches']
    """
    from discovery.evaluation import claims

    entry = find(claim)
    size = size or next(iter(entry.sizes))
    if size not in entry.sizes:
        raise ConfigError(nearest(size, entry.sizes, f"size of {claim}"))
    place = packaged() if folder is None else Path(folder)
    tables = importlib.import_module(entry.module).TABLES
    return {
        table.name: [
            row
            for row in claims.read(place / f"{claim}-{table.name}.csv", table.kind)
            if row.size == size
        ]
        for table in tables
    }


def conclusion(
    claim: str, tables: Mapping[str, Sequence[Any]] | None = None, size: str = ""
) -> Conclusion | None:
    """What a claim's tables say: words, tables for people, a figure.

    Args:
      claim: such as ``claim-1``.
      tables: rows by name, all or a part of what :func:`rows` gives; by default all.
      size: of the rows.

    Returns:
      The conclusion, or ``None`` if there are no rows.

    Raises:
      ConfigError: no such claim or size.
    """
    entry = find(claim)
    size = size or next(iter(entry.sizes))
    tables = rows(claim, size) if tables is None else tables
    if not any(tables.values()):
        return None
    found: Conclusion = importlib.import_module(entry.module).conclude(size, tables)
    return found


__all__ = ["conclusion", "rows"]
