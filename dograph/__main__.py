"""`python -m dograph` is the `dograph` command."""

import sys

from dograph.cli import main

sys.exit(main())
