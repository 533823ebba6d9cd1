-- The part of the tensor API that is easier said in Lua: constructors and methods made of others, and how a tensor
-- prints.
local core = require "perilune.core"
local declared = require "perilune.code.declared"
local methods = core.methods

local tensor = {}

-- Constructors -------------------------------------------------------------------------------------------------------

--- zeros{ sizes, dtype =, device = } -> tensor: a tensor of zeros; the options may stand in a table of their own.
function tensor.zeros(form, options) return core.full(form, 0, options, "zeros") end

--- ones{ sizes, dtype =, device = } -> tensor: a tensor of ones; the options may stand in a table of their own.
function tensor.ones(form, options) return core.full(form, 1, options, "ones") end

local function like(name, make, what)
  local function make_like(t, options)
    if not core.is_tensor(t) then
      error(("%s: self: expected a tensor, got %s"):format(name, type(t)), 2)
    end
    local form = t.shape
    form.dtype, form.device = t.dtype, t.device
    if options ~= nil and type(options) ~= "table" then
      error(("%s: options: expected a table, got %s"):format(name, type(options)), 2)
    end
    for key, value in pairs(options or {}) do form[key] = value end
    return make(form)
  end
  return declared.document(make_like, ("%s(t [, { dtype =, device = }]) -> tensor: %s in the shape of t, of its type "
    .. "and on its device unless the options say otherwise."):format(name, what))
end
tensor.zeros_like = like("zeros_like", tensor.zeros, "zeros")
tensor.ones_like = like("ones_like", tensor.ones, "ones")
tensor.rand_like = like("rand_like", core.rand, "uniform random numbers")
tensor.randn_like = like("randn_like", core.randn, "normal random numbers")

