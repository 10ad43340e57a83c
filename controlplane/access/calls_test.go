package access

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// Every method of the admin API has a row, and every row a method: a call that is
// new is refused until somebody says who may make it.
func TestEveryCallHasARow(t *testing.T) {
	service := adminv1.File_watchword_admin_v1_admin_proto.Services().ByName("AdminService")
	var methods []string
	for i := range service.Methods().Len() {
		methods = append(methods, "/"+string(service.FullName())+"/"+string(service.Methods().Get(i).Name()))
	}
	slices.Sort(methods)
	if diff := cmp.Diff(methods, slices.Sorted(maps.Keys(needs))); diff != "" {
		t.Errorf("methods of the proto - and rows +:\n%s", diff)
	}
	all := Actor{Name: "unix:root", Roles: AllRoles()}
	for _, m := range methods {
		if err := all.Meets(NeedOf(m)); err != nil {
			t.Errorf("who has all roles may not call %s: %v", m, err)
		}
		if err := (Actor{}).Meets(NeedOf(m)); err == nil {
			t.Errorf("nobody may call %s", m)
		}
	}
	err := all.Meets(NeedOf("/watchword.admin.v1.AdminService/Unheard"))
	if err == nil || err.Error() != "nobody may call this" || Known("/watchword.admin.v1.AdminService/Unheard") {
		t.Errorf("a call without a row: %v; want it refused", err)
	}
}

// A call about one service: the owner of it may what the table says, the owner of
// another may not, and nobody gets a way to act as a service that may do more.
func TestAllows(t *testing.T) {
	s := state(t, mesh, binding("b", `{role: SECURITY_OFFICER, subjects: [{service: deployer}]}`), binding("o", `{role: SERVICE_OWNER, services: [orders], subjects: [{service: stock}]}`))
	owner := func(services ...string) []Role { return []Role{{Role: ServiceOwner, Services: services}} }
	has := func(list ...Role) []Role { return list }
	const (
		create = adminv1.AdminService_CreateJoinToken_FullMethodName
		secret = adminv1.AdminService_CreateClientSecret_FullMethodName
		issue  = adminv1.AdminService_IssueToken_FullMethodName
		revoke = adminv1.AdminService_RevokeInstances_FullMethodName
		list   = adminv1.AdminService_ListInstances_FullMethodName
	)
	actAs := "Service/deployer: who acts as this service has the role SECURITY_OFFICER: needs that role"
	for _, tt := range []struct {
		roles           []Role
		method, service string
		want            string
	}{
		{owner("orders"), create, "orders", ""},
		{owner("orders"), create, "stock", `needs the role OPERATOR, or SERVICE_OWNER of Service "stock"`},
		{owner("orders"), create, "", "needs the role OPERATOR, or SERVICE_OWNER of the service"},
		{owner("orders"), list, "", ""},
		{owner("orders"), list, "stock", `needs the role VIEWER, OPERATOR or SECURITY_OFFICER, or SERVICE_OWNER of Service "stock"`},
		{has(Role{Role: Viewer}), list, "stock", ""},
		{has(Role{Role: Viewer}), create, "orders", "needs the role OPERATOR, or SERVICE_OWNER of the service"},
		{has(Role{Role: Operator}), create, "orders", ""},
		{has(Role{Role: Operator}), secret, "orders", "needs the role SECURITY_OFFICER, or SERVICE_OWNER of the service"},
		{has(Role{Role: SecurityOfficer}), create, "orders", "needs the role OPERATOR, or SERVICE_OWNER of the service"},
		{nil, list, "", "needs the role VIEWER, OPERATOR or SECURITY_OFFICER, or SERVICE_OWNER of the service"},

		{has(Role{Role: Operator}), create, "deployer", actAs},
		{owner("deployer"), create, "deployer", actAs},
		{owner("deployer"), secret, "deployer", actAs},
		{owner("deployer"), issue, "deployer", actAs},
		{owner("deployer"), revoke, "deployer", ""},
		{append(owner("deployer"), Role{Role: SecurityOfficer}), create, "deployer", ""},
		{has(Role{Role: SecurityOfficer}), secret, "deployer", ""},
		{AllRoles(), create, "deployer", ""},
		{has(Role{Role: Operator}), create, "stock", "Service/stock: who acts as this service has the role SERVICE_OWNER of orders: needs that role"},
		{append(owner("orders"), Role{Role: Operator}), create, "stock", ""},
		{AllRoles(), create, "stock", ""},
	} {
		got := ""
		if err := (Actor{Name: "a", Roles: tt.roles}).Allows(s, Call{Method: tt.method, Service: tt.service}); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s may call %s about %q: %q, want %q", names(tt.roles), tt.method, tt.service, got, tt.want)
		}
	}
}
