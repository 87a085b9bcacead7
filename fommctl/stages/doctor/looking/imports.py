"""Whether a package can be imported."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from fommctl.stages.doctor.child import describe


def look(what: str) -> dict[str, Any]:
    """what: DISTRIBUTION:MODULE. Returns the file of the module, and what its import raised."""
    module = what.partition(":")[2]
    spec = importlib.util.find_spec(module)
    try:
        importlib.import_module(module)
    except BaseException as error:  # SystemExit, too
        return {"file": spec.origin if spec else None, "error": describe(error)}
    return {"file": spec.origin if spec else None, "error": None}
