-- Makes a token count as none: no mark, no claims, no header of them.

function envoy_on_request(h)
  local d = h:streamInfo():dynamicMetadata()
  local m = d:get("envoy.filters.http.rbac")
  local places = m and PLACES[m[TREATMENT]]
  local jwt = places and d:get("envoy.filters.http.jwt_authn")
  if not jwt or not jwt[PAYLOAD] then return end
  local none = m[RESULT] == "denied"
  for _, p in ipairs(places) do none = none or jwt[p.by] ~= nil and jwt[p.failed] ~= nil end
  if not none then return end
  d:set("envoy.filters.http.jwt_authn", PAYLOAD, {})
  for _, p in ipairs(places) do
    if jwt[p.by] then d:set("envoy.filters.http.jwt_authn", p.by, {}) end
  end
  local hs = h:headers()
  for _, name in ipairs(HEADERS) do hs:remove(name) end
end
