"""The published claims as data, and what runs say of each: holds, does not hold, cannot tell.

`claims()` all of them, `pooled(folders)` the runs, `judge(claims, pools)` the verdicts.
"""

from resnetlab.claims.data import Claim, Part, claims
from resnetlab.claims.judge import Verdict, judge
from resnetlab.claims.pools import Pool, pooled

__all__ = ["Claim", "Part", "Pool", "Verdict", "claims", "judge", "pooled"]
