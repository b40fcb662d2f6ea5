"""`python -m dograph` is the `dograph` command."""

import os
import sys

if sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109 — pathlib might be found there
    del sys.path[0]  # no code of the folder that the command happens to run in

from dograph.cli.main import main

sys.exit(main())
