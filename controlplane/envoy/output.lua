-- Takes the token out of the request, where the rule that verified it says so
-- and Envoy can't, and puts claims into the query, cookies and forms, in place of
-- what the caller sent there under their names. Cookies that could be read as two
-- were refused before.

local function unescape(s)
  return (s:gsub("+", " "):gsub("%%(%x%x)", function(x) return string.char(tonumber(x, 16)) end))
end

local function escape(s)
  return (s:gsub("[^%w._*-]", function(c) return string.format("%%%02X", c:byte()) end))
end

local function same(s) return s end

-- text without the parts that have one of the names, with those of add
local function changed(text, separator, remove, add, read, write)
  local out = {}
  for part in text:gmatch("[^" .. separator .. "]+") do
    part = part:match("^%s*(.-)%s*$")
    if part ~= "" and not remove[read(part:match("^([^=]*)"))] then out[#out + 1] = part end
  end
  for _, a in ipairs(add) do out[#out + 1] = write(a.name) .. "=" .. write(a.value) end
  return table.concat(out, separator == ";" and "; " or separator)
end

-- what there is to do for one kind: names that go, and values that come
local function work(hs, list)
  local w = {remove = {}, add = {}, any = #list > 0}
  for _, e in ipairs(list) do
    w.remove[e.name] = true
    for _, header in ipairs(e.headers) do
      local v = hs:get(header)
      if v then w.add[#w.add + 1] = {name = e.name, value = v} end
    end
  end
  return w
end

-- whether the first of a name begins with a prefix
local function begins(text, separator, name, prefix, read)
  for part in text:gmatch("[^" .. separator .. "]+") do
    local k, v = part:match("^%s*([^=]*)=?(.-)%s*$")
    if read(k) == name then return read(v:match('^"(.*)"$') or v):sub(1, #prefix) == prefix end
  end
  return false
end

-- whether there was a token at a place
local function found(hs, p)
  if p.kind == "header" then
    local v = hs:get(p.name)
    return v ~= nil and v:sub(1, #p.prefix) == p.prefix
  elseif p.kind == "param" then
    return begins(hs:get(":path"):match("^[^?]*%??(.*)$"), "&", p.name, p.prefix, unescape)
  elseif p.kind == "cookie" then
    return begins(hs:get("cookie") or "", ";", p.name, p.prefix, same)
  end
  return true -- other fields of a form by that name are none of the service's business
end

-- the places of the token, if the rule that verified it has it taken out
local function taken(h, id)
  local list = id and REMOVE[id]
  local jwt = list and h:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn")
  for _, r in ipairs(jwt and list or {}) do
    if jwt[r.by] and jwt[r.by].alg then return r.places end
  end
  return {}
end

function envoy_on_request(h)
  local hs = h:headers()
  local m = h:streamInfo():dynamicMetadata():get("envoy.filters.http.rbac")
  local id = m and m[TREATMENT]
  local works = {param = work(hs, PARAMETERS), cookie = work(hs, COOKIES), form = work(hs, id and FORMS[id] or {})}
  for _, p in ipairs(taken(h, id)) do
    if not found(hs, p) then
      -- it stays
    elseif p.kind == "header" then
      hs:remove(p.name)
    else
      works[p.kind].remove[p.name], works[p.kind].any = true, true
    end
  end

  if works.param.any then
    local before = hs:get(":path")
    local path, query = before:match("^([^?]*)%??(.*)$")
    query = changed(query, "&", works.param.remove, works.param.add, unescape, escape)
    local after = query == "" and path or path .. "?" .. query
    if after ~= before then hs:replace(":path", after) end
  end
  if works.cookie.any then
    local before = hs:get("cookie")
    local after = changed(before or "", ";", works.cookie.remove, works.cookie.add, same, same)
    if after ~= "" then hs:replace("cookie", after) elseif before then hs:remove("cookie") end
  end
  local kind = hs:get("content-type")
  if not works.form.any or not kind or not kind:lower():find("^application/x%-www%-form%-urlencoded") then return end
  local body = h:body(true) -- also of a request without one
  local before = body:getBytes(0, body:length())
  local after = changed(before, "&", works.form.remove, works.form.add, unescape, escape)
  if after ~= before then h:headers():replace("content-length", body:setBytes(after)) end
end
