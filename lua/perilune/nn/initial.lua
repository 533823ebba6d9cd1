-- Initial values of parameters, as PyTorch draws them.
local pl = require "perilune"
local module = require "perilune.nn.module"

local initial = {}

--- A parameter of the given sizes, uniform in [low, high).
function initial.between(sizes, low, high)
  local _ <close> = pl.scope()
  local values = pl.no_grad(function() return pl.rand(sizes) * (high - low) + low end)
  return module.parameter(values)
end

--- A parameter of the given sizes, uniform in [-bound, bound).
function initial.uniform(sizes, bound) return initial.between(sizes, -bound, bound) end

--- A parameter of the given sizes, normal with mean 0 and standard deviation 1.
function initial.normal(sizes)
  local _ <close> = pl.scope()
  return module.parameter(pl.randn(sizes))
end

--- A parameter of the given sizes, every element `value`.
function initial.constant(sizes, value)
  local _ <close> = pl.scope()
  return module.parameter(pl.full(sizes, value))
end

return initial
