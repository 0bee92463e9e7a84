//go:build !race

package ownership

// many queries show the balance, few are enough for the faults.
const many, few = 10_000, 300
