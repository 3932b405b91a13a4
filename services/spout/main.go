// Spout mirrors Kafka topics into topologies: it reads the partitions that its consumer group assigns, emits their readings as frames, tracks every
// tuple tree in a ledger, and commits to Kafka what is fully processed. It also owns the tick logs. It never interprets a reading beyond its key and time.
//
//	Kafka partition ──fetch──▶ decode ──Track──▶ frames ──▶ bm.<topology>.<node>.<task>
//	      ▲                      │ cannot be decoded            (every child node)
//	      │                      ▼
//	   commit floor         bmdead.<topology>.>
//	      │
//	   ledger ◀── bmdelta.<topology>.<origin> ◀── every bolt
package main

import (
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/services"
)

func main() { service.MainSpout(&services.Kafka{}) }
