// Command ferretdb serves the MongoDB wire protocol from SQLite files on a loopback port.
// The integration tests and the chaos program start it where no mongod can be had.
// It never reports telemetry, and says nothing about how fast a MongoDB would be.
package main

import (
	"context"
	"flag"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:27017", "`host:port` to serve the MongoDB protocol on")
	dir := flag.String("dir", "data", "`directory` of the SQLite files, created when missing")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *dir); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, listen, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	db, err := ferretdb.New(&ferretdb.Config{
		Listener: ferretdb.ListenerConfig{TCP: listen},
		Handler:  "sqlite",
		// A write is in the page cache when it is answered, and so outlives the process, not the machine: a test kills no machine.
		SQLiteURL: "file:" + dir + "/?_pragma=synchronous(off)",
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	return db.Run(ctx)
}
