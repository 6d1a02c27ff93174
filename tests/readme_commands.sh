#!/usr/bin/env bash
# Prints the command lines of README.md, without their comments: of its code blocks, in order, then of its table of commands.
# usage: tests/readme_commands.sh [SECTION]: of one section's code blocks only
# shellcheck disable=SC2016 # patterns with backquotes
set -euo pipefail
cd "$(dirname "$0")/.."
section=${1:-}

awk -v section="$section" '
  /^```/ { inside = !inside; plain = inside && $0 == "```"; next }
  !inside && /^## / { here = substr($0, 4) }
  plain && (section == "" || here == section)' README.md |
  sed -nE 's/ +# .*//; /^(moonkiln|cp) /p'
[[ -n $section ]] || sed -nE 's/^\| `(moonkiln (run|emit|compile|bench|profile|tune|info)[^`]*)` \|.*/\1/p' README.md
