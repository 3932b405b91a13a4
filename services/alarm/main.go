// Alarm raises and clears alarms: one open episode for each alarm and group. It reads the frames and ticks of every alarm node and writes an event for each
// change, with the whole episode in it. Its state is in Redis, behind a local cache.
//
//	bm.<topology>.<node>.<task> ──▶ rule ──▶ bm.<topology>.<child>.<task>
//	    (readings, ticks)          │  ▲  └▶ bmdelta.<topology>.<origin>
//	                        commit ▼  │ load
//	                     bm:<topology>:{<node>.<task>}:*
package main

import (
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/services"
)

func main() { service.Main("alarm", services.Alarm) }
