package service

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The collector's room, beside what lives: as much again, as Go has it, up to heapRoom, and from two and a half times that on two fifths as much. A
// worker whose cache is full has little garbage beside it, and takes two fifths more memory instead of twice as much, for collecting two and a half times as often at most.
const (
	heapRoom    = 32 << 20
	leastRoom   = 40 // percent of what lives
	usualRoom   = 100
	heapLook    = 2 * time.Second
	heapReads   = "/gc/heap/live:bytes"
	roomEnviron = "GOGC" // whoever sets it decides
)

// roomFor is what GOGC is to be for a heap of which so much lives.
func roomFor(live uint64) int {
	if live <= heapRoom {
		return usualRoom
	}
	return max(leastRoom, int(usualRoom*heapRoom/live))
}

// BoundHeap adapts the garbage collector to what lives in this process's heap until ctx ends. It does nothing where GOGC is set in the environment.
func BoundHeap(ctx context.Context) {
	if _, set := os.LookupEnv(roomEnviron); set {
		return
	}
	go func() {
		look := time.NewTicker(heapLook)
		defer look.Stop()
		now := usualRoom
		live := []metrics.Sample{{Name: heapReads}}
		for {
			select {
			case <-look.C:
			case <-ctx.Done():
				return
			}
			metrics.Read(live)
			if room := roomFor(live[0].Value.Uint64()); room > now+now/10 || room < now-now/10 || room == usualRoom && now != usualRoom {
				debug.SetGCPercent(room) // stops the world for a moment, so not for nothing
				now = room
			}
		}
	}()
}
