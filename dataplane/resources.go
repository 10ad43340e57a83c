package dataplane

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/dataplane/lastgood"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	"github.com/watchword-mesh/watchword/dataplane/xdsclient"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// The resources of a data plane: all but the lease have the name of the service.
const (
	typePrefix      = "type.googleapis.com/watchword.dataplane.v1."
	rulesetType     = typePrefix + "Ruleset"
	revocationsType = typePrefix + "Revocations"
	outboundType    = typePrefix + "Outbound"
	leaseType       = typePrefix + "Lease"
	leaseName       = "mesh.lease"
)

// resources put in force what the control plane sends. The calls come one after the
// other: from openFile, and then from the stream.
type resources struct {
	d *DataPlane
	// held are those in force, by type: there is one name of each.
	held map[string]xdsclient.Resource
}

func (r *resources) subscriptions() []xdsclient.Subscription {
	return []xdsclient.Subscription{
		{TypeURL: revocationsType, Name: r.d.config.Service},
		{TypeURL: rulesetType, Name: r.d.config.Service},
		{TypeURL: outboundType, Name: r.d.config.Service},
		{TypeURL: leaseType, Name: leaseName},
	}
}

// Accept implements xdsclient.Handler. What it has accepted is in the file when it
// returns, or there is no file.
func (r *resources) Accept(res xdsclient.Resource) error {
	if err := r.apply(res); err != nil {
		return err
	}
	r.held[res.TypeURL] = res
	if res.TypeURL == rulesetType {
		r.d.metrics.took(r.d.config.Now())
	}
	r.d.config.Logger.Debug("in force", "service", r.d.config.Service, "type", res.TypeURL, "version", res.Version)
	err := r.save()
	if err != nil {
		res.Version = "" // it was not confirmed, so it is not claimed
		r.held[res.TypeURL] = res
	}
	return err
}

// apply checks a resource whole before anything of it counts.
func (r *resources) apply(res xdsclient.Resource) error {
	d := r.d
	switch res.TypeURL {
	case rulesetType:
		m := new(dataplanev1.Ruleset)
		if err := read(res, m, m.GetService, d.config.Service); err != nil {
			return err
		}
		rs, err := ruleset.Compile(m)
		if err != nil {
			return err
		}
		d.listening.inbound(m.GetInbound())
		d.guard.put(rs)
		d.markReady()
	case revocationsType:
		m := new(dataplanev1.Revocations)
		if err := read(res, m, m.GetService, d.config.Service); err != nil {
			return err
		}
		revoked, err := ruleset.CompileRevocations(m)
		if err != nil {
			return err
		}
		d.guard.revoke(revoked)
		d.markReady()
	case outboundType:
		m := new(dataplanev1.Outbound)
		if err := read(res, m, m.GetService, d.config.Service); err != nil {
			return err
		}
		d.outbound.put(m)
		d.listening.outbound(m.GetListener())
		d.markReady()
	case leaseType:
		m := new(dataplanev1.Lease)
		if err := read(res, m, nil, ""); err != nil {
			return err
		}
		if err := m.GetExpires().CheckValid(); err != nil {
			return fmt.Errorf("lease: expires: %w", err)
		}
		d.guard.renew(m.GetExpires().AsTime())
	default:
		return fmt.Errorf("%s is no resource of a data plane", res.TypeURL)
	}
	return nil
}

// read decodes a resource, which has to be of our service.
func read(res xdsclient.Resource, m proto.Message, service func() string, want string) error {
	if err := proto.Unmarshal(res.Body, m); err != nil {
		return fmt.Errorf("%s: it can't be decoded", m.ProtoReflect().Descriptor().Name()) // the error may show what is in it
	}
	if service != nil && service() != want {
		return fmt.Errorf("%s: it is of service %q, not of %q", m.ProtoReflect().Descriptor().Name(), service(), want)
	}
	return nil
}

