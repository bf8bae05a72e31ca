"""What a number is: aliases that carry a unit into the API's description.

Belongs here: units and the bounds of questions. Does not: rows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

Usd = Annotated[float, Meta(description="US dollars")]
Fraction = Annotated[float, Meta(description="a fraction: 0.01 is 1 %")]
Share = Annotated[float, Meta(description="a share, 0 to 1")]
Probability = Annotated[float, Meta(description="a probability, 0 to 1")]
Coins = Annotated[float, Meta(description="coins of the symbol")]
Score = Annotated[float, Meta(description="0 to 100")]
Pressure = Annotated[float, Meta(description="-100 to +100; positive: net outflow from exchanges")]
Seconds = Annotated[float, Meta(description="seconds")]
Time = Annotated[datetime, Meta(description="UTC, RFC 3339; by the clock of the world unless the field says otherwise")]
Open = Annotated[dict[str, Any], Meta(description="an object whose keys may grow")]

Side = Literal["long", "short"]
Severity = Literal["CRITICAL", "WARNING", "INFO", "NONE", "UNKNOWN"]
Step = Literal["1m", "5m", "1h"]

STEP_SECONDS: Final[dict[str, int]] = {"1m": 60, "5m": 300, "1h": 3600}
MOST_BUCKETS: Final = 2200
"""90 days of hours, and no answer larger than that."""
