"""``python -m afterdetail`` is the command line."""

from __future__ import annotations

import sys

from afterdetail.cli.main import main

sys.exit(main())
