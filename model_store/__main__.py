"""`python -m model_store` is `kdiffe`."""

import sys

from model_store.command import main

sys.exit(main())
