std = "lua54"
max_line_length = 140
files["scripts/models"] = {
  read_globals = { "params", "weight", "has_weight", "weight_shape", "input", "state", "update", "output", "entry", "const", "concat",
    "gather", "rope", "matmul", "attention", "conv", "maximum", "minimum", "include" },
  globals = { "graph_name" },
}
files["templates"] = { read_globals = { "include" } }
files["scripts/experiments/own_template"] = files["templates"]
files["tests/gpu/templates"] = files["templates"]
files["scripts/experiments"] = files["scripts/models"]
files["scripts/compare/graphs"] = files["scripts/models"]
files["tests/gpu/graphs"] = files["scripts/models"]
files["tests/golden"] = files["scripts/models"]
files["tests/golden/*.lua"] = { max_line_length = false }
