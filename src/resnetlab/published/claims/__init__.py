"""The published claims as data, and the verdict of runs on each: holds, does not hold, cannot tell.

`claims()` lists them, `group_runs(collection)` groups runs by configuration, `judge(claims, groups)` decides.
"""

from resnetlab.published.claims.data import Claim, Part, claims
from resnetlab.published.claims.run_groups import RunGroup, group_runs
from resnetlab.published.claims.verdicts import Verdict, judge

__all__ = ["Claim", "Part", "RunGroup", "Verdict", "claims", "group_runs", "judge"]
