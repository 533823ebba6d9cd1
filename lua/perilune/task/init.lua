-- pl.task: tasks that make their own data, one file each.
local task = {}
for _, name in ipairs {
  "parity", "even_pairs", "cycle_navigation", "modular_arithmetic", "modular_arithmetic_brackets", "s5", "a5", "dyck1",
  "dyck2", "aa_star", "flip_flop",
} do
  task[name] = require("perilune.task." .. name)
end
return task
