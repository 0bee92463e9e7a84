//go:build race

package ihpa

// The race detector makes a step several times dearer; nothing in the simulation is parallel.
func init() { *simulationSteps = 20_000 }
