-- Text inside HTML and SVG.
local markup = {}

local named <const> = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

--- The text as HTML and SVG show it literally.
function markup.escaped(text) return (text:gsub('[&<>"]', named)) end

return markup
