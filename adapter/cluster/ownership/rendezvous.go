// Package ownership decides which node of a cluster collects a query, and when. It is pure: the nodes that are seen, the
// samples that came and an instant go in, a decision comes out. It knows neither the network nor the collectors.
//
// Nothing is agreed between nodes. The rendezvous order of a query says who should collect it, and the age of the samples
// says whether somebody does, so that a wrong view of the cluster costs load but never a value.
package ownership

import (
	"cmp"
	"slices"
	"strings"
)

// Rank returns the place of the node in the rendezvous order of the key: 0 for the owner, -1 if it is not among the nodes.
// The order is the same on every machine and in every version, whatever the order of nodes; when a node comes or goes, the
// others keep theirs among each other. IDs that differ only in a random end, a dash and seven characters, are of one node before
// and after a restart, and follow each other.
func Rank(key, node string, nodes []string) int {
	if !slices.Contains(nodes, node) {
		return -1
	}
	order, rank := newOrder(key), 0
	for _, other := range nodes {
		if order.before(other, node) {
			rank++
		}
	}
	return rank
}

// Owner returns the node of rank 0; it is empty if there are no nodes.
func Owner(key string, nodes []string) string {
	order, owner := newOrder(key), ""
	for _, node := range nodes {
		if owner == "" || order.before(node, owner) {
			owner = node
		}
	}
	return owner
}

// order is the rendezvous order of one key: by falling score of the nodes' places, then of the nodes, then by name. A score is the
// finalizer of SplitMix64 over the FNV-1a hashes (64 bits) of the key and the other.
type order uint64

func newOrder(key string) order { return order(fnv1a(key)) }

// before says whether a comes before b.
func (o order) before(a, b string) bool {
	return cmp.Or(cmp.Compare(o.score(place(b)), o.score(place(a))), cmp.Compare(o.score(b), o.score(a)), cmp.Compare(a, b)) < 0
}

func (o order) score(text string) uint64 { return mix(uint64(o) ^ mix(fnv1a(text))) }

// place is what a node's ID has in common with that of its successor after a restart, so that this one gets the same keys. It may
// well be that of several nodes, who share what falls to it.
func place(node string) string {
	dash := len(node) - len("-1234567")
	if dash <= 0 || node[dash] != '-' || strings.ContainsFunc(node[dash+1:], func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		return node
	}
	return node[:dash]
}

func fnv1a(text string) uint64 {
	hash := uint64(14695981039346656037)
	for i := range len(text) {
		hash = (hash ^ uint64(text[i])) * 1099511628211
	}
	return hash
}

// mix spreads each bit over all others, which FNV does not do with the last ones.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
