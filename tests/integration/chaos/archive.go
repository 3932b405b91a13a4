package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// elsewhere is the site to which the devices of one site move while readings flow.
const elsewhere = "site-moved"

// site is where a device stands at first.
func site(device string) string { return "site-" + device[len(device)-1:] }

func moves(device string) bool { return strings.HasSuffix(device, "3") }

// limit is above which the alarm high is raised; it never changes.
func limit(device string) float64 { return 70 + 2*float64(device[len(device)-1]-'0') }

// origin is the site at which all readings of a group's devices are known to have begun: which of them came before a move is up to when they were processed.
func origin(group string) string {
	if group == elsewhere {
		return site("3")
	}
	return group
}

// profiles are lines of the archive: of all devices, or of those alone that move, after they did.
func profiles(fed []reading, moved bool) ([]byte, error) {
	var out bytes.Buffer
	to := json.NewEncoder(&out)
	devices := byDevice(fed, func(r reading) string { return r.Device })
	for device := range devices {
		at := site(device)
		if moved {
			if !moves(device) {
				continue
			}
			at = elsewhere
		}
		if err := to.Encode(map[string]any{"device": device, "site": at, "limit": limit(device)}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// archive imports profiles.
func (w *world) archive(ctx context.Context, moved bool) error {
	data, err := profiles(w.fed, moved)
	file := filepath.Join(w.dir, fmt.Sprintf("archive-moved-%v.jsonl", moved))
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err == nil {
		_, err = w.CLI(ctx, "archives", "import", "--mongo", w.Mongo.URL, "--archive", "chaos", "--timeout", "10s", file)
	}
	return err
}

// move waits until a good part of the readings is processed, or the faults are over, and moves devices, again after errors: importing twice changes nothing.
func (w *world) move(faulty, ctx context.Context) error {
	_ = mesh.Until(faulty, w.processed(0.4))
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := mesh.Until(ctx, func(ctx context.Context) error { return w.archive(context.WithoutCancel(ctx), true) }); err != nil {
		return fmt.Errorf("no device was moved: %w", err)
	}
	w.say("devices have moved")
	return nil
}

// atOrigin adds up what is of sites between which devices moved.
func atOrigin(all map[slot]share) map[slot]share {
	out := map[slot]share{}
	for at, s := range all {
		at.group = origin(at.group)
		out[at] = out[at].with(s.count, s.sum)
	}
	return out
}
