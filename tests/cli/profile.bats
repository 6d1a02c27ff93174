#!/usr/bin/env bats
# moonkiln profile: what it shows of a saved profile, without a GPU; and with a made-up driver, that it measures and says what it
# should.
# shellcheck disable=SC2154 # here, out, status, output: helper.bash and bats

setup() { load helper; common; }

saved=tests/cli/profile/step.json

# spoiled WHAT WITH -- WORD...: the saved profile with the first WHAT (a pattern) replaced is refused with these words.
spoiled() {
  sed -z "s|$1|$2|" "$saved" >"$here/bad.json"
  if cmp "$saved" "$here/bad.json"; then return 1; fi
  shift 3
  refused "$MOONKILN" profile --from "$here/bad.json" --html "$out/x.html" -- "$here/bad.json" "$@"
  [ "$status" -eq 2 ]
}

# lacks ARGUMENT...: grep finds nothing.
lacks() { if grep "$@"; then return 1; fi; }

# ---- a saved profile

@test "the table of a saved profile" {
  "$MOONKILN" profile --from "$saved" | diff tests/cli/profile/step.txt -
}

@test "what is read and written again stays the same" {
  "$MOONKILN" profile --from "$saved" --json >"$here/a.json"
  "$MOONKILN" profile --from "$here/a.json" | diff tests/cli/profile/step.txt -
  "$MOONKILN" profile --from "$here/a.json" --json | diff "$here/a.json" -
}

@test "limits in JSON: the measured ones, and the data sheet's" {
  "$MOONKILN" profile --from "$saved" --json >"$here/a.json"
  grep -q '"roofline_ms": 38.4' "$here/a.json" # 38.4 TFLOP at 1000
  grep -q '"limit_ms": 48.0' "$here/a.json"    # at 800
  grep -q '"limit_ms": 2.0' "$here/a.json"     # 0.8 TFLOP of tf32 at 500 * 800 / 1000
  grep -q '"outside_ms": 6.0' "$here/a.json"
}

@test "--ceilings replaces what was measured" {
  "$MOONKILN" profile --from "$saved" --ceilings 640,3.2 >"$here/table"
  grep -q "measured: bf16 matmul 640.0 TFLOP/s, copy 3.200 TB/s" "$here/table"
  grep -qE '^attention .* 100% matmul' "$here/table"
  grep -qE '^row .* 100% copy' "$here/table"
}

@test "without measured limits there are those of the data sheet" {
  sed '/"ceilings"/d' "$saved" >"$here/a.json"
  "$MOONKILN" profile --from "$here/a.json" --html "$out/x.html" >"$here/table"
  grep -qE '^attention .* -  +64% matmul' "$here/table"
  lacks "measured: bf16" "$here/table"
  grep -q 'class="roof sheet"' "$out/x.html"
  lacks 'class="roof measured"' "$out/x.html"
}

@test "the page needs nothing else, and has every group" {
  "$MOONKILN" profile --from "$saved" --html "$out/x.html"
  page=$out/x.html
  lacks -iE 'https?:|//[a-z]|@import|url\(|src=|<link|<iframe' <(grep -v '^// ' "$page")
  lacks -iwE '\-?nan|inf' "$page"
  lacks '{{' "$page"
  for name in 'blocks.*.norm1: mean &lt;sub&gt; mul &amp; cast' 'blocks.*.self_attn.attention: attention cast' \
    'blocks.*.ffn.0: matmul add gelu cast' 'head.head: matmul add' 'wan_dit.lua:183: update'; do
    grep -qF "<td class=\"name\">$name<small>" "$page" || { echo "$name"; return 1; }
    [ "$(grep -cF "<title>$name" "$page")" -eq 2 ] # a piece of the bar, a dot
  done
  lacks '<sub>' "$page"
  [ "$(grep -c '<circle' "$page")" -eq 5 ]
  lacks -vE '"-?[0-9.]+(e[-+][0-9]+)?"' <(grep -oE 'data-key="[^"]*"' "$page")
  grep -qF 'prefers-color-scheme: dark' "$page"
  # pieces of either bar fill its 1000 units
  grep -oE '<rect[^>]*' "$page" | sed -E 's/.* y="([0-9]+)" width="([0-9.]+)".*/\1 \2/' |
    awk '{ sum[$1] += $2 } END { for (y in sum) { n++; if (sum[y] < 999.9 || sum[y] > 1000.1) exit 1 } exit n != 2 }'
  [ "$(grep -c '</html>' "$page")" -eq 1 ]
}

