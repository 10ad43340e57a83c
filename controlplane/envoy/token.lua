-- Puts tokens that Envoy can't read itself into headers of ours, and says by
-- which credential a token wants to be verified. Nothing here grants anything.

local function unescape(s, plus)
  if plus then s = s:gsub("+", " ") end
  return (s:gsub("%%(%x%x)", function(x) return string.char(tonumber(x, 16)) end))
end

-- pairs of a query or a form, in order
local function fields(s, plus)
  local out = {}
  for part in s:gmatch("[^&]+") do
    local k, v = part:match("^([^=]*)=?(.*)$")
    out[#out + 1] = {name = unescape(k, plus), raw = v, plus = plus}
  end
  return out
end

local function crumbs(s)
  local out = {}
  for part in s:gmatch("[^;]+") do
    part = part:match("^%s*(.-)%s*$")
    local k, v = part:match("^([^=]*)=?(.*)$")
    out[#out + 1] = {name = k, raw = v:match('^"(.*)"$') or v, crumb = true}
  end
  return out
end

-- the first of a name
local function find(list, name)
  for _, f in ipairs(list) do
    if f.name == name then return f.crumb and f.raw or unescape(f.raw, f.plus) end
  end
  return nil
end

local function strip(value, prefix)
  if not value or value:sub(1, #prefix) ~= prefix then return nil end
  return value:sub(#prefix + 1)
end

-- the end of the JSON string that begins before i, and whether it has escapes
local function string_end(s, i)
  local escaped = false
  while true do
    local j = s:find('["\\]', i)
    if not j then return nil end
    if s:byte(j) == 34 then return j, escaped end
    escaped = true
    i = j + 2
  end
end

local plain = {['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}

local function decode(s)
  local ok = true
  s = s:gsub("\\u00([0-7]%x)", function(x) return string.char(tonumber(x, 16)) end)
  s = s:gsub("\\(.)", function(c)
    ok = ok and plain[c] ~= nil
    return plain[c]
  end)
  return ok and s or nil
end

-- the string at the top of a JSON object under a name
local function member(s, name)
  local i, depth = s:find("{", 1, true), 0
  while i do
    local c = s:byte(i)
    if c == 34 then
      local j, escaped = string_end(s, i + 1)
      if not j then return nil end
      local text = s:sub(i + 1, j - 1)
      i = j + 1
      if depth == 1 then
        local v = s:match('^%s*:%s*()"', i)
        if (text == name or escaped and decode(text) == name) and s:find("^%s*:", i) then
          if not v then return nil end
          local e, esc = string_end(s, v + 1)
          if not e then return nil end
          text = s:sub(v + 1, e - 1)
          return esc and decode(text) or text
        elseif v then
          local e = string_end(s, v + 1)
          if not e then return nil end
          i = e + 1
        end
      end
    else
      if c == 123 or c == 91 then depth = depth + 1 else depth = depth - 1 end
      i = i + 1
    end
    i = s:find('["{}%[%]]', i)
  end
  return nil
end

local function part(h, s)
  s = s:gsub("-", "+"):gsub("_", "/")
  return h:base64Decode(s .. string.rep("=", (4 - #s % 4) % 4))
end

local function key(h, token, lookup)
  local header, payload = token:match("^([%w_-]+)%.([%w_-]+)%.[%w_-]*$")
  if not header then return NONE end
  for _, source in ipairs(lookup.sources) do
    local text = part(h, source == "header" and header or payload)
    local v = text and member(text, lookup.claim)
    if v then return KEYS[lookup.header][v] and v or NONE end
  end
  return NONE
end

local function needs_form(h, need)
  for _, p in ipairs(need.places) do
    if p.kind == "form" then
      local t = h:headers():get("content-type")
      return t ~= nil and t:lower():find("^application/x%-www%-form%-urlencoded") ~= nil
    end
  end
  return false
end

function envoy_on_request(h)
  local m = h:streamInfo():dynamicMetadata():get("envoy.filters.http.rbac")
  local id = m and m[TREATMENT]
  local need = id and NEEDS[id]
  if not need then return end

  local form
  if needs_form(h, need) then
    local body = h:body()
    if body and body:length() > 0 then form = fields(body:getBytes(0, body:length()), true) end
  end
  local hs = h:headers() -- after body(), which ends the life of objects from before it
  local query = hs:get(":path"):match("^[^?]*%??(.*)$")
  local cookie = hs:get("cookie")
  local lists = {param = fields(query, false), cookie = cookie and crumbs(cookie) or {}, form = form or {}}
  local tokens = {}

  for i, p in ipairs(need.places) do
    local v = p.kind == "header" and hs:get(p.name) or p.kind ~= "header" and find(lists[p.kind], p.name)
    v = strip(v, p.prefix)
    -- what no token has could not be in a header
    if v and not v:find("^[%w._~+/=-]+$") then v = "malformed" end
    tokens[i] = v
    if v and p.header then hs:replace(p.header, v) end
  end

  for _, l in ipairs(need.lookups) do
    local one
    for _, i in ipairs(l.places) do
      if tokens[i] then
        local k = key(h, tokens[i], l)
        one = (not one or one == k) and k or NONE -- all tokens want the same credential, or none
      end
    end
    if one then hs:replace(l.header, one) end
  end
end
