-- Puts claims into cookies and forms, in place of what the caller sent there
-- under their names. Cookies that could be read as two were refused before.

local function unescape(s)
  return (s:gsub("+", " "):gsub("%%(%x%x)", function(x) return string.char(tonumber(x, 16)) end))
end

local function escape(s)
  return (s:gsub("[^%w._~-]", function(c) return string.format("%%%02X", c:byte()) end))
end

-- the parts of a text that do not have one of the names
local function others(s, separator, names, read)
  local out = {}
  for part in s:gmatch("[^" .. separator .. "]+") do
    part = part:match("^%s*(.-)%s*$")
    if part ~= "" and not names[read(part:match("^([^=]*)"))] then out[#out + 1] = part end
  end
  return out
end

local function names(list)
  local out = {}
  for _, e in ipairs(list) do out[e.name] = true end
  return out
end

local COOKIE_NAMES, FIELD_NAMES = names(COOKIES), names(FIELDS)

local function same(s) return s end

function envoy_on_request(h)
  local hs = h:headers()
  if #COOKIES > 0 then
    local cookie = hs:get("cookie")
    local parts = cookie and others(cookie, ";", COOKIE_NAMES, same) or {}
    for _, c in ipairs(COOKIES) do
      local v = hs:get(c.header)
      if v then parts[#parts + 1] = c.name .. "=" .. v end
    end
    if #parts > 0 then hs:replace("cookie", table.concat(parts, "; ")) elseif cookie then hs:remove("cookie") end
  end
  if #FIELDS == 0 then return end
  local kind = hs:get("content-type")
  if not kind or not kind:lower():find("^application/x%-www%-form%-urlencoded") then return end
  local values = {}
  for i, f in ipairs(FIELDS) do values[i] = hs:get(f.header) or false end
  local body = h:body(true) -- also of a request without one
  local parts = others(body:getBytes(0, body:length()), "&", FIELD_NAMES, unescape)
  for i, f in ipairs(FIELDS) do
    if values[i] then parts[#parts + 1] = escape(f.name) .. "=" .. escape(values[i]) end
  end
  h:headers():replace("content-length", body:setBytes(table.concat(parts, "&")))
end
