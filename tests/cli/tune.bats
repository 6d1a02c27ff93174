#!/usr/bin/env bats
# moonkiln tune, and what other commands make of its records, on a made-up GPU whose kernels take made-up time.
# shellcheck disable=SC2154,SC2119,SC2120 # here, out: helper.bash; tune has arguments sometimes

setup() {
  load helper
  common
  need_nvrtc
  fake_gpu
  export MOONKILN_CACHE=$BATS_FILE_TMPDIR/cache FAKE_ARCH=80 # one cache of kernels for the file, so that they are compiled once
  rm -rf "$MOONKILN_CACHE/tuning"
  cat >"$here/graph.lua" <<'LUA'
local x = input { name = "x", shape = { params.tokens or 4096, 256 } }
local h = x * ((x * x):mean() + 1e-6):rsqrt() * weight("norm.weight", { 256 })
output("y", x + matmul(h:cast "bf16", weight("fc.weight", { 256, 256 }):cast "bf16"):gelu())
LUA
}

# records: the file of them
records() { echo "$MOONKILN_CACHE"/tuning/made-up-gpu-100sm-driver13-nvrtc*.tune; }

tune() { "$MOONKILN" tune "$here/graph.lua" "$@"; }

# candidates: every matmul kernel's name, in the cost model's order
kernels() { "$MOONKILN" emit "$here/graph.lua" --arch sm_80 --set tokens=4096 --stage plan | grep -oE 'matmul_[a-z]+_[0-9a-f]{10}'; }

# chosen: what the plan of a run launches for the matmul
chosen() {
  rm -f "$here/launches"
  FAKE_LAUNCHES=$here/launches "$MOONKILN" bench "$here/graph.lua" --synthetic 1 --iterations 1 "$@" >"$here/bench"
  grep matmul "$here/launches" | sort -u
}

# norm_behind: a graph in which the matmul has a neighbour that it may take time from
norm_behind() {
  cat >"$here/graph.lua" <<'LUA'
local x = input { name = "x", shape = { params.tokens or 4096, 256 } }
local h = x + matmul(x:cast "bf16", weight("fc.weight", { 256, 256 }):cast "bf16"):gelu()
output("y", h * ((h * h):mean() + 1e-6):rsqrt())
LUA
}

