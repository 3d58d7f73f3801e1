"""Entry point of ``python -m sslosses.evaluate``."""

import sys

from sslosses.evaluate.command import main

sys.exit(main())
