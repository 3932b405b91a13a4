package servers

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATS starts a nats-server with JetStream on file storage. URL is nats://127.0.0.1:port; URLs has "monitor", the HTTP
// monitoring page. Killed and restarted it has every message that it acknowledged.
func NATS(ctx context.Context, o Options) (*Process, error) {
	bin, err := o.tool("nats-server")
	if err != nil {
		return nil, err
	}
	p, ports, err := prepare("nats", o, 2)
	if err != nil {
		return nil, err
	}
	p.URL = "nats://" + loopback(ports[0])
	p.URLs = map[string]string{"monitor": "http://" + loopback(ports[1])}
	p.ready = p.askNATS
	conf, err := p.writeConfig("nats.conf", []string{
		"server_name: test",
		"listen: " + loopback(ports[0]),
		"http: " + loopback(ports[1]),
		fmt.Sprintf("jetstream { store_dir: %q }", p.data()),
	}, o.Config)
	if err != nil {
		p.Close()
		return nil, err
	}
	p.argv = []string{bin, "-c", conf}
	return p.launch(ctx, o)
}

func (p *Process) askNATS(ctx context.Context) error {
	nc, err := nats.Connect(p.URL, nats.Timeout(pollLimit), nats.NoReconnect())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	_, err = js.AccountInfo(ctx)
	return err
}
