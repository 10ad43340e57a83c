package access

import (
	"fmt"
	"slices"
	"strings"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Need is what a call needs of its caller. The zero Need is one that nobody meets.
type Need struct {
	// Roles of which one will do.
	Roles []policyv1.RoleBindingSpec_Role
	// Owner: SERVICE_OWNER will do, too, for what is about its own services.
	Owner bool
	// Lists: a call without a service lists what the caller may see.
	Lists bool
	// ActsAs: the answer lets its owner act as the service.
	ActsAs bool
	// Anybody who is known may call.
	Anybody bool
}

type roles = []policyv1.RoleBindingSpec_Role

var (
	readers  = roles{Viewer, Operator, SecurityOfficer}
	writers  = roles{Operator, SecurityOfficer}
	officers = roles{SecurityOfficer}
)

// needs has a row for every method of the AdminService. What Apply and Delete may
// write depends on what it is: see MayChange.
var needs = map[string]Need{
	adminv1.AdminService_Apply_FullMethodName:  {Roles: writers, Owner: true},
	adminv1.AdminService_Delete_FullMethodName: {Roles: writers, Owner: true},

	adminv1.AdminService_List_FullMethodName:               {Roles: readers, Owner: true, Lists: true},
	adminv1.AdminService_ListDataPlanes_FullMethodName:     {Roles: readers, Owner: true, Lists: true},
	adminv1.AdminService_ListRefusals_FullMethodName:       {Roles: readers, Owner: true, Lists: true},
	adminv1.AdminService_ListJoinTokens_FullMethodName:     {Roles: readers, Owner: true, Lists: true},
	adminv1.AdminService_ListInstances_FullMethodName:      {Roles: readers, Owner: true, Lists: true},
	adminv1.AdminService_ListClientSecrets_FullMethodName:  {Roles: readers, Owner: true, Lists: true},
	adminv1.AdminService_GetDataPlaneConfig_FullMethodName: {Roles: readers, Owner: true},
	adminv1.AdminService_WaitInSync_FullMethodName:         {Roles: readers, Owner: true},
	adminv1.AdminService_Explain_FullMethodName:            {Roles: readers, Owner: true},
	adminv1.AdminService_Diagnose_FullMethodName:           {Roles: readers},
	adminv1.AdminService_GetSelf_FullMethodName:            {Anybody: true},

	adminv1.AdminService_CreateJoinToken_FullMethodName: {Roles: roles{Operator}, Owner: true, ActsAs: true},
	adminv1.AdminService_RevokeJoinToken_FullMethodName: {Roles: writers, Owner: true},
	adminv1.AdminService_RevokeInstances_FullMethodName: {Roles: officers, Owner: true},
	// Of the owner's own services, as audiences.
	adminv1.AdminService_Revoke_FullMethodName:           {Roles: officers, Owner: true},
	adminv1.AdminService_DeleteRevocation_FullMethodName: {Roles: officers, Owner: true},
	adminv1.AdminService_ListRevocations_FullMethodName:  {Roles: readers, Owner: true},

	adminv1.AdminService_CreateClientSecret_FullMethodName: {Roles: officers, Owner: true, ActsAs: true},
	adminv1.AdminService_DeleteClientSecret_FullMethodName: {Roles: officers, Owner: true},
	adminv1.AdminService_IssueToken_FullMethodName:         {Roles: officers, Owner: true, ActsAs: true},

	adminv1.AdminService_ListSigningKeys_FullMethodName:  {Roles: readers},
	adminv1.AdminService_WatchSigningKeys_FullMethodName: {Roles: readers},
	adminv1.AdminService_RotateSigningKey_FullMethodName: {Roles: officers},
	adminv1.AdminService_RevokeSigningKey_FullMethodName: {Roles: officers},

	adminv1.AdminService_ListAudit_FullMethodName:        {Roles: officers},
	adminv1.AdminService_RotateKEK_FullMethodName:        {Roles: officers},
	adminv1.AdminService_RevokeAdminToken_FullMethodName: {Roles: officers},
	adminv1.AdminService_CreateAdminToken_FullMethodName: {Roles: officers},
}

// What the Kong API needs. What may be written is up to MayChange, too.
var (
	KongRead  = Need{Roles: readers}
	KongWrite = Need{Roles: roles{Operator}}
)

// NeedOf returns what a method of the AdminService needs, by its full gRPC name.
// One that is not known has a Need that nobody meets.
func NeedOf(method string) Need { return needs[method] }

// Known says whether there is such a method.
func Known(method string) bool { _, ok := needs[method]; return ok }

// Writes says whether a call of a method writes something, if only to the audit. One
// that is not known does.
func Writes(method string) bool {
	n := needs[method]
	return !n.Anybody && !slices.Contains(n.Roles, Viewer)
}

// Meets says whether the actor may make such a call at all. The error is a
// Denial; nil leaves it to the request.
func (a Actor) Meets(n Need) error {
	if a.Name != "" && (n.Anybody || a.Has(n.Roles...) || n.Owner && a.Has(ServiceOwner)) {
		return nil
	}
	return Denial{Message: n.text("")}
}

// Call is a call about one service.
type Call struct {
	// Method is the full gRPC name.
	Method  string
	Service string
}

// Allows says whether the actor may make a call, in a state. The error is a
// Denial.
func (a Actor) Allows(state policy.State, c Call) error {
	n := NeedOf(c.Method)
	if err := a.Meets(n); err != nil {
		return err
	}
	lists := n.Lists && c.Service == ""
	if !n.Anybody && !lists && !a.Has(n.Roles...) && !a.Owns(c.Service) {
		return Denial{Message: n.text(c.Service)}
	}
	if !n.ActsAs {
		return nil
	}
	if d := a.actAs(c.Service, RolesOfService(state, c.Service)); d != nil {
		return *d
	}
	return nil
}

// actAs refuses a way to act as a service that may do more than the actor.
func (a Actor) actAs(service string, has []Role) *Denial {
	for _, r := range has {
		if !a.covers(r) {
			return &Denial{Key: policy.Key{Kind: policy.KindService, Name: service},
				Message: fmt.Sprintf("who acts as this service has the role %s: needs that role", r)}
		}
	}
	return nil
}

// Denial is why an actor may not do something. It may be shown to the actor.
type Denial struct {
	// Key and Field say what it is about; either may be empty.
	Key   policy.Key
	Field string
	// Message names the roles that would do.
	Message string
}

// Error implements error.
func (d Denial) Error() string {
	var parts []string
	if d.Key.Name != "" {
		parts = append(parts, d.Key.String())
	}
	if d.Field != "" {
		parts = append(parts, d.Field)
	}
	return strings.Join(append(parts, d.Message), ": ")
}

// text is such as "needs the role OPERATOR or SECURITY_OFFICER, or SERVICE_OWNER
// of the service".
func (n Need) text(service string) string {
	owner := ""
	if n.Owner && service != "" {
		owner = fmt.Sprintf("SERVICE_OWNER of Service %q", service)
	} else if n.Owner {
		owner = "SERVICE_OWNER of the service"
	}
	names := orList(n.Roles)
	switch {
	case n.Anybody:
		return "needs a credential"
	case names == "" && owner == "":
		return "nobody may call this"
	case owner == "":
		return "needs the role " + names
	}
	return "needs the role " + names + ", or " + owner
}

func orList(list roles) string {
	var names []string
	for _, r := range list {
		names = append(names, r.String())
	}
	if last := len(names) - 1; last > 0 {
		return strings.Join(names[:last], ", ") + " or " + names[last]
	}
	return strings.Join(names, "")
}
