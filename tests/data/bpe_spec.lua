-- Byte-pair encoding against a plain, slow one.
local pl = require "perilune"
local core = require "perilune.core"
local message_of = require "message_of"

-- The words of `text`, which separates them by single blanks and has letters only.
local function words_of(text)
  local words = {}
  for word in text:gmatch " ?%a+" do
    local ids = {}
    for i = 1, #word do ids[i] = word:byte(i) end
    words[#words + 1] = ids
  end
  return words
end

local function merged(ids, left, right, made)
  local new, i = {}, 1
  while i <= #ids do
    local found = ids[i] == left and ids[i + 1] == right
    new[#new + 1] = found and made or ids[i]
    i = i + (found and 2 or 1)
  end
  return new
end

local function most_frequent(words)
  local counts, best, left, right = {}, 1, nil, nil
  for _, ids in ipairs(words) do
    for i = 1, #ids - 1 do
      local key = ids[i] << 32 | ids[i + 1]
      counts[key] = (counts[key] or 0) + 1
    end
  end
  for key, count in pairs(counts) do
    if count > best or count == best and count > 1 and key < (left << 32 | right) then
      best, left, right = count, key >> 32, key & 0xFFFFFFFF
    end
  end
  return left, right
end

local function slow(text, most)
  local words, merges = words_of(text), {}
  for i = 0, most - 1 do
    local left, right = most_frequent(words)
    if not left then break end
    for _, value in ipairs { left, right, 256 + i } do merges[#merges + 1] = value end
    for w, ids in ipairs(words) do words[w] = merged(ids, left, right, 256 + i) end
  end
  local ids = {}
  for _, word in ipairs(words) do
    for _, id in ipairs(word) do ids[#ids + 1] = id + 1 end
  end
  return merges, ids
end

local function random_text(words)
  math.randomseed(5)
  local parts = {}
  for i = 1, words do
    local letters = {}
    for k = 1, math.random(1, 9) do letters[k] = ("aabbc"):sub(math.random(5)):sub(1, 1) end
    parts[i] = table.concat(letters)
  end
  return table.concat(parts, " ")
end

describe("byte pairs", function()
  it("are those of a slow encoder", function()
    local text = random_text(300)
    local merges, ids = slow(text, 60)
    assert.equal(180, #merges)
    assert.same(merges, core.bpe_train(text, 60))
    local tokenizer = pl.data.train_bpe(text, 316)
    assert.equal(316, tokenizer.vocabulary)
    assert.same(ids, tokenizer:encode(text):totable())
  end)

  it("end where no pair comes twice", function()
    assert.equal(258, pl.data.train_bpe("abcabc", 1000).vocabulary)
    assert.matches("an integer of at least 256", message_of(pl.data.train_bpe, "a", 255))
  end)

  it("bring back any bytes", function()
    local tokenizer = pl.data.train_bpe(("the cat's sat, it's 123 123  \n\n été été "):rep(9), 300)
    math.randomseed(3)
    for _ = 1, 200 do
      local bytes = {}
      for i = 1, math.random(0, 60) do
        local known = ("the 's1\n été"):sub(math.random(9)):sub(1, 2)
        bytes[i] = math.random(3) == 1 and string.char(math.random(0, 255)) or known
      end
      local text = table.concat(bytes)
      assert.is_true(tokenizer:decode(tokenizer:encode(text)) == text)
    end
  end)

  it("stay inside GPT-2's words", function()
    local text = "I'll go  été42 --ok\n\n x"
    local tokenizer, pieces = pl.data.train_bpe(text:rep(3, "\n"), 400), {}
    for i, id in ipairs(tokenizer:encode(text):totable()) do pieces[i] = tokenizer.pieces[id] end
    assert.same({ "I", "'ll", " go", " ", " été", "42", " --", "ok", "\n\n", " x" }, pieces)
  end)
end)
