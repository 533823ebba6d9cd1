-- The cells that come with the program, by name; each is one file of this folder, read when first asked for.

local declared = require "perilune.code.declared"

local names = {
  "elman", "gru", "lstm", "slstm",
  "cfn", "cifg", "exponential_lstm", "indrnn", "intersection_rnn", "janet", "leaky_esn", "leaky_integrator", "mgu",
  "mi_lstm", "peephole_lstm", "qrnn", "rg_lru", "sru", "ugrnn", "unicornn",
}

local load_cell = declared.safe_index(function(cells, name)
  for _, known in ipairs(names) do
    if known == name then
      cells[name] = require("perilune.cells." .. name)
      return cells[name]
    end
  end
  error(("no cell '%s'; there are %s"):format(tostring(name), table.concat(names, ", ")), 2)
end)

return setmetatable({}, {
  __names = names,
  __index = load_cell,
  __pairs = function(cells)
    local i = 0
    return function()
      i = i + 1
      if names[i] then return names[i], cells[names[i]] end
    end
  end,
})
