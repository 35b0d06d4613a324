"""`completion SHELL`: the script that makes a shell ask sshoal what may come next. The answer stands in completing.py."""

from __future__ import annotations

from typing import Annotated

import typer

ASK = "__complete"  # sshoal __complete WORD…: not a command, main.py answers it

# The words are cut from the line itself: bash's own cut them at ':' and '=' too, and then takes only the rest behind these.
_BASH = r"""
_sshoal() {
    local line=${COMP_LINE:0:COMP_POINT} words cur prefix value rest
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    cur=${words[${#words[@]} - 1]}
    prefix=${cur%"${cur##*[:=]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r value rest; do
        if [[ $value == :files ]]; then
            compopt -o filenames 2>/dev/null
            while read -r value; do COMPREPLY+=("$value"); done < <(compgen -f -- "${cur#"$prefix"}")
        else
            [[ $value == *[=:/] ]] && compopt -o nospace 2>/dev/null
            COMPREPLY+=("${value#"$prefix"}")
        fi
    done < <(sshoal __complete "${words[@]:1}" 2>/dev/null)
}
complete -F _sshoal sshoal
"""

_ZSH = r"""
#compdef sshoal
_sshoal() {
    local line value
    local -a found
    for line in "${(@f)$(sshoal __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        [[ -n $line ]] || continue
        value=${line%%$'\t'*}
        if [[ $value == :files ]]; then
            _files
        elif [[ $line == *$'\t'* ]]; then
            found+=("${value//:/\\:}:${line#*$'\t'}")
        else
            found+=("${value//:/\\:}")
        fi
    done
    (( ${#found} )) && _describe sshoal found
}
if [[ ${funcstack[1]} == _sshoal ]]; then
    _sshoal "$@"
else
    compdef _sshoal sshoal
fi
"""

_FISH = r"""
function __sshoal_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in (sshoal __complete $words[2..-1] "$current" 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path "$current"
        else
            echo $line
        end
    end
end
complete -c sshoal -f -a '(__sshoal_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def register(app: typer.Typer) -> None:
    app.command()(completion)


def completion(shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print the script that completes commands, options and names of objects in your shell. Names come from the store: no host is asked.

    Examples:
        source <(sshoal completion bash)       # in ~/.bashrc
        sshoal completion fish > ~/.config/fish/completions/sshoal.fish
    """
    from controller.model.errors import UsageError

    if shell not in SCRIPTS:
        raise UsageError(f"there is no completion for {shell}", hint="bash, zsh or fish")
    print(SCRIPTS[shell].strip())