@test "the fastest candidate is found, kept, and used by later runs" {
  mapfile -t all < <(kernels)
  ((${#all[@]} >= 3))
  FAKE_TIMES=${all[2]}=0.5 run tune
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output == *"2 kinds of groups: 0 known before, 2 measured"*"0 not reached"* ]]
  [[ $output == *"1 with another choice than the cost model's that is faster by itself, 1 of them in whole runs, too"* ]]
  [[ $output == *"whole runs of graph: 1 of 1 kept, which take 0.7500 +- 0.0000 of the time without"* ]]
  grep -q '| kept 1.50000 ' "$(records)"
  [ "$(chosen)" = "${all[2]}" ]
  [ "$(chosen --no-tune)" = "${all[0]}" ]
  run tune
  [[ $output == *"2 known before, 0 measured"* ]]
}

@test "tuning again measures again, and the newest counts" {
  mapfile -t all < <(kernels)
  FAKE_TIMES=${all[2]}=0.5 tune
  sleep 1
  FAKE_TIMES=${all[1]}=0.5 run tune --again
  [[ $output == *"0 known before, 2 measured"* ]]
  [[ $output == *"against the earlier record: 1 of 2 the same winner, 0 more within 1 %"* ]]
  [ "$(chosen)" = "${all[1]}" ]
  sleep 1
  FAKE_TIMES=${all[1]}=0.504,${all[2]}=0.5 run tune --again
  echo "$output"
  [[ $output == *"against the earlier record: 2 of 2 the same winner, 0 more within 1 %"* ]]
  sleep 1
  FAKE_TIMES=${all[1]}=0.502,${all[0]}=0.5 run tune --again
  [[ $output == *"against the earlier record: 1 of 2 the same winner, 1 more within 1 %"* ]]
}

@test "equal times keep the cost model's order, every time" {
  mapfile -t all < <(kernels)
  FAKE_TIMES=${all[1]}=0.995 tune
  [ "$(chosen)" = "${all[0]}" ]
  rm -rf "$MOONKILN_CACHE/tuning"
  FAKE_TIMES=${all[2]}=0.999 tune
  [ "$(chosen)" = "${all[0]}" ]
}

@test "what is faster by itself and not in a whole run is not chosen, and not tried again" {
  mapfile -t all < <(kernels)
  FAKE_TIMES=row_=0.5,${all[2]}=0.5 FAKE_CROWDED=${all[2]}=1.2 run tune
  echo "$output"
  [[ $output == *"1 with another choice than the cost model's that is faster by itself, 0 of them in whole runs, too"* ]]
  [[ $output == *"whole runs of graph: 0 of 1 kept, which take 1.0000"* ]]
  [ "$(chosen)" = "${all[0]}" ]
  grep -qE '[|] best 1.50+ .*[|] alone 1.0' "$(records)"
  FAKE_TIMES=${all[2]}=0.5 run tune
  [[ $output == *"2 known before, 0 measured"* ]]
}

@test "a change that its group's times confirm is kept, however little of the whole it is" {
  norm_behind
  mapfile -t all < <(kernels)
  FAKE_TIMES=row_norm=1000,${all[2]}=0.5 run tune
  echo "$output"
  [[ $output == *"1 with another choice than the cost model's that is faster by itself, 1 of them in whole runs, too"* ]]
  [[ $output == *"whole runs of graph: 1 of 1 kept, which take 0.9995 +-"* ]]
  [ "$(chosen)" = "${all[2]}" ]
}

@test "what costs its neighbours more than it gains is not chosen" {
  norm_behind
  mapfile -t all < <(kernels)
  FAKE_TIMES=${all[2]}=0.5 FAKE_AFTER=${all[2]}=0.6 run tune
  echo "$output"
  [[ $output == *"0 of them in whole runs, too"* ]]
  [ "$(chosen)" = "${all[0]}" ]
}

@test "two tunings of a noisy card agree" {
  mapfile -t all < <(kernels)
  export FAKE_NOISE=0.02
  run tune
  [[ $output == *"0 with another choice"* ]] # all take the same time
  sleep 1
  export FAKE_TIMES=${all[2]}=0.9 # with the norm 5 % faster
  FAKE_SEED=2 tune --again
  sleep 1
  FAKE_SEED=3 run tune --again
  echo "$output"
  [[ $output == *"1 with another choice than the cost model's that is faster by itself, 1 of them in whole runs, too"* ]]
  [[ $output == *"against the earlier record: 2 of 2 the same winner"* ]]
}

@test "of several changes, those that show in whole runs are kept" {
  cat >"$here/graph.lua" <<'LUA'
local x = input { name = "x", shape = { 4096, 256 } }
local h = matmul(x:cast "bf16", weight("a.weight", { 512, 256 }):cast "bf16"):gelu()
local y = x + matmul(h:cast "bf16", weight("b.weight", { 256, 512 }):cast "bf16")
output("y", y * ((y * y):mean() + 1e-6):rsqrt())
LUA
  FAKE_LAUNCHES=$here/launches tune
  mapfile -t all < <(grep matmul_mma "$here/launches" | awk '!seen[$0]++')
  ((${#all[@]} == 6)) # three for each of the two, the later one's first: it is worth more
  local gain=${all[5]} loss=${all[2]}
  rm -r "$MOONKILN_CACHE/tuning"
  FAKE_TIMES=$gain=0.3,$loss=0.6 FAKE_AFTER=$loss=1.3 run tune
  echo "$output"
  [[ $output == *"2 with another choice than the cost model's that is faster by itself, 1 of them in whole runs, too"* ]]
  [[ $(chosen) == *"$gain"* && $(chosen) != *"$loss"* ]]
}

@test "a candidate with wrong results is excluded and named, however fast" {
  mapfile -t all < <(kernels)
  FAKE_WRONG=${all[1]} FAKE_TIMES=${all[1]}=0.1 run tune
  echo "$output"
  [[ $output == *"is excluded: its results differ"* ]]
  [[ $output == *"1 candidates excluded"* ]]
  [ "$(chosen)" = "${all[0]}" ]
  grep -q '| wrong - ' "$(records)"
}

@test "when all others differ from the reference, it is the one that is wrong" {
  mapfile -t all < <(kernels)
  FAKE_WRONG=${all[0]} run tune
  [[ $output == *"1 candidates excluded"* ]]
  [ "$(chosen)" = "${all[1]}" ]
}

@test "slow candidates are given up" {
  mapfile -t all < <(kernels)
  FAKE_LAUNCHES=$here/launches FAKE_TIMES=${all[1]}=2,${all[2]}=50 tune
  [ "$(grep -c "${all[2]}" "$here/launches")" -eq 1 ]
  [ "$(grep -c "${all[1]}" "$here/launches")" -eq 2 ]
  (($(grep -c "${all[0]}" "$here/launches") >= 2))
}

@test "another size uses the nearest record and compiles nothing" {
  mapfile -t all < <(kernels)
  FAKE_TIMES=${all[2]}=0.5 tune
  MOONKILN_LOG=info chosen --set tokens=5000 2>"$here/log"
  cat "$here/log"
  [ "$(grep -c "kernels: .* 0 compiled" "$here/log")" -ge 1 ]
  ! grep -qE "kernels: .* [1-9][0-9]* compiled" "$here/log" || false
  [ "$(sort -u "$here/launches" | grep matmul)" = "${all[2]}" ]
  run tune --set tokens=20000
  [[ $output == *"0 known before, 2 measured"* ]]
  [ "$(grep -cE '[|] (best|kept) ' "$(records)")" -eq 4 ]
}

# root_kernels ROWS: those that are measured for the graph's convolution or attention
root_kernels() {
  rm -f "$here/launches"
  FAKE_LAUNCHES=$here/launches tune --set rows="$1" >/dev/null
  rm -r "$MOONKILN_CACHE/tuning"
  grep -E '^(conv|attention)_' "$here/launches" | sort -u
}

# kept_elsewhere ROWS OTHER: the graph, tuned at ROWS, has a kernel that is not among the cheapest at OTHER, which uses it.
kept_elsewhere() {
  local dear
  export MOONKILN_CACHE=$here/cache
  root_kernels "$1" >"$here/here"
  root_kernels "$2" >"$here/there"
  dear=$(comm -23 "$here/here" "$here/there" | head -n 1)
  [ -n "$dear" ]
  rm -r "$MOONKILN_CACHE/cubin" "$here/launches"
  FAKE_TIMES=$dear=0.5 tune --set rows="$1"
  MOONKILN_LOG=info FAKE_LAUNCHES=$here/launches "$MOONKILN" bench "$here/graph.lua" --synthetic 1 --iterations 1 --set rows="$2" 2>"$here/log"
  cat "$here/log"
  [ "$(grep -E '^(conv|attention)_' "$here/launches" | sort -u)" = "$dear" ]
  ! grep -qE "kernels: .* [1-9][0-9]* compiled" "$here/log" || false
}

@test "a convolution that was chosen stays at a size for which it is not among the cheapest" {
  cat >"$here/graph.lua" <<'LUA'
local x = input { name = "x", shape = { 8, params.rows, 64, 384 }, dtype = "bf16" }
local w = input { name = "w", shape = { 384, 3, 3, 3, 384 }, dtype = "bf16" } -- a weight would be prepared by a kernel of its own
output("y", conv(x, w, { t = { 2, 0 }, h = { 1, 1 }, w = { 1, 1 } }) + input { name = "b", shape = { 384 } })
LUA
  kept_elsewhere 100 34
}

@test "an attention that was chosen stays at a size for which it is not among the cheapest" {
  cat >"$here/graph.lua" <<'LUA'
local function t(name) return input { name = name, shape = { params.rows, 40, 128 }, dtype = "bf16" } end
output("y", attention(t "q", t "k", t "v", { scale = 0.125 }):cast "bf16")
LUA
  export FAKE_ARCH=90
  kept_elsewhere 32760 2112
}

@test "the budget ends it, and the next tuning goes on" {
  run tune --tune-budget 0
  [ "$status" -eq 2 ]
  MOONKILN_WORKER=/bin/sleep MOONKILN_COMPILE_TIMEOUT=5 MOONKILN_CACHE=$here/empty run timeout 60 "$MOONKILN" tune "$here/graph.lua" --tune-budget 1
  echo "$output"
  ((status < 124))
}

@test "the whole budget is used while there is something to measure" {
  lua5.4 scripts/tiny_checkpoint.lua "$here/tiny"
  FAKE_REAL=1 run timeout 60 "$MOONKILN" tune "$here/tiny" --size 96x96 --frames 9 --tune-budget 6
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output != *" 0 not reached"* ]]
  local seconds
  seconds=$(grep -oE 'measured in [0-9.]+' <<<"$output" | grep -oE '[0-9.]+')
  awk "BEGIN { exit !($seconds > 4.9 && $seconds < 12) }"
}

@test "Ctrl-C keeps what was measured" {
  tune
  cp "$(records)" "$here/before"
  rm -rf "$MOONKILN_CACHE/cubin" # so that there is something to wait for
  "$MOONKILN" tune "$here/graph.lua" --again 2>"$here/err" &
  local pid=$!
  while ! grep -q compiling "$here/err"; do sleep 0.1; done
  kill -INT $pid
  local status=0
  wait $pid || status=$?
  [ "$status" -eq 130 ]
  grep -q "stopped; what was measured is kept" "$here/err"
  diff "$here/before" "$(records)"
}

@test "a damaged record costs a message, others' are left as they are" {
  tune
  local file
  file=$(records)
  sed -i 's/| best/| blest/' "$file"
  run chosen
  [[ $output == *"2 lines of tuning records are damaged"* ]]
  sed -i 's/gpu=Made-up GPU/gpu=Another GPU/' "$file"
  cp "$file" "$here/before"
  run tune
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output == *"tuning records are ignored, and left as they are"*"made for Another GPU"* ]]
  [[ $output == *"tuning records were not saved"* ]]
  cmp "$file" "$here/before"
}

