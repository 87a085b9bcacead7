"""The version of the interface between fommctl and its plugins, and which plugins it suits.

A plugin states the version that it was written for beside its hooks: `fommctl_api = "1.0"`. The version follows
Semantic Versioning apart from that of fommctl: the minor number rises when something is added that a plugin may ask
for, the major number when something is removed or changed. What is to be removed warns (DeprecationWarning) for one
minor version at least.
"""

from __future__ import annotations

import re

API_VERSION = "1.0"
"""Of this fommctl."""
DECLARATION = "fommctl_api"
"""The name that a plugin declares its version under."""
FIRST = "1.0"
"""What a plugin without a declaration is taken to be written for."""
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")


def version_fault(declared: object, offered: str = API_VERSION) -> str | None:
    """Why a plugin with this declaration cannot be used where API `offered` is, as one short phrase, or None.

    It can where the major numbers are equal and the plugin's minor number is not above the offered one.
    """
    found = _VERSION.fullmatch(declared) if isinstance(declared, str) else None
    if found is None:
        return f"{DECLARATION} is {declared!r}, not a version as text, such as {DECLARATION} = {offered!r}"
    wanted, own = ((int(major), int(minor)) for major, minor in (found.groups(), offered.split(".")))
    if wanted[0] == own[0] and wanted[1] <= own[1]:
        return None
    advice = "upgrade fommctl" if wanted > own else "upgrade the plugin"
    return f"it was made for version {declared} of the plugin API, and this fommctl offers {offered}: {advice}"
