package ownership

import (
	"slices"
	"time"
)

// Sample says that a node has asked the source. A value is a sample, and so is that the source has none; an error is not.
// Instants are on the clock of the node that decides.
type Sample struct {
	Node string
	// Taken is when its node began to ask.
	Taken time.Time
	// Came is when it was here; zero if at once.
	Came time.Time
}

// heard is when the node was heard of, for which a source that is slow must not count: it would be asked by others as well, and get
// slower. Collections take no longer than their interval; what came later still was held up on its way.
func (s Sample) heard(interval time.Duration) time.Time {
	if longest := s.Taken.Add(interval); s.Came.After(longest) {
		return longest
	}
	return latest(s.Taken, s.Came)
}

// Samples are the last samples of a query, at most one of each node, the freshest first.
type Samples []Sample

// maxSamples is how many nodes' samples are kept. Only those who collected in the last few intervals matter.
const maxSamples = 8

// With returns the samples with s among them, unless the node has a younger one there. It takes all over: only what it returns
// may be used afterwards.
func (all Samples) With(s Sample) Samples {
	if i := slices.IndexFunc(all, func(old Sample) bool { return old.Node == s.Node }); i >= 0 {
		if !s.Taken.After(all[i].Taken) {
			return all
		}
		all = slices.Delete(all, i, i+1)
	}
	i := slices.IndexFunc(all, func(old Sample) bool { return old.Taken.Before(s.Taken) })
	if i < 0 {
		i = len(all)
	}
	all = slices.Insert(all, i, s)
	return all[:min(len(all), maxSamples)]
}

// Inputs are what a node knows when it decides about a query. All instants are on its own monotonic clock.
type Inputs struct {
	// Key names the query, the same on every node.
	Key string
	// Node is the one that decides. It must be one that collects.
	Node string
	// Nodes are those who share the collecting now: the active ones. Where there are none, whoever is there: those that join,
	// or else those that leave.
	Nodes    []string
	Interval time.Duration
	// Samples are those that came, the node's own included.
	Samples Samples
	// Known is since when the node knows that the query is wanted.
	Known time.Time
	// Tried is when the node itself last asked the source, whatever came of it; zero if it never did.
	Tried time.Time
}

// Reason says why a node collects, or why it does not.
type Reason string

const (
	// IsOwner collects.
	IsOwner Reason = "owner"
	// HandOver is an owner that waits, because somebody else's sample is still young.
	HandOver Reason = "hand-over"
	// Continue collects although it is not the owner: it did so until now, and nobody before it has begun.
	Continue Reason = "continue"
	// TakeOver collects although it is not the owner: the samples of those before it stay away.
	TakeOver Reason = "take-over"
	// Owned does not collect: one that comes before it does.
	Owned Reason = "owned"
	// Patience does not collect yet: the freshest sample is not old enough, or its own attempt is not long ago.
	Patience Reason = "patience"
)

// Decision is whether to collect now.
type Decision struct {
	Collect bool
	// Next is when to ask again, if not earlier because the nodes have changed; zero if Collect.
	Next   time.Time
	Reason Reason
}

// headStart is the part of an interval by which an owner is ahead of whoever collected before it. Its first sample comes before the
// other's next turn then, so that the hand-over costs nobody a collection; and where two nodes both see themselves as owners, each
// is kept back by the other's sample, and together they collect hardly more than one.
const headStart = 10

// Decide says whether the node is to collect the query at now. It is asked when its turn has come: an interval after its last
// collection began, or when its last Decision said so. When that turn is, the caller knows: the source's own instants and the time
// after a failure are not repeated here.
//
//   - The owner collects, unless the freshest sample is somebody else's: then it waits until that is almost an interval old.
//   - Others wait as long as one that comes before them has a young sample. If none has, a node goes on that collected until now.
//     Else the first in the order takes over when no sample has come for 1.5 intervals, the second after 2, and so on.
//
// A node that is not among the Nodes comes after all of them.
func Decide(in Inputs, now time.Time) Decision {
	rank := Rank(in.Key, in.Node, in.Nodes)
	if rank < 0 {
		rank = len(in.Nodes)
	}
	if rank == 0 {
		if len(in.Samples) == 0 || in.Samples[0].Node == in.Node {
			return Decision{Collect: true, Reason: IsOwner}
		}
		if turn := in.Samples[0].Taken.Add(in.Interval - in.Interval/headStart); turn.After(now) {
			return Decision{Next: turn, Reason: HandOver}
		}
		return Decision{Collect: true, Reason: IsOwner}
	}

	patience := in.Interval + in.Interval*time.Duration(rank)/2
	order, member := newOrder(in.Key), slices.Contains(in.Nodes, in.Node)
	since, continues := latest(in.Known, in.Tried), false
	for _, s := range in.Samples {
		heard := s.heard(in.Interval)
		since = latest(since, heard)
		young := now.Sub(heard) < patience
		switch {
		case s.Node == in.Node:
			continues = young
		case young && slices.Contains(in.Nodes, s.Node) && (!member || order.before(s.Node, in.Node)):
			return Decision{Next: heard.Add(patience), Reason: Owned}
		}
	}
	if continues {
		return Decision{Collect: true, Reason: Continue}
	}
	if turn := since.Add(patience); turn.After(now) {
		return Decision{Next: turn, Reason: Patience}
	}
	return Decision{Collect: true, Reason: TakeOver}
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
