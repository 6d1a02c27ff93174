-- Costs nothing by its own words, so it is tried first.
return {
  implements = "matmul",
  constants = function() return {} end,
  params = { { "m", "i32" } },
  launch = function() return { grid = { 1 }, block = 128 } end,
  cost = function() return 1e-9 end,
}
