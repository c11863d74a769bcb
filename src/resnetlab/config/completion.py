"""Shell completion: scripts for bash, zsh and fish, and the words that they ask for; from conf/, without torch."""

import re
from collections.abc import Mapping, Sequence

from resnetlab.config.help import key_owners
from resnetlab.config.option_files import default_options, options

SCRIPTS = {
    "bash": r"""
_resnetlab() {  # bash 4 or newer
    local words call cut
    read -ra words <<< "${COMP_LINE:0:COMP_POINT}"
    [[ ${COMP_LINE:COMP_POINT-1:1} != [[:space:]] ]] || words+=("")
    call=("${words[0]}" completion words -- "${words[@]:1}")
    if [[ ${words[0]} == *python* ]]; then
        [[ ${words[1]} == *train.py ]] || return 0  # the names of files
        call=("${words[0]}" -m resnetlab completion words -- train "${words[@]:2}")
    fi
    mapfile -t COMPREPLY < <("${call[@]}" 2> /dev/null)
    cut=${words[-1]%"${words[-1]##*[=:]}"}  # for bash these letters end a word
    COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    [[ ${COMPREPLY[0]} != *= ]] || compopt -o nospace
}
complete -o default -F _resnetlab resnetlab python python3
""",
    "zsh": r"""
_resnetlab() {
    local -a found
    found=("${(@f)$("$words[1]" completion words -- "${(@)words[2,CURRENT]}" 2> /dev/null)}")
    if [[ -n $found[1] ]]; then compadd -Q -S '' -a found; else _files; fi
}
compdef _resnetlab resnetlab
""",
    "fish": r"""
complete -c resnetlab -a '(resnetlab completion words -- (commandline -opc)[2..] (commandline -ct) 2> /dev/null)'
""",
}
OVERRIDES = ("train", "schedule", "lr-range")  # commands whose words are overrides
PLUGINS = {
    "hydra/launcher": ["joblib", "processes", "ray", "submitit_local", "submitit_slurm"],
    "hydra/sweeper": ["optuna"],
    "seeds": ["5"],
}


def candidates(words: Sequence[str], flags: Mapping[str, Sequence[str]]) -> list[str]:
    """What the last word may become; none where a file's name is wanted.

    words: those behind `resnetlab`. flags: of each command; those of "" stand before it.
    """
    *before, word = words or [""]
    command = before[0] if before else ""
    if not command:
        found = [*(name for name in flags if name), *flags[""]]
    elif word.startswith("-"):
        found = [*flags.get(command, ())]
    elif command == "completion":
        found = [*SCRIPTS]
    elif command == "options":
        found = [*default_options(), *values(word.partition("=")[0])] if "=" not in word else values(word)
    else:
        found = values(word) if command in OVERRIDES else []
    return sorted(name for name in found if name.startswith(word))


def values(word: str) -> list[str]:
    """The keys with a "=" behind them; or the values of the word's key, each as a whole word."""
    key, equals, value = word.partition("=")
    known: dict[str, list[str]] = {group: [] for group in (*default_options(), "experiment")} | PLUGINS
    for owned in key_owners():
        listed = re.findall(r"[\w-]+(?: \| [\w-]+)+", owned.meaning)
        switch = ["true", "false"] if owned.default in ("true", "false") else []
        known[owned.name] = [*known.get(owned.name, []), owned.default, *switch, *" | ".join(listed).split(" | ")]
    if not equals:
        return [f"{name}=" for name in known]
    if key in (*default_options(), "experiment"):
        known[key] = [option.name for option in options(key)]
    start = word[: len(word) - len(value.rpartition(",")[2])]  # a sweep's values before the last comma
    return [f"{start}{found}" for found in {*known.get(key, [])} if found]
