//go:build race

package ownership

// The race detector makes the simulation several times dearer; nothing in it is parallel.
const many, few = 1000, 100
