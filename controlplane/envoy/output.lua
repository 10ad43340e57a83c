-- Takes the token out of the request, where the rule that verified it says so
-- and Envoy can't, and puts claims into the query, cookies and forms, in place of
-- what the caller sent there under their names. Cookies that could be read as two
-- were refused before.

local function escape(s)
  return (s:gsub("[^%w._*-]", function(c) return string.format("%%%02X", c:byte()) end))
end

local function trim(s)
  local to = #s
  while to > 0 and (s:byte(to) == 32 or s:byte(to) == 9) do to = to - 1 end
  return s:sub(s:find("[^ \t]") or 1, to)
end

-- the name of a pair of a query or a form
local function pair_name(part) return unescape(part:match("^[^=]*")) end

-- the name of a cookie as most servers read it: without blanks
local function cookie_name(part) return trim(part:match("^[^=]*")) end

-- whether any part has one of the names
local function has(text, separator, names, name_of)
  for part in parts(text, separator) do
    if part ~= "" and names[name_of(part)] then return true end
  end
  return false
end

-- a query or a form without the pairs of some names
local function without_pairs(text, names)
  if not has(text, "&", names, pair_name) then return text end
  local out, some = {}, false
  for part in parts(text, "&") do
    if part == "" and some or part ~= "" and not names[pair_name(part)] then out[#out + 1], some = part, true end
  end
  return table.concat(out, "&")
end

local function without_cookies(text, names)
  if not has(text, ";", names, cookie_name) then return text end
  local out = {}
  for part in parts(text, ";") do
    local from = part:find("[^ ]")
    if from and not names[cookie_name(part)] then out[#out + 1] = part:sub(from) end
  end
  return table.concat(out, "; ")
end

local function with(text, separator, add, write)
  local out = {text ~= "" and text or nil}
  for _, a in ipairs(add) do out[#out + 1] = write(a.name) .. "=" .. write(a.value) end
  return table.concat(out, separator)
end

local function same(s) return s end

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

-- whether there was a token at a place
local function found(hs, p)
  if p.kind == "header" then
    for _, v in ipairs(lines(hs, p.name)) do
      if begins(v, p.prefix) then return true end
    end
    return false
  elseif p.kind == "form" then
    return true -- other fields of a form by that name are none of the service's business
  end
  local v
  if p.kind == "cookie" then v = cookie(hs, p.name) else v = pair(query(hs), p.name) end
  return v ~= nil and begins(v, p.prefix)
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

-- whether a claim is there to be copied
local function says(claims, path)
  local v = claims
  for _, name in ipairs(path) do
    if type(v) ~= "table" then return false end
    v = v[name]
  end
  return v ~= nil and v ~= ""
end

-- leaves of the claims of several tokens those that count: what was copied last
local function single(h, hs)
  for _, r in ipairs(SEVERAL) do
    if hs:getNumValues(r.count) > 1 then
      local jwt = h:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn") or {}
      for _, header in ipairs(jwt[r.by] and r.headers or {}) do
        local n = hs:getNumValues(header.name)
        local v = n > 0 and says(jwt[PAYLOAD], header.path) and hs:getAtIndex(header.name, n - 1)
        hs:remove(header.name)
        if v then hs:add(header.name, v) end
      end
    end
  end
end

local function rewrite(h)
  local hs = h:headers()
  single(h, hs)
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
    local before, path = query(hs)
    local after = with(without_pairs(before, works.param.remove), "&", works.param.add, escape)
    if after ~= before then hs:replace(":path", after == "" and path or path .. "?" .. after) end
  end
  if works.cookie.any then
    local before = table.concat(lines(hs, "cookie"), "; ")
    local after = with(without_cookies(before, works.cookie.remove), "; ", works.cookie.add, same)
    if after ~= before then hs:remove("cookie") end
    if after ~= before and after ~= "" then hs:add("cookie", after) end
  end
  if not works.form.any or not is_form(hs) then return end
  local body = h:body(true) -- also of a request without one
  local before = body:getBytes(0, body:length())
  local after = with(without_pairs(before, works.form.remove), "&", works.form.add, escape)
  if after ~= before then h:headers():replace("content-length", body:setBytes(after)) end
end

envoy_on_request = closed(rewrite)