@test "a kernel whose source has changed is measured again" {
  tune
  local file
  file=$(records)
  sed -Ei 's/(best|kept|timed) ([0-9.]+ [^ ]+) [0-9a-f]{16}/\1 \2 0123456789abcdef/g' "$file"
  run tune
  [[ $output == *"0 known before, 2 measured"* ]]
}

@test "a template of your own is picked up, measured, and chosen when it is faster" {
  mapfile -t all < <(kernels)
  mkdir "$here/mine"
  cp templates/matmul_mma.cu "$here/mine/matmul_mine.cu"
  cp templates/matmul_mma.lua "$here/mine/matmul_mine.lua"
  tune
  sleep 1.1 # of two records of one second, the order of time is not known
  export MOONKILN_TEMPLATES=$here/mine
  FAKE_TIMES=matmul_mine=0.5 run tune
  echo "$output"
  [[ $output == *"1 known before, 1 measured"* ]]
  [[ $(chosen) == matmul_mine_* ]]
  run tune
  [[ $output == *"2 known before, 0 measured"* ]]
  unset MOONKILN_TEMPLATES
  FAKE_TIMES=matmul_mine=5 run tune --again --templates "$here/mine"
  [ "$(chosen)" = "${all[0]}" ]
}

@test "records that come with the program are used where the user has none" {
  mapfile -t all < <(kernels)
  FAKE_TIMES=${all[2]}=0.5 tune
  mkdir -p "$here/data/scripts"
  cp -r templates "$here/data"
  cp -r scripts/models "$here/data/scripts"
  mkdir "$here/data/scripts/tuning"
  mv "$(records)" "$here/data/scripts/tuning"
  [ "$(chosen)" = "${all[0]}" ]
  export MOONKILN_DATA=$here/data
  [ "$(chosen)" = "${all[2]}" ]
  run tune
  [[ $output == *"2 known before, 0 measured"* ]]
}

