-- Gives a refusal of the chain its status, body and headers. What the service
-- itself answers is left alone: no stage has refused then.

local function word(m, stages, kind)
  for _, s in ipairs(stages) do
    if m[s .. kind .. "_engine_result"] == "denied" then
      local id = m[s .. kind .. "_effective_policy_id"]
      return id and id:match("^[%l_]+")
    end
  end
  return nil
end

local function override(m, w)
  for _, r in ipairs(RESPONSES[m[TREATMENT]] or {}) do
    if not r.reasons or r.reasons[w] then return r end
  end
  return {}
end

local function challenge(w)
  local c = 'Bearer realm="' .. REALM .. '"'
  if w ~= "token_missing" then c = c .. ', error="invalid_token", error_description="' .. w .. '"' end
  return c
end

function envoy_on_response(h)
  local hs = h:headers()
  local grpc = hs:get("grpc-status")
  local refusal = hs:get(":status") == "403" or grpc == "7"
  if not refusal and not OBSERVES then return end
  local m = h:streamInfo():dynamicMetadata():get("envoy.filters.http.rbac")
  if not m then return end
  if OBSERVES then
    hs:remove("x-watchword-observed")
    local o = word(m, OBSERVED, "shadow")
    if o then hs:replace("x-watchword-observed", o) end
  end
  local w = refusal and word(m, STAGES, "enforced")
  if not w then return end

  local r = UNAVAILABLE[w] and {status = 503} or override(m, w)
  local status = r.status or (FORBIDDEN[w] and 403 or 401)
  hs:remove("x-watchword-observed")
  hs:replace("x-watchword-reason", w)
  if status == 401 then hs:replace("www-authenticate", challenge(w)) end
  if grpc then
    hs:replace("grpc-status", UNAVAILABLE[w] and "14" or status == 401 and "16" or "7")
    hs:replace("grpc-message", r.body and r.body:gsub("[^%w ._,:;/-]", function(c) return string.format("%%%02X", c:byte()) end) or w)
    return
  end
  hs:replace(":status", tostring(status))
  hs:replace("content-type", r.type or "application/json")
  local text = r.body or '{"reason":"' .. w .. '"}'
  local body = h:body()
  if body then h:headers():replace("content-length", body:setBytes(text)) end
end
