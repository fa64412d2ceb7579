"""Image files, read and written with everything a photo carries; nothing else knows their formats.

`photo` holds the types and formats, `reader` and `writer` the two directions; the other modules
serve those two.
"""

from abair.images.photo import OUTPUT_SUFFIXES, SUFFIXES, Photo, output_suffix
from abair.images.reader import probe, probe_format, read
from abair.images.writer import check_output, finish, write

__all__ = [
    "OUTPUT_SUFFIXES",
    "SUFFIXES",
    "Photo",
    "check_output",
    "finish",
    "output_suffix",
    "probe",
    "probe_format",
    "read",
    "write",
]
