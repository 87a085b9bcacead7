"""Video, image and sound files. The only place that imports PyAV; import the module you need, not the package."""

from typing import Literal

Deinterlace = Literal["auto", "off", "field"]
"""auto: one whole picture per interlaced frame; field: one per field, at twice the rate; off: frames stay woven."""
