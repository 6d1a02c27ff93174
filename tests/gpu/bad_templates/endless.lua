-- By its own words cheaper than all but crashing.lua, so it is tried next.
return {
  implements = "matmul",
  constants = function() return {} end,
  params = { { "m", "i32" } },
  launch = function() return { grid = { 1 }, block = 128 } end,
  cost = function() return 2e-9 end,
}
