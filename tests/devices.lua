-- Whether the device that a specification needs is here.

local busted = require "busted"
local pl = require "perilune"

local devices = {}

--- Why there is no such device, or nil. One that is there and does not work is an error.
function devices.missing(device)
  local full_name = device == "cuda" and "cuda:0" or device
  for _, found in ipairs(pl.devices()) do
    if found.name == full_name then
      pl.zeros { 1, device = device }
      return nil
    end
  end
  local _, why_not = pcall(pl.zeros, { 1, device = device })
  return "skipped: " .. tostring(why_not):gsub("^[^\n]-:%d+: ", "")
end

--- True where the device is here; elsewhere `what` is pending, with the reason.
function devices.has(device, what)
  local missing = devices.missing(device)
  if not missing then return true end
  return busted.pending(what .. " " .. missing) -- a tail call: busted then names the caller's place, not this one
end

return devices
