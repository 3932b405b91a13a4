// Convert turns raw readings into typed values with a topology's expressions and scripts. It reads the frames of every convert node and writes frames for
// their children. It keeps no state.
//
//	bm.<topology>.<node>.<task> ──▶ where ▶ script ▶ set ▶ drop ──▶ bm.<topology>.<child>.<task>
//	                                  │ rejected           └──────▶ bmdelta.<topology>.<origin>
//	                                  ▼
//	                            bmdead.<topology>.>
package main

import (
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/services"
)

func main() { service.Main("convert", services.Convert) }
