"""`python -m dograph` is the `dograph` command."""

import sys
from pathlib import Path

if not getattr(sys.flags, "safe_path", False) and Path(sys.path[0]) == Path.cwd():
    del sys.path[0]  # a recipe must not find code in the folder that the command happens to run in

from dograph.cli import main

sys.exit(main())
