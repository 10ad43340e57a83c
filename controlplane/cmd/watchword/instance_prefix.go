package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

const (
	// wholeInstance is how long the ID of an instance is: 16 bytes in base32.
	wholeInstance = 26
	// shortestInstance is the least of an ID that may stand for it.
	shortestInstance = 4
)

// wholeInstances completes what people copy from a table, where IDs are cut
// short. A whole ID goes to the control plane as it is, also one that it lists no
// more.
func (c *client) wholeInstances(ctx context.Context, service string, given []string) ([]string, error) {
	if !slices.ContainsFunc(given, func(id string) bool { return len(id) < wholeInstance }) {
		return given, nil
	}
	response, err := c.ListInstances(ctx, &adminv1.ListInstancesRequest{Service: service})
	if err != nil {
		return nil, err
	}
	var all, whole []string
	for _, i := range response.GetInstances() {
		all = append(all, i.GetId())
	}
	for _, prefix := range given {
		id := prefix
		if len(prefix) < wholeInstance {
			if id, err = oneInstance(all, prefix); err != nil {
				return nil, err
			}
		}
		if id == "" {
			return nil, &failure{code: exitFailed, err: fmt.Errorf("there is no instance %q of service %q, and none was revoked", prefix, service),
				hint: "`watchword instance list --service " + service + "` lists those that there are"}
		}
		// The same one twice would be refused in words about what nobody has written.
		if !slices.Contains(whole, id) {
			whole = append(whole, id)
		}
	}
	return whole, nil
}

// oneInstance finds the one that begins with prefix; it is empty if there is none.
func oneInstance(all []string, prefix string) (string, error) {
	if len(prefix) < shortestInstance {
		return "", usagef("%q is too little of an instance: give %d characters of it at least; `watchword instance list` has the whole IDs", prefix, shortestInstance)
	}
	var found []string
	for _, id := range all {
		if strings.HasPrefix(id, prefix) && !slices.Contains(found, id) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	slices.Sort(found)
	return "", &failure{code: exitFailed, err: fmt.Errorf("%q is the beginning of several instances: %s", prefix, strings.Join(found, ", ")),
		hint: "give the whole ID"}
}
