"""What every test shares: few threads, so that tests beside each other do not fight for the cores."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("steady", deadline=None, derandomize=True)  # the same examples everywhere, at any speed
settings.load_profile("steady")
