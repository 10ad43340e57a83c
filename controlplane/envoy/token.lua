-- Puts tokens that Envoy can't read itself into headers of ours, and says by
-- which credential a token wants to be verified. Nothing here grants anything.

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

local function utf8(n)
  local function byte(base, shift) return base + math.floor(n / shift) % 64 end
  if n < 0x80 then return string.char(n) end
  if n < 0x800 then return string.char(byte(0xC0, 64), byte(0x80, 1)) end
  if n < 0x10000 then return string.char(byte(0xE0, 4096), byte(0x80, 64), byte(0x80, 1)) end
  return string.char(byte(0xF0, 262144), byte(0x80, 4096), byte(0x80, 64), byte(0x80, 1))
end

-- the character that is escaped before i, and where it ends; nil for half of one
local function escaped(s, i)
  local n = tonumber(s:match("^%x%x%x%x", i) or "", 16)
  if not n or n >= 0xDC00 and n <= 0xDFFF then return nil end
  if n < 0xD800 or n > 0xDFFF then return utf8(n), i + 4 end
  local low = tonumber(s:match("^\\u(%x%x%x%x)", i + 4) or "", 16)
  if not low or low < 0xDC00 or low > 0xDFFF then return nil end
  return utf8(0x10000 + (n - 0xD800) * 0x400 + low - 0xDC00), i + 10
end

local function decode(s)
  local out, i = {}, 1
  while true do
    local j = s:find("\\", i, true)
    out[#out + 1] = s:sub(i, j and j - 1 or -1)
    if not j then return table.concat(out) end
    local c = s:sub(j + 1, j + 1)
    out[#out + 1], i = plain[c], j + 2
    if c == "u" then out[#out + 1], i = escaped(s, j + 2) end
    if not i or c ~= "u" and not plain[c] then return nil end
  end
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
    if v and v ~= "" then return KEYS[lookup.header][v] and v or NONE end
  end
  return NONE
end

local function needs_form(hs, need)
  for _, p in ipairs(need.places) do
    if p.kind == "form" then return is_form(hs) end
  end
  return false
end

-- what is at a place: of a header all lines, else the first of the name
local function values(hs, p, form)
  if p.kind == "header" then return lines(hs, p.name) end
  local v
  if p.kind == "cookie" then
    v = cookie(hs, p.name)
  else
    v = pair(p.kind == "param" and query(hs) or p.kind == "form" and form or "", p.name)
  end
  return {v}
end

-- the tokens at a place; what no token has could not be in a header
local function tokens(hs, p, form)
  local out = {}
  for _, v in ipairs(values(hs, p, form)) do
    if begins(v, p.prefix) then
      v = v:sub(#p.prefix + 1)
      out[#out + 1] = v:find("^[%w._~+/=-]+$") and v or "malformed"
    end
  end
  return out
end

local function select_credentials(h)
  local m = h:streamInfo():dynamicMetadata():get("envoy.filters.http.rbac")
  local id = m and m[TREATMENT]
  local need = id and NEEDS[id]
  if not need then return end

  local form = ""
  if needs_form(h:headers(), need) then
    local body = h:body()
    if body and body:length() > 0 then form = body:getBytes(0, body:length()) end
  end
  local hs = h:headers() -- after body(), which ends the life of objects from before it
  local found = {}
  for i, p in ipairs(need.places) do
    found[i] = tokens(hs, p, form)
    for _, v in ipairs(p.header and found[i] or {}) do hs:add(p.header, v) end
  end

  for _, l in ipairs(need.lookups) do
    local one
    for _, i in ipairs(l.places) do
      for _, v in ipairs(found[i]) do
        local k = key(h, v, l)
        one = (not one or one == k) and k or NONE -- all tokens want the same credential, or none
      end
    end
    if one then hs:replace(l.header, one) end
  end
end

envoy_on_request = closed(select_credentials)
