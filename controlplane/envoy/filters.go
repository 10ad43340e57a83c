package envoy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Filters is the YAML of the three HTTP filters that the owner of an Envoy puts
// in front of all others, with what its bootstrap needs as comments.
// deployments/envoy/envoy.yaml is a whole config with them.
func Filters(service string, from *BootstrapIdentity) ([]byte, error) {
	if service == "" {
		return nil, errors.New("filters: the service is not named")
	}
	if err := from.check(); err != nil {
		return nil, fmt.Errorf("filters: identity: %w", err)
	}
	socket, err := from.transportSocket()
	if err != nil {
		return nil, fmt.Errorf("filters: %w", err)
	}
	tls, err := protoYAML(socket)
	if err != nil {
		return nil, fmt.Errorf("filters: %w", err)
	}
	for _, name := range []string{InboundName(service), RevokedName(service)} {
		if quoted := strconv.Quote(name); quoted != `"`+name+`"` {
			return nil, fmt.Errorf("filters: %s is not the name of a service", strconv.Quote(service))
		}
	}
	return []byte(strings.NewReplacer("{{inbound}}", InboundName(service), "{{revoked}}", RevokedName(service), "{{lease}}", LeaseName,
		"{{tls}}", "#     "+strings.ReplaceAll(strings.TrimSpace(string(tls)), "\n", "\n#     ")).Replace(filtersYAML)), nil
}

const filtersYAML = `# The first three http_filters, in this order, before all that trust the caller.
#
# Beside them this Envoy needs:
# - node.cluster: the name of the service.
# - dynamic_resources.ads_config with api_type DELTA_GRPC (not GRPC: only delta
#   takes a filter back) to a cluster that speaks HTTP/2 to the control plane,
#   with connection_keepalive (interval 5s, timeout 2s), and with
#   grpc_services.envoy_grpc.retry_policy.retry_back_off (0.2s to 1s).
#   If its ADS belongs to another control plane: instead of "ads: {}", an
#   api_config_source of its own in each filter.
# - In that cluster the certificate of this instance, which "watchword enrol"
#   keeps in the folder, and the name of the control plane:
#   transport_socket:
{{tls}}
# - In the HttpConnectionManager: normalize_path, merge_slashes,
#   path_with_escaped_slashes_action: REJECT_REQUEST and
#   common_http_protocol_options.headers_with_underscores_action: REJECT_REQUEST.
#   Without them the filters refuse ambiguous paths where a policy looks at
#   paths, instead of normalising them.
# - No typed_per_filter_config for these names, which would switch them off.
- name: "{{inbound}}"
  config_discovery:
    config_source: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 3s}
    # Until the control plane has answered: refuse everything.
    default_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {}}
    type_urls:
    - type.googleapis.com/envoy.extensions.filters.http.filter_chain.v3.FilterChainConfig
    - type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
- name: "{{revoked}}"
  config_discovery:
    config_source: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 3s}
    default_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {}}
    type_urls:
    - type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
# The same for all services: refuses everything when the control plane was not heard
# of for longer than a Service with a lease allows.
- name: "{{lease}}"
  config_discovery:
    config_source: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 3s}
    default_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {}}
    type_urls:
    - type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
`
