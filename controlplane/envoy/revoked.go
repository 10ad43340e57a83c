package envoy

import (
	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/proto"
)

// revokedFilter is mesh.revoked: nothing is revoked yet, so all is live. A
// matcher without the last action would refuse everything.
func revokedFilter(service string) (string, proto.Message, error) {
	live, err := pack(&rbacconfigv3.Action{Name: "live", Action: rbacconfigv3.RBAC_ALLOW})
	if err != nil {
		return "", nil, err
	}
	return RevokedName(service), &rbacv3.RBAC{
		Matcher: &xdsmatcherv3.Matcher{OnNoMatch: &xdsmatcherv3.Matcher_OnMatch{
			OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{
				Action: &xdscorev3.TypedExtensionConfig{Name: "live", TypedConfig: live},
			},
		}},
		RulesStatPrefix: "watchword_revoked_",
	}, nil
}
