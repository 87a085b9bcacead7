"""Video, image and sound files. The only place that imports PyAV; import the module you need, not the package."""

from typing import Literal

Deinterlace = Literal["auto", "off", "field"]
"""auto: interlaced frames become whole pictures at their own rate; field: at twice that, one a field; off: woven."""