-- For the last two dimensions of a shape: row numbers [R, 1] and column numbers [1, C].
local function rows_and_columns(shape, device)
  local where = { dtype = "int64", device = device }
  return core.arange(1, shape[#shape - 1], where):unsqueeze(2), core.arange(1, shape[#shape], where):unsqueeze(1)
end

--- eye(n [, options]) -> tensor: ones on the diagonal of a matrix of zeros; also eye{ n [, m], dtype =, device = }.
function tensor.eye(n, options)
  local given = type(n) == "table" and n or { n }
  local sizes = { given[1], given[2] or given[1] }
  for i, size in ipairs { given[1] or "nothing", sizes[2] } do
    if math.type(size) ~= "integer" or size < 0 then
      error(("eye: %s: expected an integer of 0 or more, got %s"):format(i == 1 and "n" or "m", tostring(size)), 2)
    end
  end
  if #given > 2 then error(("eye: expected one or two sizes, got %d"):format(#given), 2) end
  if options ~= nil and type(options) ~= "table" then
    error(("eye: options: expected a table, got %s; rows and columns are eye{ n, m }"):format(type(options)), 2)
  end
  for key, value in pairs(given == n and n or options or {}) do
    if key ~= 1 and key ~= 2 then sizes[key] = value end
  end
  local t = core.full(sizes, 0, nil, "eye")
  local row, column = rows_and_columns(t.shape, t.device)
  return t:copy_(core.eq(row, column))
end

--- randperm(n) -> tensor: 1..n in random order, int64.
function tensor.randperm(n)
  if math.type(n) ~= "integer" or n < 0 then
    error(("randperm: n: expected an integer of 0 or more, got %s"):format(tostring(n)), 2)
  end
  local keys, order = core.rand({ n, dtype = "float64" }):totable(), {}
  for i = 1, n do order[i] = i end
  for i = n, 2, -1 do
    local k = math.floor(keys[i] * i) + 1
    order[i], order[k] = order[k], order[i]
  end
  return core.tensor(order, { dtype = "int64" })
end

for _, make in ipairs {
  core.tensor, core.full, core.rand, core.randn, core.randint, core.bernoulli, core.arange, core.linspace, methods.to,
  tensor.zeros, tensor.ones, tensor.eye, tensor.zeros_like, tensor.ones_like, tensor.rand_like, tensor.randn_like,
} do
  declared.options(make, core.form_options)
end

-- Operations take what follows their first operand by name, too: x:sum{ dim = 1, keepdim = true }.
for _, row in ipairs(core.operations) do
  local names = {}
  for name, code in row.signature:gmatch " ([%w_]+):(%a)" do
    if code ~= "a" then names[name] = true end
  end
  declared.options(core[row.name], names)
end

-- Methods ------------------------------------------------------------------------------------------------------------

--- size([dim]): the table of sizes, or the size of one dimension.
function methods:size(dim)
  local shape = self.shape
  if dim == nil then return shape end
  local size = math.type(dim) == "integer" and shape[dim < 0 and #shape + 1 + dim or dim]
  if not size then error(("size: dim: %s is outside 1..%d"):format(tostring(dim), #shape), 2) end
  return size
end

--- t() -> tensor: a matrix with rows and columns exchanged, a view.
function methods:t()
  if #self.shape ~= 2 then error(("t: expected 2 dimensions, got %d"):format(#self.shape), 2) end
  return self:transpose(1, 2)
end

--- view(sizes) -> tensor: as reshape.
function methods:view(...) return self:reshape(...) end

--- flatten() -> tensor: all elements in one dimension.
function methods:flatten() return self:reshape { -1 } end

--- std([dim [, keepdim [, correction]]]) -> tensor: the standard deviation, the square root of var.
function methods:std(...) return core.sqrt(self:var(...)) end

--- float() -> tensor: as float32.
function methods:float() return self:to "float32" end

--- double() -> tensor: as float64.
function methods:double() return self:to "float64" end

--- long() -> tensor: as int64.
function methods:long() return self:to "int64" end

--- Pieces of `size` along `dim` (the last may be shorter), or of the sizes listed.
function methods:split(size, dim)
  dim = dim or 1
  local whole, parts, start = self:size(dim), {}, 1
  if type(size) ~= "table" and (math.type(size) ~= "integer" or size < 1) then
    error(("split: size: expected a positive integer or a table, got %s"):format(tostring(size)), 2)
  end
  if type(size) ~= "table" and whole > 0 and (whole - 1) // size < 4 then
    return { core.pieces(self, dim, size) } -- whose gradients are put together in one pass
  end
  while start <= whole do
    local length = type(size) == "table" and size[#parts + 1] or type(size) ~= "table" and size
    if not length or (type(size) == "table" and start + length - 1 > whole) then
      error(("split: sizes: expected a sum of %d"):format(whole), 2)
    end
    length = math.min(length, whole - start + 1)
    parts[#parts + 1] = self:narrow(dim, start, length)
    start = start + length
  end
  if type(size) == "table" and #size > #parts then error(("split: sizes: expected a sum of %d"):format(whole), 2) end
  return parts
end

--- n pieces of nearly equal size along `dim`.
function methods:chunk(n, dim)
  if math.type(n) ~= "integer" or n < 1 then
    error(("chunk: n: expected a positive integer, got %s"):format(tostring(n)), 2)
  end
  return self:split(math.max(1, (self:size(dim or 1) + n - 1) // n), dim)
end

-- Comparisons and masks: each a method and a function of pl -----------------------------------------------------------

local function both(name, f)
  tensor[name], methods[name] = f, f
end

local function check_self(name, t)
  if not core.is_tensor(t) then error(("%s: self: expected a tensor, got %s"):format(name, type(t)), 3) end
end

--- masked_fill(t, mask, value) -> tensor: t with `value` where the mask is not 0.
both("masked_fill", function(t, mask, value)
  check_self("masked_fill", t)
  if not core.is_tensor(mask) then error(("masked_fill: mask: expected a tensor, got %s"):format(type(mask)), 2) end
  if type(value) ~= "number" then error(("masked_fill: value: expected a number, got %s"):format(type(value)), 2) end
  if not t.dtype:find "float" and not math.tointeger(value) then
    error(("masked_fill: value: expected an integer for %s, got %s"):format(t.dtype, value), 2)
  end
  return core.where(mask:to("bool"):expand(t.shape), value, t):to(t.dtype)
end)

-- Keeps the elements of the last two dimensions of which keep(column, row + diagonal) is 1.
local function triangle(name, keep, what)
  local function make_triangle(t, diagonal)
    check_self(name, t)
    diagonal = diagonal or 0
    if #t.shape < 2 then error(("%s: expected at least 2 dimensions, got %d"):format(name, #t.shape), 2) end
    if math.type(diagonal) ~= "integer" then
      error(("%s: diagonal: expected an integer, got %s"):format(name, tostring(diagonal)), 2)
    end
    local row, column = rows_and_columns(t.shape, t.device)
    return core.where(keep(column, row + diagonal), t, 0):to(t.dtype)
  end
  both(name, declared.document(make_triangle, ("%s(t [, diagonal = 0]) -> tensor: the elements of matrices on and %s a "
    .. "diagonal, 0 elsewhere; diagonal 1 is the one above the main one."):format(name, what)))
end
triangle("tril", core.le, "below")
triangle("triu", core.ge, "above")

local closeness <const> = { rtol = 1e-5, atol = 1e-8, equal_nan = false }

-- The options of allclose with the defaults filled in.
local function read_closeness(given)
  local read = {}
  for name, default in pairs(closeness) do read[name] = default end
  for name, value in pairs(given or {}) do
    local default = closeness[name]
    if default == nil then error(("allclose: unknown option '%s'"):format(tostring(name)), 3) end
    if type(value) ~= type(default) then
      error(("allclose: %s: expected a %s, got %s"):format(name, type(default), type(value)), 3)
    end
    read[name] = value
  end
  return read
end

--- Whether |a - b| <= atol + rtol |b| for every element (equal infinities are close, NaN is close to nothing unless
-- equal_nan): true or false. options: rtol (1e-5), atol (1e-8), equal_nan (false). b may be a number.
both("allclose", function(a, b, options)
  check_self("allclose", a)
  local option = read_closeness(options)
  if type(b) == "number" then b = core.full(a.shape, b, { dtype = "float64", device = a.device }) end
  if not core.is_tensor(b) then
    error(("allclose: second operand: expected a tensor or a number, got %s"):format(type(b)), 2)
  end
  return core.no_grad(function()
    local scope <close> = core.scope() -- luacheck: ignore scope
    local x, y = a:to "float64", b:to "float64"
    local off, bound = core.abs(x - y), core.abs(y) * option.rtol + option.atol
    local close = core.where(core.eq(x, y), 1, core.lt(off, math.huge) * core.le(off, bound))
    if option.equal_nan then close = core.where(core.ne(x, x) * core.ne(y, y), 1, close) end
    return close:numel() == 0 or close:min():item() == 1
  end)
end)

declared.options(tensor.allclose, closeness)

-- Types of products -----------------------------------------------------------------------------------------------

local Restore = { __close = function(self) core.autocast(self.before) end }

--- f(...), with products of float32 tensors (matmul, and the recurrent ones of rnn) rounding their operands to `dtype`,
-- "bfloat16" or "float16". They add up in float32, and results, parameters and gradients stay float32. What f records
-- keeps its types in backward.
function tensor.autocast(dtype, f, ...)
  local _ <close> = setmetatable({ before = core.autocast() }, Restore)
  core.autocast(dtype)
  return f(...)
end

-- Text ---------------------------------------------------------------------------------------------------------------

local EDGE <const>, FEW <const> = 3, 8

local function rounded(dtype)
  if not dtype:find "float" then return tostring end
  return function(x)
    if x ~= x then return "nan" end
    local size = math.abs(x)
    local plain = size == 0 or size == math.huge or (size >= 1e-4 and size < 1e6)
    return (plain and "%.4f" or "%.4e"):format(x)
  end
end

-- The indices of n entries that are shown: all of them, or the first and last EDGE with false between.
local function shown_indices(n)
  local list = {}
  local function add(from, to) for i = from, to do list[#list + 1] = i end end
  if n <= FEW then
    add(1, n)
  else
    add(1, EDGE)
    list[#list + 1] = false
    add(n - EDGE + 1, n)
  end
  return list
end

-- What is shown of a tensor along its first dimension: say(slice, index) for each, `gap` for those left out.
local function entries(t, say, gap)
  local list = {}
  for k, i in ipairs(shown_indices(#t)) do list[k] = i and say(t[i], i) or gap end
  return list
end

local function block(t, indent, number)
  local rank = #t.shape
  if rank == 0 then return number(t:item()) end
  if rank == 1 then
    return "{ " .. table.concat(entries(t, function(x) return number(x:item()) end, "..."), ", ") .. " }"
  end
  local rows = entries(t, function(x) return block(x, indent .. "  ", number) end, "...")
  return "{ " .. table.concat(rows, ",\n" .. indent .. "  ") .. " }"
end

local function heading(t) return ("tensor [%s] %s %s"):format(table.concat(t.shape, ", "), t.dtype, t.device) end

local function describe(t)
  local dropped = core.dropped(t)
  if dropped then return "tensor (dropped: its scope " .. dropped .. ")" end
  local scope <close> = core.scope() -- luacheck: ignore scope
  local head = heading(t)
  if t:numel() == 0 then return head end
  local values = core.no_grad(block, t:detach(), "", rounded(t.dtype))
  return head .. (#t.shape > 1 and "\n" or " ") .. values
end

local function tag(name, text) return ("<%s>%s</%s>"):format(name, text, name) end

local function table_row(t, number)
  return table.concat(entries(t, function(x) return tag("td", number(x:item())) end, tag("td", "…")))
end

-- A tensor of one or two dimensions as a table with its indices.
local function html_table(t, number)
  local matrix, columns, rows = #t.shape == 2, {}, {}
  for k, i in ipairs(shown_indices(t.shape[#t.shape])) do columns[k] = tag("th", i or "…") end
  if matrix then
    local function row(x, i) return tag("tr", tag("th", i) .. table_row(x, number)) end
    rows = entries(t, row, tag("tr", tag("th", "…") .. tag("td", "…"):rep(#columns)))
  else
    rows[1] = tag("tr", table_row(t, number))
  end
  local head = tag("tr", (matrix and tag("th", "") or "") .. table.concat(columns))
  return tag("table", tag("thead", head) .. tag("tbody", table.concat(rows)))
end

-- Adds the matrices of a tensor to `list`, each under its indices; FEW of them at most.
local function add_matrices(list, t, indices, number)
  if #list > FEW then return end
  if #list == FEW then
    list[#list + 1] = tag("p", "…")
  elseif #t.shape <= 2 then
    list[#list + 1] = (indices == "" and "" or tag("p", "[" .. indices .. "]")) .. html_table(t, number)
  else
    for i = 1, #t do add_matrices(list, t[i], indices == "" and i or indices .. ", " .. i, number) end
  end
end

--- What a notebook shows: text, and where there are several elements tables.
local function mime(t)
  local bundle = { ["text/plain"] = describe(t) }
  if core.dropped(t) or #t.shape == 0 or t:numel() == 0 then return bundle end
  local scope <close> = core.scope() -- luacheck: ignore scope
  local parts = {}
  core.no_grad(add_matrices, parts, t:detach(), "", rounded(t.dtype))
  bundle["text/html"] = tag("p", heading(t)) .. table.concat(parts)
  return bundle
end

core.tensor_metatable.__tostring = describe
core.tensor_metatable.__mime = mime
core.tensor_metatable.__name = "tensor"

return tensor
