package servers

import (
	"context"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// Redis starts a redis-server that fsyncs its append-only file before it answers a write. URL is
// redis://127.0.0.1:port/0. Killed and restarted it has every write that it answered.
func Redis(ctx context.Context, o Options) (*Process, error) {
	bin, err := program("redis-server", "redis-server")
	if err != nil {
		return nil, err
	}
	p, ports, err := prepare("redis", o, 1)
	if err != nil {
		return nil, err
	}
	p.URL = "redis://" + loopback(ports[0]) + "/0"
	p.ready = p.askRedis
	conf, err := p.writeConfig("redis.conf", []string{
		"bind 127.0.0.1",
		"port " + strconv.Itoa(ports[0]),
		"dir " + strconv.Quote(p.data()),
		"appendonly yes",
		"appendfsync always",
		`save ""`,
		"daemonize no",
	}, o.Config)
	if err != nil {
		p.Close()
		return nil, err
	}
	p.argv = []string{bin, conf}
	return p.launch(ctx, o)
}

func (p *Process) askRedis(ctx context.Context) error {
	opt, err := redis.ParseURL(p.URL)
	if err != nil {
		return err
	}
	if err := listening(ctx, opt.Addr); err != nil { // the client would retry, and log each time
		return err
	}
	opt.MaxRetries, opt.DialerRetries = -1, 1 // the question is asked again anyway
	client := redis.NewClient(opt)
	defer client.Close()
	return client.Ping(ctx).Err() // fails while it reads its file back
}
