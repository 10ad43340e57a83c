package envoy

import (
	"fmt"
	"path"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"
)

// Files, in PEM, that the secrets of a folder name.
const (
	KeyFile         = "key.pem"
	CertificateFile = "cert.pem"
	AuthoritiesFile = "ca.pem"
)

func secretFile(folder, name string) string { return path.Join(folder, name+".yaml") }

// FileSecrets are the files of BootstrapIdentity.Folder, by name, that tell an
// Envoy where in the folder its key and its certificates are.
func FileSecrets(folder string) (map[string][]byte, error) {
	if !path.IsAbs(folder) {
		return nil, fmt.Errorf("the folder %q is not an absolute path", folder)
	}
	file := func(name string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path.Join(folder, name)}}
	}
	watched := &corev3.WatchedDirectory{Path: folder}
	out := make(map[string][]byte)
	for _, s := range []*tlsv3.Secret{
		{Name: IdentitySecret, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: file(CertificateFile), PrivateKey: file(KeyFile), WatchedDirectory: watched}}},
		{Name: AuthoritiesSecret, Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: file(AuthoritiesFile), WatchedDirectory: watched}}},
	} {
		text, err := secretYAML(s)
		if err != nil {
			return nil, fmt.Errorf("the secret %s of folder %s: %w", s.GetName(), folder, err)
		}
		out[path.Base(secretFile(folder, s.GetName()))] = text
	}
	return out, nil
}

// secretYAML is a secret as Envoy reads it from a file.
func secretYAML(s proto.Message) ([]byte, error) {
	packed, err := pack(s)
	if err != nil {
		return nil, err
	}
	return protoYAML(&discoveryv3.DiscoveryResponse{Resources: []*anypb.Any{packed}})
}

// protoYAML is a message as Envoy reads it from a file.
func protoYAML(m proto.Message) ([]byte, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(text)
}
