package transport

import (
	"net"

	"google.golang.org/grpc/credentials"
)

// Connection is what a gRPC call knows of its connection, as peer.AuthInfo.
type Connection struct {
	credentials.TLSInfo
	conn net.Conn
}

// Close closes the connection, and with it all its calls.
func (c Connection) Close() { _ = c.conn.Close() }

// Closable makes TLS credentials of a gRPC server say which connection a call is
// of. A client keeps the certificate that it began with for as long as its
// connection lasts: who got another one meanwhile is only seen on a new connection.
func Closable(tls credentials.TransportCredentials) credentials.TransportCredentials {
	return closable{tls}
}

type closable struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (c closable) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return conn, info, err
	}
	return conn, Connection{TLSInfo: info.(credentials.TLSInfo), conn: conn}, nil
}

// Clone implements credentials.TransportCredentials.
func (c closable) Clone() credentials.TransportCredentials {
	return closable{c.TransportCredentials.Clone()}
}
