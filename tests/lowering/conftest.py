"""Programs that the tests of the tensor IR share with those of the native code."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "ir"))