@test "a profile in which nothing took time" {
  sed -E 's/"ms": [0-9]+/"ms": 0/; s/"(graph|steps)_ms": [0-9.]+/"\1_ms": 0/' "$saved" >"$here/a.json"
  "$MOONKILN" profile --from "$here/a.json" --html "$out/x.html" >"$here/table"
  lacks -iwE '\-?nan|inf' "$out/x.html" "$here/table"
}

@test "a saved profile that is none" {
  refused "$MOONKILN" profile --from "$here/nowhere.json" -- "$here/nowhere.json"
  echo '{' >"$here/x.json"
  refused "$MOONKILN" profile --from "$here/x.json" -- "$here/x.json" "not valid JSON" "line"
  [ "$status" -eq 2 ]
  echo '[]' >"$here/x.json"
  refused "$MOONKILN" profile --from "$here/x.json" -- "no JSON object"
  echo '{}' >"$here/x.json"
  refused "$MOONKILN" profile --from "$here/x.json" -- 'field "gpu" is missing' "profile --json"
}

@test "fields that are wrong are named" {
  spoiled '"graph_ms": 98.5' '"graph_ms": "98.5"' -- 'field "graph_ms" must be a number'
  spoiled '"graph_ms": 98.5' '"graph_ms": -1' -- 'field "graph_ms" is -1'
  spoiled '"graph_ms": 98.5' '"graph_ms": 1e999' -- "bad.json"
  spoiled '"bf16_tflops": 1000' '"bf16_tflops": 0' -- 'data_sheet: field "bf16_tflops" is 0' "greater than 0"
  spoiled '"copy_tbs": 4' '"x": 4' -- 'ceilings: field "copy_tbs" is missing'
  spoiled '"ceilings": {[^}]*}' '"ceilings": 800' -- 'field "ceilings" must be an object'
  spoiled '"data_sheet": {[^}]*},' '' -- 'field "data_sheet" is missing'
  spoiled '"groups": \[.*\]' '"groups": []' -- 'field "groups" must be a list'
  spoiled '"groups": \[' '"groups": [1,' -- 'groups[0]: must be an object'
  spoiled '"ms": 60' '"ms": null' -- 'groups[1]: field "ms" is missing'
  spoiled '"calls": 80' '"calls": 0' -- 'groups[0]: field "calls" is 0'
  spoiled '"kind": "copy"' '"kind": 7' -- 'groups[4]: field "kind" must be a string'
  spoiled '"arithmetic": "tf32"' '"arithmetic": "fp4"' -- 'groups[3]: field "arithmetic" is "fp4"' bf16
}

@test "a page that cannot be written" {
  refused "$MOONKILN" profile --from "$saved" --html "$here/nowhere/x.html" -- "$here/nowhere/x.html"
  [ "$status" -eq 2 ]
}

# ---- asking for one

graph() {
  echo 'local x = input{name="x", shape={256, 128}}
    output("y", (matmul(x:cast "bf16", weight("w", {512, 128}):cast "bf16") + x:mean()):cast "bf16")' >"$here/graph.lua"
}

