-- Modules made of modules, and dropout: Sequential, List, Dropout.
local pl = require "perilune"
local check = require "perilune.nn.check"
local module = require "perilune.nn.module"

local function fill(self, name, modules)
  for i, one in ipairs(modules) do
    if not module.is_module(one) and not (name == "nn.Sequential" and type(one) == "function") then
      check.fail("%s: module %d: expected a module, got a %s", name, i, type(one))
    end
    self[i] = one
  end
end

local Sequential = module.class("nn.Sequential")

--- nn.Sequential(m1, m2, ..) or nn.Sequential{m1, m2, ..}: each module (or function of one tensor) on the result of the
-- one before.
function Sequential:init(...)
  local first = ...
  local listed = type(first) == "table" and not module.is_module(first)
  fill(self, "nn.Sequential", listed and first or { ... })
end

function Sequential:forward(x)
  for i = 1, #self do x = (self[i](x)) end
  return x
end

local List = module.class("nn.List")

--- nn.List{m1, m2, ..}: modules that a field holds together, used by index.
function List:init(modules)
  fill(self, "nn.List", check.kind("nn.List", "modules", modules, "table"))
end

local Dropout = module.class("nn.Dropout")

--- nn.Dropout(p): in training sets each element to 0 with probability p and divides the others by 1 - p.
function Dropout:init(p)
  self.p = check.number("nn.Dropout", "p", p == nil and 0.5 or p, 0, 1)
end

function Dropout:forward(x)
  if not self.training or self.p == 0 then return x end
  return pl.dropout(x, self.p)
end

function Dropout:extra()
  return tostring(self.p)
end

return { Sequential = Sequential, List = List, Dropout = Dropout }
