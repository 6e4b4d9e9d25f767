"""From a planned case to steps: healthy ones to learn from, then what the case is about, then rest.

Whole traces are sampled in a fleet, so a case's judged steps are samples: one every
:data:`PERIOD_S` seconds on the clock that metrics and logs share, :data:`STRIDE` step numbers
apart. A fault that lasts one judged step was there for one such period.
"""

from __future__ import annotations
