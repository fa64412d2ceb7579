"""The server: a page and an HTTP API over one loaded deployment, with FastAPI of the extra `serve`.

`app` holds the routes, `live` the deployment, `jobs` the queue and `work` what one request asks
for; `server` listens. It asks no plugins.
"""

from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parent / "static"
"""The folder of the page, its style and its scripts; the gallery shares one of these."""
