package envoy

import (
	"fmt"
	"time"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	xdstypev3 "github.com/cncf/xds/go/xds/type/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	exprv1alpha1 "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// LeaseName is the name of the ECDS resource, and of the HTTP filter, that refuses
// everything when a lease has ended. It is the same for all services, so that one
// body is good for all that are renewed at once.
const LeaseName = "mesh.lease"

// Lease is a mesh.lease that lets requests through until its end, in whole seconds of
// Envoy's clock, and refuses all from then on. The zero time refuses all.
//
// The end is content, since the TTL of an xDS resource is none: it begins when Envoy
// has read it, and a process that stood still serves what has waited. An expression
// that fails counts as false, and so refuses.
func Lease(end time.Time) (Resource, error) {
	refuse := &tree{OnNoMatch: deny(string(reason.LeaseExpired))}
	if !end.IsZero() {
		refuse.MatcherType = inOrder([]branch{{holds(before(end)), allow("live")}}).MatcherType
	}
	return leaseFilter(refuse)
}

// Unleased is the mesh.lease of services without leases: it lets everything through.
func Unleased() (Resource, error) { return leaseFilter(&tree{OnNoMatch: allow("live")}) }

func leaseFilter(t *tree) (Resource, error) {
	ext, err := extension(LeaseName, &rbacv3.RBAC{Matcher: t, RulesStatPrefix: leaseStatPrefix}, nil)
	if err != nil {
		return Resource{}, err
	}
	body, err := marshal.Marshal(ext)
	if err != nil {
		return Resource{}, fmt.Errorf("%s: %w", LeaseName, err)
	}
	return Resource{TypeURL: ExtensionConfigType, Name: LeaseName, Body: body}, nil
}

const leaseStatPrefix = "watchword_lease_"

// before: the request came before a moment.
func before(end time.Time) *expression {
	seconds := constant(&exprv1alpha1.Constant{ConstantKind: &exprv1alpha1.Constant_Int64Value{Int64Value: end.Unix()}})
	return call("_<_", call("int", field(identifier("request"), "time")), seconds)
}

// holds is a predicate that an expression makes.
func holds(x *expression) *predicate {
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input: xdsExtension("request", new(xdsmatcherv3.HttpAttributesCelMatchInput)),
			Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_CustomMatch{
				CustomMatch: xdsExtension("expression", &xdsmatcherv3.CelMatcher{ExprMatch: &xdstypev3.CelExpression{
					//lint:ignore SA1019 it is the form that was measured to work in Envoy 1.40
					ExprSpecifier: &xdstypev3.CelExpression_ParsedExpr{ParsedExpr: &exprv1alpha1.ParsedExpr{Expr: x.proto()}},
				}}),
			},
		},
	}}
}
