package accesslog

import (
	"context"

	logsv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
)

// sender is the data plane that reports.
type sender struct{ service, node string }

var errUnknown = status.Error(codes.Unauthenticated, "a report of refusals needs the certificate of an enrolled instance")

// identify asks which service a call is of. A status says what the client may
// know; what any other error says is for the log alone.
func (s *Server) identify(ctx context.Context) (string, error) {
	service, err := s.Identify(ctx)
	if err == nil && service != "" {
		return service, nil
	}
	s.Logger.Debug("who reports refusals is not known", "error", err)
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unavailable:
		return "", err
	}
	return "", errUnknown
}

// senders of the parts of a report: all of one service, that of the call.
func (s *Server) senders(ctx context.Context, report *logsv1.ExportLogsServiceRequest) ([]sender, error) {
	service, err := s.identify(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]sender, len(report.GetResourceLogs()))
	for i, part := range report.GetResourceLogs() {
		if out[i], err = senderOf(service, part.GetResource()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// senderOf takes a part only if it does not say that it is of another service
// than the call is.
func senderOf(service string, r *resourcev1.Resource) (sender, error) {
	is := texts(r.GetAttributes())
	if is[envoy.SenderLog] != envoy.RefusalLog {
		return sender{}, status.Errorf(codes.InvalidArgument, "this service takes the log %q only, and the resource must say that in %s", envoy.RefusalLog, envoy.SenderLog)
	}
	if says := is[envoy.SenderService]; says != "" && says != service {
		return sender{}, status.Errorf(codes.PermissionDenied, "the resource says in %s that it is of another service than the certificate, which is of %s", envoy.SenderService, service)
	}
	return sender{service: service, node: clean(is[envoy.SenderNode])}, nil
}