@test "wrong requests" {
  graph
  refused "$MOONKILN" profile -- "--from FILE.json"
  refused "$MOONKILN" profile "$here/graph.lua" --from "$saved" -- "--from FILE.json"
  refused "$MOONKILN" profile "$here/graph.lua" --ceilings 700 -- "--ceilings" "both"
  refused "$MOONKILN" profile "$here/graph.lua" --ceilings 0,4 -- "--ceilings"
  refused "$MOONKILN" profile "$here/graph.lua" --size 832x480 -- "--size" "--set"
  refused "$MOONKILN" profile a14b --set a=1 -- "--set"
  refused "$MOONKILN" profile a14b --size 830x480 -- "size 830x480" "multiples of 16"
  refused "$MOONKILN" profile a14b --frames 80 -- "frames 80" "4n + 1"
  refused "$MOONKILN" profile 15b -- 15b "a14b, 14b, 1.3b"
  refused "$MOONKILN" profile "$here/nowhere.lua" -- "$here/nowhere.lua"
  [ "$status" -eq 2 ]
  refused "$MOONKILN" bench "$here/graph.lua" --from "$saved" -- "unknown option"
}

@test "no GPU" {
  graph
  refused "$MOONKILN" profile "$here/graph.lua" --synthetic 1 --html "$out/x.html" -- NVIDIA
  [ "$status" -eq 1 ]
}

# A GPU on which everything takes 8 ms, without cuBLASLt, which would find it out.
made_up_gpu() {
  local nvrtc
  need_nvrtc
  nvrtc=$("$MOONKILN" info | sed -n 's/^NVRTC  *[0-9.]*, //p')
  mkdir "$here/cuda"
  ln -s "$(dirname "$nvrtc")"/libnvrtc* "$here/cuda"
  export MOONKILN_CUDA=$here/cuda
  fake_driver
}

@test "a graph's profile: card, groups and page" {
  made_up_gpu
  graph
  refused "$MOONKILN" profile "$here/graph.lua" -- "the graph has weights" --synthetic
  "$MOONKILN" profile "$here/graph.lua" --synthetic 1 --json --html "$out/x.html" >"$here/a.json"
  for key in gpu graph entry graph_ms steps_ms groups kind ms calls ceilings matmul_tflops copy_tbs registers; do
    grep -q "\"$key\": " "$here/a.json" || { echo "$key"; return 1; }
  done
  grep -q '"graph_ms": 8.0' "$here/a.json"
  grep -q '"registers": 32' "$here/a.json"
  grep -q '"kind": "matmul"' "$here/a.json"
  grep -q 'Made-up GPU' "$out/x.html"
  "$MOONKILN" profile --from "$here/a.json" | grep -q "measured: bf16 matmul"
  "$MOONKILN" profile "$here/graph.lua" --synthetic 1 --ceilings 700,4 | grep -q "measured: bf16 matmul 700.0 TFLOP/s, copy 4.000 TB/s"
}

@test "bench is a profile without the card's measured limits" {
  made_up_gpu
  graph
  "$MOONKILN" bench "$here/graph.lua" --synthetic 1 --json >"$here/a.json"
  lacks ceilings "$here/a.json"
  grep -q '"roofline_ms"' "$here/a.json"
  "$MOONKILN" bench "$here/graph.lua" --synthetic 1 | grep -q "^step of $here/graph.lua: 8.000 ms as a whole"
}

@test "inputs from a file" {
  made_up_gpu
  graph
  tensors write "$here/x.safetensors" 1 x=256x128
  "$MOONKILN" bench "$here/graph.lua" --synthetic 1 --inputs "$here/x.safetensors" | grep -q "^step of "
  tensors write "$here/y.safetensors" 1 x=128x256
  refused "$MOONKILN" bench "$here/graph.lua" --synthetic 1 --inputs "$here/y.safetensors" -- "$here/y.safetensors" "input x has shape"
}

@test "a model's step: from its folder, with its own weights or made-up ones" {
  made_up_gpu
  lua5.4 scripts/tiny_checkpoint.lua "$here/tiny"
  "$MOONKILN" profile "$here/tiny" --size 32x32 --frames 5 --ceilings 700,4 >"$here/table"
  grep -q "^step of $here/tiny, 32x32, 5 frames: " "$here/table"
  grep -q 'blocks.\*.ffn.' "$here/table"
  "$MOONKILN" profile "$here/tiny" --size 32x32 --frames 5 --ceilings 700,4 --synthetic 3 --iterations 2 | diff "$here/table" -
}
