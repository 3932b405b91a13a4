package servers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports are taken from below the range from which the system draws the ports of outgoing connections (32768 and up on
// Linux). Above it a client that reconnects to a killed server could be given the server's own port, connect to itself
// and keep the server from coming back.
const lowestPort, portRange = 12000, 20000

// freePorts finds n distinct ports of 127.0.0.1 on which nobody listens. They are free at that moment, and the range is
// wide enough for test processes that choose at the same time.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range 1000 {
		port := lowestPort + rand.IntN(portRange)
		l, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		defer l.Close() // held until all are found, so that they differ
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no free loopback port found")
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// listening tells whether anybody accepts connections at addr. For the clients that make much of a refused one.
func listening(ctx context.Context, addr string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}
