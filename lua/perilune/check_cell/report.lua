-- What pl.check_cell returns, as text for a terminal and as HTML for a notebook.

local escaped = require("perilune.markup").escaped

local Report = { __name = "check of a cell" }
Report.__index = Report

local function verdict(check)
  if check.ok == nil then return "--" end
  return check.ok and "ok" or "FAIL"
end

local function number(x)
  if not x then return "" end
  return x == math.huge and "inf" or ("%.1e"):format(x)
end

local function summary(self)
  local passed, failed = 0, 0
  for _, check in ipairs(self.checks) do
    passed, failed = passed + (check.ok and 1 or 0), failed + (check.ok == false and 1 or 0)
  end
  local state = self.ok and "right" or "NOT right"
  return ("cell %s is %s: %d checks passed, %d failed"):format(self.cell.name, state, passed, failed)
end

-- "4 I H + 4 H D + 4 H", with the number at one size.
local function parameters(self)
  local p, parts = self.parameters, {}
  for _, row in ipairs { { p.input, "I H" }, { p.recurrent, "H D" }, { p.bias + p.params, "H" } } do
    if row[1] > 0 then parts[#parts + 1] = ("%d %s"):format(row[1], row[2]) end
  end
  return ("%s in a layer of I inputs and H units in heads of D; %d where I = H = D = 256"):format(
    table.concat(parts, " + "), (p.input + p.recurrent) * 256 * 256 + (p.bias + p.params) * 256)
end

-- A backend's reason not to take something, without its name and without what comes after the first limit.
local function reason(why) return (why:gsub("^'%a+' ", ""):gsub(";.*", "")) end

-- Which backends take the cell, a line each.
local function taken(self)
  local lines, order = {}, {}
  for _, row in ipairs(self.backends) do
    local key = row.backend .. " on " .. row.device
    if not order[key] then
      order[key] = { types = {}, why = {} }
      order[#order + 1] = key
    end
    local list = row.takes and order[key].types or order[key].why
    list[#list + 1] = row.takes and row.dtype or ("%s: it %s"):format(row.dtype, reason(row.why))
  end
  for _, key in ipairs(order) do
    local list = order[key]
    local line = ("%s: %s"):format(key, #list.types > 0 and table.concat(list.types, ", ") or "no type")
    if #list.why > 0 then line = line .. "; not " .. table.concat(list.why, "; not ") end
    lines[#lines + 1] = line
  end
  local w = self.widest
  local most = w.largest and ("one head of up to %d units"):format(w.largest) or "no head of the sizes tried"
  lines[#lines + 1] = ("fused on %s in bfloat16, 16 rows: %s%s"):format(w.where, most,
    w.next and ("; not %d: it %s"):format(w.next, reason(w.why)) or "")
  if not self.gpu then lines[#lines + 1] = "no GPU was used: fused and alternating are not compared" end
  return lines
end

local columns <const> = { "", "check", "compared with", "largest error", "limit", "" }

local function row_of(check)
  return { verdict(check), check.name, check.compared, number(check.error), number(check.limit), check.note or "" }
end

local function pad(text, width) return text .. (" "):rep(width - #text) end

function Report:__tostring()
  local rows, width, lines = { columns }, {}, { summary(self), "" }
  for _, check in ipairs(self.checks) do rows[#rows + 1] = row_of(check) end
  for _, row in ipairs(rows) do
    for i = 1, #columns - 1 do width[i] = math.max(width[i] or 0, #row[i]) end
  end
  for _, row in ipairs(rows) do
    local cells = {}
    for i = 1, #columns - 1 do cells[i] = pad(row[i], width[i]) end
    lines[#lines + 1] = (table.concat(cells, "  "):gsub("%s+$", ""))
    if row[#columns] ~= "" then lines[#lines + 1] = (" "):rep(width[1] + 4) .. row[#columns] end
  end
  lines[#lines + 1] = "\nbackends"
  for _, line in ipairs(taken(self)) do lines[#lines + 1] = "  " .. line end
  lines[#lines + 1] = "\nparameters: " .. parameters(self)
  lines[#lines + 1] = "\n" .. self.cell:equations()
  return table.concat(lines, "\n")
end

local function html_row(tag, row, style)
  local cells = {}
  for i, text in ipairs(row) do
    cells[i] = ("<%s style=\"text-align:left%s\">%s</%s>"):format(tag, i == 1 and style or "", escaped(text), tag)
  end
  return "<tr>" .. table.concat(cells) .. "</tr>"
end

local function html(self)
  local out = { ("<p><b>%s</b></p>"):format(escaped(summary(self))), "<table>", html_row("th", columns, "") }
  for _, check in ipairs(self.checks) do
    out[#out + 1] = html_row("td", row_of(check), check.ok == false and ";color:#b00020;font-weight:bold" or "")
  end
  out[#out + 1] = "</table><ul>"
  for _, line in ipairs(taken(self)) do out[#out + 1] = "<li>" .. escaped(line) .. "</li>" end
  out[#out + 1] = ("</ul><p>parameters: %s</p>"):format(escaped(parameters(self)))
  out[#out + 1] = ("<details><summary>equations</summary><pre>%s</pre></details>"):format(
    escaped(self.cell:equations()))
  return table.concat(out, "\n")
end

function Report:__mime() return { ["text/plain"] = tostring(self), ["text/html"] = html(self) } end

return Report
