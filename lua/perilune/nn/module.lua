-- Modules: objects with parameters that can be called, saved, moved and nested.
--
--   local Pair = nn.class("Pair")
--   function Pair:init(n) self.left, self.right = nn.Linear(n, n), nn.Linear(n, n) end
--   function Pair:forward(x) return self.left(x) * self.right(x) end
--   local m = Pair(16)   m(x)   m:parameters()
--
-- Fields that hold a module, nn.parameter(tensor) or nn.buffer(tensor) are found by themselves, in the order in which
-- they were first assigned; the path of field names ("left.weight") names a parameter.
local core = require "perilune.core"
local pl = require "perilune"
local manual = require "perilune.code.manual"
local check = require "perilune.nn.check"

local Module = {}
local roles = setmetatable({}, { __mode = "k" }) -- tensor -> "parameter" or "buffer"
local order = setmetatable({}, { __mode = "k" }) -- module -> its fields in the order of first assignment

local function has_role(tensor, role)
  roles[core.retain(tensor)] = role
  return tensor
end

--- A tensor that a module learns: a leaf of its own that wants a gradient.
local function parameter(tensor)
  check.tensor("nn.parameter", "tensor", tensor)
  return has_role(tensor:detach():requires_grad(), "parameter")
end

--- A tensor that belongs to a module's state and is not learned.
local function buffer(tensor)
  check.tensor("nn.buffer", "tensor", tensor)
  return has_role(tensor:detach(), "buffer")
end

--- Whether a value is a module.
local function is_module(value)
  local class = getmetatable(value)
  return type(value) == "table" and type(class) == "table" and class.is_module_class == true
end

local function record(self, name, value)
  rawset(self, name, value)
  for _, known in ipairs(order[self]) do
    if known == name then return end
  end
  table.insert(order[self], name)
end

--- A new class of modules. Its instances are made by calling it; `init` receives the arguments.
local function class(name, base)
  local new = setmetatable({}, {
    __index = base or Module,
    __call = function(self, ...)
      local module = setmetatable({}, self)
      order[module] = {}
      rawset(module, "training", true)
      module:init(...)
      return module
    end,
  })
  new.__name, new.__index, new.__newindex, new.is_module_class = name, new, record, true
  new.__call = function(self, ...) return self:forward(...) end
  new.__tostring = function(self) return self:describe() end
  return new
end

--- Receives what the class is called with.
function Module.init() end

--- What calling the module does.
function Module:forward()
  check.fail("%s has no forward method", getmetatable(self).__name)
end

-- Calls visit(path, module, field, tensor, role) for every field below that holds a parameter or buffer; a tensor that
-- two fields share is visited twice.
local function walk(self, prefix, visit)
  for _, field in ipairs(order[self]) do
    local value, path = rawget(self, field), prefix .. tostring(field)
    if is_module(value) then
      walk(value, path .. ".", visit)
    elseif type(value) == "userdata" and roles[value] then
      visit(path, self, field, value, roles[value])
    end
  end
end

