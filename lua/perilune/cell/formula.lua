-- The formulas of the table of elementwise operations, turned into Lua functions over any kind of value.

local formula = {}

--- Compiles one formula text, as core.pointwise holds it, over `functions` (exp, log, where, eq, ...: what the text may
--- call). Returns a function of the operands a, b, c, the gradient g of the result and the result y.
function formula.compile(text, functions)
  return assert(load("local a, b, c, g, y = ... return " .. text, "=" .. text, "t", functions))
end

--- A table that compiles formula texts once: cache[text] is the function.
function formula.cache(functions)
  return setmetatable({}, {
    __index = function(cache, text)
      local compiled = formula.compile(text, functions)
      cache[text] = compiled
      return compiled
    end,
  })
end

return formula
