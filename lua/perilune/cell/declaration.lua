-- Checks the table given to pl.cell and writes it out in full: every gate with its parts, every state with its initial
-- value. Each misuse is an error that names the field, what came and what was expected.

local declaration = {}

-- As in host/device/recurrence.h.
local LIMITS = { gates = 16, states = 8, params = 16 }

-- The fields of the table.
declaration.fields = { name = true, states = true, gates = true, params = true, constants = true, step = true }
local parts = { "input", "recurrent", "bias" }

local function got(x)
  if type(x) == "string" then return ("%q"):format(x) end
  if type(x) == "number" then return tostring(x) end
  return type(x) == "nil" and "nil" or "a " .. type(x)
end

local function keys(t)
  local list = {}
  for key in pairs(t) do list[#list + 1] = tostring(key) end
  table.sort(list)
  return table.concat(list, ", ")
end

-- fail(field, expected, value) for the cell of that name.
local function complainer(name)
  local owner = type(name) == "string" and name ~= "" and ("cell '%s'"):format(name) or "pl.cell"
  return function(field, expected, value)
    error(("%s: %s: expected %s, got %s"):format(owner, field, expected, got(value)), 0)
  end, owner
end

local function is_name(x) return type(x) == "string" and x:match("^[%a_][%w_]*$") ~= nil end

-- A list (1..n, nothing else), at most as long as the limit.
local function check_list(fail, field, list, what)
  if type(list) ~= "table" then fail(field, "a list of " .. what, list) end
  for key in pairs(list) do
    if math.type(key) ~= "integer" or key < 1 or key > #list then
      fail(field, "a list of " .. what, "the key " .. tostring(key))
    end
  end
  if #list > LIMITS[field] then fail(field, ("at most %d"):format(LIMITS[field]), #list) end
end

local function check_unique(fail, field, seen, name)
  if seen[name] then fail(field, "a name used once", name) end
  seen[name] = true
end

-- { "n", key = value } or { name = "n", key = value } with only the keys allowed; returns the name.
local function check_entry(fail, field, entry, allowed)
  if type(entry) == "string" then
    if not is_name(entry) then fail(field, "a name of letters, digits and _", entry) end
    return entry, {}
  end
  if type(entry) ~= "table" then fail(field, "a name or a table with one", entry) end
  local name = entry.name
  if name == nil then name = entry[1] end
  if not is_name(name) then fail(field, "a name of letters, digits and _", name) end
  for key in pairs(entry) do
    if key ~= 1 and key ~= "name" and not allowed[key] then
      fail(("%s.%s"):format(field, tostring(key)), "one of the keys name, " .. keys(allowed), "this key")
    end
  end
  return name, entry
end

local function check_states(fail, given, result)
  check_list(fail, "states", given, "names")
  if #given == 0 then fail("states", "at least one state, the one fed back through R first", "an empty list") end
  local seen = {}
  for i, entry in ipairs(given) do
    local field = ("states[%d]"):format(i)
    local name, options = check_entry(fail, field, entry, { init = true })
    check_unique(fail, field, seen, name)
    local init = options.init == nil and 0 or options.init
    if type(init) ~= "number" or init ~= init then fail(field .. ".init", "a number", init) end
    result.states[i], result.initial[i] = name, init + 0.0
  end
end

local function check_gates(fail, given, result)
  check_list(fail, "gates", given, "names or of { name, recurrent = false, ... }")
  local seen, has_input = {}, false
  for i, entry in ipairs(given) do
    local field = ("gates[%d]"):format(i)
    local name, options = check_entry(fail, field, entry, { input = true, recurrent = true, bias = true })
    check_unique(fail, field, seen, name)
    local has, any = {}, false
    for _, part in ipairs(parts) do
      local value = options[part]
      if value ~= nil and type(value) ~= "boolean" then fail(("%s.%s"):format(field, part), "true or false", value) end
      has[part] = value ~= false
      any = any or has[part]
    end
    if not any then fail(field, "an input, a recurrent part or a bias", "none of them") end
    has_input = has_input or has.input
    result.gates[i], result.parts[i] = name, has
  end
  if not has_input then fail("gates", "at least one gate with an input part (it gives Wx its shape)", "none") end
end

local function is_finite(x) return type(x) == "number" and x - x == 0 end

-- What a layer starts a param with: a number, or { low, high }, between which it draws.
local function check_start(fail, field, init)
  if init == nil or is_finite(init) then return init end
  if type(init) ~= "table" or #init ~= 2 or not (is_finite(init[1]) and is_finite(init[2]) and init[1] < init[2]) then
    fail(field, "a number or { low, high }", init)
  end
  return { init[1], init[2] }
end

local function check_params(fail, params, seen, result)
  check_list(fail, "params", params, "names")
  for i, entry in ipairs(params) do
    local field = ("params[%d]"):format(i)
    local name, options = check_entry(fail, field, entry, { init = true })
    check_unique(fail, field, seen, name)
    result.params[i], result.starts[name] = name, check_start(fail, field .. ".init", options.init)
  end
end

local function check_k(fail, params, constants, result)
  local seen = {}
  if params ~= nil then check_params(fail, params, seen, result) end
  if constants == nil then return end
  if type(constants) ~= "table" then fail("constants", "a table of numbers by name", constants) end
  for name, value in pairs(constants) do
    if not is_name(name) then fail("constants", "names of letters, digits and _", name) end
    local field = "constants." .. name
    if seen[name] then fail(field, "a name that is not one of params (k holds both)", name) end
    if type(value) ~= "number" then fail(field, "a number", value) end
    result.constants[name] = value
  end
end

--- Returns { name, owner, states, initial, gates, parts, params, starts (of params, by name), constants, step };
-- `given` is left as it was.
function declaration.check(given)
  if type(given) ~= "table" then
    error("pl.cell: expected a table { name =, states =, gates =, step = }, got " .. got(given), 0)
  end
  local fail, owner = complainer(given.name)
  if type(given.name) ~= "string" or given.name == "" then fail("name", "a non-empty string", given.name) end
  for key in pairs(given) do
    if not declaration.fields[key] then
      fail(tostring(key), "one of the fields " .. keys(declaration.fields), "this field")
    end
  end
  local result = {
    name = given.name, owner = owner, step = given.step,
    states = {}, initial = {}, gates = {}, parts = {}, params = {}, starts = {}, constants = {},
  }
  check_states(fail, given.states, result)
  check_gates(fail, given.gates, result)
  check_k(fail, given.params, given.constants, result)
  if type(given.step) ~= "function" then fail("step", "a function(gate, state, k)", given.step) end
  return result
end

return declaration
