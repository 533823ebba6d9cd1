-- .safetensors and .npy: what is written comes back, and every broken file is an error that leaves nothing behind.
local pl = require "perilune"
local check = require "tests.tensor.check"
local new_folder = require "tests.new_folder"

local types <const> = { "bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64" }
local folder

local function path(name) return folder .. "/" .. name end

local function read(name)
  local file <close> = assert(io.open(path(name), "rb"))
  return file:read "a"
end

local function write(name, bytes)
  local file <close> = assert(io.open(path(name), "wb"))
  file:write(bytes)
  return path(name)
end

local function listing()
  local list = {}
  for name in io.popen("ls -A " .. folder):lines() do list[#list + 1] = name end
  return list
end

local function samples(dtype)
  local function t(data) return pl.tensor(data, { dtype = dtype }) end
  return {
    matrix = t { { 0, 1, 1 }, { 1, 0, 1 } },
    ["a name with spaces, \u{e9} and \"quotes\""] = t { 1, 0 },
    number = t(1),
    empty = t {},
    flat = t { {}, {} },
    strided = t({ { 0, 1, 1 }, { 1, 0, 1 } }):t():narrow(1, 2, 2),
    expanded = t({ { 1 }, { 0 } }):expand { 3, 2, 4 },
    deep = pl.ones { 1, 2, 1, 2, 1, 2, 1, 2, dtype = dtype },
  }
end

before_each(function() folder = new_folder() end)
after_each(function() os.execute("chmod -R u+w " .. folder .. "; rm -r " .. folder) end)

describe("safetensors", function()
  it("brings every type and shape back", function()
    for _, dtype in ipairs(types) do
      local given = samples(dtype)
      pl.save(path "a.safetensors", given)
      local got = pl.load(path "a.safetensors")
      for name, t in pairs(given) do
        assert.equal(dtype, got[name].dtype, name)
        check.same(t, got[name], 0, name)
        got[name] = nil
      end
      assert.is_nil(next(got))
    end
    pl.save(path "a.safetensors", {})
    assert.is_nil(next(pl.load(path "a.safetensors")))
  end)

  it("keeps values to the bit", function()
    local given = {
      whole = pl.tensor({ math.maxinteger, math.mininteger, (1 << 53) + 1 }, { dtype = "int64" }),
      real = pl.tensor({ 0.1, -1e-310, math.huge, 1e308 }, { dtype = "float64" }),
      half = pl.tensor({ 65504, -6e-8, math.huge, 0.1 }):to "float16",
    }
    pl.save(path "a.safetensors", given)
    local got = pl.load(path "a.safetensors")
    for name, t in pairs(given) do check.same(t, got[name], 0, name) end
  end)

  it("is the documented format, names sorted, data aligned, equal for equal tables", function()
    local one, two = pl.tensor { 1, 2 }, pl.tensor({ 7 }, { dtype = "uint8" })
    pl.save(path "a.safetensors", { zebra = one, ant = two })
    local bytes = read "a.safetensors"
    local length = string.unpack("<I8", bytes)
    assert.equal(0, length % 8)
    local header = bytes:sub(9, 8 + length)
    assert.is_true(header:find("ant", 1, true) < header:find("zebra", 1, true))
    local content = pl.json_decode(header)
    assert.equal("F32", content.zebra.dtype)
    assert.equal(2, content.zebra.shape[1])
    assert.equal(0, content.ant.data_offsets[1])
    assert.equal(1, content.zebra.data_offsets[1])
    assert.equal(9, content.zebra.data_offsets[2])
    assert.equal(string.pack("<Bff", 7, 1, 2), bytes:sub(9 + length))
    pl.save(path "b.safetensors", { ant = two, zebra = one })
    assert.equal(bytes, read "b.safetensors")
  end)

  it("reads files of other writers", function()
    local header = '{"__metadata__":{"format":"pt"},"x":{"shape":[2,1],"dtype":"I32","data_offsets":[4,12]},'
      .. '"y":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}'
    write("o.safetensors", string.pack("<s8", header) .. string.pack("<HHi4i4", 0x3FC0, 0, -5, 6))
    local got = pl.load(path "o.safetensors")
    check.near({ { -5 }, { 6 } }, got.x)
    assert.equal(1.5, got.y:item())
    assert.is_nil(got.__metadata__)
  end)

  it("refuses every truncation", function()
    pl.save(path "a.safetensors", { a = pl.ones { 3 }, b = pl.ones { 2, dtype = "int64" } })
    local bytes, before = read "a.safetensors", check.buffers()
    for length = 0, #bytes - 1 do
      write("cut.safetensors", bytes:sub(1, length))
      assert.matches("load '.*cut%.safetensors':", check.message(pl.load, path "cut.safetensors"))
    end
    assert.equal(before, check.buffers())
  end)

  it("refuses garbage", function()
    local before = check.buffers()
    local function entry(fields)
      return '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{' .. fields .. "}}"
    end
    for header, pattern in pairs {
      ["{"] = "header is not a JSON object",
      ["[]"] = "header is not a JSON object",
      ["\255\254"] = "header is not a JSON object",
      ['{"x":1}'] = "tensor 'x' has type 'none'",
      [entry '"dtype":"F8","shape":[1],"data_offsets":[0,1]'] = "tensor 'x' has type 'F8', which is not supported",
      [entry '"dtype":"F32","shape":1,"data_offsets":[0,4]'] = "expected a shape of at most 8 sizes",
      [entry '"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]'] = "expected a shape of at most 8 sizes",
      [entry '"dtype":"F32","shape":["1"],"data_offsets":[0,4]'] = "impossible shape",
      [entry '"dtype":"F32","shape":[-1],"data_offsets":[0,4]'] = "impossible shape",
      [entry '"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]'] = "impossible shape",
      [entry '"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]'] = "too many elements",
      [entry '"dtype":"F32","shape":[2],"data_offsets":[0,4]'] = "has 4 bytes, its shape and type need 8",
      [entry '"dtype":"F32","shape":[2],"data_offsets":[4,12]'] = "lies at bytes 4..12, but the file has 8 bytes",
      [entry '"dtype":"F32","shape":[1],"data_offsets":[8,4]'] = "lies at bytes 8..4",
      [entry '"dtype":"F32","shape":[1],"data_offsets":[-4,0]'] = "lies at bytes",
      [entry '"dtype":"F32","shape":[1]'] = "has 0 bytes, its shape and type need 4",
      ['{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'] =
        "header is not a JSON object: duplicate",
    } do
      write("g.safetensors", string.pack("<s8", header) .. ("\0"):rep(8))
      local message = check.message(pl.load, path "g.safetensors")
      assert.matches(pattern, message, 1, header)
    end
    write("g.safetensors", string.pack("<I8", 1 << 63) .. "{}")
    assert.matches("the header should have 9223372036854775808 bytes", check.message(pl.load, path "g.safetensors"))
    assert.equal(before, check.buffers())
  end)
end)

describe("npy", function()
  it("brings every type and shape back, but knows no bfloat16", function()
    for _, dtype in ipairs(types) do
      for name, t in pairs(samples(dtype)) do
        if dtype == "bfloat16" then
          assert.matches("%.npy has no type for bfloat16", check.message(pl.save, path "a.npy", t))
        else
          pl.save(path "a.npy", t)
          local got = pl.load(path "a.npy")
          assert.equal(dtype, got.dtype)
          check.same(t, got, 0, name)
        end
      end
    end
    pl.save(path "a.npy", { one = pl.tensor { 5 } })
    check.near({ 5 }, pl.load(path "a.npy"))
    assert.matches("%.npy holds one tensor, got 2", check.message(pl.save, path "a.npy",
      { a = pl.ones { 1 }, b = pl.ones { 1 } }))
  end)

  it("is the documented format", function()
    pl.save(path "a.npy", pl.tensor { { 1, 2, 3 } })
    local bytes = read "a.npy"
    assert.equal("\x93NUMPY\1\0", bytes:sub(1, 8))
    local length = string.unpack("<I2", bytes, 9)
    assert.equal(0, (10 + length) % 64)
    assert.matches("^{'descr': '<f4', 'fortran_order': False, 'shape': %(1,3,%), } *\n$", bytes:sub(11, 10 + length))
    assert.equal(string.pack("<fff", 1, 2, 3), bytes:sub(11 + length))
  end)

  local function numpy(header, data, version)
    version = version or 1
    return "\x93NUMPY" .. string.char(version, 0) .. string.pack(version == 1 and "<s2" or "<s4", header) .. data
  end

  it("reads other versions, spacings and column order", function()
    local data = string.pack("<i4i4i4i4i4i4", 1, 2, 3, 4, 5, 6)
    for version = 1, 3 do
      write("v.npy", numpy("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3)}\n", data, version))
      check.near({ { 1, 2, 3 }, { 4, 5, 6 } }, pl.load(path "v.npy"))
    end
    write("f.npy", numpy("{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3), }\n", data))
    local columns = pl.load(path "f.npy")
    check.near({ { 1, 3, 5 }, { 2, 4, 6 } }, columns)
    assert.is_false(columns:is_contiguous())
    check.near({ { 2, 6, 10 }, { 4, 8, 12 } }, columns * 2)
    pl.save(path "g.npy", columns)
    check.near({ { 1, 3, 5 }, { 2, 4, 6 } }, pl.load(path "g.npy"))
    write("k.npy", numpy("{'shape': (6,), 'fortran_order': True, 'descr': '<i4'}", data))
    check.near({ 1, 2, 3, 4, 5, 6 }, pl.load(path "k.npy"))
    write("z.npy", numpy("{'descr': '<f8', 'fortran_order': False, 'shape': ()}", string.pack("<d", 2.5)))
    assert.equal(2.5, pl.load(path "z.npy"):item())
  end)

  it("refuses every truncation", function()
    pl.save(path "a.npy", pl.tensor { 1, 2 })
    local bytes, before = read "a.npy", check.buffers()
    for length = 0, #bytes - 1 do
      write("cut.npy", bytes:sub(1, length))
      assert.matches("load '.*cut%.npy':", check.message(pl.load, path "cut.npy"))
    end
    assert.equal(before, check.buffers())
  end)

  it("refuses garbage", function()
    local before = check.buffers()
    local function described(descr, order, shape)
      return ("{'descr': %s, 'fortran_order': %s, 'shape': %s}"):format(descr, order, shape)
    end
    for header, pattern in pairs {
      [""] = "header is not one of .npy",
      ["{}"] = "header is not one of .npy",
      ["{'descr': '<f4', 'shape': (1,)}"] = "header is not one of .npy",
      ["{'descr': '<f4', 'fortran_order': False}"] = "header is not one of .npy",
      [described("'<f4'", "False", "(x)")] = "header is not one of .npy",
      [described("'<f4'", "False", "(2")] = "header is not one of .npy",
      [described("'<f4'", "False", "(-1,)")] = "header is not one of .npy",
      [described("'<f4'", "False", "(1,1,1,1,1,1,1,1,1)")] = "with at most 8 dimensions",
      [described("'<f4'", "False", "(4611686018427387904,4611686018427387904)")] = "header is not one of .npy",
      [described("'<f4'", "False", "(4611686018427387904,)")] = "header is not one of .npy",
      [described("'<f4'", "False",
        "(400000000000000000,)")] = "8 bytes of data, expected 1600000000000000000: the file",
      [described("'>f4'", "False", "(1,)")] = "element type is not supported",
      [described("'<c8'", "False", "(1,)")] = "element type is not supported",
      [described("[('a', '<f4')]", "False", "(1,)")] = "element type is not supported",
      [described("'<f8'", "False", "(2,)")] = "8 bytes of data, expected 16: the file is cut short",
    } do
      write("g.npy", numpy(header, ("\0"):rep(8)))
      assert.matches(pattern, check.message(pl.load, path "g.npy"), 1, header)
    end
    write("g.npy", "\x93NUMPZ" .. ("\0"):rep(100))
    assert.matches("not an .npy file", check.message(pl.load, path "g.npy"))
    assert.equal(before, check.buffers())
  end)

  it("is NumPy's, both ways", function()
    local python = "/usr/bin/python3 -c 'import numpy' 2>/dev/null"
    if not os.execute(python) then return pending "no NumPy here" end
    pl.save(path "a.npy", pl.tensor({ { 1.5, 2 }, { 3, 4 } }, { dtype = "float64" }):t())
    local code = ("import numpy as n; a = n.load(\"%s\");"
      .. " assert a.dtype == n.float64 and a.tolist() == [[1.5, 3], [2, 4]];"
      .. " n.save(\"%s\", n.asfortranarray(a.astype(n.int32) * 2))"):format(path "a.npy", path "b.npy")
    assert.is_true(os.execute("/usr/bin/python3 -c '" .. code .. "'"))
    check.near({ { 2, 6 }, { 4, 8 } }, pl.load(path "b.npy"))
  end)
end)

describe("files", function()
  it("that are missing, or of no known kind, are errors", function()
    for _, name in ipairs { "none.npy", "none.safetensors" } do
      assert.matches("cannot open '.*" .. name .. "': No such file", check.message(pl.load, path(name)))
    end
    assert.matches("load: path: expected a name ending in .safetensors or .npy, got 'x.txt'",
      check.message(pl.load, "x.txt"))
    assert.matches("save: path: expected a name ending", check.message(pl.save, "x.txt", pl.ones { 1 }))
    assert.matches("holds { name = tensor }, got a bare tensor", check.message(pl.save, "x.safetensors", pl.ones { 1 }))
    assert.matches("save: a: expected a tensor, got number", check.message(pl.save, "x.safetensors", { a = 1 }))
    assert.matches("got a key of type number", check.message(pl.save, "x.safetensors", { pl.ones { 1 } }))
    assert.matches("not valid UTF%-8", check.message(pl.save, path "x.safetensors", { ["\255"] = pl.ones { 1 } }))
    assert.matches("cannot be called __metadata__",
      check.message(pl.save, path "x.safetensors", { __metadata__ = pl.ones { 1 } }))
    assert.matches("there is no 'nowhere' here", check.message(pl.load, path "x.npy", "nowhere"))
    assert.matches("load: device: expected a name, got number", check.message(pl.load, path "x.npy", 1))
    assert.matches("load: device: expected a name, got boolean",
      check.message(pl.load, path "x.npy", { device = true }))
    assert.same({}, listing())
  end)

  it("appear whole or not at all", function()
    local before = check.buffers()
    for _, name in ipairs { "a.npy", "a.safetensors" } do
      local content = name == "a.npy" and pl.ones { 2 } or { a = pl.ones { 2 } }
      pl.save(path(name), content)
    end
    local old = { read "a.npy", read "a.safetensors" }
    assert.matches("cannot create a file beside", check.message(pl.save, path "missing/a.npy", pl.zeros { 3 }))
    os.execute("mkdir " .. path "taken.npy") -- the last step, the renaming, fails
    assert.matches("cannot rename", check.message(pl.save, path "taken.npy", pl.zeros { 3 }))
    assert.same({ "a.npy", "a.safetensors", "taken.npy" }, listing())
    assert.equal(old[1], read "a.npy")
    os.execute("chmod a-w " .. folder)
    if not pcall(pl.save, path "b.npy", pl.zeros { 3 }) then -- root writes everywhere
      assert.same({ "a.npy", "a.safetensors", "taken.npy" }, listing())
    end
    assert.equal(before, check.buffers())
  end)

  it("replace older ones", function()
    pl.save(path "a.npy", pl.ones { 200 })
    pl.save(path "a.npy", pl.zeros { 1 })
    check.near({ 0 }, pl.load(path "a.npy"))
    assert.same({ "a.npy" }, listing())
  end)
end)
