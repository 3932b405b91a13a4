// Stat keeps statistics per device, or per value of a field, and emits them at intervals or when a window closes. It reads the frames and ticks of every
// stat node and writes frames for their children. Its state is in Redis, behind a local cache.
//
//	bm.<topology>.<node>.<task> ──▶ window ──▶ bm.<topology>.<child>.<task>
//	    (readings, ticks)           │   ▲   └▶ bmdelta.<topology>.<origin>
//	                         commit ▼   │ load
//	                       bm:<topology>:{<node>.<task>}:*
package main

import (
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/services"
)

func main() { service.Main("stat", services.Stat) }
