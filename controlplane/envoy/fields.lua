-- How requests are read, for the scripts that come after. All of it takes a time
-- that grows with the length of a text and no faster: whoever sends it is not
-- known yet.

-- what is written in a query or a form
local function unescape(s)
  if not s:find("[+%%]") then return s end
  return (s:gsub("+", " "):gsub("%%(%x%x)", function(x) return string.char(tonumber(x, 16)) end))
end

-- what is between separators, and where it ends
local function parts(text, separator)
  local from = 1
  return function()
    if not from then return nil end
    local i = text:find(separator, from, true)
    local part = text:sub(from, i and i - 1 or -1)
    from = i and i + 1
    return part
  end
end

-- the value of the first pair of a name in a query or a form
local function pair(text, name)
  for part in parts(text, "&") do
    local i = part:find("=", 1, true) or #part + 1
    if part ~= "" and unescape(part:sub(1, i - 1)) == name then return unescape(part:sub(i + 1)) end
  end
  return nil
end

-- all lines of a header
local function lines(hs, name)
  local out = {}
  for i = 0, hs:getNumValues(name) - 1 do out[#out + 1] = hs:getAtIndex(name, i) end
  return out
end

-- the value of the first cookie of a name, as Envoy reads it
local function cookie(hs, name)
  for _, line in ipairs(lines(hs, "cookie")) do
    for part in parts(line, ";") do
      local i = part:find("=", 1, true)
      if i and part:sub(part:find("[^ ]"), i - 1) == name then
        local v = part:sub(i + 1)
        return #v > 1 and v:sub(1, 1) == '"' and v:sub(-1) == '"' and v:sub(2, -2) or v
      end
    end
  end
  return nil
end

local function query(hs)
  local path = hs:get(":path") or ""
  local i = path:find("?", 1, true)
  return i and path:sub(i + 1) or "", i and path:sub(1, i - 1) or path
end

local function is_form(hs)
  local t = hs:get("content-type")
  return t ~= nil and t:match("^[^;,]*"):lower():find("^application/x%-www%-form%-urlencoded[ \t]*$") ~= nil
end

local function begins(s, prefix) return s:sub(1, #prefix) == prefix end

-- a script that refuses the request if it fails: Envoy would go on with it, and so
-- with what the caller says of itself
local function closed(script)
  return function(h)
    if not pcall(script, h) then h:respond({[":status"] = "403"}, "") end
  end
end
