-- Chips for which fused recurrences can be planned without having one: what core.fused_chip says of each.

local chips = {}

local KB <const> = 1024

-- name, architecture, multiprocessors, bytes of shared memory that one block can have
local rows <const> = {
  { "A100", 80, 108, 163 * KB }, { "RTX 3090", 86, 82, 99 * KB }, { "RTX 4090", 89, 128, 99 * KB },
  { "H100", 90, 132, 227 * KB }, { "H200", 90, 132, 227 * KB }, { "B200", 100, 148, 227 * KB },
  { "RTX 5090", 120, 170, 99 * KB },
}

--- All chips: { name =, architecture =, multiprocessors =, shared_bytes = }, in a list and by name.
chips.list, chips.known = {}, {}
for i, row in ipairs(rows) do
  local chip = { name = row[1], architecture = row[2], multiprocessors = row[3], shared_bytes = row[4] }
  chips.list[i], chips.known[row[1]] = chip, chip
end

--- What a chip is known by, where something is remembered of it.
function chips.identity(chip)
  return ("%s, sm_%d, %d multiprocessors, %d bytes"):format(chip.model or chip.name or "no model", chip.architecture,
    chip.multiprocessors, chip.shared_bytes)
end

--- The chip of that name. Another name is an error.
function chips.named(name)
  if chips.known[name] then return chips.known[name] end
  local names = {}
  for i, chip in ipairs(chips.list) do names[i] = chip.name end
  error(("chip: expected one of %s, got %s"):format(table.concat(names, ", "), tostring(name)), 0)
end

return chips
