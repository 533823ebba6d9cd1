-- Rows of tasks as the tests of their labels want them: from batches of many lengths, as text.
local pl = require "perilune"

--- Calls visit(text, labels, symbols) for thousands of rows of a task: the symbols joined, the labels of their
-- positions and the list of symbols. Rows are of all lengths from 1 to 40 and, some, of 200. Returns how many rows
-- there were.
return function(name, visit, options)
  local given = { size = 100, min = 1, max = 40, ragged = true, inputs = "ids", seed = 17 }
  for key, value in pairs(options or {}) do given[key] = value end
  local task, count = pl.task[name](given), 0
  local function visit_all(batch)
    local x, y, lengths = batch.x:totable(), batch.y:totable(), batch.lengths:totable()
    for i, length in ipairs(lengths) do
      local symbols = {}
      for t = 1, length do symbols[t] = task.symbols[x[i][t]] end
      visit(table.concat(symbols), table.move(y[i], 1, length, 1, {}), symbols)
      count = count + 1
    end
  end
  for step = 1, 20 do visit_all(task:batch(step)) end
  visit_all(task:sequences(200, 20))
  return count
end