@test "a device that is lost ends it with the candidate's name" {
  mapfile -t all < <(kernels)
  FAKE_FAULT=${all[1]} run tune
  echo "$output"
  [ "$status" -eq 1 ]
  [[ $output == *"tuning: graph.lua:3: matmul"*"matmul_mma"* ]]
}

@test "explain prints the table of a group" {
  mapfile -t all < <(kernels)
  FAKE_TIMES=${all[2]}=0.5 tune
  run "$MOONKILN" tune --explain gelu
  echo "$output"
  [ "$status" -eq 0 ]
  [[ ${lines[0]} == "Made-up GPU, 100 multiprocessors, driver 13, NVRTC "*".tune)" ]]
  [[ ${lines[1]} == *"graph.lua:3: matmul gelu add" ]]
  [[ $output == *"kept       1.5000    1.000"* ]] # with the norm before it, as other candidates do its work, too
  [[ $output == *"slow       2.0000    1.333"* ]]
  [[ $output != *" rsqrt "* ]]
  refused "$MOONKILN" tune --explain nothing-like-this -- --explain nothing-like-this
}

@test "a candidate that does the work of the norm, too, is chosen where both together are faster" {
  mapfile -t its < <("$MOONKILN" emit "$here/graph.lua" --arch sm_80 --set tokens=4096 --stage plan | grep -m1 -A3 'folded modulation' |
    grep -oE '(row|matmul)_[a-z0-9_]+_[0-9a-f]{10}')
  [ "${#its[@]}" -eq 3 ] # rows, weights, matmul
  norm=$("$MOONKILN" emit "$here/graph.lua" --arch sm_80 --set tokens=4096 --stage plan | grep -oE -m1 'row_norm_256_[0-9a-f]{10}')
  FAKE_TIMES=${its[0]}=0.7,${its[1]}=0.6,${its[2]}=0.6 tune # 1.9 ms against 1 and 1
  chosen
  cat "$here/launches"
  [[ $(<"$here/launches") == *"${its[2]}"* && $(<"$here/launches") != *"$norm"* ]]
  grep -q "folded modulation" "$here/bench"
  rm -r "$MOONKILN_CACHE/tuning"
  FAKE_TIMES=${its[0]}=0.7,${its[1]}=0.7,${its[2]}=0.7 tune
  chosen
  [[ $(<"$here/launches") != *"${its[2]}"* && $(<"$here/launches") == *"$norm"* ]]
}

@test "usage" {
  run "$MOONKILN" tune --help
  [ "$status" -eq 0 ]
  for arguments in "" "a14b --explain x" "a14b 14b" "a14b --size 100x100" "a14b --frames 80" "a14b --tune-budget none" "/nowhere" "/nowhere.lua"; do
    # shellcheck disable=SC2086
    run "$MOONKILN" tune $arguments
    echo "$arguments: $output"
    [ "$status" -eq 2 ]
  done
  CUDA_VISIBLE_DEVICES="" LD_LIBRARY_PATH="" run "$MOONKILN" tune "$here/graph.lua"
  [ "$status" -eq 1 ]
  [[ $output == *NVIDIA* ]]
}
