package api

import (
	"testing"

	"github.com/watchword-mesh/watchword/controlplane/access"
)

// Who has one role makes a bounded number of changes; who may do all, and reads, are
// not bounded. Log lines about one caller end, those about another go on.
func TestLoad(t *testing.T) {
	l := newLoad()
	operator := access.Actor{Name: "service:deployer", Roles: []access.Role{{Role: access.Operator}}}
	root := access.Actor{Name: "admin-token", Roles: access.AllRoles()}
	refused := 0
	for range 2 * writesAtOnce {
		if l.mayWrite(operator) != nil {
			refused++
		}
		if err := l.mayWrite(root); err != nil {
			t.Fatalf("%s: %v", root.Name, err)
		}
	}
	if refused < writesAtOnce/2 {
		t.Errorf("%d of %d changes were refused, want about half", refused, 2*writesAtOnce)
	}
	lines := 0
	for range 1000 {
		if l.mayLog("", "192.0.2.1") {
			lines++
		}
	}
	if lines > 30 || !l.mayLog("", "192.0.2.2") {
		t.Errorf("%d lines about one source, want some twenty, and one about another", lines)
	}
}

// However many callers take all places that they can have, who may do everything
// gets in.
func TestEnter(t *testing.T) {
	l := newLoad()
	for n := range maxCalls {
		_, _ = l.enter(access.Actor{Name: "service:" + string(rune('a'+n%8))})
	}
	if _, ok := l.enter(access.Actor{Name: "service:z"}); ok {
		t.Error("there is a place beyond all")
	}
	leave, ok := l.enter(access.Actor{Name: "unix:root", Roles: access.AllRoles()})
	if !ok {
		t.Fatal("who may do everything has no place")
	}
	leave()
	if n := l.all.Taken(); n != 0 {
		t.Errorf("%d places are not given back", n)
	}
}
