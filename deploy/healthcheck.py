"""Exit with 0 if a page of this container answers 200: /health/ready of its API, or the URL that is given."""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection
from urllib.parse import urlsplit

given = sys.argv[1] if len(sys.argv) > 1 else f"http://127.0.0.1:{os.environ['PORT']}/health/ready"
url = urlsplit(given)
connection = HTTPConnection(url.hostname or "127.0.0.1", url.port, timeout=3)
try:
    connection.request("GET", url.path)
    answer = connection.getresponse()
except OSError as error:
    sys.exit(f"{given} does not answer: {error}")
if answer.status != 200:
    sys.exit(f"{given} answers {answer.status}: {answer.read(1000).decode(errors='replace')}")
