"""The trials of a search: counted, and given the parameters that a kill has kept from them."""

import copy
from collections import Counter
from collections.abc import Mapping

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

__all__ = ["STANDINGS", "finish_asking", "tally"]

STANDINGS = ("complete", "pruned", "refused", "failed", "not ended")


def tally(study: Study) -> Counter[str]:
    """How many trials stand where; one that was tried again where the later one does.

    failed: for a reason of the machine's, and to be tried again.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    again = {trial.user_attrs.get("again") for trial in trials}
    return Counter(standing(trial) for trial in trials if trial.number not in again)


def standing(trial: FrozenTrial) -> str:
    if trial.state == TrialState.RUNNING:
        return "not ended"
    if trial.state == TrialState.FAIL:
        return "refused" if "refused" in trial.user_attrs else "failed"
    return trial.state.name.lower()


def finish_asking(study: Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> None:
    """Gives a trial all its parameters, of which Optuna writes one after the other: a kill leaves it with some.

    They are drawn anew from the first on, as the study's sampler, which has to be the trial's own, draws a later one
    otherwise if it has not drawn those before.
    """
    if trial.params.keys() >= space.keys():
        return
    begun = Trial(study, trial._trial_id)
    begun._cached_frozen_trial = forgetful = copy.copy(trial)
    forgetful.params, forgetful.distributions = {}, {}
    for name, kind in space.items():
        begun._suggest(name, kind)