// Remove implements xdsclient.Handler.
func (r *resources) Remove(typeURL, _ string) error {
	switch typeURL {
	case rulesetType:
		if r.d.guard.inForce.Load() != nil {
			r.d.config.Logger.Warn("the control plane has no ruleset for the service any more: refusing all requests", "service", r.d.config.Service)
		}
		r.d.guard.put(nil)
	case revocationsType:
		r.d.guard.revoke(nil)
	case outboundType:
		r.d.outbound.put(nil)
		r.d.listening.outbound(nil)
		r.d.markReady()
	case leaseType:
		r.d.guard.renew(time.Time{})
	}
	delete(r.held, typeURL)
	return r.save()
}

// Held implements xdsclient.Handler.
func (r *resources) Held(typeURL string) map[string]string {
	res, ok := r.held[typeURL]
	if !ok || res.Version == "" {
		return nil
	}
	return map[string]string{res.Name: res.Version}
}

// Refused implements xdsclient.Handler. Nobody accepts the tokens of an instance that
// was revoked, and a start without control plane must not make it forget that.
func (r *resources) Refused(err error) {
	r.d.outbound.dropAll()
	if status.Code(err) == codes.PermissionDenied {
		r.forget()
	}
}

// forget removes the file, since the control plane itself lets this instance have
// nothing.
func (r *resources) forget() {
	if r.d.file == nil {
		return
	}
	if err := r.d.file.Forget(); err != nil {
		r.d.config.Logger.Error("the file of the last configuration is still there", "error", err)
	}
}

// Connected implements xdsclient.Handler.
func (r *resources) Connected(bool) {}

// save keeps what is in force in the file. That it can't is no reason to enforce
// something else: then the file is gone, or the change is not confirmed.
func (r *resources) save() error {
	d := r.d
	if d.file == nil {
		return nil
	}
	c := lastgood.Content{Service: d.config.Service, Saved: d.config.Now()}
	for _, s := range r.subscriptions() {
		if res, ok := r.held[s.TypeURL]; ok {
			c.Resources = append(c.Resources, r.kept(res))
		}
	}
	err := d.file.Save(c)
	switch {
	case errors.Is(err, lastgood.ErrStale):
		return fmt.Errorf("it is in force, but the file for a start without control plane has what was before: %w", err)
	case err != nil:
		d.config.Logger.Error("the configuration is not kept: a start without control plane will refuse everything", "service", d.config.Service, "error", err)
	}
	return nil
}

// kept is a resource as it goes into the file: without a version where something was
// left out, so that it is fetched anew.
func (r *resources) kept(res xdsclient.Resource) lastgood.Resource {
	out := lastgood.Resource(res)
	if res.TypeURL != rulesetType || r.d.config.FileSecrets {
		return out
	}
	m := new(dataplanev1.Ruleset)
	if proto.Unmarshal(res.Body, m) == nil && withoutSecrets(m) {
		out.Version = ""
		out.Body, _ = proto.Marshal(m) // it was decoded before
	}
	return out
}

// openFile puts in force what the file has.
func (d *DataPlane) openFile() (err error) {
	if d.config.File == "" {
		return nil
	}
	if d.file, err = lastgood.Open(d.config.File); err != nil {
		return err
	}
	c, err := d.file.Load(d.config.Service)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		d.config.Logger.Error("the last configuration can't be used: refusing all requests until the control plane is there", "service", d.config.Service, "error", err)
		return nil
	}
	for _, res := range c.Resources {
		if err := d.resources.apply(xdsclient.Resource(res)); err != nil {
			d.config.Logger.Error("a part of the last configuration can't be used", "service", d.config.Service, "type", res.TypeURL, "error", err)
			continue
		}
		d.resources.held[res.TypeURL] = xdsclient.Resource(res)
	}
	d.metrics.took(c.Saved)
	d.config.Logger.Info("started with the last configuration", "service", d.config.Service, "saved", c.Saved, "age", d.config.Now().Sub(c.Saved))
	return nil
}
