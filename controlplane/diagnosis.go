package controlplane

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/revocation"
	"github.com/watchword-mesh/watchword/controlplane/store"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// diagnosis implements api.Diagnosis: what of this replica's own setup is weaker
// than it could be. It looks at configuration and records, and asks nobody.
type diagnosis struct {
	config Config
	// doors and at are there once the replica serves.
	doors *doors
	at    *listeners
	store *store.Store
	loop  *loop
	// members and cluster are nil in tests without any.
	members *membership
	cluster *cluster
	now     func() time.Time
}

// Diagnose implements api.Diagnosis.
func (d *diagnosis) Diagnose(ctx context.Context) ([]*adminv1.Finding, error) {
	var out findings
	d.listeners(&out)
	d.certificates(&out)
	d.keyEncryption(ctx, &out)
	d.adminToken(&out)
	d.people(&out)
	d.joinTokens(ctx, &out)
	d.revocations(&out)
	d.etcd(&out)
	d.replicas(&out)
	return out, nil
}

// revocations of one service may be so many and no more.
func (d *diagnosis) revocations(out *findings) {
	service, n := d.loop.enforced.largest()
	switch {
	case n >= revocation.WarnEntries:
		out.warn("revocations", "take back what is not needed with `watchword revocations delete`; one of a subject, of an instance, or of all that was issued before a time stands for many tokens",
			"service %q enforces %d revocations, of at most %d", service, n, revocation.MaxEntries)
	case n > 0:
		out.ok("revocations", "service %q enforces most of them: %d, of at most %d", service, n, revocation.MaxEntries)
	}
}

// findings are in the order in which they were looked for.
type findings []*adminv1.Finding

func (f *findings) ok(subject, format string, args ...any) {
	*f = append(*f, &adminv1.Finding{Severity: adminv1.Finding_OK, Subject: subject, Message: fmt.Sprintf(format, args...)})
}