--- Every parameter once, as a list of { name, tensor }.
function Module:named_parameters()
  local list, seen = {}, {}
  walk(self, "", function(path, _, _, tensor, role)
    if role == "parameter" and not seen[tensor] then
      list[#list + 1], seen[tensor] = { path, tensor }, true
    end
  end)
  return list
end

--- Every parameter once, in a stable order.
function Module:parameters()
  local list = self:named_parameters()
  for i, pair in ipairs(list) do list[i] = pair[2] end
  return list
end

--- How many numbers the parameters hold.
function Module:parameter_count()
  local count = 0
  for _, tensor in ipairs(self:parameters()) do count = count + tensor:numel() end
  return count
end

--- The modules directly inside, as a list of { name, module }.
function Module:children()
  local list = {}
  for _, field in ipairs(order[self]) do
    local value = rawget(self, field)
    if is_module(value) then list[#list + 1] = { tostring(field), value } end
  end
  return list
end

--- Name -> tensor of every parameter and buffer: what pl.save takes. The tensors are the module's own, not copies.
function Module:state_dict()
  local state = {}
  walk(self, "", function(path, _, _, tensor) state[path] = tensor end)
  return state
end

local function sorted_keys(set)
  local keys = {}
  for key in pairs(set) do keys[#keys + 1] = tostring(key) end
  table.sort(keys)
  return keys
end

-- What differs between a module's tensors and a state, as a list of sentences.
local function differences(own, state)
  local problems, missing, unexpected = {}, {}, {}
  for name in pairs(own) do
    if state[name] == nil then missing[name] = true end
  end
  for name in pairs(state) do
    if own[name] == nil then unexpected[name] = true end
  end
  if next(missing) then problems[1] = "missing " .. table.concat(sorted_keys(missing), ", ") end
  if next(unexpected) then problems[#problems + 1] = "unexpected " .. table.concat(sorted_keys(unexpected), ", ") end
  for _, name in ipairs(sorted_keys(own)) do
    if state[name] ~= nil then
      check.tensor("load_state_dict", name, state[name])
      local got, expected = check.shape_text(state[name].shape), check.shape_text(own[name].shape)
      if got ~= expected then
        problems[#problems + 1] = ("%s: expected shape %s, got %s"):format(name, expected, got)
      end
    end
  end
  return problems
end

--- Copies the tensors of a state into the module's own. Nothing is copied when a name is missing, unexpected or of
-- another shape.
function Module:load_state_dict(state)
  check.kind("load_state_dict", "state", state, "table")
  local own = self:state_dict()
  local problems = differences(own, state)
  if #problems > 0 then
    check.fail("load_state_dict of %s: %s", getmetatable(self).__name, table.concat(problems, "; "))
  end
  pl.no_grad(function()
    local _ <close> = pl.scope()
    for name, tensor in pairs(own) do tensor:copy_(state[name]:to(tensor.dtype):to(tensor.device)) end
  end)
  return self
end

local function moved_to(tensor, where)
  local floating = type(where) == "string" and where:find "float"
  if floating and not tensor.dtype:find "float" then return tensor end
  return tensor:to(where)
end

--- Moves the parameters and buffers to a device ("cpu", "cuda") or changes their type ("float64", "bfloat16"); buffers
-- of integers keep theirs. They are new tensors afterwards: make the optimiser after this call.
function Module:to(where)
  local moved = {}
  walk(self, "", function(_, module, field, tensor, role)
    moved[tensor] = moved[tensor] or (role == "parameter" and parameter or buffer)(moved_to(tensor:detach(), where))
    rawset(module, field, moved[tensor])
  end)
  return self
end

--- Calls f(module) on this module and all below.
function Module:apply(f)
  f(self)
  for _, child in ipairs(self:children()) do child[2]:apply(f) end
  return self
end

--- Switches the layers that behave differently in training (dropout).
function Module:train(on)
  return self:apply(function(module) rawset(module, "training", on ~= false) end)
end

--- As train(false).
function Module:eval()
  return self:train(false)
end

--- Forgets the gradients of all parameters.
function Module:zero_grad()
  for _, tensor in ipairs(self:parameters()) do tensor.grad = nil end
end

--- What stands between the parentheses of tostring(module).
function Module.extra()
  return ""
end

-- A function by the name that it has in pl, if it has one.
local function name_of(f)
  local entry = manual.of(f)
  local name = entry and entry[1]:match "^[%w_]+"
  return name and rawget(pl, name) == f and "pl." .. name or "function"
end

--- The text of tostring(module): the class, its sizes, and the modules and functions inside.
function Module:describe()
  local name, lines = getmetatable(self).__name, {}
  for _, field in ipairs(order[self]) do
    local value = rawget(self, field)
    local text = is_module(value) and tostring(value):gsub("\n", "\n  ") or type(value) == "function" and name_of(value)
    if text then lines[#lines + 1] = ("  %s: %s"):format(field, text) end
  end
  if #lines == 0 then return ("%s(%s)"):format(name, self:extra()) end
  return ("%s(%s) {\n%s\n}"):format(name, self:extra(), table.concat(lines, "\n"))
end

return { class = class, parameter = parameter, buffer = buffer, is_module = is_module }
