"""`resnetlab published --claims`: the runs below folders, judged, and printed with what they are."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from resnetlab.claims.data import claims
from resnetlab.claims.judge import Verdict, judge
from resnetlab.claims.pools import Pool, pooled
from resnetlab.claims.printing import print_csv, print_json, print_table
from resnetlab.errors import ConfigError
from resnetlab.report.groups import Collection, collect

__all__ = ["FORMATS", "print_claims"]


def print_claims(folders: Sequence[Path], form: str = "table", post: str | None = None) -> None:
    """Judges all claims by the runs below the folders, and prints those of one post, or all.

    Raises ConfigError for the form, the post, or a folder that is missing or holds no finished run.
    """
    if form not in FORMATS:
        raise ConfigError(f"format (={form}) must be one of {', '.join(FORMATS)}")
    shown = {claim.id for claim in claims(post)}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder; name one that holds runs, such as outputs")
    collection = collect(folders)
    if not collection.runs:
        raise ConfigError(
            f"{', '.join(map(str, folders))}: no finished run below{remainder(collection)}; train one first"
        )
    pools = pooled(collection)
    verdicts = judge(claims(), pools)  # all of them, so that --post does not change the correction
    notes = [used(collection, pools), correction(verdicts)]
    FORMATS[form]([verdict for verdict in verdicts if verdict.claim.id in shown], notes)


def remainder(collection: Collection) -> str:
    """For example " (2 diverged, 1 unreadable)"."""
    kinds = Counter(unused.kind for unused in collection.skipped)
    return f" ({', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))})" if kinds else ""


def used(collection: Collection, pools: Sequence[Pool]) -> str:
    kept = sum(len(pool.runs) for pool in pools)
    silent = sum(not run.manifest for run in collection.runs)
    again = len(collection.runs) - kept - silent
    text = f"{kept} runs of {len(pools)} configurations; a seed of a configuration counts once, whatever its study"
    text += f" ({again} left out)" if again else ""
    text += f"; {silent} without a manifest left out" if silent else ""
    kinds = remainder(collection)
    return text + (f"; not used{kinds}" if kinds else "")


def correction(verdicts: Sequence[Verdict]) -> str:
    tests = sum(part.adjusted is not None for verdict in verdicts for part in verdict.parts)
    return (
        f"{tests} tests, each at 5 %: about one in twenty false claims would look shown, so p is Holm's over all of "
        "them, those of other posts too. n = 1 decides nothing but a number of parameters."
    )


FORMATS = {"table": print_table, "csv": print_csv, "json": print_json}
