-- The layers of DESIGN: reads every #include line under host/ and fails when a file reaches to the right. Also: every
-- file opens with a comment that says what it is for.

-- Position in host/base -> host/device -> host/cpu, host/cuda -> host/tensor -> host/bind -> host/jupyter ->
-- host/main.c
local place <const> = { base = 1, device = 2, cpu = 3, cuda = 3, tensor = 4, bind = 5, jupyter = 6, main = 7 }
-- Reached through the device struct only; main.c registers them.
local device_folder <const> = { cpu = true, cuda = true }
local lua_header <const> = { ["lua.h"] = true, ["lauxlib.h"] = true, ["lualib.h"] = true }

local function files(...)
  local list = {}
  for _, where in ipairs { ... } do
    for path in io.popen("find " .. where .. " -type f | sort"):lines() do list[#list + 1] = path end
  end
  return list
end

local function content(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

-- "cpu" of host/cpu/kernels/formulas.h, "main" of host/main.c.
local function folder(path) return path:match "^host/([^/.]+)" end

--- What is wrong with `path` including `header`, or nil.
local function objection(path, header)
  local from = folder(path)
  if lua_header[header] and from ~= "bind" and from ~= "main" then return "only host/bind and main.c know Lua" end
  if header:find "^kernels/" or header:find "%.cuh?$" then return "device code is included by no host file" end
  if not header:find "^host/" then return end
  local to = folder(header)
  if not place[to] then return "no such folder" end
  if from == to then return end
  if place[to] > place[from] then return "reaches to the right" end
  if device_folder[to] and from ~= "main" then return "devices are reached through their struct" end
  if place[to] == place[from] then return "neighbours do not include each other" end
  if from == "jupyter" and to == "bind" and header ~= "host/bind/session.h" then
    return "the session is the only door to Lua"
  end
  if from == "jupyter" and to ~= "base" and to ~= "bind" then return "the protocol knows nothing of tensors" end
end

describe("layers", function()
  it("are included from right to left only", function()
    local wrong, count = {}, 0
    for _, path in ipairs(files "host") do
      if path:find "%.[ch]$" then
        assert.is_truthy(place[folder(path)], path .. ": a folder that the layers do not know")
        for header in content(path):gmatch '#%s*include%s*["<]([^">]+)[">]' do
          count = count + 1
          local why = objection(path, header)
          if why then wrong[#wrong + 1] = ("%s includes %s: %s"):format(path, header, why) end
          if header:find "^host/" and not io.open(header) then wrong[#wrong + 1] = path .. ": no file " .. header end
        end
      end
    end
    assert.is_true(count > 100)
    assert.same({}, wrong)
  end)

  it("would notice a file that reaches to the right", function()
    assert.is_truthy(objection("host/base/text.c", "host/device/array.h"))
    assert.is_truthy(objection("host/tensor/views.c", "host/cpu/cpu.h"))
    assert.is_truthy(objection("host/cpu/cpu.c", "host/cuda/cuda.h"))
    assert.is_truthy(objection("host/tensor/views.c", "lua.h"))
    assert.is_truthy(objection("host/jupyter/kernel.c", "host/bind/handle.h"))
    assert.is_truthy(objection("host/cuda/cuda.c", "kernels/step.cuh"))
    assert.is_nil(objection("host/main.c", "host/cpu/cpu.h"))
    assert.is_nil(objection("host/bind/handle.c", "host/tensor/operations.h"))
  end)
end)

local opening <const> = {
  c = "^/%*", h = "^/%*", cu = "^/%*", cuh = "^/%*", lua = "^%-%-", py = '^["#]', txt = "^#", sh = "^#",
}

describe("every file", function()
  it("opens with a comment", function()
    local wrong = {}
    for _, path in ipairs(files("host", "lua/perilune", "experiments", "tests")) do
      local pattern = not path:find "/golden/" and opening[path:match "%.(%w+)$"]
      local text = pattern and content(path):gsub("^#![^\n]*\n", "")
      if text and not text:find(pattern) then wrong[#wrong + 1] = path end
    end
    assert.same({}, wrong)
  end)
end)
