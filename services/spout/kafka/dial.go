package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

// dialers returns how the client and the group protocol reach the brokers.
func dialers(k topology.Kafka) (*kafka.Transport, *kafka.Dialer, error) {
	config, err := tlsConfig(k.TLS)
	if err != nil {
		return nil, nil, err
	}
	mechanism, err := login(k.SASL)
	if err != nil {
		return nil, nil, err
	}
	const client = "boltmesh-spout"
	return &kafka.Transport{ClientID: client, TLS: config, SASL: mechanism, DialTimeout: 5 * time.Second, MetadataTTL: 5 * time.Second},
		&kafka.Dialer{ClientID: client, TLS: config, SASLMechanism: mechanism, Timeout: 5 * time.Second, DualStack: true}, nil
}

// Transport returns how a producer reaches the brokers of k.
func Transport(k topology.Kafka) (*kafka.Transport, error) {
	t, _, err := dialers(k)
	return t, err
}

func tlsConfig(t *topology.TLS) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.Insecure} //nolint:gosec // the user asked for it
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("spout.kafka.tls.ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("spout.kafka.tls.ca: no certificate in %s", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("spout.kafka.tls.cert: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func login(s *topology.SASL) (sasl.Mechanism, error) {
	if s == nil {
		return nil, nil
	}
	switch s.Mechanism {
	case "plain":
		return plain.Mechanism{Username: s.Username, Password: s.Password}, nil
	case "scram-sha-256":
		return scram.Mechanism(scram.SHA256, s.Username, s.Password)
	case "scram-sha-512":
		return scram.Mechanism(scram.SHA512, s.Username, s.Password)
	default:
		return nil, fmt.Errorf("spout.kafka.sasl.mechanism %q: write plain, scram-sha-256 or scram-sha-512", s.Mechanism)
	}
}
