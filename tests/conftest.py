"""What holds for all tests: programs are compiled in each run, and not taken from disk."""

import os

os.environ.setdefault("MAPSTO_CACHE_LIMIT", "0")
