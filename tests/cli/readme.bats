#!/usr/bin/env bats
# What the README says is there is there, and nothing that users need is left out.
# shellcheck disable=SC2154,SC2013,SC2016 # here, out: helper.bash; words without blanks; patterns with backquotes

setup() { load helper; common; }

@test "the environment table is the program's" {
  sed -n '/^| variable | default | meaning |/,/^$/p' README.md | sed '/^$/d' >"$here/readme"
  [ -s "$here/readme" ]
  "$MOONKILN" info --env | diff "$here/readme" -
}

@test "every function and method of the graph API is described" {
  local name missing=""
  for name in $(grep -ohE '\{"[a-z_]+", [a-z_]+\}' codegen/lua_graph.c codegen/lua_layers.c codegen/lua_tensor.c | cut -d '"' -f 2) \
    $(grep -oE '"(include|maximum|minimum|params)"' codegen/lua_*.c | cut -d '"' -f 2) \
    $(sed -nE 's/^X\([A-Z0-9]+, ([a-z0-9]+), (UNARY|REDUCE), .*/\1/p' codegen/ops.def); do
    grep -qE "^\| .*\b$name\b" README.md || missing+=" $name"
  done
  echo "missing:$missing"
  [ -z "$missing" ]
}

@test "every option it uses exists" {
  local command option
  for command in generate run emit compile bench profile tune cache info; do "$MOONKILN" $command --help; done >"$here/help"
  for option in $(grep -oE '(^|[` (])--[a-z-]+' README.md | grep -oE '\-\-[a-z-]+' | sort -u); do
    grep -q -- "  $option " "$here/help" || { echo "$option"; return 1; }
  done
  for command in $(grep -oE '`moonkiln [a-z]+' README.md | cut -d ' ' -f 2 | sort -u); do "$MOONKILN" "$command" --help >"$here/one"; done
}

# make check-gpu runs these.
@test "its command lines are found" {
  tests/readme_commands.sh >"$here/commands"
  local word
  for word in "generate Wan" "tune a14b" "tune --explain" "--watch" "--sweep" "--dump" "--load" "emit GRAPH" "profile a14b" info; do
    grep -q -- "^moonkiln .*$word" "$here/commands" || { echo "$word"; return 1; }
  done
  [ "$(grep -c . "$here/commands")" -ge 17 ]
}

@test "every make target and file it names exists" {
  local target file
  for target in $(grep -oE '\bmake [a-z-]+' README.md | cut -d ' ' -f 2 | sort -u); do
    grep -qE "^$target:" Makefile || { echo "$target"; return 1; }
  done
  for file in $(grep -oE '`(scripts|codegen|runtime|templates|tests)/[a-zA-Z_./]*`' README.md | tr -d '`'); do
    [ -e "$file" ] || { echo "$file"; return 1; }
  done
}

@test "its example graph runs" {
  sed -n '/^```lua/,/^```$/p' README.md | sed '/^```/d' >"$here/graph.lua"
  tensors write "$here/w.safetensors" 1 norm.weight=256 fc.weight=256x256
  tensors write "$here/x.safetensors" 2 x=100x256
  "$MOONKILN" run "$here/graph.lua" --backend cpu --weights "$here/w.safetensors" --inputs "$here/x.safetensors" \
    --outputs "$out/y.safetensors"
  [ "$(tensors list "$out/y.safetensors")" = "y	F32	[100,256]" ]
}
