package service

import (
	"fmt"
	"strings"
)

// Help returns the text for --help: every key with its flag, its variable and its default, and an example of a file.
func Help(service string) string {
	c := defaultConfig()
	set := flagSet(service, &c)
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s [flags]\n\n", service)
	b.WriteString("Every key can be given in a YAML file, in the environment or as a flag; the later of these wins.\n")
	b.WriteString("Points in a key's name are levels in the file. Lists are separated by commas, or the flag is repeated.\n\n")
	b.WriteString("      --config file\n          YAML file with any of the keys below. BOLTMESH_CONFIG names it too.\n")
	b.WriteString("      --health\n          as the first argument: ask the service that runs with the same keys whether it is ready; 0 yes, 1 no.\n")
	section := ""
	for _, k := range configKeys(&c) {
		if s, _, nested := strings.Cut(k.name, "."); nested && s != section {
			section = s
			fmt.Fprintf(&b, "\n%s\n", s)
		} else if !nested && section != "general" {
			section = "general"
			fmt.Fprintf(&b, "\n%s\n", section)
		}
		value := strings.TrimPrefix(strings.TrimPrefix(k.takes, "a "), "an ")
		fmt.Fprintf(&b, "      %s %s\n          %s.\n          key %s, variable %s%s\n", flagOf(k.name), value, k.doc, k.name, envOf(k.name), shown(set.Lookup(flagOf(k.name)[2:]).DefValue))
	}
	b.WriteString("\nVariables that begin with " + strings.Join(foreign, " or ") + " are for ${...} in topology files. The standard OTEL_* variables\n")
	b.WriteString("configure the trace exporter, its sampling and its resource.\n")
	b.WriteString("\nExample of a file:\n\n")
	for line := range strings.Lines(configExample) {
		b.WriteString("    " + line)
	}
	return b.String()
}

func shown(value string) string {
	if value == "" || value == "[]" {
		return ""
	}
	return ", default " + value
}

const configExample = `nats:
  url: tls://nats-1:4222,tls://nats-2:4222
  creds: /run/secrets/boltmesh.creds
  replicas: 3
  tls: {ca: /etc/ssl/nats-ca.pem}
redis:
  url: rediss://:secret@redis:6379/0
mongo:
  uri: mongodb://boltmesh:secret@mongo-1,mongo-2/?replicaSet=rs0
topology: [machine-health]
http: 0.0.0.0:9464
otlp: http://jaeger:4318
sample_ratio: 0.05
log_level: info
drain_timeout: 30s
cache: {entries: 500000, bytes: 1GiB, ttl: 1h}
fetch: {frames: 32, records: 1000}
`
