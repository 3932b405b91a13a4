// Output stores what other nodes save. It reads the frames of every topology's output node, for which workers compete, and writes documents to MongoDB in
// bulk. It keeps no state: a document's id is its tuple's, so storing it twice stores it once.
//
//	bm.<topology>.output.any ──▶ documents ──bulk insert──▶ MongoDB <database>.<collection>
//	                                 │ refused    └──▶ bmdelta.<topology>.<origin>
//	                                 ▼
//	                          bmdead.<topology>.>
//
// It also tells others of events, for nodes with notify:
//
//	bm.<topology>.<node>-notify.<task> ──▶ once per event ──▶ bmnotice.<topology>.<subject>, POST <webhook>
package main

import (
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/services"
)

func main() { service.Main("output", services.Output) }