func (f *findings) warn(subject, hint, format string, args ...any) {
	*f = append(*f, &adminv1.Finding{Severity: adminv1.Finding_WARNING, Subject: subject, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func (f *findings) problem(subject, hint, format string, args ...any) {
	*f = append(*f, &adminv1.Finding{Severity: adminv1.Finding_PROBLEM, Subject: subject, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// listeners that others reach need a reason.
func (d *diagnosis) listeners(out *findings) {
	for _, l := range []struct {
		name, flag string
		at         *listener
		// wide says that others have to reach it.
		wide bool
	}{
		{"admin API", "--admin-listen", d.at.admin, false}, {"ADS", "--xds-listen", d.at.xds, true},
		{"token service", "--sts-listen", d.at.sts, true}, {"health and metrics", "--ops-listen", d.at.ops, false},
	} {
		switch {
		case l.at.open() && !l.wide:
			out.warn(l.name, "name the one address of the network that needs it with "+l.flag+", or one of loopback", "it listens on all addresses of this machine (%s)", l.at.Addr())
		case l.at.Plain:
			out.ok(l.name, "%s, on loopback", l.at.url())
		default:
			out.ok(l.name, "%s", l.at.url())
		}
	}
	if d.config.AdminSocket != "" {
		out.ok("admin socket", "%s is open to all users of this machine; RoleBindings say what they may do", d.config.AdminSocket)
	}
}

// Certificates that end within soon are told of.
const soon = 7 * 24 * time.Hour

func (d *diagnosis) certificates(out *findings) {
	if d.doors.files != nil {
		c, err := d.doors.files.Certificate()
		switch left := c.Leaf.NotAfter.Sub(d.now()); {
		case err != nil || left <= 0:
			out.problem("TLS certificate", "renew it; it is read again within a second", "%s has expired at %s", d.config.TLSCertFile, c.Leaf.NotAfter.Format(time.RFC3339))
		case left < soon:
			out.warn("TLS certificate", "renew it; it is read again within a second", "%s expires at %s", d.config.TLSCertFile, c.Leaf.NotAfter.Format(time.RFC3339))
		default:
			out.ok("TLS certificate", "%s is good until %s", d.config.TLSCertFile, c.Leaf.NotAfter.Format(time.RFC3339))
		}
	}
	for _, c := range d.loop.authority().Certificates() {
		if c.NotAfter.Sub(d.now()) < 365*24*time.Hour {
			out.warn("CA of the mesh", "a later version replaces CAs; update before that", "it ends at %s", c.NotAfter.Format(time.RFC3339))
		} else {
			out.ok("CA of the mesh", "good until %s", c.NotAfter.Format(time.RFC3339))
		}
	}
}

func (d *diagnosis) keyEncryption(ctx context.Context, out *findings) {
	const subject = "key-encryption key"
	switch {
	case d.config.KEKExec != "":
		out.ok(subject, "kept by the command of --kek-exec")
	case d.config.KEK != "":
		out.warn(subject, "keep it behind a KMS with --kek-exec, or in a file with --kek-file", "it is in the environment of this process, which debuggers and crash reports show")
	case d.config.KEKFile != "":
		d.kekFile(out, subject)
	case len(d.config.Etcd.Endpoints) == 0:
		out.warn(subject, "give it from another disk with --kek-file, or from a KMS with --kek-exec", "it lies beside the data that it seals: who copies the data folder has both")
	default:
		out.ok(subject, "in the data folder, away from etcd")
	}
	if d.config.KEKFile != "" || d.config.KEK != "" || d.config.KEKExec != "" {
		d.leftKEK(out, subject)
	}
	sealed, err := d.store.SealedWith(ctx)
	if err != nil {
		out.warn(subject, "see the log", "what is sealed with which key could not be read")
		return
	}
	current := d.store.Keyring().ID()
	for id, n := range sealed {
		if id != current {
			out.warn(subject, "finish the rotation with `watchword kek rotate`", "%d records are still sealed with the older key %s", n, id)
		}
	}
}

func (d *diagnosis) kekFile(out *findings, subject string) {
	info, err := os.Stat(d.config.KEKFile)
	switch {
	case err != nil:
		out.problem(subject, "put the file back: without it the next start fails", "%s can't be read now", d.config.KEKFile)
	case info.Mode().Perm()&0o077 != 0:
		out.problem(subject, "chmod 600 it, and rotate the key", "%s can be read by others (mode %04o)", d.config.KEKFile, info.Mode().Perm())
	default:
		at, _ := filepath.Abs(d.config.KEKFile)
		out.ok(subject, "in %s", cmp.Or(at, d.config.KEKFile))
	}
}

// leftKEK tells of a key of before that is still beside the data.
func (d *diagnosis) leftKEK(out *findings, subject string) {
	path := filepath.Join(d.config.DataDir, kekFile)
	if _, err := os.Stat(path); err == nil {
		out.warn(subject, "keep a copy elsewhere and delete it, once the control plane starts without it", "%s is still there, beside the data, though another source is used", path)
	}
}

func (d *diagnosis) adminToken(out *findings) {
	switch s := d.loop.current.Load().AdminToken; {
	case s.Revoked || len(s.Hash) == 0:
		out.ok("admin token", "revoked")
	default:
		out.warn("admin token", "give people and machines roles (docs/roles.md), then `watchword admin-token revoke`", "it is valid since %s, may do everything, and names nobody", s.Created.Format(time.RFC3339))
	}
}

func (d *diagnosis) people(out *findings) {
	state := d.loop.current.Load().Config
	for _, name := range state.RoleBindings() {
		if state.RoleBinding(name).GetRole() == access.SecurityOfficer {
			out.ok("roles", "%d RoleBindings", len(state.RoleBindings()))
			return
		}
	}
	out.warn("roles", "apply a RoleBinding with the role SECURITY_OFFICER (docs/roles.md)", "no RoleBinding gives the role SECURITY_OFFICER: only the admin token and root of this machine have it")
}

// A join token is to be used soon after it was made.
const (
	longToken = 24 * time.Hour
	manyUses  = 100
)

func (d *diagnosis) joinTokens(ctx context.Context, out *findings) {
	tokens, err := d.store.ListJoinTokens(ctx, "")
	if err != nil {
		out.warn("join tokens", "see the log", "they could not be read")
		return
	}
	var wide []string
	for _, t := range tokens {
		left := t.Uses - len(t.Instances)
		if d.now().Before(t.Expires) && left > 0 && (t.Expires.Sub(d.now()) > longToken || left > manyUses) {
			wide = append(wide, fmt.Sprintf("%s of %s (%d uses, until %s)", t.ID, t.Service, left, t.Expires.Format(time.RFC3339)))
		}
	}
	if len(wide) > 0 {
		out.warn("join tokens", "revoke those that are not needed with `watchword join-token revoke ID`", "these let in many instances, or for long: %s", strings.Join(wide, ", "))
		return
	}
	out.ok("join tokens", "%d", len(tokens))
}

func (d *diagnosis) etcd(out *findings) {
	c := d.config.Etcd
	switch {
	case len(c.Endpoints) == 0:
		out.ok("etcd", "inside this process, reachable by nobody else")
	case strings.HasPrefix(c.Endpoints[0], "http://"):
		out.warn("etcd", "serve etcd with TLS and name https:// addresses, --etcd-ca-file and a client certificate", "the connection to etcd has no TLS: who is on the way sees the mesh's policies and can change them")
	case c.CertFile == "" && c.Username == "":
		out.warn("etcd", "give --etcd-cert-file and --etcd-key-file, or --etcd-username", "we come to etcd without a credential, so that others may, too")
	default:
		out.ok("etcd", "with TLS and a credential")
	}
}
